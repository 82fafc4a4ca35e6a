"""`internvla generate`: makes a data set in the simulator."""

from __future__ import annotations

import argparse
import os

from internvla_ros.distributed import open_workers
from internvla_ros.robots.embodiment import robot_choices
from internvla_ros.sim.families import FAMILIES
from internvla_ros.sim.generate import generate
from internvla_ros.sim.looks import LEVELS
from internvla_ros.sim.splits import SPLITS
from internvla_ros.sim.task_data import TaskOrder, TaskReport, generate_tasks


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
    tasks = parser.add_argument_group(
        "tasks of many families", "without --split and --families: 'put the A on/in the B' alone"
    )
    tasks.add_argument("--split", choices=tuple(SPLITS), help="what scenes are made of")
    tasks.add_argument(
        "--families",
        metavar="NAMES",
        help=f"comma-separated: {', '.join(FAMILIES)} (default: the split's)",
    )
    tasks.add_argument(
        "--randomise",
        choices=LEVELS,
        help="of cameras, light, table, patterns and the arm's first pose (default: low)",
    )
    tasks.add_argument(
        "--renderings", type=int, help="looks under which a roll-out is drawn (default 1)"
    )
    tasks.add_argument("--redraw", metavar="DIR", help="draw the roll-outs of this data set again")
    tasks.add_argument(
        "--mishaps", type=float, help="share of steps with a recovery in them, 0 to 1 (default 0)"
    )
    tasks.add_argument(
        "--shards", type=int, help="data sets of this size, in folders of their own (default 1)"
    )
    tasks.add_argument(
        "--ray", metavar="ADDRESS", help="a Ray cluster: auto, HOST:PORT, or local:N workers"
    )


def run(args: argparse.Namespace) -> int:
    """Generates; 130 when told to stop, in which case the same command goes on."""
    if args.split or args.families or args.redraw:
        return _run_tasks(args)
    for name in ("randomise", "renderings", "mishaps", "shards", "ray"):
        if getattr(args, name) is not None:
            raise ValueError(f"--{name} is for tasks of many families: say --split or --families")
    report = generate(args.out, args.episodes, args.snapshots, args.seed, args.workers, args.robot)
    print(f"{args.out}: {report.episodes} episodes, {report.snapshots} snapshots")
    for reason, count in report.discarded.items():
        print(f"discarded {count}: {reason}")
    return _ended(report.stopped)


def _run_tasks(args: argparse.Namespace) -> int:
    order = TaskOrder(
        robot=args.robot,
        split=args.split or "seen",
        families=tuple(args.families.split(",")) if args.families else (),
        level=args.randomise or "low",
        renderings=1 if args.renderings is None else args.renderings,
        mishaps=args.mishaps or 0.0,
        seed=args.seed,
        episodes=args.episodes,
        snapshots=args.snapshots,
        source=args.redraw or "",
    )
    with open_workers(args.workers, args.ray) as workers:
        report = generate_tasks(args.out, order, workers, 1 if args.shards is None else args.shards)
    _tell(args.out, report)
    return _ended(report.stopped)


def _tell(out: str, report: TaskReport) -> None:
    print(f"{out}: {report.episodes} episodes, {report.snapshots} snapshots")
    if report.made:
        print(f"made {report.made} episodes: {report.rate:.1f} a minute and core")
    for reason, count in report.discarded.most_common():
        print(f"discarded {count}: {reason}")


def _ended(stopped: bool) -> int:
    if stopped:
        print("stopped early: the same command goes on from here")
    return 130 if stopped else 0
