"""Datasets from the simulator: episodes of the expert and annotated snapshots, in parallel.

Every episode and snapshot is drawn from a seed of its own, derived from the data set's seed and
its number: the data do not depend on how many processes make them.
"""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from internvla_ros.data.episode import Episode, Frame
from internvla_ros.data.grounding import GroundingFrame, episode_frames, write_llava
from internvla_ros.data.lerobot import EpisodeWriter, LeRobotDataset
from internvla_ros.data.snapshots import SnapshotWriter, read_snapshots
from internvla_ros.distributed.local import LocalWorkers, stop_requests
from internvla_ros.robots.embodiment import load_embodiment
from internvla_ros.sim.engine import PUSHES, Noise, RolloutError, rollout, snapshot
from internvla_ros.sim.scene import sample_scene
from internvla_ros.sim.world import World

SNAPSHOTS, GROUNDING = "snapshots", "grounding"  # folders beside the episodes
_GROUNDING_STRIDE = 2  # every which frame of an episode is spoken about
_PATIENCE = 20  # discarded episodes in a row after which something must be wrong

Item = TypeVar("Item")
_Start = tuple[str, Noise]


@dataclass
class Report:
    """What a call of `generate` has made.

    Attributes:
        episodes, snapshots: how many the data set holds now.
        discarded: the reasons for which attempts were discarded, and how often.
        stopped: whether it was told to stop before all was done; the same call continues.
    """

    episodes: int = 0
    snapshots: int = 0
    discarded: dict[str, int] = field(default_factory=dict)
    stopped: bool = False


def episode_seed(seed: int, index: int) -> int:
    """The seed of a data set's episode number `index`; a scene and its pushes follow from it."""
    return derived(seed, 0, index)


def snapshot_seed(seed: int, index: int) -> int:
    """The seed of a data set's snapshot number `index`."""
    return derived(seed, 1, index)


def make_episode(world: World, seed: int, noise: Noise) -> Episode:
    """The episode of a seed; RolloutError where the expert fails."""
    rng = np.random.default_rng(seed)
    return rollout(world, sample_scene(rng, world.embodiment), rng, noise, seed)


def make_snapshot(world: World, seed: int) -> Frame:
    """The snapshot of a seed."""
    rng = np.random.default_rng(seed)
    return snapshot(world, sample_scene(rng, world.embodiment), rng)


def generate(
    out: str | Path,
    episodes: int,
    snapshots: int = 0,
    seed: int = 0,
    workers: int = 1,
    robot: str = "widowx_250s",
    noise: Noise = PUSHES,
    progress: bool = True,
) -> Report:
    """Makes a data set, or goes on with one that was interrupted.

    Args:
        out: the folder: a LeRobot data set, with `snapshots/` and, as LLaVA
            conversations about both, `grounding/` inside.
        episodes: how many successful episodes it shall hold.
        snapshots: how many single frames.
        seed: of everything.
        workers: processes that simulate.
        robot: the embodiment's name.
        noise: how the expert is pushed about.
        progress: whether a bar is drawn.

    Raises:
        ValueError: a number makes no sense, or the folder holds something else.
        RolloutError: the expert fails over and over.
    """
    if episodes < 0 or snapshots < 0 or seed < 0 or workers < 1:
        raise ValueError("episodes, snapshots and seed must be >= 0, workers >= 1")
    root, report = Path(out), Report()
    start = (robot, noise)
    with stop_requests() as stop:
        with EpisodeWriter(root, fps=policy_rate(robot), robot_type=robot) as writer:
            attempts = _attempts(writer, seed, workers, start, report)
            with (
                closing(attempts),
                progress_bar("episodes", len(writer), episodes, progress) as bar,
            ):
                while len(writer) < episodes and not stop.is_set():
                    writer.write(next(attempts))
                    bar.update()
            report.episodes = len(writer)
        report.snapshots = _write_snapshots(
            root / SNAPSHOTS, snapshots, seed, workers, start, progress, stop
        )
        report.stopped = stop.is_set()
        if not report.stopped:
            write_grounding(root, seed, progress)
    return report


