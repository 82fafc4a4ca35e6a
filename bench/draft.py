"""What the actor's draft has to be told: drafts learned from roll-outs without pictures, followed.

    python bench/draft.py [--episodes N] [--steps N] [--scenes N] [--seed N]

The draft regresses a chunk from the points to grasp and to put at and from the arm's state. Here it
is learned as `config/train/nano.yaml` has it learned, for three robots at once, but without words,
and followed alone (nothing is diffused), given the true points in the front picture:

told apart          with which robot it is beside the state
not told apart      without
points withheld     told apart, but in 2 % of the samples the points are missing
no noise            told apart, points and states as they are

No picture is drawn, so that all of it takes minutes on one core. Scenes are held out; shares come
with 95 % Wilson intervals.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from internvla_ros.data.episode import Episode
from internvla_ros.data.normalisation import DatasetStatistics, action_statistics, compute
from internvla_ros.evaluate.report import wilson
from internvla_ros.evaluate.run import Decision, Delivery, SceneRun
from internvla_ros.evaluate.tabletop import held_out_scene
from internvla_ros.model.config import ActorConfig
from internvla_ros.model.dit import DiT
from internvla_ros.model.nano import nano_config, nano_tokenizer
from internvla_ros.robots.embodiment import Embodiment, load_embodiment
from internvla_ros.sim.engine import PUSHES, RolloutError
from internvla_ros.sim.generate import episode_seed, make_episode
from internvla_ros.sim.world import World
from internvla_ros.train.actions import ActionSet, draw
from internvla_ros.train.frames import EpisodeFrames, onward
from internvla_ros.train.recipe import load_recipe
from internvla_ros.train.settings import ActionLossConfig

ROBOTS = ("widowx_250s", "franka_panda", "google_robot")
SECONDS = 25.0
RATE, WARM_UP = 1e-3, 50


class Unseen(World):
    """A world of which nobody takes pictures."""

    def render(self, camera: str, width: int, height: int) -> NDArray[np.uint8]:
        """Black."""
        return np.zeros((height, width, 3), np.uint8)


class Drafted:
    """Follows a draft, given the true points."""

    def __init__(self, network: DiT, own: ActionSet, robot: Embodiment) -> None:
        self._network, self._own, self._camera = network, own, robot.camera("front")
        self._told = network.config.told_apart(own.name)
        self.dt = 1.0 / robot.policy_rate

    @torch.no_grad()
    def decide(self, run: SceneRun) -> Decision:
        """The chunk that follows from the arm's state."""
        size = (self._camera.width, self._camera.height)
        points = torch.tensor(run.true_points("front") / size).float()[None]
        assert self._own.statistics.state is not None
        state = self._own.statistics.state.normalise(run.state())
        chunk = self._network.drafted(points, torch.tensor([*state, *self._told]).float()[None])
        return Decision(self._own.statistics.action.unnormalise(chunk[0].numpy()))


def rolled_out(robot: Embodiment, count: int, seed: int) -> list[Episode]:
    """Episodes of the expert, pushed about as in the data engine."""
    world, made, index = Unseen(robot), [], 0
    with tqdm(total=count, desc=f"roll-outs of {robot.name}", leave=False) as bar:
        while len(made) < count:
            try:
                made.append(make_episode(world, episode_seed(seed, index), PUSHES))
                bar.update()
            except RolloutError:
                pass  # as the engine does: another seed
            index += 1
    return made


