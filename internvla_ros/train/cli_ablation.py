"""`internvla ablation`: what spatial guidance is worth, as a table."""

from __future__ import annotations

import argparse

from internvla_ros.train.cli import EXIT_UNFINISHED
from internvla_ros.train.cli_recipe import add_common_arguments, machine_of

ARMS = ("full", "stage1", "none")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "recipe", nargs="?", default="ablation", help="name in config/train/ or a YAML file"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run an arm")
    parser.add_argument("--guidance", choices=ARMS, nargs="+", default=ARMS, help="arms to compare")
    parser.add_argument(
        "--table", action="store_true", help="only print the table of what has been measured"
    )
    add_common_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Do what is left of all runs, then print the table."""
    from internvla_ros.train.ablation import Ablation
    from internvla_ros.train.recipe import load_recipe

    recipe = load_recipe(args.recipe, args.changes or ())
    ablation = Ablation(recipe, args.out, tuple(args.seeds), tuple(args.guidance))
    machine = machine_of(args)
    finished = args.table or ablation.run(machine)
    print(ablation.write())
    return 0 if finished else EXIT_UNFINISHED
