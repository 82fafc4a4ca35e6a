"""Whether a dataset on disk is what its metadata says, episode by episode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from internvla_ros.data.lerobot import layout, video
from internvla_ros.data.lerobot.layout import DatasetError
from internvla_ros.data.lerobot.places import VideoPlace
from internvla_ros.data.lerobot.reader import LeRobotDataset, to_array
from internvla_ros.data.lerobot.remux import count_frames

TIME_TOLERANCE = 1e-4
"""Seconds that a timestamp may be off the grid of 1/fps: what LeRobot's own reader allows."""
_REQUIRED = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def problems(root: str | Path, decode: bool = False, progress: bool = True) -> list[str]:
    """Everything that is wrong with a dataset, each in a sentence that names the file or episode.

    Args:
        root: the dataset.
        decode: decode every video instead of counting its frames.
        progress: show a bar.

    Raises:
        DatasetError: its metadata cannot be read at all.
    """
    dataset = LeRobotDataset(root)
    found = list(_metadata_problems(dataset))
    first = 0
    bar = tqdm(range(len(dataset)), "checking", unit="episode", disable=not progress)
    counted: dict[Path, int] = {}
    for index in bar:
        found += [f"episode {index}: {words}" for words in _row_problems(dataset, index, first)]
        found += [
            f"episode {index}: {words}"
            for camera in dataset.cameras
            for words in _video_problems(dataset, index, camera, decode, counted)
        ]
        first += int(dataset.episodes[index]["length"])
    return found


def _metadata_problems(dataset: LeRobotDataset) -> Iterator[str]:
    info = dataset.info
    counts = {
        "total_episodes": len(dataset),
        "total_frames": sum(int(row["length"]) for row in dataset.episodes),
        "total_tasks": len(dataset.tasks),
    }
    for name, count in counts.items():
        if info.get(name) != count:
            yield f"{layout.INFO}: {name} is {info.get(name)}, but there are {count}"
    missing = [name for name in _REQUIRED if name not in dataset.features]
    if missing:
        yield f"{layout.INFO}: features lack {', '.join(missing)}"
    slashed = [name for name in dataset.features if "/" in name]
    if slashed:
        yield f"{layout.INFO}: no feature's name may have a slash: {', '.join(slashed)}"
    if sorted(dataset.tasks) != list(range(len(dataset.tasks))):
        yield "the tasks' numbers are not 0, 1, 2, ..."
    yield from (
        f"{path} was left by an interrupted writer"
        for path in sorted(dataset.root.rglob(f"*{layout.TEMPORARY_SUFFIX}"))
    )


def _row_problems(dataset: LeRobotDataset, index: int, first: int) -> Iterator[str]:
    names = [name for name, feature in dataset.features.items() if feature["dtype"] != "video"]
    try:
        table = dataset.rows(index, names)
    except DatasetError as error:
        yield str(error)
        return
    columns = {name: to_array(table[name]) for name in names if name in table.column_names}
    for name, values in columns.items():
        yield from _shape_problems(name, values, dataset.features[name])
    rows = np.arange(table.num_rows)
    wanted = {
        "frame_index": rows,
        "index": rows + first,
        "episode_index": np.full(len(rows), index),
    }
    for name, expected in wanted.items():
        if name in columns and not np.array_equal(columns[name], expected):
            yield f"{name} does not run from {expected[0]} to {expected[-1]}"
    if "timestamp" in columns:
        off = np.abs(columns["timestamp"] - rows / dataset.fps)
        if off.max() > TIME_TOLERANCE:
            yield f"timestamps are up to {off.max():.4f} s off the grid of {dataset.fps:g} a second"
    unknown = set(columns.get("task_index", rows[:0]).tolist()) - set(dataset.tasks)
    if unknown:
        yield f"task_index {sorted(unknown)[0]} is no known task"


def _shape_problems(name: str, values: NDArray[Any], feature: Mapping[str, Any]) -> Iterator[str]:
    shape: Sequence[int] = feature["shape"]
    if values.dtype == object:
        if feature["dtype"] not in ("binary", "string", "image"):
            yield f"{name} has rows of different lengths"
        return
    if list(shape) == [1] and values.ndim > 1:
        yield f"{name} holds lists of one number, where LeRobot's reader wants numbers: convert it"
    width = int(np.prod(values.shape[1:]))
    if width != int(np.prod(shape)):
        yield f"{name} has {width} numbers a row where its shape is {list(shape)}"
    if values.dtype != np.dtype(feature["dtype"]):
        yield f"{name} is {values.dtype}, declared as {feature['dtype']}"


def _video_problems(
    dataset: LeRobotDataset, index: int, camera: str, decode: bool, counted: dict[Path, int]
) -> Iterator[str]:
    key = dataset.video_key(camera)
    place = dataset.places.video(index, key)
    if place is None or not place.path.is_file():
        yield f"no video of {camera}" + (f" ({place.path})" if place else "")
        return
    length = int(dataset.episodes[index]["length"])
    try:
        if decode:
            images = list(video.stream(place.path, length, place.start))
            yield from _size_problems(images[0], key, dataset.features[key], place)
            return
        if place.path not in counted:
            counted[place.path] = count_frames(place.path)
    except DatasetError as error:
        yield str(error)
        return
    begin = round((place.start or 0.0) * dataset.fps)
    frames = counted[place.path]
    if (place.start is None and frames != length) or begin + length > frames:
        yield f"{place.path} has {frames} frames where frames {begin} to {begin + length} are asked"


def _size_problems(
    image: NDArray[np.uint8], key: str, feature: Mapping[str, Any], place: VideoPlace
) -> Iterator[str]:
    if sorted(image.shape) != sorted(feature["shape"]):
        yield f"{place.path} is {list(image.shape)}, {key} is declared as {feature['shape']}"
