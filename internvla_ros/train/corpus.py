"""All data of a run: episodes with their statistics and shares, and what is said about them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from accelerate import PartialState

from internvla_ros.data.lerobot import LeRobotDataset
from internvla_ros.data.lerobot.features import STATE_NAMES
from internvla_ros.data.normalisation import DatasetStatistics, action_statistics, compute
from internvla_ros.data.statistics import dataset_statistics
from internvla_ros.robots.embodiment import Embodiment, EmbodimentError, load_embodiment
from internvla_ros.train.actions import ActionSet
from internvla_ros.train.conversations import Mixture, Source
from internvla_ros.train.errors import TrainingError
from internvla_ros.train.frames import Reading, load_frames
from internvla_ros.train.settings import DataConfig, DataSet
from internvla_ros.train.sources import EpisodeSource, LlavaSource, SnapshotSource

SNAPSHOTS = "snapshots"


@dataclass(frozen=True)
class Library:
    """Where data are, and where their decoded views go.

    `folders` are those of the recipe's sets in its order; `store` None decodes views when used.
    """

    config: DataConfig
    folders: tuple[Path, ...]
    store: Path | None
    deadline: float = math.inf
    progress: bool = True


@dataclass(frozen=True)
class Talker:
    """A source of conversations, its share, and what it is called."""

    name: str
    source: Source
    weight: float
    size: int


@dataclass(frozen=True)
class Corpus:
    """What a stage draws from; `names` are all that objects are called in it."""

    sets: tuple[ActionSet, ...]
    talkers: tuple[Talker, ...]
    names: tuple[str, ...]

    @property
    def source(self) -> Source:
        """All conversations, mixed."""
        if not self.talkers:
            raise TrainingError(
                "the data have no boxes, points or traces to talk about: leave stage 1 out and set "
                "grounding_batch_size to 0, or add a LLaVA-style file"
            )
        return Mixture([(talker.source, talker.weight) for talker in self.talkers])

    @property
    def statistics(self) -> dict[str, DatasetStatistics]:
        """By name, what actions are un-normalised with."""
        return {s.name: s.statistics for s in self.sets}


def load_corpus(
    library: Library, cameras: Sequence[str], size: tuple[int, int], episode_weight: float = 0.5
) -> Corpus:
    """Read all sets with these cameras' views at `size` (width, height).

    With several processes the first of each machine decodes what is stored, the others wait.
    """
    with PartialState().local_main_process_first():
        sets: list[ActionSet] = []
        talkers: list[Talker] = []
        names: set[str] = set()
        for entry, folder in zip(library.config.sets, library.folders, strict=True):
            own, said = _load_set(library, entry, folder, cameras, size, episode_weight)
            sets.append(own)
            talkers += said
            for record in own.frames.records:
                names.update(map(str, record.meta.get("objects", ())))
            for talker in said:
                if isinstance(talker.source, SnapshotSource):
                    names.update(name for frame in talker.source.known for name in frame.objects)
    share = sum(talker.weight for talker in talkers) or 1.0
    for path in library.config.llava:
        llava = LlavaSource(Path(path), size)
        weight = share * library.config.llava_weight / len(library.config.llava)
        talkers.append(Talker(Path(path).name, llava, weight, len(llava.items)))
    return Corpus(_pooled(sets), tuple(t for t in talkers if t.weight > 0), tuple(sorted(names)))


def _pooled(sets: Sequence[ActionSet]) -> tuple[ActionSet, ...]:
    """Sets whose statistics have one name share them: those of all their frames."""
    groups: dict[str, list[ActionSet]] = {}
    for own in sets:
        groups.setdefault(own.name, []).append(own)
    shared = {name: _statistics_of(group) for name, group in groups.items()}
    return tuple(replace(own, statistics=shared[own.name]) for own in sets)


def _statistics_of(sets: Sequence[ActionSet]) -> DatasetStatistics:
    if len(sets) == 1:
        return sets[0].statistics
    frames = [own.frames for own in sets]
    return DatasetStatistics(
        action=action_statistics(np.concatenate([f.action for f in frames])),
        state=compute(np.concatenate([f.state for f in frames])),
        num_transitions=sum(len(f) for f in frames),
        num_trajectories=sum(len(f.records) for f in frames),
    )


def _load_set(
    library: Library,
    entry: DataSet,
    folder: Path,
    cameras: Sequence[str],
    size: tuple[int, int],
    episode_weight: float,
) -> tuple[ActionSet, list[Talker]]:
    dataset = LeRobotDataset(folder)
    missing = [camera for camera in cameras if camera not in dataset.cameras]
    if missing:
        raise TrainingError(
            f"{folder} has the cameras {', '.join(dataset.cameras)}, not {', '.join(missing)}; "
            "set model.cameras"
        )
    store = None if library.store is None else library.store / entry.name
    how = Reading(
        store,
        entry.episodes or None,
        library.config.drop_pauses,
        library.config.skip_damaged,
        library.deadline,
        library.progress,
    )
    frames = load_frames(dataset, cameras, size[0], how, _adds_to_measured(dataset))
    if not len(frames.begins):
        raise TrainingError(f"{folder} has no frame to train on")
    own = ActionSet(
        statistics_name(entry, dataset),
        frames,
        dataset_statistics(dataset, [record.index for record in frames.records]),
        entry.weight,
        dataset.fps,
    )
    if not cameras or not frames.annotated:
        return own, []
    snapshots = folder / SNAPSHOTS
    posed = snapshots.is_dir() and store is not None
    share = entry.weight * (episode_weight if posed else 1.0)
    source = EpisodeSource(frames, cameras[0], size)
    talkers = [Talker(f"{entry.name}, episodes", source, share, len(frames))]
    if posed and store is not None:
        single = SnapshotSource(snapshots, size, store, library.deadline)
        name = f"{entry.name}, snapshots"
        talkers.append(Talker(name, single, entry.weight - share, len(single)))
    return own, talkers


def statistics_name(entry: DataSet, dataset: LeRobotDataset) -> str:
    """What the statistics of a set are called: as the recipe says, or as its robot's file does."""
    if entry.unnorm_key:
        return entry.unnorm_key
    robot = _robot(dataset)
    return entry.name if robot is None else robot.unnorm_key


def _adds_to_measured(dataset: LeRobotDataset) -> bool:
    """Whether actions lead on from the measured pose, which the recorded states tell."""
    robot = _robot(dataset)
    told = dataset.features.get("observation.state", {}).get("names") == STATE_NAMES
    return robot is not None and robot.action.anchor == "measured" and told


def _robot(dataset: LeRobotDataset) -> Embodiment | None:
    try:
        return load_embodiment(str(dataset.info.get("robot_type", "")))
    except EmbodimentError:
        return None
