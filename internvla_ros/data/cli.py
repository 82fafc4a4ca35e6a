"""`internvla dataset`: tells of, checks, counts and converts datasets."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from internvla_ros.data.chunks import PauseFilter
from internvla_ros.data.grounding.llava import FILE as LLAVA_FILE
from internvla_ros.data.grounding.llava import read_llava
from internvla_ros.data.lerobot import LeRobotDataset
from internvla_ros.data.lerobot.convert import DATA_FILE_MB, VIDEO_FILE_MB, convert
from internvla_ros.data.lerobot.layout import VERSIONS
from internvla_ros.data.lerobot.validate import problems
from internvla_ros.data.mixture import MixtureEntry, load_mixture

SHOWN = 20
PAUSE = PauseFilter()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `internvla dataset`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    info = actions.add_parser("info", help="what a dataset holds")
    info.add_argument("dataset", type=Path, help="folder of a LeRobot dataset")
    info.add_argument("--json", action="store_true", help="print as JSON")
    check = actions.add_parser("validate", help="whether a dataset is what its metadata says")
    check.add_argument(
        "dataset", type=Path, help="folder of a LeRobot dataset, or LLaVA-style JSON"
    )
    check.add_argument("--images", type=Path, help="folder of the pictures that the JSON names")
    check.add_argument("--decode", action="store_true", help="decode every frame of every video")
    count = actions.add_parser("statistics", help="how actions are spread, and which are pauses")
    count.add_argument("dataset", type=Path, help="folder of a LeRobot dataset")
    count.add_argument(
        "--translation", type=float, default=PAUSE.translation, help="m that are still a pause"
    )
    count.add_argument(
        "--rotation", type=float, default=PAUSE.rotation, help="rad that are still a pause"
    )
    count.add_argument("--skip-damaged", action="store_true", help="leave damaged episodes out")
    change = actions.add_parser("convert", help="write a dataset as another version of LeRobot")
    change.add_argument("source", type=Path, help="folder of a LeRobot dataset")
    change.add_argument("target", type=Path, help="new folder")
    change.add_argument("--to", required=True, choices=VERSIONS, help="version to write")
    change.add_argument(
        "--cameras", nargs="+", metavar="NAME", help="cameras to keep (default: all)"
    )
    change.add_argument(
        "--data-mb", type=int, default=DATA_FILE_MB, help="MiB of a v3.0 parquet file"
    )
    change.add_argument(
        "--video-mb", type=int, default=VIDEO_FILE_MB, help="MiB of a v3.0 video file"
    )


def run(args: argparse.Namespace) -> int:
    """Carry out one action; 1 where `validate` finds something wrong."""
    if args.action == "info":
        return _info(args)
    if args.action == "validate":
        return _validate(args)
    if args.action == "statistics":
        return _statistics(args)
    done = convert(args.source, args.target, args.to, args.cameras, args.data_mb, args.video_mb)
    print(f"{args.target}: {done.episodes} episodes, {done.frames} frames, {done.videos} videos")
    if done.encoded:
        print(f"{done.encoded} videos do not begin with a whole picture and were encoded anew")
    return 0


def _info(args: argparse.Namespace) -> int:
    dataset = LeRobotDataset(args.dataset)
    lengths = [int(row["length"]) for row in dataset.episodes]
    told: dict[str, Any] = {
        "version": dataset.version,
        "robot_type": dataset.info.get("robot_type"),
        "fps": dataset.fps,
        "episodes": len(dataset),
        "frames": sum(lengths),
        "tasks": len(dataset.tasks),
        "cameras": {name: list(dataset.size(name)) for name in dataset.cameras},
        "videos_missing": {
            name: sum(not dataset.has_video(index, name) for index in range(len(dataset)))
            for name in dataset.cameras
        },
        "features": {
            name: [feature["dtype"], *feature["shape"]]
            for name, feature in dataset.features.items()
            if feature["dtype"] != "video"
        },
    }
    if args.json:
        print(json.dumps(told, indent=2))
        return 0
    print(f"{args.dataset}: LeRobot {told['version']}, {told['robot_type']}, {dataset.fps:g} Hz")
    print(f"{len(dataset)} episodes, {sum(lengths)} frames, {len(dataset.tasks)} tasks")
    for name in dataset.cameras:
        width, height = dataset.size(name)
        missing = told["videos_missing"][name]
        print(f"camera {name}: {width}x{height}" + (f", {missing} missing" if missing else ""))
    for name, (kind, *shape) in told["features"].items():
        print(f"{name}: {kind} {shape}")
    return 0


def _validate(args: argparse.Namespace) -> int:
    talks = args.dataset.is_file() or (args.dataset / LLAVA_FILE).is_file()
    if talks:
        found: list[str] = []
        for item in tqdm(read_llava(args.dataset, args.images, found), "checking", unit="item"):
            found += item.problems()
    else:
        found = problems(args.dataset, args.decode)
    for words in found[:SHOWN]:
        print(words)
    if len(found) > SHOWN:
        print(f"and {len(found) - SHOWN} more")
    print(f"{args.dataset}: {len(found)} problems" if found else f"{args.dataset} is as it says")
    return 1 if found else 0


def _statistics(args: argparse.Namespace) -> int:
    pauses = PauseFilter(args.translation, args.rotation)
    entry = MixtureEntry(args.dataset, pauses=pauses)
    (part,) = load_mixture([entry], skip=args.skip_damaged).parts
    print(f"{args.dataset}, statistics {part.name}: {part.counts}")
    for words in part.counts.skipped:
        print(words)
    names = part.dataset.features["action"].get("names") or range(part.statistics.action.size)
    rows = ("q01", "q99", "min", "max", "mean", "std")
    print(f"{'action':10}" + "".join(f"{row:>12}" for row in rows))
    for index, name in enumerate(names):
        values = (getattr(part.statistics.action, row)[index] for row in rows)
        scaled = "" if part.statistics.action.mask[index] else "  not scaled"
        print(f"{name!s:10}" + "".join(f"{value:12.5f}" for value in values) + scaled)
    return 0
