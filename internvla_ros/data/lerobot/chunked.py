"""Writing version 3.0: rows and videos of many episodes in a file, and tables that say where."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from internvla_ros.data.lerobot import layout
from internvla_ros.data.lerobot.layout import DatasetError
from internvla_ros.data.lerobot.places import JSON_PREFIX, STATS_PREFIX
from internvla_ros.data.lerobot.reader import LeRobotDataset, unwrapped
from internvla_ros.data.lerobot.remux import VideoJoiner


def write_chunked(
    dataset: LeRobotDataset,
    root: Path,
    kept: dict[str, Any],
    numbers: Iterable[int],
    data_limit: int,
    video_limit: int,
) -> int:
    """Write all episodes of a dataset as v3.0; returns how many frames.

    Args:
        dataset: the source.
        root: a new folder.
        kept: the features to write.
        numbers: all episodes' numbers, maybe with a progress bar around them.
        data_limit, video_limit: bytes a file.
    """
    chunks = int(dataset.info["chunks_size"])
    columns = [name for name, feature in kept.items() if feature["dtype"] != "video"]
    videos = {
        key: VideoJoiner(_video_paths(root, key, chunks), dataset.fps, video_limit)
        for key, feature in kept.items()
        if feature["dtype"] == "video"
    }
    data = _RowWriter(root, chunks, data_limit)
    stats = [
        {name: value for name, value in episode.items() if name in kept}
        for episode in dataset.places.statistics()
    ]
    rows = []
    try:
        for index in numbers:
            length = int(dataset.episodes[index]["length"])
            row = data.write(unwrapped(dataset.rows(index, columns), kept))
            for key, joiner in videos.items():
                joined = joiner.add(dataset.video_path(index, key), length)
                row[f"videos/{key}/chunk_index"] = joined.file // chunks
                row[f"videos/{key}/file_index"] = joined.file % chunks
                row[f"videos/{key}/from_timestamp"] = joined.start
                row[f"videos/{key}/to_timestamp"] = joined.stop
            rows.append(row)
    finally:
        data.close()
        for joiner in videos.values():
            joiner.close()
    _write_episodes_table(root / layout.EPISODES_TABLE, dataset.episodes, rows, stats)
    _write_tasks_table(root / layout.TASKS_TABLE, dataset.tasks)
    layout.write_json(root / layout.STATS, aggregated(stats))
    layout.write_json(root / layout.INFO, _chunked_info(dataset, kept, data_limit, video_limit))
    return data.frames


def _video_paths(root: Path, key: str, chunks: int) -> Callable[[int], Path]:
    def path_of(number: int) -> Path:
        return root / layout.CHUNKED_VIDEO_PATH.format(
            video_key=key, chunk_index=number // chunks, file_index=number % chunks
        )

    return path_of


class _RowWriter:
    """Writes episodes' rows into parquet files of many, a row group for each."""

    def __init__(self, root: Path, chunks: int, limit: int) -> None:
        self.frames = 0
        self._root = root
        self._chunks = chunks
        self._limit = limit
        self._file = -1
        self._bytes = 0
        self._schema: pa.Schema | None = None
        self._writer: pq.ParquetWriter | None = None

    def write(self, table: pa.Table) -> dict[str, Any]:
        """Append an episode; returns where it went, as its row of meta/episodes says it."""
        if self._schema is None:
            self._schema = table.schema
        try:
            table = table.cast(self._schema)
        except (pa.ArrowException, ValueError) as error:
            raise DatasetError(
                f"an episode has columns of other types than the first: {error}"
            ) from error
        if self._writer is None or self._bytes + table.nbytes > self._limit:
            self._begin()
        assert self._writer is not None
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self._bytes += table.nbytes
        first = self.frames
        self.frames += table.num_rows
        return {
            "data/chunk_index": self._file // self._chunks,
            "data/file_index": self._file % self._chunks,
            "dataset_from_index": first,
            "dataset_to_index": self.frames,
        }

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _begin(self) -> None:
        self.close()
        self._file, self._bytes = self._file + 1, 0
        path = self._root / layout.CHUNKED_DATA_PATH.format(
            chunk_index=self._file // self._chunks, file_index=self._file % self._chunks
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(path, self._schema)


def _chunked_info(
    dataset: LeRobotDataset, kept: Mapping[str, Any], data_limit: int, video_limit: int
) -> dict[str, Any]:
    fps = int(dataset.fps) if dataset.fps == int(dataset.fps) else dataset.fps
    info = {
        name: value
        for name, value in dataset.info.items()
        if name not in ("total_chunks", "total_videos")
    }
    for feature in kept.values():
        if feature["dtype"] != "video":
            feature["fps"] = fps
    return info | {
        "codebase_version": layout.CHUNKED_VERSION,
        "robot_type": dataset.info.get("robot_type"),
        "fps": fps,
        "data_files_size_in_mb": data_limit >> 20,
        "video_files_size_in_mb": video_limit >> 20,
        "data_path": layout.CHUNKED_DATA_PATH,
        "video_path": layout.CHUNKED_VIDEO_PATH if dataset.cameras else None,
        "features": kept,
    }


def _write_episodes_table(
    path: Path,
    episodes: Sequence[Mapping[str, Any]],
    places: Sequence[Mapping[str, Any]],
    stats: Sequence[Mapping[str, Mapping[str, Any]]],
) -> None:
    """meta/episodes: what is told of each episode, where it lies and its statistics."""
    plain = _plain_fields(episodes)
    rows = []
    for told, place, summary in zip(episodes, places, stats, strict=True):
        row = {
            name if name in plain else JSON_PREFIX + name: value
            if name in plain
            else json.dumps(value)
            for name, value in told.items()
        }
        row |= place
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        for feature, values in summary.items():
            row |= {f"{STATS_PREFIX}{feature}/{what}": value for what, value in values.items()}
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: pa.array([row.get(name) for row in rows]) for name in names}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def _plain_fields(episodes: Sequence[Mapping[str, Any]]) -> set[str]:
    """The fields whose values are alike in all episodes that have them: one kind of scalar, or
    lists of one. The others are written as JSON."""
    kinds: dict[str, set[str]] = {}
    for told in episodes:
        for name, value in told.items():
            kinds.setdefault(name, set()).add(_kind(value))
    return {name for name, found in kinds.items() if len(found) == 1 and "" not in found}


