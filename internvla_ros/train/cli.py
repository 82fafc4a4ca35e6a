"""`internvla train`: the stages of a recipe on a data set."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

from internvla_ros.train.settings import STAGES, Recipe, Stage

STAGE_NAMES: dict[str, tuple[Stage, ...]] = {
    "1": ("stage1",),
    "actor": ("actor",),
    "2": ("stage2",),
    "all": STAGES,
}
EXIT_UNFINISHED = 75  # EX_TEMPFAIL: the same command goes on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "recipe", nargs="?", default="nano", help="name in config/train/ or a YAML file"
    )
    parser.add_argument(
        "--data",
        action="append",
        metavar="DIR[=WEIGHT]",
        help="a LeRobot data set, as `internvla generate` writes it; several are mixed "
        "(without: the folders that the recipe names)",
    )
    parser.add_argument(
        "--held-out",
        action="append",
        type=Path,
        metavar="DIR",
        help="a data set to validate and draw predictions on",
    )
    parser.add_argument("--out", type=Path, required=True, help="run folder, a folder a stage")
    parser.add_argument("--stage", choices=tuple(STAGE_NAMES), default="all", help="what to run")
    parser.add_argument(
        "--stage1", type=Path, metavar="DIR", help="checkpoint of another run's stage 1 to go on"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest state, exactly"
    )
    parser.add_argument(
        "--stop-after",
        type=_minutes,
        metavar="MINUTES",
        help=f"then save, and exit with {EXIT_UNFINISHED} unless all is done",
    )
    parser.add_argument(
        "--set",
        action="append",
        dest="changes",
        metavar="KEY=VALUE",
        help="change an entry of the recipe, e.g. stage2.loop.steps=100",
    )
    parser.add_argument("--llava", action="append", help="a LLaVA-style JSON file to mix in")
    parser.add_argument(
        "--unnorm-key",
        default="",
        help="name of the data's statistics in the checkpoint; none: the robot file's",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print model, data, memory and steps; train nothing"
    )
    add_machine_arguments(parser)


def add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that change how fast, not what comes out."""
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="where to train")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0: torch's choice")
    parser.add_argument(
        "--workers",
        type=int,
        default=max(0, min(8, (os.cpu_count() or 1) - 1)),
        help="processes that prepare batches ahead",
    )
    parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard files too")


def run(args: argparse.Namespace) -> int:
    """Run the stages asked for."""
    from dataclasses import replace

    from internvla_ros.train.job import Job, Options, with_data
    from internvla_ros.train.recipe import load_recipe

    recipe: Recipe = load_recipe(args.recipe, args.changes or ())
    folders: tuple[Path, ...] = tuple(Path(s.path) for s in recipe.data.sets if s.path)
    if args.data:
        recipe, folders = with_data(recipe, args.data, args.unnorm_key)
    if args.llava:
        recipe = replace(recipe, data=replace(recipe.data, llava=tuple(args.llava)))
    if args.dry_run:
        from internvla_ros.train.dry_run import describe

        print(describe(recipe, folders))
        return 0
    if len(folders) != len(recipe.data.sets) or not folders:
        raise ValueError(
            f"the recipe {recipe.name} makes its data itself: use `internvla recipe`, or name "
            "folders with --data"
        )
    options = Options(
        out=args.out,
        data=folders,
        held_out=tuple(args.held_out or ()),
        resume=args.resume,
        stop_after=args.stop_after or math.inf,
        device=args.device,
        threads=args.threads,
        workers=args.workers,
        tensorboard=args.tensorboard,
        stage1=args.stage1,
    )
    return 0 if Job(recipe, options, STAGE_NAMES[args.stage]).run() else EXIT_UNFINISHED


def _minutes(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected minutes above 0, found {text}")
    return value
