"""A dataset written again in the other version of the layout, numbers and videos as they are."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from internvla_ros.data.lerobot import features, layout
from internvla_ros.data.lerobot.chunked import write_chunked
from internvla_ros.data.lerobot.layout import DatasetError
from internvla_ros.data.lerobot.reader import LeRobotDataset, to_array
from internvla_ros.data.lerobot.remux import cut

DATA_FILE_MB = 100
VIDEO_FILE_MB = 200
"""LeRobot's own limits for the files of v3.0."""
_META_FILES = frozenset(
    Path(name).name
    for name in (
        layout.INFO,
        layout.EPISODES,
        layout.EPISODES_STATS,
        layout.TASKS,
        layout.TASKS_TABLE,
        layout.EPISODES_FOLDER,
        layout.STATISTICS_CACHE,
    )
)


@dataclass(frozen=True)
class Converted:
    """What was written: how many episodes, frames and videos, and of these encoded anew."""

    episodes: int
    frames: int
    videos: int
    encoded: int = 0


def convert(
    source: str | Path,
    target: str | Path,
    version: str,
    cameras: Sequence[str] | None = None,
    data_mb: int = DATA_FILE_MB,
    video_mb: int = VIDEO_FILE_MB,
    progress: bool = True,
) -> Converted:
    """Write a dataset as another version; the folder appears when it is complete.

    Args:
        source: a dataset of the other version.
        target: a folder that does not exist, or is empty.
        version: "v2.1" or "v3.0".
        cameras: those to keep; None: all.
        data_mb, video_mb: the limits for files of v3.0, in MiB.
        progress: show a bar.

    Raises:
        DatasetError: the target holds something, the source is of that version already, or a file
            of it is missing or damaged, which is named.
    """
    dataset, target = LeRobotDataset(source), Path(target)
    if version not in layout.VERSIONS:
        raise DatasetError(f"{version!r} is none of {' and '.join(layout.VERSIONS)}")
    if dataset.version == version:
        raise DatasetError(f"{dataset.root} is {version} already")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DatasetError(f"{target} exists already: choose a new folder or remove it")
    kept = _kept(dataset, cameras)
    temporary = target.with_name(target.name + layout.TEMPORARY_SUFFIX)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        (temporary / "meta").mkdir(parents=True)
        bar = tqdm(
            range(len(dataset)), f"writing {target.name}", unit="episode", disable=not progress
        )
        if version == layout.CHUNKED_VERSION:
            limits = data_mb << 20, video_mb << 20
            frames = write_chunked(dataset, temporary, kept, bar, *limits)
            videos = sum(feature["dtype"] == "video" for feature in kept.values())
            written = Converted(len(dataset), frames, len(dataset) * videos)
        else:
            written = _to_episodes(dataset, temporary, kept, bar)
        _copy_others(dataset.root, temporary, kept)
        if target.exists():
            target.rmdir()
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return written


def _kept(dataset: LeRobotDataset, cameras: Sequence[str] | None) -> dict[str, Any]:
    """The features of the new dataset; every camera among them must have all its videos."""
    names = tuple(dataset.cameras) if cameras is None else tuple(cameras)
    keys = {dataset.video_key(name) for name in names}
    for name in names:
        lacking = [index for index in range(len(dataset)) if not dataset.has_video(index, name)]
        if lacking:
            whole = [
                other
                for other in dataset.cameras
                if all(dataset.has_video(index, other) for index in range(len(dataset)))
            ]
            raise DatasetError(
                f"{dataset.root} has no video of {name} for episode "
                f"{', '.join(map(str, lacking[:5]))}{' ...' if len(lacking) > 5 else ''}; cameras "
                f"with all their videos are: {', '.join(whole) or 'none'}. Name those to keep"
            )
    return {
        name: dict(feature)
        for name, feature in dataset.features.items()
        if feature["dtype"] != "video" or name in keys
    }


def _to_episodes(
    dataset: LeRobotDataset, root: Path, kept: dict[str, Any], numbers: Iterable[int]
) -> Converted:
    columns = [name for name, feature in kept.items() if feature["dtype"] != "video"]
    keys = [name for name in kept if name not in columns]
    stats = dataset.places.statistics()
    chunks = int(dataset.info["chunks_size"])
    frames = encoded = 0
    for index in numbers:
        table = dataset.rows(index, columns)
        length = table.num_rows
        chunk = index // chunks
        path = root / layout.DATA_PATH.format(episode_chunk=chunk, episode_index=index)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        for key in keys:
            place = dataset.places.video(index, key)
            assert place is not None, "every camera that is kept has its videos"
            named = layout.VIDEO_PATH.format(
                episode_chunk=chunk, video_key=key, episode_index=index
            )
            encoded += not cut(place, length, dataset.fps, root / named)
        summary = {name: value for name, value in stats[index].items() if name in kept}
        row = {"episode_index": index, "stats": summary or _summaries(table)}
        layout.append_json_line(root / layout.EPISODES_STATS, row)
        layout.append_json_line(root / layout.EPISODES, dataset.episodes[index])
        frames += length
    tasks = [{"task_index": n, "task": task} for n, task in sorted(dataset.tasks.items())]
    layout.write_json_lines(root / layout.TASKS, tasks)
    layout.write_json(root / layout.INFO, _episodes_info(dataset, kept, len(keys)))
    return Converted(len(dataset), frames, len(dataset) * len(keys), encoded)


def _summaries(table: pa.Table) -> dict[str, Any]:
    """The statistics of numbers, for a dataset that states none."""
    arrays = {name: to_array(table[name]) for name in table.column_names}
    numeric = {name: values for name, values in arrays.items() if values.dtype.kind in "iufb"}
    return features.statistics(numeric, {})


def _episodes_info(
    dataset: LeRobotDataset, kept: Mapping[str, Any], cameras: int
) -> dict[str, Any]:
    for feature in kept.values():
        feature.pop("fps", None)
    own = ("data_files_size_in_mb", "video_files_size_in_mb")
    info = {name: value for name, value in dataset.info.items() if name not in own}
    count = len(dataset)
    return info | {
        "codebase_version": layout.CODEBASE_VERSION,
        "total_chunks": -(-count // int(dataset.info["chunks_size"])),
        "total_videos": count * cameras,
        "data_path": layout.DATA_PATH,
        "video_path": layout.VIDEO_PATH,
        "features": kept,
    }


def _copy_others(source: Path, target: Path, kept: Mapping[str, Any]) -> None:
    """What stands beside the layout's own files: modalities, snapshots and the like."""
    for path in sorted((source / "meta").iterdir()):
        if path.name not in _META_FILES and path.is_file():
            shutil.copyfile(path, target / "meta" / path.name)
    if (target / layout.MODALITY).exists():
        modality = layout.read_json(target / layout.MODALITY)
        modality["video"] = {
            name: video
            for name, video in modality.get("video", {}).items()
            if video.get("original_key", name) in kept
        }
        layout.write_json(target / layout.MODALITY, modality)
    for name in layout.SIBLINGS:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name)
