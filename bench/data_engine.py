"""What the data engine makes on one core, beside robosuite's pick-and-place environment.

    python bench/data_engine.py [--rounds N] [--episodes N] [--environment DIR]

Both draw two cameras in the same size at every step of a policy of the same rate, on one core, with
physics of the same time step; ours also samples and checks its scenes and draws the segmentation
that boxes come from. robosuite has no expert: a scripted arm takes the can (see
robosuite_pick_place.py). Rounds alternate, so that a busy machine slows both, and the ratio is the
median of the rounds' ratios: by the clock, and by processor time, which other work on the machine
hardly changes. `--environment` is one that has robosuite, by default LIBERO's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LP_NUM_THREADS", "1")

from internvla_ros.evaluate.libero.environment import default_folder
from internvla_ros.robots.embodiment import load_embodiment
from internvla_ros.sim.engine import recorded_size
from internvla_ros.sim.task_data import Maker, TaskOrder
from internvla_ros.sim.task_frames import CAMERAS

ROBOT = "franka_panda"
THEIRS = Path(__file__).with_name("robosuite_pick_place.py")


def ours(maker: Maker, first: int, episodes: int) -> dict[str, Any]:
    """What some roll-outs cost."""
    frames = done = number = 0
    cpu, wall = time.process_time(), time.monotonic()
    while done < episodes:
        made = maker.rollout(first + 1024 * number)
        number += 1
        frames += sum(len(episode) * len(CAMERAS) for episode in made.episodes)
        done += bool(made.episodes)
    return {
        "cpu": time.process_time() - cpu,
        "wall": time.monotonic() - wall,
        "frames": frames,
        "episodes": number,
        "done": done,
    }


def theirs(python: Path, episodes: int) -> dict[str, Any]:
    """What as many episodes of robosuite's cost."""
    rate = load_embodiment(ROBOT).policy_rate
    width, height = recorded_size(load_embodiment(ROBOT), "front")
    command = [str(python), str(THEIRS), "--episodes", str(episodes), "--rate", str(rate)]
    command += ["--width", str(width), "--height", str(height)]
    environment = {**os.environ, "MUJOCO_GL": "osmesa"}
    said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return dict(json.loads(said.stdout.splitlines()[-1]))


def rates(cost: dict[str, Any], clock: str) -> tuple[float, float]:
    """Frames a second and episodes a minute."""
    return cost["frames"] / cost[clock], 60.0 * cost["done"] / cost[clock]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=10, help="of ours a round")
    parser.add_argument("--robosuite-episodes", type=int, default=2, help="of theirs a round")
    parser.add_argument("--environment", type=Path, default=default_folder())
    args = parser.parse_args()
    maker = Maker(TaskOrder(robot=ROBOT, families=("put",)))
    maker.rollout(0)  # what is made once is not counted
    found: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {"rounds": []}
    for number in range(args.rounds):
        mine = ours(maker, 10_000_000 * (number + 1), args.episodes)
        other = theirs(args.environment / "bin" / "python", args.robosuite_episodes)
        found["rounds"].append((mine, other))
        print(f"round {number + 1}: ours {mine}, robosuite {other}", flush=True)
    width, height = recorded_size(load_embodiment(ROBOT), "front")
    print(f"\n{f'one core, {width}x{height}':24}ours  robosuite  ratio")
    for clock, said in (("cpu", "processor"), ("wall", "clock")):
        for index, unit in enumerate(("frames/s", "episodes/min")):
            pairs = [
                (rates(mine, clock)[index], rates(other, clock)[index])
                for mine, other in found["rounds"]
            ]
            one, two = (statistics.median(values) for values in zip(*pairs, strict=True))
            ratio = statistics.median(a / b for a, b in pairs)
            print(f"{unit + ', by ' + said:24}{one:6.1f}{two:9.2f}{ratio:9.1f}")


if __name__ == "__main__":
    main()
