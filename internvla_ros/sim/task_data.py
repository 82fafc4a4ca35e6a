"""Data sets of any family of tasks: rolled out once, drawn under many looks, in parallel.

A data set is a LeRobot one in which every step of a task is an episode with an instruction of its
own; `meta/rollouts.jsonl` says which episodes are the steps of one roll-out, and what the whole was
about. A roll-out that is done, or was discarded, stands there and is not made again.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from internvla_ros.data.episode import Episode, Frame
from internvla_ros.data.lerobot import EpisodeWriter
from internvla_ros.data.lerobot.layout import append_json_line, read_json_lines
from internvla_ros.data.snapshots import SnapshotWriter
from internvla_ros.distributed import Workers
from internvla_ros.distributed.local import stop_requests
from internvla_ros.robots.embodiment import load_embodiment
from internvla_ros.sim.engine import PUSHES, RolloutError
from internvla_ros.sim.families import load_families
from internvla_ros.sim.generate import (
    GROUNDING,
    SNAPSHOTS,
    derived,
    policy_rate,
    progress_bar,
    write_grounding,
)
from internvla_ros.sim.looks import Look, sample_look
from internvla_ros.sim.rollout_files import load_rollout, save_rollout
from internvla_ros.sim.rollouts import Mishaps, Performer, Rollout
from internvla_ros.sim.sampling import Sampler
from internvla_ros.sim.scene import SceneError
from internvla_ros.sim.splits import load_split
from internvla_ros.sim.task_frames import Photographer, draw
from internvla_ros.sim.task_scene import TaskScene
from internvla_ros.sim.task_world import TaskWorld
from internvla_ros.sim.validate import validate

ROLLOUTS = "meta/rollouts.jsonl"
STATES = "meta/rollouts/{number}.npz"
EPISODES = "meta/episodes.jsonl"
MAX_OBJECTS = 16
MAX_RENDERINGS = 32
_MAX_STEPS = 16
_ROLLOUT_STREAM, _SNAPSHOT_STREAM = 4, 5
_PATIENCE = 40  # discarded roll-outs in a row after which something must be wrong
_SNAPSHOT_TRIES = 40


@dataclass(frozen=True)
class TaskOrder:
    """What a data set shall hold.

    Args:
        robot: the embodiment's name.
        split: what scenes are made of, one of `SPLITS`.
        families: of tasks; none: the split's own.
        level: of randomisation.
        renderings: looks under which each roll-out is drawn.
        mishaps: share of the steps in which something goes wrong on purpose.
        seed: of everything.
        episodes, snapshots: how many the data set, or each of its shards, shall hold.
        source: folder of a data set whose roll-outs are drawn again instead of making new ones.

    Raises:
        ValueError: a number makes no sense, or a name is unknown.
    """

    robot: str = "widowx_250s"
    split: str = "seen"
    families: tuple[str, ...] = ()
    level: str = "low"
    renderings: int = 1
    mishaps: float = 0.0
    seed: int = 0
    episodes: int = 100
    snapshots: int = 0
    source: str = ""

    def __post_init__(self) -> None:
        load_split(self.split)
        load_families(self.families)
        if min(self.episodes, self.snapshots, self.seed) < 0:
            raise ValueError("episodes, snapshots and seed must be at least 0")
        if not 1 <= self.renderings <= MAX_RENDERINGS or not 0.0 <= self.mishaps <= 1.0:
            raise ValueError(f"renderings must be 1 to {MAX_RENDERINGS}, mishaps 0 to 1")


@dataclass
class TaskReport:
    """What a data set holds, and what making it took this time.

    Attributes:
        episodes, snapshots: how many it holds.
        made: episodes that were made this time.
        seconds: that this took, of all workers together.
        discarded: reasons for which roll-outs or renderings were discarded, and how often, ever.
        stopped: whether it was told to stop before all was done; the same call continues.
    """

    episodes: int = 0
    snapshots: int = 0
    made: int = 0
    seconds: float = 0.0
    discarded: Counter[str] = field(default_factory=Counter)
    stopped: bool = False

    @property
    def rate(self) -> float:
        """Episodes a minute and core."""
        return 60.0 * self.made / self.seconds if self.seconds > 0 else 0.0

    def add(self, other: TaskReport) -> None:
        """Counts another shard in."""
        self.episodes += other.episodes
        self.snapshots += other.snapshots
        self.made += other.made
        self.seconds += other.seconds
        self.discarded += other.discarded
        self.stopped |= other.stopped


@dataclass(frozen=True, eq=False)
class Made:
    """What became of one roll-out.

    Attributes:
        number: its seed.
        episodes: of its steps, under every look.
        row: what the data set notes of it.
        discarded: reasons, of the whole or of single renderings.
        rollout: the states, to be drawn again.
    """

    number: int
    episodes: list[Episode]
    row: dict[str, Any]
    discarded: list[str]
    rollout: Rollout | None = None


class Maker:
    """Makes the roll-outs and snapshots of an order. Use one instance a process."""

    def __init__(self, order: TaskOrder) -> None:
        self._order = order
        self._split = load_split(order.split)
        embodiment = load_embodiment(order.robot)
        self._embodiment = embodiment
        self._world = TaskWorld(embodiment)
        self._sampler = Sampler(embodiment)
        self._performer = Performer(self._world)
        self._photographer = Photographer(self._world)

    def rollout(self, number: int) -> Made:
        """The roll-out of a seed, drawn."""
        try:
            done = self._again(number) if self._order.source else self._perform(number)
        except (RolloutError, SceneError) as error:
            return Made(number, [], {}, [str(error)])
        scene = done.scene
        episodes, reasons = [], []
        for rendering in range(self._order.renderings):
            ids = [_episode_id(number, rendering, step) for step in range(len(scene.steps))]
            try:
                look = self._look(scene, number, rendering)
                episodes += draw(self._world, done, look, ids)
            except RolloutError as error:
                reasons.append(str(error))
        return Made(number, episodes, _row(scene, self._order, done.mishaps), reasons, done)

    def _perform(self, number: int) -> Rollout:
        rng, order = np.random.default_rng(number), self._order
        scene = self._sampler.sample(rng, self._split, order.families, order.level)
        done = self._performer.perform(scene, rng, PUSHES, Mishaps(order.mishaps))
        validate(self._world, done)
        return done

    def _again(self, number: int) -> Rollout:
        path = Path(self._order.source) / STATES.format(number=number)
        return load_rollout(path, self._embodiment)

    def _look(self, scene: TaskScene, number: int, rendering: int) -> Look:
        """The scene's own first, then others; those of a source are drawn afresh."""
        if rendering == 0 and not self._order.source:
            return scene.look
        stream = (number, rendering, 1) if self._order.source else (number, rendering)
        objects = ((thing.name, thing.colour) for thing in scene.things)
        rng = np.random.default_rng(stream)
        return sample_look(rng, self._embodiment, objects, self._order.level)

    def snapshot(self, number: int) -> Frame:
        """The snapshot of a seed.

        Raises:
            RolloutError: none could be made.
        """
        for attempt in range(_SNAPSHOT_TRIES):
            rng = np.random.default_rng((number, attempt))
            try:
                scene = self._sampler.sample(
                    rng, self._split, self._order.families, self._order.level, checked=False
                )
                return self._photographer.shoot(scene, rng)
            except (RolloutError, SceneError) as error:
                last = error
        raise RolloutError(f"no snapshot in {_SNAPSHOT_TRIES} attempts; the last one: {last}")


