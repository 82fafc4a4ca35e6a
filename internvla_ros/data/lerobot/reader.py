"""Reading LeRobot v2.1 datasets, our own and others'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from internvla_ros.data.episode import Episode
from internvla_ros.data.lerobot import layout, video
from internvla_ros.data.lerobot.layout import DatasetError


@dataclass(frozen=True)
class RecordedEpisode:
    """The columns of one stored episode, without its videos.

    Attributes:
        index: the episode's number in its dataset.
        instruction: its (first) task in words.
        columns: name -> [T] or [T, n] array; binary columns are object arrays of bytes.
        meta: its line of meta/episodes.jsonl.
        path: the parquet file.
    """

    index: int
    instruction: str
    columns: Mapping[str, NDArray[Any]]
    meta: Mapping[str, Any]
    path: Path

    def __len__(self) -> int:
        return int(self.meta["length"])

    def column(self, name: str) -> NDArray[Any]:
        """A column by name; DatasetError names the file that lacks it."""
        if name not in self.columns:
            raise DatasetError(
                f"{self.path} has no column {name!r}, only {', '.join(sorted(self.columns))}"
            )
        return self.columns[name]

    def field(self, name: str) -> Any:
        """A value of the episode's metadata such as "pick", "objects" or "seed"."""
        if name not in self.meta:
            raise DatasetError(
                f"episode {self.index} has no {name!r} in {layout.EPISODES}: "
                "the dataset carries no such annotation"
            )
        return self.meta[name]

    @property
    def state(self) -> NDArray[np.float32]:
        """float[T, 10]."""
        return self.column("observation.state")

    @property
    def action(self) -> NDArray[np.float32]:
        """float[T, 7]."""
        return self.column("action")

    @property
    def boxes(self) -> NDArray[np.float32]:
        """float[T, N, 4], pixels of the front image, one for each name of the field "objects"."""
        count = len(self.field("objects"))
        return self.column("annotation.boxes")[:, : 4 * count].reshape(-1, count, 4)

    @property
    def trace(self) -> NDArray[np.float32]:
        """float[T, 10, 2], pixels: the tip's path from now (first) to the end (last)."""
        return self.column("annotation.trace").reshape(len(self), -1, 2)


class LeRobotDataset:
    """A dataset on disk; metadata is read at once, columns and videos when asked for.

    Attributes:
        root: its folder.
        info: the content of meta/info.json.
        fps: frames a second.
        episodes: the lines of meta/episodes.jsonl, by episode index.
        tasks: task index -> words.
        cameras: camera name -> video feature, e.g. "front" -> "observation.images.front".

    Raises:
        DatasetError: metadata is missing, incomplete, or of another version.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise DatasetError(f"{self.root} is not a folder")
        self.info = _read_info(self.root / layout.INFO)
        self.fps = float(self.info["fps"])
        self.features: Mapping[str, Any] = self.info["features"]
        self.cameras = {
            name.removeprefix(layout.IMAGE_PREFIX).removeprefix("video."): name
            for name, feature in self.features.items()
            if feature.get("dtype") == "video"
        }
        self.tasks = _read_tasks(self.root / layout.TASKS)
        self.episodes = _read_episodes(
            self.root / layout.EPISODES, int(self.info["total_episodes"])
        )

    def __len__(self) -> int:
        return len(self.episodes)

    def size(self, camera: str) -> tuple[int, int]:
        """The stored (width, height) of a camera."""
        height, width, _ = self.features[self._video_key(camera)]["shape"]
        return int(width), int(height)

    def episode(self, index: int, columns: Sequence[str] | None = None) -> RecordedEpisode:
        """The columns of an episode (all that are declared, or those named), without videos.

        Raises:
            DatasetError: no such episode, or its file is missing, damaged, lacks a column or has
                another number of rows than the metadata says.
        """
        meta = self._meta(index)
        path = self.root / self._format(self.info["data_path"], index)
        declared = [name for name, feature in self.features.items() if feature["dtype"] != "video"]
        names = declared if columns is None else list(columns)
        table = _read_parquet(path, names)
        if table.num_rows != meta["length"]:
            raise DatasetError(
                f"{path} has {table.num_rows} rows where {layout.EPISODES} says {meta['length']}"
            )
        values = {name: _to_array(table[name]) for name in names}
        return RecordedEpisode(index, self._instruction(meta), values, meta, path)

    def has_video(self, index: int, camera: str) -> bool:
        """The video's file is there."""
        return self.video_path(index, camera).is_file()

    def video_path(self, index: int, camera: str) -> Path:
        """Where the video of an episode's camera is stored."""
        key = self._video_key(camera)
        return self.root / self._format(self.info["video_path"], index, video_key=key)

    def frames(
        self, index: int, camera: str, size: tuple[int, int] | None = None
    ) -> NDArray[np.uint8]:
        """Decode a camera's frames to uint8[T, h, w, 3], resized to (width, height) if given.

        Raises:
            DatasetError: the video is missing, damaged or of another length.
        """
        length = int(self._meta(index)["length"])
        return video.decode(self.video_path(index, camera), length, size)

    def load(self, index: int) -> Episode:
        """The whole episode with its videos, as it was written (images lossily compressed)."""
        recorded = self.episode(index)
        return Episode(
            images={camera: self.frames(index, camera) for camera in self.cameras},
            state=recorded.state,
            action=recorded.action,
            boxes=recorded.boxes,
            pick_point=recorded.column("annotation.point.pick"),
            place_point=recorded.column("annotation.point.place"),
            tip_pixel=recorded.trace[:, 0],
            timestamps=recorded.column("timestamp"),
            instruction=recorded.instruction,
            pick=recorded.field("pick"),
            place=recorded.field("place"),
            relation=recorded.field("relation"),
            objects=tuple(recorded.field("objects")),
            seed=recorded.field("seed"),
            success=recorded.field("success"),
        )

    def _meta(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self.episodes):
            raise DatasetError(
                f"{self.root} has episodes 0 to {len(self.episodes) - 1}, not {index}"
            )
        return self.episodes[index]

    def _format(self, template: str, index: int, **values: str) -> str:
        chunk = index // int(self.info["chunks_size"])
        return template.format(episode_chunk=chunk, episode_index=index, **values)

    def _video_key(self, camera: str) -> str:
        if camera in self.cameras:
            return self.cameras[camera]
        if camera in self.cameras.values():
            return camera
        raise DatasetError(
            f"{self.root} has no camera {camera!r}, only {', '.join(sorted(self.cameras))}"
        )

    def _instruction(self, meta: Mapping[str, Any]) -> str:
        tasks = meta.get("tasks") or [""]
        return str(tasks[0])


