"""`internvla evaluate simpler`: success in SimplerEnv, where it is installed."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from internvla_ros.evaluate.libero.policies import load_policy
from internvla_ros.evaluate.markdown import task_table
from internvla_ros.evaluate.policies import fingerprint
from internvla_ros.evaluate.simpler.conventions import ROBOTS
from internvla_ros.evaluate.simpler.harness import Evaluation, SimplerPlan
from internvla_ros.evaluate.simpler.tasks import SUITES
from internvla_ros.evaluate.simpler.world import SimplerWorld

INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `internvla evaluate simpler`."""
    parser.add_argument("--suite", choices=tuple(SUITES), required=True, help="group of tasks")
    parser.add_argument(
        "--policy", required=True, help="a checkpoint folder, or a policy server's ws://HOST:PORT"
    )
    parser.add_argument("--trials", type=int, help="of each environment; none: all layouts")
    parser.add_argument("--seed", type=int, default=0, help="of what environments draw")
    parser.add_argument("--out", metavar="DIR", help="for results; none: runs/simpler_SUITE")
    parser.add_argument("--resume", action="store_true", help="go on with what --out holds")
    parser.add_argument("--unnorm-key", help="name of the action statistics; none: the robot's")
    parser.add_argument(
        "--statistics", metavar="FILE", help="for a server of the released code: dataset_statistics"
    )
    parser.add_argument("--device", default="cpu", help="where a checkpoint runs: cpu or cuda")


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the tables and write the reports; 130 when it was interrupted.

    Whatever ends it early, the trials that are finished are kept and reported.
    """
    out = Path(args.out or f"runs/simpler_{args.suite}")
    plan = SimplerPlan(args.suite, out, args.trials, args.seed, args.resume)
    key = args.unnorm_key or ROBOTS[plan.settings()[0].robot].unnorm_key
    policy = load_policy(
        args.policy, device=args.device, unnorm_key=key, statistics=args.statistics, views=1
    )
    labels: dict[str, Any] = {"policy": args.policy, "unnorm_key": key}
    if Path(args.policy).is_dir():
        labels["weights_sha256"] = fingerprint(args.policy)
    evaluation = Evaluation(plan, policy, labels, SimplerWorld)
    try:
        _run_with_bar(evaluation)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        report = evaluation.write()
        print(report.table())
        print("\n".join(task_table(report.rows)))
        print(f"reports: {out / 'report.md'}, {out / 'report.json'}")
    return 0


def _run_with_bar(evaluation: Evaluation) -> None:
    jobs, kept = len(evaluation.plan.jobs()), len(evaluation.rows)
    with tqdm(total=jobs, initial=kept, desc="trials", smoothing=0.05) as bar:

        def on_trial(row: Mapping[str, Any]) -> None:
            bar.update()

        evaluation.run(on_trial)
