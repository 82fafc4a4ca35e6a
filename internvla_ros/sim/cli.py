"""`internvla generate`: makes a data set in the simulator."""

from __future__ import annotations

import argparse
import os

from internvla_ros.robots.embodiment import robot_choices
from internvla_ros.sim.generate import generate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `internvla generate`."""
    parser.add_argument("--out", required=True, help="folder to write to, or to go on with")
    parser.add_argument("--episodes", type=int, default=100, help="episodes to hold (default 100)")
    parser.add_argument("--snapshots", type=int, default=0, help="single frames to hold")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    parser.add_argument("--robot", default="widowx_250s", help=robot_choices())


def run(args: argparse.Namespace) -> int:
    """Generates; 130 when told to stop, in which case the same command goes on."""
    report = generate(args.out, args.episodes, args.snapshots, args.seed, args.workers, args.robot)
    print(f"{args.out}: {report.episodes} episodes, {report.snapshots} snapshots")
    for reason, count in report.discarded.items():
        print(f"discarded {count}: {reason}")
    if report.stopped:
        print("stopped early: the same command goes on from here")
        return 130
    return 0