def _read_info(path: Path) -> dict[str, Any]:
    info = layout.read_json(path)
    version = info.get("codebase_version")
    if version != layout.CODEBASE_VERSION:
        raise DatasetError(
            f"{path}: codebase_version is {version!r}, this reader reads "
            f"{layout.CODEBASE_VERSION!r}: convert the dataset with LeRobot's scripts"
        )
    needed = ("total_episodes", "chunks_size", "fps", "data_path", "features")
    missing = [name for name in needed if name not in info]
    if missing:
        raise DatasetError(f"{path} lacks {', '.join(missing)}")
    return info


def _read_tasks(path: Path) -> dict[int, str]:
    rows = layout.read_json_lines(path)
    try:
        return {int(row["task_index"]): str(row["task"]) for row in rows}
    except KeyError as error:
        raise DatasetError(f"{path} has a line without {error}") from error


def _read_episodes(path: Path, total: int) -> list[dict[str, Any]]:
    rows = layout.read_json_lines(path)
    if len(rows) < total:
        raise DatasetError(f"{path} lists {len(rows)} episodes where {layout.INFO} counts {total}")
    for number, row in enumerate(rows):
        if row.get("episode_index") != number or "length" not in row:
            raise DatasetError(
                f"{path}:{number + 1} must be episode_index {number} with its length"
            )
    return rows


def _read_parquet(path: Path, names: Sequence[str]) -> pa.Table:
    try:
        file = pq.ParquetFile(path)
        present = set(file.schema_arrow.names)
        missing = [name for name in names if name not in present]
        if missing:
            raise DatasetError(
                f"{path} lacks the column {', '.join(missing)}; it has {', '.join(sorted(present))}"
            )
        return file.read(columns=list(names))
    except FileNotFoundError:
        raise DatasetError(f"{path} does not exist") from None
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} cannot be read as parquet: {error}") from error


def _to_array(column: pa.ChunkedArray) -> NDArray[Any]:
    """[T] for scalars, [T, n] for lists of one length, objects for everything else."""
    array = column.combine_chunks()
    kind = array.type
    if not (pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)):
        return array.to_numpy(zero_copy_only=False)
    values = array.flatten()
    regular = len(array) > 0 and array.null_count == 0 and len(values) % len(array) == 0
    if regular and pa.types.is_list(kind):
        widths = np.diff(array.offsets.to_numpy())
        regular = bool((widths == widths[0]).all())
    if not regular or pa.types.is_nested(kind.value_type):
        rows = array.to_pylist()
        out = np.empty(len(rows), object)
        out[:] = [np.asarray(row) for row in rows]
        return out
    return values.to_numpy(zero_copy_only=False).reshape(len(array), -1)
