"""The fixed facts of the LeRobot layouts v2.1 and v3.0, and their small JSON files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

CODEBASE_VERSION = "v2.1"
CHUNKS_SIZE = 1000
DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
INFO = "meta/info.json"
MODALITY = "meta/modality.json"
EPISODES = "meta/episodes.jsonl"
EPISODES_STATS = "meta/episodes_stats.jsonl"
TASKS = "meta/tasks.jsonl"
STATS = "meta/stats.json"
STATISTICS_CACHE = "meta/internvla_statistics.json"
"""Our own: `data.statistics` keeps what it has counted there."""

CHUNKED_VERSION = "v3.0"
CHUNKED_DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
CHUNKED_VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_FOLDER = "meta/episodes"
EPISODES_TABLE = "meta/episodes/chunk-000/file-000.parquet"
TASKS_TABLE = "meta/tasks.parquet"
VERSIONS = (CODEBASE_VERSION, CHUNKED_VERSION)

TEMPORARY_SUFFIX = ".tmp"
SIBLINGS = ("snapshots", "grounding")
"""Folders that may stand beside the layout's own in a dataset."""
IMAGE_PREFIX = "observation.images."
TRACE_WAYPOINTS = 10


class DatasetError(ValueError):
    """A dataset on disk that is missing, incomplete, damaged or of another version."""


def video_key(camera: str) -> str:
    """The feature that a camera's video is stored as."""
    return IMAGE_PREFIX + camera


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    temporary.write_text(json.dumps(content, indent=4, allow_nan=False) + "\n")
    os.replace(temporary, path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; DatasetError names the file and what is wrong with it."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise DatasetError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DatasetError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path} must hold a JSON object, not {type(content).__name__}")
    return content


def append_json_line(path: Path, content: Mapping[str, Any]) -> None:
    """Append one line in a single write, so that a kill leaves at most a torn last line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        file.write((json.dumps(content, allow_nan=False) + "\n").encode())


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace a JSON-lines file as a whole."""
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    temporary.write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
    os.replace(temporary, path)


def read_json_lines(path: Path, *, drop_torn_end: bool = False) -> list[dict[str, Any]]:
    """Read a JSON-lines file; DatasetError names the file and line.

    With `drop_torn_end` a missing file is empty and a last line without its end is left out.
    """
    if drop_torn_end and not path.exists():
        return []
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise DatasetError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    lines = text.split("\n")
    if drop_torn_end:
        lines = lines[:-1]
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DatasetError(f"{path}:{number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DatasetError(f"{path}:{number} must be a JSON object")
        rows.append(row)
    return rows
