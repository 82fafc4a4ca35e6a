"""Stage 2's optimizer step: samples a second through our loop and through a plain one.

    python bench/train.py [--recipe NAME] [--steps N] [--rounds N] [--workers N] [--set KEY=VALUE]

The same policy, batch, draws of noise, losses and optimizer, trained by turns:

ours    views resized once, batches made ahead in other processes, the backbone run once for all
        draws of noise
plain   batches made between the steps, each view resized with PIL from the stored size, every draw
        of noise with a pass through the backbone of its own

Rounds alternate, so that a busy machine slows both; the ratio is that of the medians. What our loop
waited for data is stated as a share of its time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from internvla_ros.data.episode import Episode
from internvla_ros.data.lerobot import EpisodeWriter, LeRobotDataset
from internvla_ros.model.reader import Reading, lay_out
from internvla_ros.train.actions import ActionBatch
from internvla_ros.train.batches import JointBatch, JointBatches, Share
from internvla_ros.train.corpus import Corpus, Library, load_corpus
from internvla_ros.train.feed import Feed
from internvla_ros.train.job import image_side, with_data
from internvla_ros.train.loop import Objective
from internvla_ros.train.network import new_policy
from internvla_ros.train.objectives import stage_two
from internvla_ros.train.recipe import load_recipe
from internvla_ros.train.settings import Recipe

EPISODES, FRAMES, SIZE = 8, 30, (320, 240)
OBJECTS = ("red cube", "blue bowl")


def episode(seed: int) -> Episode:
    """Pictures of soft noise at the size that the simulator stores."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (FRAMES, 12, 16, 3), dtype=np.uint8)
    front = np.repeat(np.repeat(coarse, SIZE[1] // 12, 1), SIZE[0] // 16, 2)
    boxes = np.tile(np.array([[20, 20, 60, 60], [150, 90, 230, 170]], np.float32), (FRAMES, 1, 1))
    return Episode(
        images={"front": front, "wrist": np.ascontiguousarray(front[:, ::-1])},
        state=rng.normal(size=(FRAMES, 10)),
        action=np.hstack([rng.normal(0, 0.01, (FRAMES, 6)), np.ones((FRAMES, 1))]),
        boxes=boxes,
        pick_point=np.full((FRAMES, 2), 40.0),
        place_point=np.full((FRAMES, 2), 130.0),
        tip_pixel=np.cumsum(rng.uniform(0, 3, (FRAMES, 2)), axis=0),
        timestamps=np.arange(FRAMES) * 0.2,
        instruction="put the red cube in the blue bowl",
        pick=OBJECTS[0],
        place=OBJECTS[1],
        relation="in",
        objects=OBJECTS,
        seed=seed,
        success=True,
    )


class Plain:
    """The loop that one would write first."""

    def __init__(self, recipe: Recipe, corpus: Corpus, folder: Path, batches: JointBatches) -> None:
        dataset, self.side = LeRobotDataset(folder), image_side(recipe.model)
        self.corpus = corpus
        self.batches = replace(batches, actions=replace(batches.actions, cameras=()))
        self.stored = {
            camera: np.concatenate([dataset.frames(i, camera) for i in range(len(dataset))])
            for camera in recipe.model.cameras
        }
        self.cameras = recipe.model.cameras

    def batch(self, number: int) -> JointBatch:
        """As many samples as ours, each as often as it has draws of noise."""
        ours = self.batches[number]
        action, draws = ours.action, len(ours.action.timesteps)
        count = 0 if action.reading is None else len(action.reading.ids)
        views = tuple(
            torch.from_numpy(self._resized(camera, number, count)).repeat(draws, 1, 1, 1)
            for camera in self.cameras
            if count
        )
        # The first of a batch are those with a plan: all their draws first, then all others.
        order = torch.arange(draws * len(action.actions)).view(draws, -1)
        order = torch.cat([order[:, :count].flatten(), order[:, count:].flatten()])

        def each(x: torch.Tensor) -> torch.Tensor:
            return x.repeat(draws, *[1] * (x.ndim - 1))[order]

        return JointBatch(
            ActionBatch(
                views,
                None if action.reading is None else self._read_again(draws, number, count),
                each(action.actions),
                each(action.points),
                each(action.states),
                action.noise.flatten(0, 1)[order][None],
                action.timesteps.flatten()[order][None],
                None if action.words is None else each(action.words),
                action.drafts,
            ),
            ours.talk,
        )

    def _resized(self, camera: str, number: int, count: int) -> NDArray[np.uint8]:
        """As many frames as the batch has, one by one by PIL."""
        rng = np.random.default_rng(number)
        chosen = rng.integers(len(self.stored[camera]), size=count)
        pictures = [Image.fromarray(self.stored[camera][index]) for index in chosen]
        side = (self.side, self.side)
        return np.stack([np.asarray(p.resize(side, Image.Resampling.BICUBIC)) for p in pictures])

    def _read_again(self, draws: int, number: int, count: int) -> Reading:
        actions = self.batches.actions
        frames, prompter = self.corpus.sets[0].frames, actions.prompter
        rng = np.random.default_rng(number)
        rows = rng.integers(len(frames), size=count)
        prompts = [prompter.encoded(frames.instruction(int(row))) for row in rows] * draws
        return lay_out(prompts, [actions.grids] * len(prompts), prompter.pad, prompter.image_token)


def step(objective: Objective, optimizer: torch.optim.Optimizer, batch: JointBatch) -> None:
    """Forward, backward, clip, optimizer; the same for both."""
    device = next(objective.module.parameters()).device
    optimizer.zero_grad()
    sums = objective.module(batch.to(device))
    means = [objective.weights[k] * v / batch.counts[k] for k, v in sums.items()]
    torch.stack(means).sum().backward()
    nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
    optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="nano", help="name or file (default: nano)")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=4, help="a round (default: 4)")
    parser.add_argument("--rounds", type=int, default=5, help="of each (default: 5)")
    parser.add_argument("--workers", type=int, default=1, help="processes that make our batches")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0: torch's choice")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as scratch:
        measure(args, Path(scratch))


