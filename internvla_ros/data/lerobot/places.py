"""Where the parts of an episode lie, in LeRobot v2.1 and in v3.0.

In v2.1 every episode has files of its own, and JSON lines tell of it. In v3.0 many episodes share a
file: a row of meta/episodes/*/*.parquet says in which data file an episode's rows are, and from
which second on it is in which video.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from internvla_ros.data.lerobot import layout
from internvla_ros.data.lerobot.layout import DatasetError

STATS_PREFIX = "stats/"
JSON_PREFIX = "json/"
"""Before the names of episode columns that hold JSON: what no column of one type can hold."""
_OWN_PREFIXES = ("data/", "videos/", "meta/", STATS_PREFIX, JSON_PREFIX)
_OWN_COLUMNS = ("dataset_from_index", "dataset_to_index")


@dataclass(frozen=True)
class VideoPlace:
    """An episode in a video file: from second `start` on, None where the file is its own."""

    path: Path
    start: float | None = None


class Places(Protocol):
    """Where the episodes of one dataset lie.

    Attributes:
        episodes: what is known of each: "episode_index", "tasks", "length" and the dataset's own.
        tasks: task index -> words.
        source: the file or folder that `episodes` come from, for messages.
    """

    episodes: list[dict[str, Any]]
    tasks: dict[int, str]
    source: str

    def data_path(self, index: int) -> Path:
        """The parquet file with an episode's rows."""

    def rows(self, index: int, names: Sequence[str]) -> pa.Table:
        """These columns of an episode's rows; DatasetError names the file and what is wrong."""

    def video(self, index: int, key: str) -> VideoPlace | None:
        """Where the video of a feature is; None where the dataset states none."""

    def statistics(self) -> list[dict[str, Any]]:
        """Each episode's statistics: feature -> min, max, mean, std, count."""


class EpisodeFiles:
    """Version 2.1: files for every episode."""

    def __init__(self, root: Path, info: Mapping[str, Any]) -> None:
        self.root = root
        self.info = info
        self.source = layout.EPISODES
        self.tasks = _tasks(root / layout.TASKS, layout.read_json_lines(root / layout.TASKS))
        self.episodes = _checked(
            root / layout.EPISODES,
            layout.read_json_lines(root / layout.EPISODES),
            int(info["total_episodes"]),
        )

    def data_path(self, index: int) -> Path:
        """The parquet file of an episode."""
        return self.root / self._format(self.info["data_path"], index)

    def rows(self, index: int, names: Sequence[str]) -> pa.Table:
        """These columns of an episode."""
        return read_columns(self.data_path(index), names)

    def video(self, index: int, key: str) -> VideoPlace | None:
        """The file of one camera and episode."""
        return VideoPlace(self.root / self._format(self.info["video_path"], index, video_key=key))

    def statistics(self) -> list[dict[str, Any]]:
        """The lines of meta/episodes_stats.jsonl; empty ones where it is missing."""
        path = self.root / layout.EPISODES_STATS
        if not path.exists():
            return [{} for _ in self.episodes]
        lines = {row.get("episode_index"): row for row in layout.read_json_lines(path)}
        return [
            lines.get(number, {}).get(STATS_PREFIX[:-1], {}) for number in range(len(self.episodes))
        ]

    def _format(self, template: str, index: int, **values: str) -> str:
        chunk = index // int(self.info["chunks_size"])
        return template.format(episode_chunk=chunk, episode_index=index, **values)


class ChunkedFiles:
    """Version 3.0: files of many episodes."""

    def __init__(self, root: Path, info: Mapping[str, Any]) -> None:
        self.root = root
        self.info = info
        self.source = layout.EPISODES_FOLDER
        self.tasks = _tasks(root / layout.TASKS_TABLE, _task_rows(root / layout.TASKS_TABLE))
        rows = self._metadata(lambda name: not name.startswith(STATS_PREFIX))
        self._lies = _checked(root / layout.EPISODES_FOLDER, rows, int(info["total_episodes"]))
        self.episodes = [_told(row) for row in self._lies]
        self._open: _RowGroups | None = None

    def data_path(self, index: int) -> Path:
        """The parquet file that an episode shares with others."""
        row = self._lies[index]
        return self.root / self.info["data_path"].format(
            chunk_index=self._number(index, row, "data/chunk_index"),
            file_index=self._number(index, row, "data/file_index"),
        )

    def rows(self, index: int, names: Sequence[str]) -> pa.Table:
        """These columns of the rows with this episode's number."""
        path = self.data_path(index)
        if self._open is None or self._open.path != path:
            self._open = _RowGroups(path)
        return self._open.rows(index, names)

    def video(self, index: int, key: str) -> VideoPlace | None:
        """The part of a video file that is an episode's."""
        row = self._lies[index]
        if row.get(f"videos/{key}/chunk_index") is None or not self.info.get("video_path"):
            return None
        path = self.root / self.info["video_path"].format(
            video_key=key,
            chunk_index=self._number(index, row, f"videos/{key}/chunk_index"),
            file_index=self._number(index, row, f"videos/{key}/file_index"),
        )
        return VideoPlace(path, float(row.get(f"videos/{key}/from_timestamp") or 0.0))

    def statistics(self) -> list[dict[str, Any]]:
        """The columns named stats/FEATURE/WHAT of meta/episodes."""
        rows = self._metadata(lambda name: name.startswith((STATS_PREFIX, "episode_index")))
        rows.sort(key=lambda row: int(row["episode_index"]))
        return [_unflattened(row) for row in rows]

    def _metadata(self, wanted: Any) -> list[dict[str, Any]]:
        """All rows of meta/episodes, the columns that `wanted` says."""
        paths = sorted((self.root / layout.EPISODES_FOLDER).glob("*/*.parquet"))
        if not paths:
            raise DatasetError(f"{self.root / layout.EPISODES_FOLDER} has no parquet files")
        rows: list[dict[str, Any]] = []
        for path in paths:
            names = [name for name in read_schema(path).names if wanted(name)]
            rows += read_columns(path, names).to_pylist()
        return rows

    def _number(self, index: int, row: Mapping[str, Any], name: str) -> int:
        if row.get(name) is None:
            raise DatasetError(f"{self.root / self.source} states no {name} of episode {index}")
        return int(row[name])


