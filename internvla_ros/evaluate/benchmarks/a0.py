"""A0's trajectories in ManiSkill: the path in the picture that a task takes.

Layout (github.com/A-embodied/A0, its readme and its loader; huggingface.co/datasets/JianZhangAI/
A0-Dataset, folder `maniskill`): a folder for each class of tasks with `label/out*.json`, each
{"metadata": {"instructions", "validRange": {"start", "end"}}, "waypoints2d": [[x, y], ...],
"cam_highs": [paths below the class's folder]}; waypoint and picture number 0 are those of frame
"start", waypoints are pixels. `train_test_split.json` names the files of "train" and "test"; A0's
own code draws it at random where it is missing, so that test sets differ; without it all files are
read.

A0 publishes its mean absolute error (5.5 px) over points four or five frames apart, from a frame
drawn at random on. Here the question is asked about the first picture and its answer is the whole
path to the end, as in this model's training; which of these InternVLA-M1's figure is of could not
be found out. The data could not be had here: the reader is tested on files of this layout made by
the tests. The other sets of A0 (DROID, HOI4D) are not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from internvla_ros.evaluate.benchmarks.sample import (
    Benchmark,
    BenchmarkError,
    Sample,
    Truth,
    entry,
    field,
    numbers,
    picture,
    read_json,
)
from internvla_ros.spatial.prompts import clean_instruction, trace_prompt

SPLIT_FILE = "train_test_split.json"


def open_a0(root: Path, split: str | None) -> Benchmark:
    """The questions of a split, "test" unless told; raises BenchmarkError."""
    root = root / "maniskill" if (root / "maniskill").is_dir() else root
    if (root / SPLIT_FILE).is_file():
        named = field(
            entry(read_json(root / SPLIT_FILE), str(root / SPLIT_FILE)),
            split or "test", list, str(root / SPLIT_FILE),
        )  # fmt: skip
        # The names were written on another machine: the last three parts are class/label/file.
        files = [root.joinpath(*Path(str(name)).parts[-3:]) for name in named]
    elif split is not None:
        raise BenchmarkError(f"{root} has no {SPLIT_FILE}, hence no split {split!r}")
    else:
        files = sorted(root.glob("*/label/out*.json"))
    if not files:
        raise BenchmarkError(f"{root} has no CLASS/label/out*.json of A0's ManiSkill set")
    return _A0(files)


class _A0:
    def __init__(self, files: list[Path]) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        path = self._files[index]
        where = str(path)
        row = entry(read_json(path), where)
        about = entry(row.get("metadata"), f"{where}, metadata")
        pictures = field(row, "cam_highs", list, where)
        path_ahead = numbers(row.get("waypoints2d"), (-1, 2), "waypoints2d", where)
        if not pictures or len(path_ahead) < 2:
            raise BenchmarkError(
                f"{where} has {len(pictures)} pictures and {len(path_ahead)} waypoints"
            )
        folder = path.parent.parent
        return Sample(
            name=f"{folder.name}/{path.stem}",
            group=f"{folder.name}/{path.stem}",
            views=picture(folder / str(pictures[0]), where),
            question=trace_prompt(_instruction(about, where)),
            truth=Truth(trace=path_ahead),
        )


def _instruction(about: dict[str, Any], where: str) -> str:
    told = about.get("instructions")
    if isinstance(told, list) and told:
        told = told[0]
    if not isinstance(told, str) or not told.strip():
        raise BenchmarkError(f"{where}: instructions are {told!r:.40}, not text")
    return clean_instruction(told)
