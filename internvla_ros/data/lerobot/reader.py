"""Reading LeRobot datasets of versions 2.1 and 3.0, our own and others'."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from internvla_ros.data.episode import Episode
from internvla_ros.data.lerobot import layout, video
from internvla_ros.data.lerobot.layout import DatasetError
from internvla_ros.data.lerobot.places import VideoPlace, places


@dataclass(frozen=True)
class RecordedEpisode:
    """The columns of one stored episode, without its videos.

    Attributes:
        index: the episode's number in its dataset.
        instruction: its (first) task in words.
        columns: name -> [T] or [T, n] array; binary columns are object arrays of bytes.
        meta: its line of meta/episodes.jsonl, or what a v3.0 dataset says of it.
        path: the parquet file, which it may share with others.
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
                f"episode {self.index} has no {name!r} in its metadata: "
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
        version: "v2.1" or "v3.0".
        fps: frames a second.
        places: where each episode's parts lie.
        episodes: what is known of each episode, as the lines of v2.1's meta/episodes.jsonl.
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
        self.version = str(self.info["codebase_version"])
        self.places = places(self.root, self.info)
        self.tasks = self.places.tasks
        self.episodes = self.places.episodes

    def __len__(self) -> int:
        return len(self.episodes)

    def size(self, camera: str) -> tuple[int, int]:
        """The stored (width, height) of a camera."""
        height, width, _ = self.features[self.video_key(camera)]["shape"]
        return int(width), int(height)

    def episode(self, index: int, columns: Sequence[str] | None = None) -> RecordedEpisode:
        """The columns of an episode (all that are declared, or those named), without videos.

        Raises:
            DatasetError: no such episode, or its file is missing, damaged, lacks a column or has
                another number of rows than the metadata says.
        """
        declared = [name for name, feature in self.features.items() if feature["dtype"] != "video"]
        names = declared if columns is None else list(columns)
        table = self.rows(index, names)
        meta = self._meta(index)
        values = {name: to_array(table[name]) for name in names}
        path = self.places.data_path(index)
        return RecordedEpisode(index, self._instruction(meta), values, meta, path)

    def rows(self, index: int, columns: Sequence[str]) -> pa.Table:
        """These columns of an episode as they are stored; raises as `episode` does."""
        meta = self._meta(index)
        table = self.places.rows(index, columns)
        if table.num_rows != meta["length"]:
            raise DatasetError(
                f"{self.places.data_path(index)} has {table.num_rows} rows of episode {index} "
                f"where {self.places.source} says {meta['length']}"
            )
        return table

    def has_video(self, index: int, camera: str) -> bool:
        """The video's file is there."""
        place = self._place(index, camera)
        return place is not None and place.path.is_file()

    def video_path(self, index: int, camera: str) -> Path:
        """The video of an episode's camera, which a v3.0 dataset's episodes share."""
        return self._video(index, camera).path

    def frames(
        self, index: int, camera: str, size: tuple[int, int] | None = None
    ) -> NDArray[np.uint8]:
        """Decode a camera's frames to uint8[T, h, w, 3], resized to (width, height) if given.

        Raises:
            DatasetError: the video is missing, damaged or of another length.
        """
        place = self._video(index, camera)
        return video.decode(place.path, int(self._meta(index)["length"]), size, place.start)

    def stream(self, index: int, camera: str) -> Iterator[NDArray[np.uint8]]:
        """Decode a camera frame by frame, T times uint8[h, w, 3]; raises as `frames` does."""
        place = self._video(index, camera)
        return video.stream(place.path, int(self._meta(index)["length"]), place.start)

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

    def _place(self, index: int, camera: str) -> VideoPlace | None:
        self._meta(index)
        return self.places.video(index, self.video_key(camera))

    def _video(self, index: int, camera: str) -> VideoPlace:
        place = self._place(index, camera)
        if place is None:
            raise DatasetError(f"episode {index} of {self.root} has no video of {camera}")
        return place

    def video_key(self, camera: str) -> str:
        """The feature of a camera, which may be named by either."""
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
    if version not in layout.VERSIONS:
        raise DatasetError(
            f"{path}: codebase_version is {version!r}, this reader reads "
            f"{' and '.join(layout.VERSIONS)}: convert the dataset with LeRobot's scripts"
        )
    needed = ("total_episodes", "chunks_size", "fps", "data_path", "features")
    missing = [name for name in needed if name not in info]
    if missing:
        raise DatasetError(f"{path} lacks {', '.join(missing)}")
    return info


def unwrapped(table: pa.Table, features: Mapping[str, Any]) -> pa.Table:
    """Lists of one number as numbers, where the shape is [1]: what LeRobot's own reader demands.

    Some datasets (InternData-M1) store lists there.
    """
    for place, name in enumerate(table.column_names):
        column = table[name]
        alone = list(features.get(name, {}).get("shape", ())) == [1]
        if alone and _is_list(column.type) and not pa.types.is_nested(column.type.value_type):
            values = pc.list_flatten(column)
            if len(values) == len(column):
                table = table.set_column(place, name, values)
    return table


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind))


def to_array(column: pa.ChunkedArray) -> NDArray[Any]:
    """[T] for scalars, [T, n] for lists of one length, objects for everything else."""
    array = column.combine_chunks()
    kind = array.type
    if not _is_list(kind):
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
