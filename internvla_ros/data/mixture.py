"""Action chunks out of several data sets: of different robots, each with its own statistics.

mixture = load_mixture([MixtureEntry(Path("datasets/widowx"), 1.0), MixtureEntry(other, 0.5)])
for sample in mixture.draw(256, length=16):
    sample.actions, sample.normalised, sample.instruction
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from internvla_ros.data.chunks import DELTAS, ActionLayout, PauseFilter, chunks
from internvla_ros.data.lerobot import LeRobotDataset, RecordedEpisode
from internvla_ros.data.normalisation import DatasetStatistics
from internvla_ros.data.sampler import MixtureSampler, Part
from internvla_ros.data.statistics import cached_statistics, readable
from internvla_ros.robots.embodiment import ActionConvention, EmbodimentError, load_embodiment


@dataclass(frozen=True)
class MixtureEntry:
    """One data set of a mixture.

    Attributes:
        root: its folder.
        weight: its share of the draws beside the others.
        name: of its statistics; empty: the `unnorm_key` of its robot's file, or its folder's name.
        episodes: those to take; None: all.
        layout: what the numbers of its actions are.
        pauses: which frames begin no chunk; None: all frames do.
    """

    root: Path
    weight: float = 1.0
    name: str = ""
    episodes: range | None = None
    layout: ActionLayout = DELTAS
    pauses: PauseFilter | None = field(default_factory=PauseFilter)


@dataclass(frozen=True)
class Counts:
    """What became of a data set's frames and episodes."""

    episodes: int
    frames: int
    pauses: int
    skipped: tuple[str, ...] = ()

    def __str__(self) -> str:
        told = f"{self.episodes} episodes, {self.frames} frames, {self.pauses} pauses left out"
        return told + (f", {len(self.skipped)} damaged episodes skipped" if self.skipped else "")


@dataclass(frozen=True, eq=False)
class ChunkSample:
    """One chunk and what the arm was told and knew when it began.

    Attributes:
        name: of the data set and its statistics.
        episode, row: where it is from.
        instruction: the task in words.
        state: float[S] as recorded, None where the data set has none.
        actions: float[L, D] as recorded, SI units, held past the episode's end.
        recorded: bool[L]: which of them were recorded.
        normalised: float[L, D], actions in -1..1 by the data set's own statistics.
    """

    name: str
    episode: int
    row: int
    instruction: str
    state: NDArray[np.floating] | None
    actions: NDArray[np.floating]
    recorded: NDArray[np.bool_]
    normalised: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MixturePart:
    """One data set, read: its numbers in memory, its videos on disk.

    Attributes:
        name: of its statistics.
        entry: what was asked for.
        dataset: for pictures: `dataset.frames(sample.episode, camera)`.
        convention: what a unit of its robot's actions means; None: the robot has no file.
        statistics: its own.
        episodes: those that were read.
        starts: int[K, 2]: place in `episodes` and row of each frame that begins a chunk.
        counts: what was left out.
    """

    name: str
    entry: MixtureEntry
    dataset: LeRobotDataset
    convention: ActionConvention | None
    statistics: DatasetStatistics
    episodes: tuple[RecordedEpisode, ...]
    starts: NDArray[np.int64]
    counts: Counts

    def sample(self, item: int, length: int) -> ChunkSample:
        """The chunk that begins at start number `item`."""
        place, row = (int(number) for number in self.starts[item])
        episode = self.episodes[place]
        actions, recorded = chunks(episode.action, [row], length, self.entry.layout)
        return ChunkSample(
            name=self.name,
            episode=episode.index,
            row=row,
            instruction=episode.instruction,
            state=episode.state[row] if "observation.state" in episode.columns else None,
            actions=actions[0],
            recorded=recorded[0],
            normalised=self.statistics.action.normalise(actions[0]),
        )


class ActionMixture:
    """Draws chunks from several data sets; `sampler` holds where it is, and its state goes on."""

    def __init__(self, parts: Sequence[MixturePart], seed: int = 0) -> None:
        self.parts = tuple(parts)
        self.sampler = MixtureSampler(
            [Part(part.name, len(part.starts), part.entry.weight) for part in parts], seed
        )

    @property
    def statistics(self) -> dict[str, DatasetStatistics]:
        """By name, what actions are un-normalised with: a checkpoint's blocks."""
        return {part.name: part.statistics for part in self.parts}

    def draw(self, count: int, length: int) -> Iterator[ChunkSample]:
        """The next `count` chunks of `length` actions."""
        sets, items = self.sampler.take(count)
        for number, item in zip(sets, items, strict=True):
            yield self.parts[int(number)].sample(int(item), length)


def load_mixture(
    entries: Sequence[MixtureEntry], seed: int = 0, skip: bool = False, progress: bool = True
) -> ActionMixture:
    """Read the numbers of several data sets, with their statistics.

    Args:
        entries: the data sets.
        seed: of the order.
        skip: leave damaged episodes out, which `counts.skipped` of their part then names.
        progress: show a bar for each.

    Raises:
        DatasetError: a data set or, unless they are skipped, an episode is damaged; names the file.
        SamplerError: two have one name, or one has nothing to draw.
    """
    return ActionMixture([_load_part(entry, skip, progress) for entry in entries], seed)


def _load_part(entry: MixtureEntry, skip: bool, progress: bool) -> MixturePart:
    dataset = LeRobotDataset(entry.root)
    numbers = range(len(dataset)) if entry.episodes is None else entry.episodes
    stated = "observation.state" in dataset.features
    columns = ["action", "observation.state"] if stated else ["action"]
    skipped: list[str] | None = [] if skip else None
    bar = tqdm(numbers, f"reading {entry.root.name}", unit="episode", disable=not progress)
    episodes = tuple(readable(dataset, bar, columns, skipped))
    convention, name = _robot(dataset, entry)
    starts, pauses = _starts(episodes, entry, convention)
    frames = sum(len(episode) for episode in episodes)
    return MixturePart(
        name=name,
        entry=entry,
        dataset=dataset,
        convention=convention,
        statistics=cached_statistics(dataset, [e.index for e in episodes], entry.layout),
        episodes=episodes,
        starts=starts,
        counts=Counts(len(episodes), frames, pauses, tuple(skipped or ())),
    )


def _starts(
    episodes: Sequence[RecordedEpisode], entry: MixtureEntry, convention: ActionConvention | None
) -> tuple[NDArray[np.int64], int]:
    """Place and row of every frame that is no pause, and how many are."""
    starts, pauses = [np.empty((0, 2), np.int64)], 0
    unit = np.ones(entry.layout.size)
    if convention is not None:
        unit[:3], unit[3:6] = convention.translation_scale, convention.rotation_scale
        unit[list(entry.layout.gripper)] = 1.0
    for place, episode in enumerate(episodes):
        moving = np.ones(len(episode), bool)
        if entry.pauses is not None:
            moving = ~entry.pauses.pauses(episode.action * unit, entry.layout)
        rows = np.flatnonzero(moving)
        starts.append(np.column_stack([np.full(len(rows), place), rows]))
        pauses += len(episode) - len(rows)
    return np.concatenate(starts), pauses


def _robot(dataset: LeRobotDataset, entry: MixtureEntry) -> tuple[ActionConvention | None, str]:
    """What the numbers of its robot mean, and the name of its statistics."""
    try:
        robot = load_embodiment(str(dataset.info.get("robot_type", "")))
    except EmbodimentError:
        return None, entry.name or dataset.root.name
    return robot.action, entry.name or robot.unnorm_key
