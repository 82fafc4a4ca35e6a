"""LIBERO evaluations with a stand-in for LIBERO's processes, and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from internvla_ros.data.lerobot.reader import LeRobotDataset
from internvla_ros.evaluate.journal import Journal, JournalError
from internvla_ros.evaluate.libero import environment
from internvla_ros.evaluate.libero.demonstrations import in_words
from internvla_ros.evaluate.libero.harness import Evaluation, LiberoPlan, PlanError, next_job
from internvla_ros.evaluate.libero.process import LiberoError, WorkerProcess
from internvla_ros.evaluate.libero.trial import Trial
from internvla_ros.evaluate.report import Proportion

TOY = Path(__file__).parent / "libero_toy.py"
ROOT = str(Path(__file__).parents[1])


class Forward:
    """A policy that moves along x; it fails after `fails_after` decisions."""

    def __init__(self, views: int = 0, fails_after: int | None = None) -> None:
        self.views = views
        self.decisions = 0
        self._fails_after = fails_after

    def decide(self, trials: Sequence[Trial]) -> list[NDArray[np.float64]]:
        self.decisions += 1
        if self.decisions == self._fails_after:
            raise ConnectionError("the policy server has gone")
        for trial in trials:
            pictures = trial.pictures()
            assert len(pictures) == self.views
            assert all(picture[-1, -1].tolist() == [255] * 3 for picture in pictures)
        return [np.array([[1.0, 0, 0, 0, 0, 0, 1.0]] * 8) for _ in trials]


def toy_worker(log: Path, *options: str) -> WorkerProcess:
    """A process of the stand-in."""
    # Not `worker_command`: the stand-in runs in this Python.
    start = f"import runpy, sys; sys.path.insert(0, {ROOT!r}); sys.argv = {[str(TOY), *options]!r}"
    command = [sys.executable, "-c", f"{start}; runpy.run_path({str(TOY)!r}, run_name='__main__')"]
    return WorkerProcess(Path("unused"), log, command)


def evaluation(
    out: Path, policy: Forward | None = None, options: Sequence[str] = (), **settings: Any
) -> Evaluation:
    given = {"suite": "object", "out": out, "tasks": (0, 1, 2), "trials": 2, "film": False}
    plan = LiberoPlan(**(given | {"execute": 4} | settings))
    labels = {"policy": "forward"}
    return Evaluation(plan, policy or Forward(), labels, lambda log: toy_worker(log, *options))


def outcomes(rows: Sequence[dict[str, Any]]) -> list[tuple[int, int, bool, int]]:
    return [(row["task"], row["trial"], row["success"], row["steps"]) for row in rows]


def test_all_trials_are_done_and_reported(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    run = evaluation(tmp_path, Forward(views=2))
    run.run(told.append)
    report = run.write()
    assert report.complete and report.results["success"] == Proportion(6, 6)
    assert outcomes(report.rows) == [(t, n, True, 10 * (1 + n)) for t in (0, 1, 2) for n in (0, 1)]
    assert len(told) == 6
    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved["complete"] and saved["settings"]["toy"] == "1" and len(saved["trials"]) == 6
    text = (tmp_path / "report.md").read_text()
    assert "| 1 do task 1 | 2/2 | 100.0 % |" in text and "| most steps | 280 |" in text


def test_workers_and_batches_change_nothing(tmp_path: Path) -> None:
    found = []
    for name, settings in {"a": {}, "b": {"workers": 3, "batch": 3}, "c": {}}.items():
        run = evaluation(tmp_path / name, **settings)
        run.run()
        found.append(outcomes(run.rows))
    assert found[0] == found[1] == found[2]


def test_a_trial_ends_at_the_step_limit(tmp_path: Path) -> None:
    run = evaluation(tmp_path, tasks=(9,), trials=1, suite="spatial", execute=8)
    run.run()
    assert outcomes(run.rows) == [(9, 0, False, 220)]


def test_failures_are_filmed(tmp_path: Path) -> None:
    from internvla_ros.data.lerobot.video import decode

    run = evaluation(tmp_path, tasks=(0, 9), trials=1, film=True)
    run.run()
    (film,) = (tmp_path / "videos").iterdir()
    assert film.name == "task_09_trial_00.mp4"
    frames = decode(film, 140)
    assert frames.shape == (140, 256, 256, 3)


def test_successes_become_demonstrations_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run = evaluation(tmp_path / name, tasks=(0, 9), trials=1, demonstrations=tmp_path / "demos")
        run.run()
        assert len(run.rows) == 2
    dataset = LeRobotDataset(tmp_path / "demos")
    assert len(dataset) == 1
    episode = dataset.load(0)
    assert len(episode) == 10 and episode.instruction == "do task 0"
    assert (episode.pick, episode.place, episode.relation) == ("cube", "plate", "on")
    assert episode.boxes[0, 0].tolist() == [226.0, 20.0, 246.0, 40.0]  # left and right exchanged
    assert episode.tip_pixel[0].tolist() == [206.0, 60.0]
    assert np.allclose(episode.state[:, 0], 0.01 * np.arange(10))
    assert set(episode.images) == {"front", "wrist"}


def test_what_is_there_is_not_overwritten_nor_mixed(tmp_path: Path) -> None:
    evaluation(tmp_path, tasks=(0,)).run()
    with pytest.raises(JournalError, match="holds 2 finished trials: add --resume"):
        evaluation(tmp_path)
    with pytest.raises(JournalError, match="its seed is 7, not 8"):
        evaluation(tmp_path, seed=8, resume=True)
    policy = Forward()
    run = evaluation(tmp_path, policy, resume=True)
    assert run.waiting() == [(1, 0), (1, 1), (2, 0), (2, 1)]
    run.run()
    assert len(run.rows) == 6 and run.report().complete


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {here!r}]
from test_libero_harness import evaluation
evaluation(Path({out!r}), options=["--slow"], workers=2).run()
"""