def action_set(robot: Embodiment, episodes: Sequence[Episode]) -> ActionSet:
    """What a trainer draws from."""
    lengths = np.array([len(episode) for episode in episodes])
    ends = np.cumsum(lengths)
    height, width = episodes[0].images["front"].shape[1:3]
    points = [np.stack([e.pick_point, e.place_point], axis=1) / (width, height) for e in episodes]
    state = np.concatenate([e.state for e in episodes]).astype(np.float32)
    action = np.concatenate([e.action for e in episodes]).astype(np.float32)
    measured = robot.action.anchor == "measured"
    following = [onward(e.state, e.action) if measured else e.action for e in episodes]
    frames = EpisodeFrames(
        views={},
        state=state,
        action=action,
        onward=np.concatenate(following).astype(np.float32),
        points=np.concatenate(points).astype(np.float32),
        first=np.repeat(ends - lengths, lengths),
        last=np.repeat(ends - 1, lengths),
        records=(),
        record_of=np.repeat(np.arange(len(episodes)), lengths),
        row_of=np.concatenate([np.arange(n) for n in lengths]),
        stored_size=(width, height),
        begins=np.arange(lengths.sum()),
    )
    counts = (len(state), len(episodes))
    statistics = DatasetStatistics(action_statistics(action), compute(state), *counts)
    return ActionSet(robot.unnorm_key, frames, statistics, 1.0, robot.policy_rate)


def learned(
    sets: Sequence[ActionSet],
    config: ActionLossConfig,
    actor: ActorConfig,
    tokenizer: PreTrainedTokenizerBase,
    steps: int,
    seed: int,
) -> DiT:
    """A network of which the draft alone is trained."""
    torch.manual_seed(seed)
    network = DiT(actor, 1, 1, len(tokenizer))
    parameters = list(network.draft.parameters())
    optimizer = torch.optim.AdamW(parameters, RATE, betas=(0.9, 0.95), weight_decay=1e-4)
    rows = np.arange(config.draft_batch_size)
    for step in tqdm(range(steps), desc="drafts", leave=False):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min((step + 1) / WARM_UP, max(0.02, 1 - step / steps))
        samples = draw(sets, config, actor, len(rows), rows, np.random.default_rng((seed, step)))
        drafted = network.drafted(samples.points, samples.states)
        optimizer.zero_grad()
        F.mse_loss(drafted, samples.actions).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return network


def followed(network: DiT, own: ActionSet, robot: Embodiment, scenes: int, seed: int) -> int:
    """How many scenes are done in time."""
    policy, blend = Drafted(network, own, robot), robot.ensemble
    run = SceneRun(World(robot), Delivery(blend=blend.name, horizon=blend.horizon))
    done = 0
    for index in tqdm(range(scenes), desc=robot.name, leave=False):
        run.start(index, held_out_scene(seed, index, robot))
        while run.world.time < SECONDS and not run.outcome.success:
            run.advance(policy.decide(run), policy.dt, policy.dt)
        done += run.outcome.success
    return done


def main() -> None:
    """Learn, follow, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=600, help="of each robot")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--scenes", type=int, default=50, help="of each robot")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    robots = [load_embodiment(name) for name in ROBOTS]
    sets = [
        action_set(robot, rolled_out(robot, args.episodes, args.seed + 1 + index))
        for index, robot in enumerate(robots)
    ]
    stage = load_recipe("nano").actor
    assert stage is not None
    config, tokenizer = stage.action, nano_tokenizer(["put the red cube on the plate"], ())
    told = replace(nano_config(tokenizer).actor, embodiments=tuple(own.name for own in sets))
    arms: dict[str, tuple[ActionLossConfig, ActorConfig]] = {
        "told apart": (config, told),
        "not told apart": (config, replace(told, embodiments=())),
        "points withheld": (replace(config, point_dropout=0.02), told),
        "no noise": (replace(config, point_noise=0.0, state_noise=0.0), told),
    }
    print(f"{args.episodes} episodes a robot, {args.steps} steps, seed {args.seed}")
    print(f"{'':18}" + "".join(f"{name:>30}" for name in ROBOTS))
    for name, (how, actor) in arms.items():
        begun = time.monotonic()
        network = learned(sets, how, actor, tokenizer, args.steps, args.seed)
        row = f"{name:18}"
        for robot, own in zip(robots, sets, strict=True):
            done = followed(network, own, robot, args.scenes, args.seed + 1000)
            low, high = wilson(done, args.scenes)
            row += f"{f'{done}/{args.scenes} ({100 * low:.1f}..{100 * high:.1f} %)':>30}"
        print(f"{row}  {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
