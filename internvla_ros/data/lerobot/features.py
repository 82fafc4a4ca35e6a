"""How an Episode becomes columns, their description and their statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from internvla_ros.data.episode import Episode
from internvla_ros.data.lerobot.layout import TRACE_WAYPOINTS, DatasetError, video_key
from internvla_ros.data.lerobot.video import PIXEL_FORMAT
from internvla_ros.data.trace import future_waypoints

STATE_NAMES = ["x", "y", "z", "r00", "r10", "r20", "r01", "r11", "r21", "gripper"]
ACTION_NAMES = ["dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"]
BOX_NAMES = ["x1", "y1", "x2", "y2"]
POINT_NAMES = ["x", "y"]
INDEX_COLUMNS = ("frame_index", "episode_index", "index", "task_index")
IMAGE_SAMPLES = 10

MODALITIES: dict[str, dict[str, dict[str, Any]]] = {
    "state": {
        "tip_position": {"start": 0, "end": 3, "original_key": "observation.state"},
        "tip_rotation": {"start": 3, "end": 9, "original_key": "observation.state"},
        "gripper": {"start": 9, "end": 10, "original_key": "observation.state"},
    },
    "action": {
        "delta_position": {"start": 0, "end": 3, "original_key": "action"},
        "delta_rotation": {"start": 3, "end": 6, "original_key": "action"},
        "gripper": {"start": 6, "end": 7, "original_key": "action"},
    },
    "annotation": {
        "human.action.task_description": {"original_key": "task_index"},
        "box.pick": {"original_key": "annotation.box.pick"},
        "box.place": {"original_key": "annotation.box.place"},
        "point.pick": {"original_key": "annotation.point.pick"},
        "point.place": {"original_key": "annotation.point.place"},
        "trace": {"original_key": "annotation.trace"},
        "boxes": {"original_key": "annotation.boxes"},
    },
}


def modalities(cameras: tuple[str, ...]) -> dict[str, Any]:
    """The content of meta/modality.json."""
    videos = {camera: {"original_key": video_key(camera)} for camera in cameras}
    return {**MODALITIES, "video": videos}


def describe(
    sizes: Mapping[str, tuple[int, int]], fps: float, max_objects: int
) -> dict[str, dict[str, Any]]:
    """The `features` of meta/info.json; `sizes` are (width, height) of each camera."""
    features: dict[str, dict[str, Any]] = {
        "observation.state": _vector(STATE_NAMES),
        "action": _vector(ACTION_NAMES),
        "annotation.box.pick": _vector(BOX_NAMES),
        "annotation.box.place": _vector(BOX_NAMES),
        "annotation.point.pick": _vector(POINT_NAMES),
        "annotation.point.place": _vector(POINT_NAMES),
        "annotation.trace": _vector(
            [f"{axis}{point}" for point in range(TRACE_WAYPOINTS) for axis in "xy"]
        ),
        "annotation.boxes": _vector(
            [f"{side}_{item}" for item in range(max_objects) for side in BOX_NAMES]
        ),
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    }
    features |= {name: {"dtype": "int64", "shape": [1], "names": None} for name in INDEX_COLUMNS}
    features |= {
        video_key(camera): _video(width, height, fps) for camera, (width, height) in sizes.items()
    }
    return features


def _vector(names: list[str]) -> dict[str, Any]:
    return {"dtype": "float32", "shape": [len(names)], "names": names}


def _video(width: int, height: int, fps: float) -> dict[str, Any]:
    return {
        "dtype": "video",
        "shape": [height, width, 3],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": height,
            "video.width": width,
            "video.codec": "h264",
            "video.pix_fmt": PIXEL_FORMAT,
            "video.is_depth_map": False,
            "video.fps": fps,
            "video.channels": 3,
            "has_audio": False,
        },
    }


def columns(
    episode: Episode, fps: float, episode_index: int, first: int, task: int, max_objects: int
) -> dict[str, NDArray[Any]]:
    """The parquet columns of an episode: [T] or [T, n] arrays.

    The boxes of all objects stand one after the other in `annotation.boxes`, in the order of
    the episode's object names, filled up with NaN to `max_objects`.

    Raises:
        DatasetError: more than `max_objects` objects, or timestamps off the `fps` grid.
    """
    frames = len(episode)
    count = len(episode.objects)
    if count > max_objects:
        raise DatasetError(
            f"an episode of {count} objects does not fit a dataset of at most {max_objects}: "
            "open the writer with a larger max_objects"
        )
    boxes = np.full((frames, max_objects, 4), np.nan, np.float32)
    boxes[:, :count] = episode.boxes
    numbers = np.arange(frames, dtype=np.int64)
    return {
        "observation.state": episode.state.astype(np.float32),
        "action": episode.action.astype(np.float32),
        "annotation.box.pick": boxes[:, episode.objects.index(episode.pick)],
        "annotation.box.place": boxes[:, episode.objects.index(episode.place)],
        "annotation.point.pick": episode.pick_point.astype(np.float32),
        "annotation.point.place": episode.place_point.astype(np.float32),
        "annotation.trace": future_waypoints(episode.tip_pixel, TRACE_WAYPOINTS)
        .reshape(frames, -1)
        .astype(np.float32),
        "annotation.boxes": boxes.reshape(frames, -1),
        "timestamp": _grid_times(episode, fps),
        "frame_index": numbers,
        "episode_index": np.full(frames, episode_index, np.int64),
        "index": numbers + first,
        "task_index": np.full(frames, task, np.int64),
    }


def _grid_times(episode: Episode, fps: float) -> NDArray[np.float32]:
    """Multiples of 1/fps, which the layout demands; the recorded times must be near them."""
    grid = np.arange(len(episode)) / fps
    drift = np.abs(episode.timestamps - episode.timestamps[0] - grid)
    if drift.max() > 0.5 / fps:
        frame = int(np.argmax(drift > 0.5 / fps))
        raise DatasetError(
            f"frame {frame} was recorded at {episode.timestamps[frame]:.3f} s, more than half a "
            f"frame off {fps:g} frames a second: resample it first"
        )
    return grid.astype(np.float32)


def statistics(
    table: Mapping[str, NDArray[Any]], images: Mapping[str, NDArray[np.uint8]]
) -> dict[str, dict[str, list[Any]]]:
    """One episode's min, max, mean, std and count of every feature.

    NaN is left out (a feature of nothing else counts as 0); images, as 0..1 and by channel,
    are sampled.
    """
    stats = {name: _summary(_two_dimensional(values)) for name, values in table.items()}
    for camera, frames in images.items():
        chosen = np.unique(np.linspace(0, len(frames) - 1, IMAGE_SAMPLES).round().astype(int))
        pixels = frames[chosen, ::4, ::4].reshape(-1, 3) / 255.0
        summary = _summary(pixels)
        shaped = {name: [[[value]] for value in values] for name, values in summary.items()}
        stats[video_key(camera)] = {**shaped, "count": [len(chosen)]}
    return stats


def _two_dimensional(values: NDArray[Any]) -> NDArray[Any]:
    return values[:, None] if values.ndim == 1 else values


def _summary(values: NDArray[Any]) -> dict[str, list[Any]]:
    """min, max, mean, std of each column of [T, n] and the row count, NaN left out."""
    count = len(values)
    if np.issubdtype(values.dtype, np.floating):
        empty = np.isnan(values).all(axis=0)
        values = np.where(empty, 0.0, values.astype(np.float64))
    return {
        "min": np.nanmin(values, axis=0).tolist(),
        "max": np.nanmax(values, axis=0).tolist(),
        "mean": np.nanmean(values, axis=0).tolist(),
        "std": np.nanstd(values, axis=0).tolist(),
        "count": [count],
    }
