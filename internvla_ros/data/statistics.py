"""A data set's statistics, taken in one pass of bounded memory and kept beside the data.

`dataset_statistics` goes through the episodes one after the other. `cached_statistics` keeps the
result in meta/internvla_statistics.json with a hash of the data, and takes it from there as long as
the hash is the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from internvla_ros.data.chunks import DELTAS, ActionLayout
from internvla_ros.data.lerobot import DatasetError, LeRobotDataset, RecordedEpisode
from internvla_ros.data.lerobot.layout import STATISTICS_CACHE, write_json
from internvla_ros.data.normalisation import (
    GRIPPER,
    DatasetStatistics,
    Statistics,
    StatisticsError,
    parse_statistics,
    plain_statistics,
)

EXACT_ROWS = 1_000_000
"""Up to so many rows quantiles are exact; beyond they are those of so many, drawn evenly."""
_CACHE_FORM = 1
_log = logging.getLogger(__name__)


class Accumulator:
    """Mean, deviation, extremes and quantiles of rows [*, D] that come piece by piece.

    Args:
        size: D.
        keep: rows to keep for the quantiles.
    """

    def __init__(self, size: int, keep: int = EXACT_ROWS) -> None:
        self.count = 0
        self._size = size
        self._keep = keep
        self._mean = np.zeros(size)
        self._squares = np.zeros(size)
        self._min = np.full(size, np.inf)
        self._max = np.full(size, -np.inf)
        self._kept: list[NDArray[np.float64]] = []
        self._sample: NDArray[np.float64] | None = None
        self._rng = np.random.default_rng(0)

    def add(self, values: ArrayLike) -> None:
        """Take in rows float[N, D].

        Raises:
            StatisticsError: they have another shape, or are not finite.
        """
        x = np.asarray(values, np.float64)
        if x.ndim != 2 or x.shape[1] != self._size:
            raise StatisticsError(f"rows [N, {self._size}] are needed, not {list(x.shape)}")
        if not np.isfinite(x).all():
            row, column = np.argwhere(~np.isfinite(x))[0]
            raise StatisticsError(f"row {row} is not finite in component {column}")
        if not len(x):
            return
        self._sample_from(x)
        total = self.count + len(x)
        mean = x.mean(axis=0)
        apart = mean - self._mean
        squares = ((x - mean) ** 2).sum(axis=0)
        self._squares += squares + apart**2 * self.count * len(x) / total
        self._mean += apart * len(x) / total
        self._min = np.minimum(self._min, x.min(axis=0))
        self._max = np.maximum(self._max, x.max(axis=0))
        self.count = total

    def statistics(self, mask: Sequence[bool] | None = None) -> Statistics:
        """Of all rows so far; components are scaled unless `mask` says other."""
        if not self.count:
            raise StatisticsError("statistics need at least one row")
        rows = np.concatenate(self._kept) if self._sample is None else self._sample
        q01, q99 = np.quantile(rows, [0.01, 0.99], axis=0)
        chosen = np.ones(self._size, bool) if mask is None else np.array(mask, bool)
        std = np.sqrt(self._squares / self.count)
        return Statistics(self._mean.copy(), std, self._min, self._max, q01, q99, chosen)

    def _sample_from(self, x: NDArray[np.float64]) -> None:
        """Keep all rows, or each of those seen so far with equal chance."""
        if self._sample is None:
            self._kept.append(x.copy())
            if self.count + len(x) <= self._keep:
                return
            rows = np.concatenate(self._kept)
            self._kept, self._sample = [], rows[: self._keep].copy()
            x = rows[self._keep :]
            seen = self._keep
        else:
            seen = self.count
        places = (self._rng.random(len(x)) * (seen + 1 + np.arange(len(x)))).astype(np.int64)
        inside = places < self._keep
        self._sample[places[inside]] = x[inside]


def dataset_statistics(
    dataset: LeRobotDataset,
    episodes: Iterable[int] | None = None,
    layout: ActionLayout = DELTAS,
    skipped: list[str] | None = None,
) -> DatasetStatistics:
    """Statistics of a data set's actions and, where it has them, states.

    Args:
        dataset: the data set.
        episodes: those to count; None: all.
        layout: what the numbers of its actions are; the gripper's are left unscaled.
        skipped: where given, damaged episodes are left out and named in it.

    Raises:
        StatisticsError: there is no episode, or its numbers are not finite.
        DatasetError: an episode is damaged; names the file.
    """
    numbers = list(range(len(dataset)) if episodes is None else episodes)
    stated = "observation.state" in dataset.features
    columns = ["action", "observation.state"] if stated else ["action"]
    actions = Accumulator(layout.size)
    states: Accumulator | None = None
    trajectories = 0
    for recorded in readable(dataset, numbers, columns, skipped):
        try:
            actions.add(recorded.action)
            if stated:
                states = states or Accumulator(recorded.state.shape[1])
                states.add(recorded.state)
        except StatisticsError as error:
            raise StatisticsError(f"{recorded.path}: {error}") from error
        trajectories += 1
    if not trajectories:
        raise StatisticsError(f"{dataset.root} has no episodes to take statistics of")
    binary = (GRIPPER,) if layout.gripper == (GRIPPER,) else ()
    return DatasetStatistics(
        action=replace(actions.statistics(layout.motion.tolist()), binary=binary),
        state=None if states is None else states.statistics(),
        num_transitions=actions.count,
        num_trajectories=trajectories,
    )


def cached_statistics(
    dataset: LeRobotDataset,
    episodes: Iterable[int] | None = None,
    layout: ActionLayout = DELTAS,
) -> DatasetStatistics:
    """`dataset_statistics`, from the file beside the data if that is of the same data.

    A file of other data, or one that is damaged, is written anew; where the folder cannot be
    written to, a warning says so.
    """
    numbers = list(range(len(dataset)) if episodes is None else episodes)
    path = dataset.root / STATISTICS_CACHE
    found = fingerprint(dataset, numbers, layout)
    known = _known(path, found)
    if known is not None:
        return known
    statistics = dataset_statistics(dataset, numbers, layout)
    content = {"hash": found, "statistics": {"data": plain_statistics(statistics)}}
    try:
        write_json(path, content)
    except OSError as error:
        _log.warning("%s cannot be written, statistics are not kept: %s", path, error)
    return statistics


def fingerprint(
    dataset: LeRobotDataset, episodes: Sequence[int], layout: ActionLayout = DELTAS
) -> str:
    """A hash of these episodes' rows as they are stored, and of how they are counted."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((_CACHE_FORM, EXACT_ROWS, list(episodes), layout)).encode())
    for path in dict.fromkeys(dataset.places.data_path(index) for index in episodes):
        digest.update(path.relative_to(dataset.root).as_posix().encode())
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "blake2b").digest())
        except OSError as error:
            raise DatasetError(f"{path} cannot be read: {error}") from error
    return digest.hexdigest()


def readable(
    dataset: LeRobotDataset,
    episodes: Iterable[int],
    columns: Sequence[str],
    skipped: list[str] | None = None,
) -> Iterator[RecordedEpisode]:
    """Episodes with these columns, one after the other.

    Args:
        skipped: where given, damaged episodes are left out, and why is appended to it; else the
            first of them raises.

    Raises:
        DatasetError: an episode is damaged; names the file.
    """
    for index in episodes:
        try:
            recorded = dataset.episode(index, columns)
        except DatasetError as error:
            if skipped is None:
                raise
            skipped.append(f"episode {index}: {error}")
            continue
        yield recorded


def _known(path: Path, wanted: str) -> DatasetStatistics | None:
    """What the file holds, if it is of the data with this hash."""
    try:
        content = json.loads(path.read_text())
        if content["hash"] != wanted:
            return None
        return parse_statistics(content["statistics"], str(path))["data"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