def _kind(value: Any) -> str:
    """The kind of a value, such as "int" or "list of str"; empty for what no column holds."""
    if isinstance(value, list):
        inner = {_kind(item) for item in value}
        kind = inner.pop() if len(inner) == 1 else ""
        return f"list of {kind}" if kind and not kind.startswith("list") else ""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return ""
    return type(value).__name__ if isinstance(value, (str, bool, int, float)) else ""


def _write_tasks_table(path: Path, tasks: Mapping[int, str]) -> None:
    """meta/tasks.parquet as pandas would write it, the words being the rows' names."""
    ordered = sorted(tasks.items())
    index = "__index_level_0__"
    words = {"pandas_type": "unicode", "numpy_type": "object"}
    numbers = {"pandas_type": "int64", "numpy_type": "int64", "metadata": None}
    pandas = {
        "index_columns": [index],
        "column_indexes": [
            {"name": None, "field_name": None, **words, "metadata": {"encoding": "UTF-8"}}
        ],
        "columns": [
            {"name": "task_index", "field_name": "task_index", **numbers},
            {"name": None, "field_name": index, **words, "metadata": None},
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.3.0",
    }
    table = pa.table(
        {
            "task_index": pa.array([number for number, _ in ordered], pa.int64()),
            index: pa.array([task for _, task in ordered], pa.string()),
        }
    )
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), path)


def aggregated(stats: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """min, max, mean, std and count of every feature over episodes, from each episode's own."""
    total: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for episode in stats for name in episode):
        parts = [episode[name] for episode in stats if name in episode]
        whole = [part for part in parts if {"min", "max", "mean", "std", "count"} <= set(part)]
        if not whole:
            continue
        mean, std, low, high, count = (
            np.stack([np.asarray(part[what], np.float64) for part in whole])
            for what in ("mean", "std", "min", "max", "count")
        )
        share = count.reshape(len(whole), *([1] * (mean.ndim - 1))) / count.sum()
        middle = (share * mean).sum(axis=0)
        spread = np.sqrt((share * (std**2 + (mean - middle) ** 2)).sum(axis=0))
        total[name] = {
            "min": low.min(axis=0).tolist(),
            "max": high.max(axis=0).tolist(),
            "mean": middle.tolist(),
            "std": spread.tolist(),
            "count": [int(count.sum())],
        }
    return total
