"""How long the policy thinks: one planner look, with and without drafts, and one actor chunk.

    python bench/policy_latency.py [--checkpoint DIR] [--repeats N] [--threads N]

The looks follow a simulated arm on its way, as the planner's ticks do; with drafts each answer is
guessed from the one before. Both ways see the same pictures, in turns, in one run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from internvla_ros.model.policy import Policy, Views
from internvla_ros.resources import DEFAULT_CHECKPOINT, resource
from internvla_ros.robots.embodiment import load_embodiment
from internvla_ros.sim.engine import QUIET, rollout
from internvla_ros.sim.scene import sample_scene
from internvla_ros.sim.world import World


def timed(action: Callable[[], object]) -> float:
    """Milliseconds that a call takes."""
    started = time.perf_counter()
    action()
    return 1e3 * (time.perf_counter() - started)


def episodes(count: int) -> list[tuple[list[Views], str]]:
    """The expert's pictures, at the policy's rate, and the instruction, of a few scenes."""
    embodiment = load_embodiment("widowx_250s")
    world, rng = World(embodiment), np.random.default_rng(0)
    recorded = [rollout(world, sample_scene(rng, embodiment), rng, QUIET) for _ in range(count)]
    return [
        (
            [list(pair) for pair in zip(e.images["front"], e.images["wrist"], strict=True)],
            e.instruction,
        )
        for e in recorded
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--checkpoint", default=str(resource(DEFAULT_CHECKPOINT)))
    parser.add_argument("--repeats", type=int, default=5, help="scenes")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    policy = Policy.from_pretrained(args.checkpoint)
    times: dict[str, list[float]] = {"look": [], "look, drafted": [], "act": []}
    state, points = np.zeros((1, policy.config.actor.state_dim)), np.full((1, 2, 2), 0.5)
    for views, instruction in episodes(args.repeats):
        drafts: dict[str, list[int]] = {}
        for pair in views:
            times["look"].append(timed(lambda: policy.look([pair], [instruction])))  # noqa: B023
            times["look, drafted"].append(
                timed(lambda: policy.look([pair], [instruction], drafts=drafts))  # noqa: B023
            )
            plan = policy.plan([pair], [instruction])
            times["act"].append(timed(lambda: policy.act([pair], plan, state, points)))  # noqa: B023
    print(
        f"{policy.config.name}, {args.threads} thread(s), {len(times['act'])} frames, milliseconds"
    )
    print(f"{'':14} {'p50':>7} {'p95':>7}")
    for name, values in times.items():
        print(f"{name:14} {np.percentile(values, 50):7.1f} {np.percentile(values, 95):7.1f}")
    ratio = np.median(times["look"]) / np.median(times["look, drafted"])
    print(f"drafts make a look {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
