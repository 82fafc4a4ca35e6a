"""Data sets of tasks: whole, resumed, sharded, and what they note."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from internvla_ros.data.grounding import read_llava
from internvla_ros.data.lerobot import DatasetError, LeRobotDataset
from internvla_ros.data.snapshots import read_snapshots
from internvla_ros.distributed import open_workers
from internvla_ros.robots.embodiment import load_embodiment
from internvla_ros.sim import task_data
from internvla_ros.sim.engine import RolloutError
from internvla_ros.sim.rollout_files import load_rollout
from internvla_ros.sim.scene import SceneError
from internvla_ros.sim.task_data import ROLLOUTS, Made, Maker, TaskOrder, TaskReport, generate_tasks

FAMILIES = ("drawer", "put")


def order(episodes: int, **changes: object) -> TaskOrder:
    return TaskOrder(families=FAMILIES, episodes=episodes, seed=3, **changes)  # type: ignore[arg-type]


def make(root: Path, wanted: TaskOrder, shards: int = 1) -> TaskReport:
    with open_workers(1) as workers:
        return generate_tasks(root, wanted, workers, shards, progress=False)


def notes(root: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (root / ROLLOUTS).read_text().splitlines()]


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make(tmp_path / "whole", order(4, renderings=2, snapshots=2))
    assert (whole.episodes, whole.snapshots, whole.made) == (4, 2, 4) and whole.rate > 0
    make(tmp_path / "parts", order(2, renderings=2))
    # Killed between the episodes of a roll-out and its note.
    ledger = tmp_path / "parts" / ROLLOUTS
    ledger.write_text("")
    made: list[int] = []
    rollout = Maker.rollout

    def counted(self: Maker, number: int) -> Made:
        made.append(number)
        return rollout(self, number)

    monkeypatch.setattr(Maker, "rollout", counted)
    again = make(tmp_path / "parts", order(4, renderings=2, snapshots=2))
    assert again.episodes == 4 and again.made == 2
    one, other = LeRobotDataset(tmp_path / "whole"), LeRobotDataset(tmp_path / "parts")
    for index in range(4):
        np.testing.assert_array_equal(one.episode(index).action, other.episode(index).action)
        np.testing.assert_array_equal(one.episode(index).boxes, other.episode(index).boxes)
    assert notes(tmp_path / "whole") == notes(tmp_path / "parts")
    made.clear()
    done = make(tmp_path / "parts", order(4, renderings=2, snapshots=2))
    assert done.made == 0 and not made  # nothing is made twice
    assert len(list(read_snapshots(tmp_path / "parts" / "snapshots"))) == 2
    assert len(read_llava(tmp_path / "parts" / "grounding")) > 4


def test_renderings_share_their_motion_and_notes_say_what_they_are(tmp_path: Path) -> None:
    make(tmp_path / "data", order(2, renderings=2, level="full"))
    dataset = LeRobotDataset(tmp_path / "data")
    first, second = dataset.episode(0), dataset.episode(1)
    np.testing.assert_array_equal(first.action, second.action)
    pictures = [dataset.frames(index, "front")[0].astype(int) for index in (0, 1)]
    assert np.abs(pictures[0] - pictures[1]).mean() > 3
    (note,) = notes(tmp_path / "data")
    assert note["episodes"] == [0, 1] and note["family"] in FAMILIES
    assert note["steps"] == [first.instruction] and note["discarded"] == []


def test_rollouts_are_drawn_again(tmp_path: Path) -> None:
    make(tmp_path / "data", order(2))
    again = order(9, renderings=2, level="full", source=str(tmp_path / "data"))
    report = make(tmp_path / "again", again)
    assert report.episodes == 4 and not report.discarded  # all that the source has
    one, other = LeRobotDataset(tmp_path / "data"), LeRobotDataset(tmp_path / "again")
    np.testing.assert_array_equal(one.episode(0).action, other.episode(1).action)
    np.testing.assert_array_equal(one.episode(0).state, other.episode(0).state)
    assert one.episode(1).instruction == other.episode(2).instruction
    shown = [set_.frames(0, "front")[0].astype(int) for set_ in (one, other)]
    assert np.abs(shown[0] - shown[1]).mean() > 3
    robot = load_embodiment("franka_fr3")
    (file, _) = sorted((tmp_path / "data" / "meta" / "rollouts").glob("*.npz"))
    with pytest.raises(DatasetError, match="an arm with 6 joints"):
        load_rollout(file, robot)
    file.write_bytes(b"no zip")
    with pytest.raises(DatasetError, match="cannot be read as a roll-out"):
        load_rollout(file, robot)


def test_finished_shards_are_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = TaskOrder(families=("drawer",), episodes=1, seed=5)
    report = make(tmp_path / "data", wanted, shards=2)
    assert report.episodes == 2 and report.made == 2
    shards = sorted(path.name for path in (tmp_path / "data").iterdir())
    assert shards == ["shard_00000", "shard_00001"]
    seeds = [notes(tmp_path / "data" / name)[0]["rollout"] for name in shards]
    assert seeds[0] != seeds[1]

    def never(self: Maker, number: int) -> Made:
        raise AssertionError("made again")

    monkeypatch.setattr(Maker, "rollout", never)
    assert make(tmp_path / "data", wanted, shards=2).episodes == 2


def test_reasons_are_counted_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout, calls = Maker.rollout, []

    def sometimes(self: Maker, number: int) -> Made:
        calls.append(number)
        return Made(number, [], {}, ["bad luck"]) if len(calls) == 1 else rollout(self, number)

    monkeypatch.setattr(Maker, "rollout", sometimes)
    wanted = TaskOrder(families=("drawer",), episodes=1, seed=6)
    assert make(tmp_path / "data", wanted).discarded == {"bad luck": 1}
    more = TaskOrder(families=("drawer",), episodes=2, seed=6)
    assert make(tmp_path / "data", more).discarded == {"bad luck": 1}
    assert len(set(calls)) == len(calls) == 3  # what was discarded is not tried again


def test_an_expert_that_always_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_data, "_PATIENCE", 3)
    monkeypatch.setattr(Maker, "rollout", lambda self, number: Made(number, [], {}, ["no luck"]))
    with pytest.raises(RolloutError, match="in a row failed; last: no luck"):
        make(tmp_path / "data", order(1))


def test_orders_that_make_no_sense() -> None:
    with pytest.raises(SceneError, match="unknown split"):
        TaskOrder(split="x")
    with pytest.raises(SceneError, match="unknown family 'dance'; there are put"):
        TaskOrder(families=("put", "dance"))
    for wrong in ({"renderings": 0}, {"mishaps": 1.5}, {"episodes": -1}, {"seed": -1}):
        with pytest.raises(ValueError):
            TaskOrder(**wrong)  # type: ignore[arg-type]