def measure(args: argparse.Namespace, scratch: Path) -> None:
    """Train by turns in a scratch folder."""
    folder = scratch / "noise"
    with EpisodeWriter(folder, fps=5, robot_type="widowx_250s") as writer:
        for seed in range(EPISODES):
            writer.write(episode(seed))
    recipe, folders = with_data(load_recipe(args.recipe, args.changes), [str(folder)])
    recipe = replace(recipe, model=replace(recipe.model, cameras=("front", "wrist")))
    side = image_side(recipe.model)
    library = Library(recipe.data, folders, scratch / "views", progress=False)
    corpus = load_corpus(library, recipe.model.cameras, (side, side))
    policy = new_policy(recipe.model, corpus.source, corpus.names, corpus.statistics, 0)
    objective = stage_two(policy, recipe.model, recipe.stage2, corpus, None, Share(0), 1.0)
    objective.module.to(args.device).train().requires_grad_(False)
    groups = [{"params": list(g.parameters), "lr": g.peak} for g in objective.groups]
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(groups)
    assert isinstance(objective.batches, JointBatches)
    plain = Plain(recipe, corpus, folder, objective.batches)
    total = (args.rounds + 1) * args.steps
    feed = Feed(objective.batches, 0, total, args.workers, args.device.startswith("cuda"))
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    spent = waited = 0.0
    size = recipe.stage2.action.batch_size
    for number in range(args.rounds + 1):
        feed.waited, start = 0.0, time.perf_counter()
        for _ in range(args.steps):
            step(objective, optimizer, next(feed))
        ours = time.perf_counter() - start
        start = time.perf_counter()
        for index in range(args.steps):
            step(objective, optimizer, plain.batch(number * args.steps + index))
        other = time.perf_counter() - start
        if number:  # the first round warms up
            rates["ours"].append(size * args.steps / ours)
            rates["plain"].append(size * args.steps / other)
            spent, waited = spent + ours, waited + feed.waited
    action = recipe.stage2.action
    print(
        f"{recipe.name}: {size} action samples x {action.repeated_diffusion_steps} draws, "
        f"{recipe.stage2.grounding_batch_size} conversations, {args.device}, "
        f"{torch.get_num_threads()} threads, {args.workers} workers, {args.rounds} rounds of "
        f"{args.steps} steps each"
    )
    for name, values in rates.items():
        low, high = min(values), max(values)
        print(f"{name:<6}{statistics.median(values):8.2f} samples/s ({low:.2f} to {high:.2f})")
    ratio = statistics.median(rates["ours"]) / statistics.median(rates["plain"])
    print(f"ratio {ratio:.2f}; our loop waited for data {100 * waited / spent:.1f} % of its time")


if __name__ == "__main__":
    main()