def test_a_kill_loses_no_finished_trial(tmp_path: Path) -> None:
    whole = evaluation(tmp_path / "whole")
    whole.run()
    out, journal = tmp_path / "killed", tmp_path / "killed" / "trials.jsonl"
    script = KILLED.format(root=ROOT, here=str(TOY.parent), out=str(out))
    process = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 60.0
    while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = [json.loads(line) for line in journal.read_bytes().split(b"\n")[1:-1]]
    with journal.open("ab") as file:
        file.write(b'{"task": 2, "tri')  # as a kill within a write would leave it
    resumed = evaluation(out, resume=True)
    assert len(resumed.rows) == len(kept) >= 2
    resumed.run()
    assert outcomes(resumed.rows) == outcomes(whole.rows)
    assert all(row in resumed.rows for row in kept)


def test_a_dead_process_is_one_clear_error(tmp_path: Path) -> None:
    run = evaluation(tmp_path, options=["--dies-at", "2"])
    with pytest.raises(LiberoError, match=r"ended with 3: out of memory \(log: .*libero_0.log\)"):
        run.run()
    report = run.write()
    assert len(report.rows) == 4 and not report.complete


def test_missing_assets_are_one_clear_error(tmp_path: Path) -> None:
    run = evaluation(tmp_path, options=["--no-suite"])
    with pytest.raises(LiberoError, match=r"LIBERO: FileNotFoundError: assets/scenes/floor.xml"):
        run.run()
    assert not run.write().complete


def test_a_dead_policy_keeps_what_is_finished(tmp_path: Path) -> None:
    run = evaluation(tmp_path, Forward(fails_after=5))
    with pytest.raises(ConnectionError, match="has gone"):
        run.run()
    assert outcomes(run.write().rows) == [(0, 0, True, 10)]
    again = evaluation(tmp_path, resume=True)
    again.run()
    assert again.report().complete


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"suite": "kitchen"}, "no suite 'kitchen'; there are spatial"),
        ({"tasks": (3, 10)}, "tasks 0 to 9, no 10"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"first": -1}, "-1 is none"),
    ],
)
def test_impossible_plans_are_refused(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        evaluation(tmp_path, **settings)


def test_more_trials_than_initial_states_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="50 initial states, not 51 from number 0 on"):
        evaluation(tmp_path / "all", trials=51).run()
    with pytest.raises(PlanError, match="50 initial states, not 2 from number 49 on"):
        evaluation(tmp_path / "late", first=49, trials=2).run()


def test_later_initial_states_leave_the_first_ones_alone(tmp_path: Path) -> None:
    run = evaluation(tmp_path, tasks=(0,), first=3, trials=2)
    run.run()
    assert [row["trial"] for row in run.rows] == [3, 4]
    assert run.report().settings["first initial state"] == 3


@given(st.lists(st.tuples(st.sampled_from(("milk", "black_bowl")), st.integers(1, 4)), min_size=1))
def test_names_in_words_tell_things_apart(kinds: list[tuple[str, int]]) -> None:
    names = list(dict.fromkeys(f"{kind}_{number}" for kind, number in kinds))
    called = in_words(names)
    assert len(set(called.values())) == len(names)
    for name, words in called.items():
        alone = sum(other.startswith(name[:-1]) for other in names) == 1
        assert words == (name[:-2] if alone else name).replace("_", " ")


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=1), st.integers(0, 4))
def test_a_process_stays_with_its_task(waiting: list[tuple[int, int]], loaded: int) -> None:
    chosen = next_job(waiting, loaded)
    assert chosen in waiting
    tasks = [task for task, _ in waiting]
    if loaded in tasks:
        assert chosen[0] == loaded
    else:
        assert tasks.count(chosen[0]) == max(map(tasks.count, tasks))


def test_a_damaged_journal_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_text('{"settings": {}}\nnonsense\n')
    with pytest.raises(JournalError, match=r"trials.jsonl:2 is not JSON"):
        Journal(path, {}, resume=True)


def test_the_other_python_gets_none_of_this_ones_variables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("PYTHONPATH", "LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE"):
        monkeypatch.setenv(name, "here")
    monkeypatch.setenv("MUJOCO_GL", "egl")
    variables = environment.child_environment(tmp_path)
    assert "here" not in variables.values()
    assert variables["MUJOCO_GL"] == variables["PYOPENGL_PLATFORM"] == "egl"
    assert variables["LIBERO_CONFIG_PATH"] == str(tmp_path)


def test_an_environment_that_cannot_be_made_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "_base_executable", "/bin/false")
    said: list[str] = []
    with pytest.raises(
        environment.LiberoSetupError, match="could not be made: '/bin/false -m venv"
    ):
        environment.ensure(tmp_path / "libero", said.append)
    assert len(said) == 1 and str(tmp_path / "libero") in said[0]
    assert not environment.is_ready(tmp_path / "libero")


def test_an_environment_of_other_pins_is_not_ready(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.touch()
    mark = tmp_path / "internvla_ros.complete"
    mark.write_text("other pins")
    assert not environment.is_ready(tmp_path)
    mark.write_text(environment._fingerprint())
    assert environment.is_ready(tmp_path)
    assert environment.ensure(tmp_path, pytest.fail) == python