def places(root: Path, info: Mapping[str, Any]) -> Places:
    """The places of a dataset, by the version that its info.json states."""
    kind = EpisodeFiles if info["codebase_version"] == layout.CODEBASE_VERSION else ChunkedFiles
    return kind(root, info)


class _RowGroups:
    """A parquet file of many episodes, kept open, and which of its row groups hold which."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._names = set(read_schema(path).names)
        self._file = pq.ParquetFile(path)
        self._bounds = [self._episodes(number) for number in range(self._file.num_row_groups)]

    def rows(self, index: int, names: Sequence[str]) -> pa.Table:
        """These columns of an episode's rows."""
        _require(self.path, self._names, [*names, "episode_index"])
        groups = [n for n, (first, last) in enumerate(self._bounds) if first <= index <= last]
        wanted = list(dict.fromkeys([*names, "episode_index"]))
        try:
            table = self._file.read_row_groups(groups, columns=wanted)
            return table.filter(pc.field("episode_index") == index).select(list(names))
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(f"{self.path} cannot be read as parquet: {error}") from error

    def _episodes(self, number: int) -> tuple[float, float]:
        """The first and last episode of a row group; all where the file does not say it."""
        group = self._file.metadata.row_group(number)
        for place in range(group.num_columns):
            column = group.column(place)
            if column.path_in_schema == "episode_index":
                told = column.statistics
                if told is not None and told.has_min_max:
                    return float(told.min), float(told.max)
        return -math.inf, math.inf


def read_schema(path: Path) -> pa.Schema:
    """The columns of a parquet file; DatasetError names it."""
    try:
        return pq.read_schema(path)
    except FileNotFoundError:
        raise DatasetError(f"{path} does not exist") from None
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} cannot be read as parquet: {error}") from error


def read_columns(path: Path, names: Sequence[str]) -> pa.Table:
    """Columns of a parquet file; DatasetError names the file and what it lacks."""
    _require(path, set(read_schema(path).names), names)
    try:
        return pq.ParquetFile(path).read(columns=list(names))
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} cannot be read as parquet: {error}") from error


def _require(path: Path, present: set[str], names: Sequence[str]) -> None:
    missing = [name for name in names if name not in present]
    if missing:
        raise DatasetError(
            f"{path} lacks the column {', '.join(missing)}; it has {', '.join(sorted(present))}"
        )


def _task_rows(path: Path) -> list[dict[str, Any]]:
    """tasks.parquet, which pandas writes with the words as its index."""
    names = read_schema(path).names
    words = [name for name in names if name != "task_index"]
    if len(names) == len(words) or not words:
        raise DatasetError(f"{path} must have the columns task_index and the task's words")
    rows = read_columns(path, names).to_pylist()
    return [{"task_index": row["task_index"], "task": row[words[0]]} for row in rows]


def _tasks(path: Path, rows: Iterable[Mapping[str, Any]]) -> dict[int, str]:
    try:
        return {int(row["task_index"]): str(row["task"]) for row in rows}
    except KeyError as error:
        raise DatasetError(f"{path} has a line without {error}") from error


def _checked(path: Path, rows: list[dict[str, Any]], total: int) -> list[dict[str, Any]]:
    """Rows in the episodes' order, one for each."""
    if len(rows) < total:
        raise DatasetError(f"{path} lists {len(rows)} episodes where {layout.INFO} counts {total}")
    for number, row in enumerate(rows):
        if row.get("episode_index") != number or "length" not in row:
            raise DatasetError(
                f"{path}:{number + 1} must be episode_index {number} with its length"
            )
    return rows


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a v3.0 row says of the episode itself, as a line of v2.1 would."""
    told = {
        name: value
        for name, value in row.items()
        if value is not None and name not in _OWN_COLUMNS and not name.startswith(_OWN_PREFIXES)
    }
    for name, value in row.items():
        if name.startswith(JSON_PREFIX) and value is not None:
            told[name.removeprefix(JSON_PREFIX)] = json.loads(value)
    return told


def _unflattened(row: Mapping[str, Any]) -> dict[str, Any]:
    """stats/FEATURE/WHAT columns as feature -> what -> value."""
    stats: dict[str, Any] = {}
    for name, value in row.items():
        if name.startswith(STATS_PREFIX) and value is not None:
            feature, _, what = name.removeprefix(STATS_PREFIX).rpartition("/")
            stats.setdefault(feature, {})[what] = value
    return stats
