"""`internvla recipe`: a whole recipe, from data to the finished policy, in runs of any length."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from internvla_ros.train.cli import EXIT_UNFINISHED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "recipe", nargs="?", default="nano", help="name in config/train/ or a YAML file"
    )
    parser.add_argument(
        "--guidance",
        choices=("full", "stage1", "none"),
        default="full",
        help="how much of spatial guidance: all of it, stage 1 alone, none",
    )
    parser.add_argument("--seed", type=int, help="of everything but the data; none: the recipe's")
    add_common_arguments(parser)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of every command that runs recipes."""
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument(
        "--minutes",
        type=float,
        default=float("inf"),
        help=f"then stop, with exit status {EXIT_UNFINISHED}; the same command goes on",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="changes",
        metavar="KEY=VALUE",
        help="change an entry of the recipe, e.g. stage2.loop.steps=100",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes that generate and evaluate; one less prepares batches",
    )
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="where to train")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0: torch's choice")
    parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard files too")


def run(args: argparse.Namespace) -> int:
    """Do what is left of the recipe."""
    from internvla_ros.train.guidance import guided
    from internvla_ros.train.pipeline import Machine, Pipeline
    from internvla_ros.train.recipe import load_recipe

    recipe = guided(load_recipe(args.recipe, args.changes), args.guidance, args.seed)
    machine = Machine(args.minutes, args.workers, args.device, args.threads, args.tensorboard)
    points = "predicted" if args.guidance == "full" else "withheld"
    return 0 if Pipeline(recipe, args.out, machine, points=points).run() else EXIT_UNFINISHED
