"""`internvla recipe`: a whole recipe, from data to the finished policy, in runs of any length."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from internvla_ros.train.cli import EXIT_UNFINISHED

if TYPE_CHECKING:
    from internvla_ros.train.pipeline import Machine


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
        help=f"then stop, with exit status {EXIT_UNFINISHED}; the same command goes on",
    )
    parser.add_argument(
        "--set",
        action="append",
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


def machine_of(args: argparse.Namespace) -> Machine:
    """What the run may use."""
    from internvla_ros.train.pipeline import Machine

    minutes = math.inf if args.minutes is None else args.minutes
    return Machine(minutes, args.workers, args.device, args.threads, args.tensorboard)


def run(args: argparse.Namespace) -> int:
    """Do what is left of the recipe."""
    from internvla_ros.train.guidance import guided
    from internvla_ros.train.pipeline import Pipeline
    from internvla_ros.train.recipe import load_recipe

    recipe = guided(load_recipe(args.recipe, args.changes or ()), args.guidance, args.seed)
    machine = machine_of(args)
    points = "predicted" if args.guidance == "full" else "withheld"
    return 0 if Pipeline(recipe, args.out, machine, points=points).run() else EXIT_UNFINISHED
