"""`internvla evaluate grounding`: where a policy says things are, against what is known."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tqdm import tqdm

from internvla_ros.evaluate.benchmarks.formats import FORMATS, OWN, open_benchmark
from internvla_ros.evaluate.benchmarks.sample import BenchmarkError
from internvla_ros.evaluate.grounding import GroundingPlan, load_asked, run_grounding
from internvla_ros.evaluate.markdown import write_markdown
from internvla_ros.evaluate.policies import fingerprint

INTERRUPTED = 130
REPORT, PAGE, PICTURES = "report.json", "report.md", "worst"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `internvla evaluate grounding`."""
    parser.add_argument(
        "--policy", required=True, help="a checkpoint folder, or a policy server's ws://HOST:PORT"
    )
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="the benchmark")
    parser.add_argument(
        "--format",
        choices=tuple(FORMATS),
        default=OWN,
        help=", ".join(f"{name}: {what}" for name, what in FORMATS.items())
        + " (default: %(default)s)",
    )
    parser.add_argument("--split", help="of the benchmark; none: the usual one")
    parser.add_argument(
        "--questions", "--frames", type=int, metavar="N", help="asked, drawn evenly; none: all"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: %(default)s)")
    parser.add_argument(
        "--batch", type=int, default=1, help="questions asked at once (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help=f"for {REPORT}, {PAGE} and the folder {PICTURES}"
    )
    parser.add_argument("--json", metavar="FILE", help="write the report to this file besides")
    parser.add_argument(
        "--draw", type=int, default=0, metavar="N",
        help="pictures of the worst answers, in --out (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--device", default="cpu", help="where the network runs: cpu or cuda (default: cpu)"
    )


def run(args: argparse.Namespace) -> int:
    """Ask, print the table and write the reports; 130 when it was interrupted.

    Whatever ends it early, what was answered is kept and reported.
    """
    if args.draw and args.out is None:
        raise BenchmarkError("--draw needs --out, a folder for the pictures")
    if not args.data.exists():
        raise BenchmarkError(f"there is no {args.data}")
    plan = GroundingPlan(
        args.questions, args.seed, args.batch, args.draw, args.out / PICTURES if args.draw else None
    )
    model, cameras = load_asked(args.policy, args.device)
    benchmark = open_benchmark(args.format, args.data, args.split, cameras)
    for line in getattr(benchmark, "missing", ()):
        print(f"not used: {line}")
    wanted = args.questions or len(benchmark)
    with tqdm(total=wanted, desc="questions", smoothing=0.05) as bar:
        report, trouble = run_grounding(
            model, benchmark, plan, _labels(args), lambda count: bar.update(count) and None
        )
    print(report.table())
    if args.out is not None:
        report.write(args.out / REPORT)
        write_markdown(args.out / PAGE, report, report.rows)
        print(f"reports: {args.out / PAGE}, {args.out / REPORT}")
    if args.json:
        report.write(args.json)
        print(f"report: {args.json}")
    if trouble is not None:
        raise trouble
    return 0 if report.complete else INTERRUPTED


def _labels(args: argparse.Namespace) -> dict[str, Any]:
    """What identifies the policy and the benchmark."""
    return {
        "policy": args.policy,
        "weights_sha256": fingerprint(args.policy),
        "format": args.format,
        "data": str(args.data),
        "split": args.split or "the usual one",
    }