def generate_tasks(
    out: str | Path,
    order: TaskOrder,
    workers: Workers,
    shards: int = 1,
    progress: bool = True,
) -> TaskReport:
    """Makes a data set, or goes on with one that was interrupted.

    Args:
        out: the data set's folder; with more than one shard, the folder of `shard_00000` and so
            on, each a data set of `order`'s numbers, written where it is made.
        order: what it shall hold.
        workers: processes that simulate.
        shards: how many data sets.
        progress: whether bars are drawn.

    Raises:
        ValueError: a number makes no sense.
        DatasetError: a folder holds something else.
        RolloutError: the expert fails over and over.
    """
    if shards < 1 or (shards > 1 and order.source):
        raise ValueError("there must be at least 1 shard, and just 1 of what is drawn again")
    if shards == 1:
        return _fill(Path(out), order, 0, workers, progress)
    report = TaskReport()
    tasks = [(str(Path(out) / f"shard_{number:05d}"), number) for number in range(shards)]
    with stop_requests() as stop, progress_bar("shards", 0, shards, progress) as bar:
        results = workers.map(_fill_shard, tasks, _start_worker, (order,), ordered=False)
        with closing(results):
            for shard in results:
                report.add(shard)
                bar.update()
                if stop.is_set():
                    report.stopped = True
                    break
    return report


class _Inline:
    """Workers that are this process, whose maker stands ready."""

    count = 1

    def map(self, function: Any, tasks: Iterable[Any], *_: Any, **__: Any) -> Iterator[Any]:
        yield from map(function, tasks)

    def close(self) -> None:
        """Nothing to let go of."""


class _Worker:
    """What a process needs to simulate; made once, used for each of its tasks."""

    maker: Maker | None = None
    order = TaskOrder()


def _start_worker(order: TaskOrder) -> None:
    _Worker.maker, _Worker.order = Maker(order), order


def _roll_out(number: int) -> Made:
    assert _Worker.maker is not None
    return _Worker.maker.rollout(number)


def _shoot(number: int) -> Frame:
    assert _Worker.maker is not None
    return _Worker.maker.snapshot(number)


def _fill_shard(task: tuple[str, int]) -> TaskReport:
    root, number = task
    return _fill(Path(root), _Worker.order, number, _Inline(), progress=False)


