"""`internvla evaluate libero`: success on LIBERO's tasks from their official initial states."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from internvla_ros.distributed import open_workers
from internvla_ros.evaluate.libero import environment
from internvla_ros.evaluate.libero.conventions import CAMERAS, ENSEMBLE_HORIZON, SEED, SUITES
from internvla_ros.evaluate.libero.harness import Evaluation, LiberoPlan, PlanError
from internvla_ros.evaluate.libero.policies import ExpertPolicy, load_policy
from internvla_ros.evaluate.libero.process import WorkerProcess
from internvla_ros.evaluate.libero.pushes import Pushes
from internvla_ros.evaluate.libero.scale import run_spread, spawn_here
from internvla_ros.evaluate.libero.trial import TrialPolicy
from internvla_ros.evaluate.markdown import task_table
from internvla_ros.evaluate.policies import fingerprint

INTERRUPTED = 130
BLENDS = ("latest", "temporal", "adaptive")
"""Ways of blending that need no more than chunks, see `control.ensemble`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `internvla evaluate libero`."""
    parser.add_argument("--suite", choices=tuple(SUITES), required=True, help="group of tasks")
    parser.add_argument(
        "--policy",
        default="expert",
        help="'expert', a checkpoint folder, or a policy server's ws://HOST:PORT",
    )
    parser.add_argument("--trials", type=int, default=10, help="initial states of each task")
    parser.add_argument(
        "--first", type=int, default=0, metavar="N", help="number of the first initial state"
    )
    parser.add_argument("--tasks", type=_numbers, metavar="N,N", help="numbers of tasks; none: all")
    parser.add_argument("--seed", type=int, default=SEED, help="of what LIBERO draws")
    parser.add_argument(
        "--workers", type=int, help="LIBERO processes; none: 1, or as many as --ray has processors"
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="spread over a Ray cluster: 'auto', HOST:PORT, ray://HOST:PORT, or local:N for one of "
        "N workers on this machine",
    )
    parser.add_argument("--batch", type=int, default=1, help="trials decided about at once")
    parser.add_argument(
        "--execute", type=int, default=1, help="steps of a chunk before the next one is asked for"
    )
    parser.add_argument("--blend", choices=BLENDS, help="of chunks; none: the released client's")
    parser.add_argument("--horizon", type=int, default=ENSEMBLE_HORIZON, help="chunks blended")
    parser.add_argument("--out", metavar="DIR", help="for results; none: runs/libero_SUITE")
    parser.add_argument("--resume", action="store_true", help="go on with what --out holds")
    parser.add_argument(
        "--videos", choices=("failures", "none"), default="failures", help="to make"
    )
    parser.add_argument(
        "--record-demos", metavar="DIR", help="add successes to a LeRobot data set, with pictures"
    )
    parser.add_argument(
        "--push",
        type=float,
        default=0.0,
        metavar="CHANCE",
        help="of a push at each step of the expert, whose demonstrations then show the way back",
    )
    parser.add_argument("--unnorm-key", help="name of the action statistics; none: the only ones")
    parser.add_argument(
        "--statistics", metavar="FILE", help="for a server of the released code: dataset_statistics"
    )
    parser.add_argument(
        "--views", type=int, choices=range(1, len(CAMERAS) + 1), default=len(CAMERAS),
        help="that such a server is shown",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="where a checkpoint runs: cpu or cuda")
    parser.add_argument(
        "--environment",
        metavar="DIR",
        help=f"LIBERO's Python, made if missing; none: {environment.default_folder()}",
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the tables and write the reports; 130 when it was interrupted.

    Whatever ends it early, the trials that are finished are kept and reported.
    """
    plan, load = _plan(args), _policy(args)
    folder = Path(args.environment) if args.environment else environment.default_folder()
    policy = load() if args.ray is None else None
    if args.ray is None:
        environment.ensure(folder, lambda text: print(text, file=sys.stderr))
    evaluation = Evaluation(plan, policy, _labels(args), lambda log: WorkerProcess(folder, log))
    try:
        if args.ray is None:
            _with_bar(evaluation, evaluation.run)
        else:
            gpus = 1.0 if args.device.startswith("cuda") else 0.0
            with open_workers(args.workers, args.ray, gpus) as workers:
                spawn = partial(spawn_here, folder)
                _with_bar(evaluation, partial(run_spread, evaluation, workers, load, spawn))
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        report = evaluation.write()
        print(report.table())
        print("\n".join(task_table(report.rows)))
        print(f"reports: {plan.out / 'report.md'}, {plan.out / 'report.json'}")
    return 0


def _policy(args: argparse.Namespace) -> Callable[[], TrialPolicy]:
    """What makes the policy, here or in a worker."""
    if args.policy == "expert":
        return partial(ExpertPolicy, Pushes(args.push, args.seed) if args.push else None)
    if args.push:
        raise PlanError("only the expert is pushed about: leave --push out, or use --policy expert")
    return partial(
        load_policy,
        args.policy,
        device=args.device,
        unnorm_key=args.unnorm_key,
        statistics=args.statistics,
        views=args.views,
    )


def _plan(args: argparse.Namespace) -> LiberoPlan:
    blend = args.blend or ("latest" if args.policy == "expert" else "adaptive")
    return LiberoPlan(
        suite=args.suite,
        out=Path(args.out or f"runs/libero_{args.suite}"),
        trials=args.trials,
        first=args.first,
        tasks=args.tasks or (),
        seed=args.seed,
        execute=args.execute,
        blend=blend,
        horizon=args.horizon,
        workers=1 if args.workers is None else args.workers,
        batch=args.batch,
        resume=args.resume,
        film=args.videos == "failures",
        demonstrations=Path(args.record_demos) if args.record_demos else None,
    )


def _labels(args: argparse.Namespace) -> dict[str, Any]:
    """What identifies the policy."""
    labels: dict[str, Any] = {"policy": args.policy}
    if Path(args.policy).is_dir():
        labels["weights_sha256"] = fingerprint(args.policy)
    if args.push:
        labels["push"] = args.push
    if args.unnorm_key:
        labels["unnorm_key"] = args.unnorm_key
    return labels


def _with_bar(
    evaluation: Evaluation, run: Callable[[Callable[[dict[str, Any]], None]], None]
) -> None:
    jobs, kept = len(evaluation.plan.jobs()), len(evaluation.rows)
    succeeded = sum(bool(row["success"]) for row in evaluation.rows)
    with tqdm(total=jobs, initial=kept, desc="trials", smoothing=0.05) as bar:

        def on_trial(row: dict[str, Any]) -> None:
            nonlocal succeeded
            succeeded += bool(row["success"])
            bar.update()
            bar.set_postfix_str(f"success {succeeded}/{bar.n}")

        run(on_trial)


def _numbers(text: str) -> tuple[int, ...]:
    """Numbers between commas."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list such as 0,3,5") from None
