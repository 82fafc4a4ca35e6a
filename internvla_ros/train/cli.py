"""`internvla train`: the stages of a recipe on a generated data set."""

from __future__ import annotations

import argparse
from pathlib import Path

STAGES = ("stage1", "actor", "stage2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--recipe", default="nano", help="name in config/train/ or a YAML file (default: nano)"
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder written by `internvla generate`"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="run folder; each stage writes a folder in it"
    )
    parser.add_argument(
        "--stage",
        choices=(*STAGES, "all"),
        default="all",
        help="which stage to run (default: all, in order)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the stage from its last saved state"
    )
    parser.add_argument(
        "--steps", type=int, help="optimizer steps of the stage, instead of the recipe's"
    )
    parser.add_argument("--episodes", type=int, help="use only the first N episodes")
    parser.add_argument("--llava", type=Path, help="a LLaVA-style JSON file to mix into stage 1")
    parser.add_argument(
        "--unnorm-key", default="widowx_250s_tabletop", help="name of the data's statistics"
    )
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads (default: torch's choice)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the stages asked for."""
    from internvla_ros.train.job import Job, Options
    from internvla_ros.train.recipe import load_recipe

    stages = STAGES if args.stage == "all" else (args.stage,)
    options = Options(
        data=args.data,
        out=args.out,
        resume=args.resume,
        steps=args.steps,
        episodes=args.episodes,
        llava=args.llava,
        unnorm_key=args.unnorm_key,
        threads=args.threads,
    )
    Job(load_recipe(args.recipe), options, stages).run()
    return 0
