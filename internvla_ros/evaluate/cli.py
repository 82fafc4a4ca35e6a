"""`internvla evaluate BENCHMARK`: measure a policy without ROS in the loop."""

from __future__ import annotations

import argparse
import time
from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from internvla_ros.control.ensemble import METHODS
from internvla_ros.distributed import open_workers
from internvla_ros.evaluate import grounding_cli
from internvla_ros.evaluate.journal import Journal
from internvla_ros.evaluate.libero import cli as libero
from internvla_ros.evaluate.markdown import write_markdown
from internvla_ros.evaluate.policies import POINTS, fingerprint
from internvla_ros.evaluate.report import Report
from internvla_ros.evaluate.simpler import cli as simpler
from internvla_ros.robots.embodiment import Embodiment, load_embodiment, robot_choices
from internvla_ros.sim.splits import SPLITS

if TYPE_CHECKING:
    from internvla_ros.evaluate.tabletop import TableTop

INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `internvla evaluate`."""
    commands = parser.add_subparsers(dest="benchmark", metavar="BENCHMARK", required=True)
    _add_tabletop(
        commands.add_parser(
            "tabletop",
            help="closed-loop success in simulated scenes",
            description="Closed-loop success in held-out simulated scenes.",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
    )
    grounding_cli.add_arguments(
        commands.add_parser(
            "grounding",
            help="boxes, points and traces against what is known of pictures",
            description="Boxes, points and traces of a policy on questions about pictures.",
        )
    )
    libero.add_arguments(
        commands.add_parser(
            "libero",
            help="LIBERO's tasks with the Franka arm, simulated",
            description="Success on LIBERO's tasks from their official initial states.",
        )
    )
    simpler.add_arguments(
        commands.add_parser(
            "simpler",
            help="SimplerEnv's tasks with the Google robot and the WidowX",
            description="Success in SimplerEnv, which must be installed.",
        )
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument("--json", metavar="FILE", help="write the report to this file")
    parser.add_argument("--batch", type=_count, default=1, help="samples handled at once")
    parser.add_argument("--device", default="cpu", help="where the network runs: cpu or cuda")


def _add_tabletop(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    parser.add_argument(
        "--policy",
        default="expert",
        help="'expert', a checkpoint folder, or ws://host:port of 'internvla serve'",
    )
    parser.add_argument("--scenes", type=_count, default=100, help="number of scenes")
    parser.add_argument("--robot", default="widowx_250s", help=robot_choices())
    parser.add_argument(
        "--suite",
        choices=tuple(SPLITS),
        help="tasks of many families; none: 'put the A on/in the B' alone",
    )
    parser.add_argument(
        "--max-seconds", type=float, default=25.0, help="simulated, a scene; in a suite, a step"
    )
    parser.add_argument("--delay", type=float, default=0.1, help="s from view to chunk, simulated")
    parser.add_argument("--points", choices=POINTS, default="predicted", help="given to the actor")
    parser.add_argument(
        "--latent-plan", choices=("given", "withheld"), default="given", help="to the actor"
    )
    parser.add_argument("--blend", choices=METHODS, help="of overlapping chunks; none: the robot's")
    parser.add_argument("--horizon", type=_count, help="chunks blended; none: the robot's")
    parser.add_argument(
        "--record", metavar="DIR", help="keep a film (MP4) and a bag (MCAP) of every scene"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="keep scenes as they end, and reports, in there"
    )
    parser.add_argument("--resume", action="store_true", help="go on with what --out holds")
    add_worker_arguments(parser)


def add_worker_arguments(parser: argparse.ArgumentParser) -> None:
    """Where episodes run: `--workers` and `--ray`, see `distributed.open_workers`."""
    parser.add_argument(
        "--workers", type=_count, help="processes; none: one, or as many as --ray has processors"
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="spread over a Ray cluster: 'auto', HOST:PORT, ray://HOST:PORT, or local:N for one of "
        "N workers on this machine",
    )


def run(args: argparse.Namespace) -> int:
    """Measure, print the table and write the report; 130 when it was interrupted."""
    if args.benchmark == "libero":
        return libero.run(args)
    if args.benchmark == "simpler":
        return simpler.run(args)
    if args.benchmark == "grounding":
        return grounding_cli.run(args)
    report = _tabletop(args)
    print(report.table())
    if args.json:
        report.write(args.json)
        print(f"report: {args.json}")
    return 0 if report.complete else INTERRUPTED


def _tabletop(args: argparse.Namespace) -> Report:
    """Work through the scenes that are not finished, and tell of all that are."""
    from internvla_ros.evaluate.tabletop import TableTop, tabletop_report, tabletop_settings

    started = time.monotonic()
    embodiment = load_embodiment(args.robot)
    plan = TableTop(
        scenes=args.scenes,
        seed=args.seed,
        batch=args.batch,
        max_seconds=args.max_seconds,
        delivery=_delivery(args, embodiment),
        record=None if args.record is None else Path(args.record),
        suite=args.suite,
    )
    labels = _labels(args)
    with ExitStack() as stack:
        rows: list[dict[str, Any]] = []
        journal = None
        if args.out is not None:
            settings = {**tabletop_settings(embodiment, plan), **labels}
            journal = Journal(args.out / "trials.jsonl", settings, args.resume)
            stack.callback(journal.close)
            rows += [row for row in journal.rows if row["scene"] < args.scenes]
        left = sorted(set(range(args.scenes)) - {row["scene"] for row in rows})
        try:
            _work_on_scenes(args, embodiment, plan, left, rows, journal)
        except KeyboardInterrupt:
            pass
        finally:  # whatever ended it, what is finished is told
            seconds, complete = time.monotonic() - started, len(rows) == args.scenes
            report = tabletop_report(embodiment, plan, labels, rows, seconds, complete)
            if args.out is not None:
                report.write(args.out / "report.json")
                write_markdown(args.out / "report.md", report, report.rows)
                print(f"reports: {args.out / 'report.md'}, {args.out / 'report.json'}")
    return report


def _work_on_scenes(
    args: argparse.Namespace,
    embodiment: Embodiment,
    plan: TableTop,
    left: list[int],
    rows: list[dict[str, Any]],
    journal: Journal | None,
) -> None:
    """Append the rows of the scenes that are left, as they end."""
    if not left:
        return
    with (
        closing(_scene_rows(args, embodiment, plan, left)) as found,
        tqdm(total=plan.scenes, initial=len(rows), desc="scenes", smoothing=0.05) as bar,
    ):
        for row in found:
            if journal is not None:
                journal.append(row)
            rows.append(row)
            bar.update()
            bar.set_postfix_str(f"success {sum(row['success'] for row in rows)}/{bar.n}")


def _scene_rows(
    args: argparse.Namespace, embodiment: Embodiment, plan: TableTop, left: list[int]
) -> Generator[dict[str, Any], None, None]:
    """From this process, or from workers."""
    from internvla_ros.evaluate.scale import PolicySource, spread_scenes
    from internvla_ros.evaluate.tabletop import scene_rows, scene_runs

    source = PolicySource(args.policy, args.points, args.latent_plan == "given", args.device)
    if args.ray is None and (args.workers or 1) == 1:
        yield from scene_rows(scene_runs(embodiment, plan), source.load(embodiment), plan, left)
        return
    gpus = 1.0 if args.device.startswith("cuda") else 0.0
    with open_workers(args.workers, args.ray, gpus) as workers:
        yield from spread_scenes(workers, args.robot, source, plan, left)


def _labels(args: argparse.Namespace) -> dict[str, Any]:
    """What identifies the policy."""
    labels = {"policy": args.policy}
    if args.policy != "expert":
        labels |= {
            "weights_sha256": fingerprint(args.policy),
            "points": args.points,
            "latent_plan": args.latent_plan,
        }
    return labels


def _delivery(args: argparse.Namespace, embodiment: Embodiment) -> Any:
    """The robot's way of blending unless told otherwise; the expert's chunks are not blended.

    The expert decides from the true state; older decisions of it are just out of date.
    """
    from internvla_ros.evaluate.run import Delivery

    blend = embodiment.ensemble.name if args.policy != "expert" else "latest"
    delivery = Delivery(args.delay, blend, embodiment.ensemble.horizon)
    if args.blend is not None:
        delivery = replace(delivery, blend=args.blend)
    if args.horizon is not None:
        delivery = replace(delivery, horizon=args.horizon)
    return delivery


def _count(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value
