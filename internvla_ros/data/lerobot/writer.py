"""Writing a LeRobot dataset, episode by episode.

An episode counts once its line stands in meta/episodes.jsonl, which is written after its files
and before the totals in meta/info.json. Whatever an interrupted writer leaves before that line is
removed when the dataset is opened again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from internvla_ros.data.episode import Episode
from internvla_ros.data.lerobot import features, layout, video
from internvla_ros.data.lerobot.layout import DatasetError

DEFAULT_MAX_OBJECTS = 8


class EpisodeWriter:
    """Appends episodes to a dataset; one writer at a time.

    Args:
        root: the dataset's folder: new, empty, or written by an EpisodeWriter before, which is
            then continued.
        fps: frames a second.
        cameras: the cameras to store, a subset of each episode's images, one size for each.
        robot_type: the embodiment's name.
        max_objects: the most objects that an episode may have.

    Attributes:
        seeds: the seeds of the episodes that are in the dataset.

    Raises:
        DatasetError: the folder holds something else, a dataset of another kind, or another
            writer is at it.
    """

    def __init__(
        self,
        root: str | Path,
        fps: float,
        cameras: Sequence[str] = ("front", "wrist"),
        robot_type: str = "wx250s",
        max_objects: int = DEFAULT_MAX_OBJECTS,
    ) -> None:
        self.root = Path(root)
        self.fps = fps
        self.cameras = tuple(cameras)
        self.robot_type = robot_type
        self.max_objects = max_objects
        self.seeds: set[int] = set()
        self._features: dict[str, Any] = {}
        self._tasks: dict[str, int] = {}
        self._episodes = 0
        self._frames = 0
        _require_own_folder(self.root)
        (self.root / "meta").mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.root / "meta")
        try:
            self._resume()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return self._episodes

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the folder free; the dataset on disk is complete after every `write`."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def write(self, episode: Episode) -> int:
        """Store an episode and return its index.

        Raises:
            DatasetError: it does not fit this dataset (cameras, sizes, objects, timing).
        """
        if self._lock is None:
            raise DatasetError(f"the writer of {self.root} is closed")
        images = self._images(episode)
        index, task = self._episodes, self._tasks.get(episode.instruction, len(self._tasks))
        table = features.columns(episode, self.fps, index, self._frames, task, self.max_objects)
        self._declare(images)
        for camera, frames in images.items():
            video.encode(self._video_path(camera, index), frames, self.fps)
        _write_parquet(self._data_path(index), table)
        stats = {"episode_index": index, "stats": features.statistics(table, images)}
        layout.append_json_line(self.root / layout.EPISODES_STATS, stats)
        if episode.instruction not in self._tasks:
            row = {"task_index": task, "task": episode.instruction}
            layout.append_json_line(self.root / layout.TASKS, row)
            self._tasks[episode.instruction] = task
        layout.append_json_line(self.root / layout.EPISODES, _episode_row(index, episode))
        self._episodes += 1
        self._frames += len(episode)
        self.seeds.add(episode.seed)
        self._write_info()
        return index

    def _images(self, episode: Episode) -> dict[str, NDArray[np.uint8]]:
        missing = [camera for camera in self.cameras if camera not in episode.images]
        if missing:
            raise DatasetError(
                f"the episode has no camera {', '.join(missing)}, only {', '.join(episode.images)}"
            )
        return {camera: episode.images[camera] for camera in self.cameras}

    def _declare(self, images: dict[str, NDArray[np.uint8]]) -> None:
        """Fix the features by the first episode; later ones must have the same image sizes."""
        sizes = {name: (frames.shape[2], frames.shape[1]) for name, frames in images.items()}
        described = features.describe(sizes, self.fps, self.max_objects)
        if not self._features:
            self._features = described
            self._write_info()
            modality = features.modalities(self.cameras)
            layout.write_json(self.root / layout.MODALITY, modality)
        for camera in self.cameras:
            key = layout.video_key(camera)
            stored, given = self._features[key]["shape"], described[key]["shape"]
            if stored != given:
                raise DatasetError(
                    f"camera {camera} is {given[1]}x{given[0]} in this episode, but "
                    f"{stored[1]}x{stored[0]} in {self.root}"
                )

    def _resume(self) -> None:
        """Take up an existing dataset and remove what an interrupted writer left."""
        path = self.root / layout.INFO
        if not path.exists():
            return
        info = layout.read_json(path)
        self._require_same_kind(info)
        self._features = info["features"]
        rows = layout.read_json_lines(self.root / layout.EPISODES, drop_torn_end=True)
        stats = layout.read_json_lines(self.root / layout.EPISODES_STATS, drop_torn_end=True)
        tasks = layout.read_json_lines(self.root / layout.TASKS, drop_torn_end=True)
        self._tasks = {row["task"]: row["task_index"] for row in tasks}
        self._episodes = len(rows)
        self._frames = sum(row["length"] for row in rows)
        self.seeds = {row["seed"] for row in rows if "seed" in row}
        layout.write_json_lines(self.root / layout.EPISODES, rows)
        layout.write_json_lines(self.root / layout.EPISODES_STATS, stats[: len(rows)])
        layout.write_json_lines(self.root / layout.TASKS, tasks)
        self._remove_leftovers()
        self._write_info()

    def _require_same_kind(self, info: dict[str, Any]) -> None:
        boxes = info.get("features", {}).get("annotation.boxes", {}).get("shape", [None])
        videos = {
            key.removeprefix(layout.IMAGE_PREFIX)
            for key, feature in info.get("features", {}).items()
            if feature.get("dtype") == "video"
        }
        wanted = {
            "codebase_version": (info.get("codebase_version"), layout.CODEBASE_VERSION),
            "fps": (info.get("fps"), self.fps),
            "robot_type": (info.get("robot_type"), self.robot_type),
            "cameras": (sorted(videos), sorted(self.cameras)),
            "width of annotation.boxes": (boxes[0], 4 * self.max_objects),
        }
        for name, (stored, given) in wanted.items():
            if stored != given:
                raise DatasetError(
                    f"{self.root / layout.INFO}: {name} is {stored}, not {given}: write to another "
                    "folder or open it with what it was written with"
                )

    def _remove_leftovers(self) -> None:
        for pattern in ("data/chunk-*/episode_*", "videos/chunk-*/*/episode_*"):
            for path in self.root.glob(pattern):
                number = path.name.removeprefix("episode_").split(".")[0]
                unfinished = path.name.endswith(layout.TEMPORARY_SUFFIX)
                if unfinished or (number.isdigit() and int(number) >= self._episodes):
                    path.unlink()

    def _write_info(self) -> None:
        chunks = -(-self._episodes // layout.CHUNKS_SIZE)
        info = {
            "codebase_version": layout.CODEBASE_VERSION,
            "robot_type": self.robot_type,
            "total_episodes": self._episodes,
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "total_videos": self._episodes * len(self.cameras),
            "total_chunks": chunks,
            "chunks_size": layout.CHUNKS_SIZE,
            "fps": self.fps,
            "splits": {"train": f"0:{self._episodes}"},
            "data_path": layout.DATA_PATH,
            "video_path": layout.VIDEO_PATH,
            "features": self._features,
        }
        layout.write_json(self.root / layout.INFO, info)

    def _data_path(self, index: int) -> Path:
        return self.root / layout.DATA_PATH.format(
            episode_chunk=index // layout.CHUNKS_SIZE, episode_index=index
        )

    def _video_path(self, camera: str, index: int) -> Path:
        return self.root / layout.VIDEO_PATH.format(
            episode_chunk=index // layout.CHUNKS_SIZE,
            episode_index=index,
            video_key=layout.video_key(camera),
        )


def _require_own_folder(root: Path) -> None:
    """Refuse a folder that holds something else than a dataset."""
    if root.exists() and not root.is_dir():
        raise DatasetError(f"{root} is a file, not a folder for a dataset")
    if not root.exists() or (root / layout.INFO).exists():
        return
    known = {"meta", *layout.SIBLINGS}
    others = sorted(entry.name for entry in root.iterdir() if entry.name not in known)
    if others:
        raise DatasetError(
            f"{root} is not empty ({', '.join(others[:3])}) and has no {layout.INFO}: "
            "choose a new folder"
        )


def _lock(folder: Path) -> int | None:
    """Hold an advisory lock on the folder until the returned descriptor is closed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise DatasetError(
            f"{folder.parent} is being written by another process: wait for it or stop it"
        ) from None
    return descriptor


def _write_parquet(path: Path, table: dict[str, NDArray[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + layout.TEMPORARY_SUFFIX)
    arrays = {name: pa.array(list(values)) for name, values in table.items()}
    pq.write_table(pa.table(arrays), temporary)
    os.replace(temporary, path)


def _episode_row(index: int, episode: Episode) -> dict[str, Any]:
    return {
        "episode_index": index,
        "tasks": [episode.instruction],
        "length": len(episode),
        "pick": episode.pick,
        "place": episode.place,
        "relation": episode.relation,
        "objects": list(episode.objects),
        "seed": int(episode.seed),
        "success": bool(episode.success),
    }