def _attempts(
    writer: EpisodeWriter, seed: int, workers: int, start: _Start, report: Report
) -> Generator[Episode, None, None]:
    """The successful episodes that the data set lacks, in the order of their numbers, no end."""
    seeds = (episode_seed(seed, index) for index in itertools.count())
    missing = (number for number in seeds if number not in writer.seeds)
    failures = 0
    found = LocalWorkers(workers).map(_work_on_episode, missing, _start_worker, start)
    with closing(found) as results:
        for result in results:
            if isinstance(result, Episode):
                failures = 0
                yield result
                continue
            report.discarded[result] = report.discarded.get(result, 0) + 1
            failures += 1
            if failures > _PATIENCE:
                raise RolloutError(f"{failures} episodes in a row failed; the last one: {result}")


def _write_snapshots(
    folder: Path,
    count: int,
    seed: int,
    workers: int,
    start: _Start,
    progress: bool,
    stop: threading.Event,
) -> int:
    """Brings the folder to `count` snapshots; returns how many it holds."""
    if count == 0:
        return 0
    with SnapshotWriter(folder) as writer:
        seeds = [snapshot_seed(seed, index) for index in range(len(writer), count)]
        frames = LocalWorkers(workers).map(_work_on_snapshot, seeds, _start_worker, start)
        with closing(frames), progress_bar("snapshots", len(writer), count, progress) as bar:
            for frame in frames:
                writer.write(frame)
                bar.update()
                if stop.is_set():
                    break
    return len(writer)


def write_grounding(root: Path, seed: int, progress: bool) -> None:
    """Conversations about every second frame of the episodes and every snapshot, made afresh."""
    folder = root / GROUNDING
    if folder.exists():
        shutil.rmtree(folder)
    dataset = LeRobotDataset(root)
    frames: Iterator[tuple[NDArray[np.uint8], GroundingFrame]] = episode_frames(
        dataset, range(len(dataset)), _GROUNDING_STRIDE
    )
    if (root / SNAPSHOTS).is_dir():
        shots = read_snapshots(root / SNAPSHOTS)
        frames = itertools.chain(
            frames, ((shot.front, GroundingFrame.from_frame(shot)) for shot in shots)
        )
    with progress_bar("grounding", 0, None, progress) as bar:
        write_llava(folder, _counted(frames, bar), np.random.default_rng(derived(seed, 2, 0)))


def _counted(frames: Iterator[Item], bar: Any) -> Iterator[Item]:
    for frame in frames:
        yield frame
        bar.update()


class _Mute:
    """A bar that nobody sees. tqdm's own would take a lock that processes share."""

    def update(self, count: int = 1) -> None:
        """Nothing is drawn."""


def progress_bar(
    what: str, done: int, total: int | None, progress: bool
) -> AbstractContextManager[Any]:
    """A bar that begins at what is done already."""
    if not progress:
        return nullcontext(_Mute())
    return tqdm(desc=what, initial=done, total=total, smoothing=0.05)


def policy_rate(robot: str) -> float:
    """Frames a second of a robot's episodes."""
    return load_embodiment(robot).policy_rate


def derived(*path: int) -> int:
    """A seed below 2**53, so that JSON keeps it, from a seed, a stream's number and an index."""
    state = np.random.SeedSequence(path).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(11))


class _Worker:
    """What a process needs to simulate; made once, used for each of its tasks."""

    world: World | None = None
    noise = PUSHES


def _start_worker(robot: str, noise: Noise) -> None:
    _Worker.world = World(load_embodiment(robot))
    _Worker.noise = noise


def _work_on_episode(seed: int) -> Episode | str:
    """An episode, or why there is none."""
    assert _Worker.world is not None
    try:
        return make_episode(_Worker.world, seed, _Worker.noise)
    except RolloutError as error:
        return str(error)


def _work_on_snapshot(seed: int) -> Frame:
    assert _Worker.world is not None
    return make_snapshot(_Worker.world, seed)