def _fill(root: Path, order: TaskOrder, shard: int, workers: Any, progress: bool) -> TaskReport:
    """Brings one data set to what is ordered."""
    report, began = TaskReport(), time.monotonic()
    with stop_requests() as stop:
        rate = policy_rate(order.robot)
        with EpisodeWriter(
            root, fps=rate, robot_type=order.robot, max_objects=MAX_OBJECTS
        ) as writer:
            ledger = _Ledger(root, writer)
            report.discarded.update(ledger.reasons)
            found = workers.map(_roll_out, ledger.missing(order, shard), _start_worker, (order,))
            with (
                closing(found) as results,
                progress_bar("episodes", len(writer), order.episodes, progress) as bar,
            ):
                in_vain = 0
                while len(writer) < order.episodes and not stop.is_set():
                    made = next(results, None)
                    if made is None:  # the source has no more
                        break
                    written = ledger.write(made)
                    report.made += written
                    report.discarded.update(made.discarded)
                    bar.update(written)
                    in_vain = 0 if made.episodes else in_vain + 1
                    if in_vain > _PATIENCE:
                        last = made.discarded[0]
                        raise RolloutError(f"{in_vain} roll-outs in a row failed; last: {last}")
            report.episodes = len(writer)
        if report.made:
            report.seconds = (time.monotonic() - began) * workers.count
        report.snapshots = _shots(root / SNAPSHOTS, order, shard, workers, progress, stop)
        report.stopped = stop.is_set()
        if not report.stopped and (report.made or not (root / GROUNDING).exists()):
            write_grounding(root, order.seed, progress)
    return report


class _Ledger:
    """Which roll-outs a data set has, or has found to be no good."""

    def __init__(self, root: Path, writer: EpisodeWriter) -> None:
        self._root, self._path, self._writer = root, root / ROLLOUTS, writer
        rows = read_json_lines(self._path, drop_torn_end=True)
        self._known = {int(row["rollout"]) for row in rows}
        self.reasons = [reason for row in rows for reason in row["discarded"]]
        stored = read_json_lines(root / EPISODES, drop_torn_end=True)
        self._index = {int(row["seed"]): int(row["episode_index"]) for row in stored}

    def missing(self, order: TaskOrder, shard: int) -> Iterator[int]:
        """The numbers of roll-outs that are not known yet: the source's, or no end of them."""
        numbers: Iterable[int]
        if order.source:
            rows = read_json_lines(Path(order.source) / ROLLOUTS)
            numbers = [int(row["rollout"]) for row in rows if row.get("episodes")]
        else:
            numbers = (_rollout_number(order.seed, shard, i) for i in itertools.count())
        yield from (number for number in numbers if number not in self._known)

    def write(self, made: Made) -> int:
        """Writes a roll-out and its episodes, then notes it; returns how many were written."""
        written = 0
        if made.rollout is not None and made.episodes:
            save_rollout(self._root / STATES.format(number=made.number), made.rollout)
        for episode in made.episodes:
            if episode.seed not in self._index:
                self._index[episode.seed] = self._writer.write(episode)
                written += 1
        indices = [self._index[episode.seed] for episode in made.episodes]
        row = {"rollout": made.number, "discarded": made.discarded, **made.row}
        append_json_line(self._path, {**row, "episodes": indices})
        self._known.add(made.number)
        return written


def _shots(
    folder: Path, order: TaskOrder, shard: int, workers: Any, progress: bool, stop: Any
) -> int:
    """Brings the folder to as many snapshots as ordered; returns how many it holds."""
    if order.snapshots == 0:
        return 0
    with SnapshotWriter(folder) as writer:
        numbers = [
            derived(order.seed, _SNAPSHOT_STREAM, shard, index)
            for index in range(len(writer), order.snapshots)
        ]
        found = workers.map(_shoot, numbers, _start_worker, (order,))
        with (
            closing(found) as frames,
            progress_bar("snapshots", len(writer), order.snapshots, progress) as bar,
        ):
            for frame in frames:
                writer.write(frame)
                bar.update()
                if stop.is_set():
                    break
    return len(writer)


def _rollout_number(seed: int, shard: int, index: int) -> int:
    """The seed of a roll-out; the numbers of its episodes follow it."""
    room = MAX_RENDERINGS * _MAX_STEPS
    return derived(seed, _ROLLOUT_STREAM, shard, index) // room * room


def _episode_id(rollout: int, rendering: int, step: int) -> int:
    return rollout + rendering * _MAX_STEPS + step


def _row(scene: TaskScene, order: TaskOrder, mishaps: int) -> dict[str, Any]:
    return {
        "split": order.split,
        "family": scene.family,
        "instruction": scene.instruction,
        "steps": [step.instruction for step in scene.steps],
        "goals": [str(goal) for goal in scene.goals],
        "mishaps": mishaps,
    }
