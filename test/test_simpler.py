"""The released SimplerEnv client's conventions, one by one, and its evaluation with a stand-in."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from internvla_ros.evaluate.policies import PolicyError
from internvla_ros.evaluate.report import Proportion
from internvla_ros.evaluate.simpler.conventions import (
    ROBOTS,
    STICKY_STEPS,
    GoogleGripper,
    WidowXGripper,
    axis_angle,
    environment_action,
    gripper_of,
    resized,
)
from internvla_ros.evaluate.simpler.harness import Evaluation, SimplerAttempt, SimplerPlan
from internvla_ros.evaluate.simpler.tasks import SUITES, Setting
from internvla_ros.evaluate.simpler.world import SimplerMissingError, SimplerWorld
from internvla_ros.motion.se3 import matrix_to_rpy, rotvec_to_matrix

Array = NDArray[np.float64]


def test_robots_have_their_keys_horizons_and_rates() -> None:
    google, widowx = ROBOTS["google_robot"], ROBOTS["widowx"]
    assert (google.unnorm_key, google.horizon, google.rate) == ("oxe_rt1", 2, 3.0)
    assert (widowx.unnorm_key, widowx.horizon, widowx.rate) == ("oxe_bridge", 7, 5.0)


def test_pictures_are_resized_by_area_whatever_their_shape() -> None:
    stripes = np.zeros((448, 672, 3), np.uint8)
    stripes[:, ::3] = 90
    picture = resized(stripes)
    assert picture.shape == (224, 224, 3)
    assert (picture == 30).all()  # each pixel averages three columns, one of them lit
    assert (picture != cv2.resize(stripes, (224, 224), interpolation=cv2.INTER_LINEAR)).any()


angles = st.floats(-1.0, 1.0)


@given(angles, angles, angles)
def test_angles_become_one_turn(roll: float, pitch: float, yaw: float) -> None:
    found = matrix_to_rpy(rotvec_to_matrix(axis_angle([roll, pitch, yaw])))
    assert np.allclose(found, [roll, pitch, yaw], atol=1e-9)


def test_a_turn_is_not_its_angles() -> None:
    assert np.allclose(axis_angle([0.0, 0.0, 0.3]), [0.0, 0.0, 0.3])
    assert not np.allclose(axis_angle([0.5, 0.5, 0.5]), [0.5, 0.5, 0.5], atol=0.05)


def test_the_widowx_gripper_is_absolute() -> None:
    gripper = WidowXGripper()
    assert [gripper.command(x) for x in (0.0, 0.5, 0.51, 1.0)] == [-1.0, -1.0, 1.0, 1.0]


def test_the_google_gripper_is_relative_and_sticks() -> None:
    gripper = GoogleGripper()
    assert [gripper.command(1.0) for _ in range(3)] == [0.0] * 3
    closing = [gripper.command(0.0) for _ in range(15)]
    assert closing == [1.0] * STICKY_STEPS + [0.0] * 5


def test_a_change_of_mind_follows_after_the_motion() -> None:
    gripper = GoogleGripper()
    gripper.command(1.0)
    sent = [gripper.command(0.0)] + [gripper.command(1.0) for _ in range(20)]
    assert sent == [1.0] * 10 + [-1.0] * 10 + [0.0]


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=60))
def test_the_google_gripper_never_turns_back_within_a_motion(openings: list[float]) -> None:
    gripper = GoogleGripper()
    sent = [gripper.command(opening) for opening in openings]
    step = 0
    while step < len(sent):
        run = sent[step : step + STICKY_STEPS] if sent[step] else sent[step : step + 1]
        assert len(set(run)) == 1
        step += len(run)


def test_small_changes_pass_without_sticking() -> None:
    gripper = GoogleGripper()
    sent = [gripper.command(x) for x in (1.0, 0.7, 1.0)]
    assert sent == pytest.approx([0.0, 0.3, 0.0])


def test_an_action_is_put_together() -> None:
    action = environment_action(np.array([0.1, 0.2, 0.3, 0, 0, 0.4, 1.0]), gripper_of("widowx"))
    assert np.allclose(action, [0.1, 0.2, 0.3, 0, 0, 0.4, 1.0])


def test_the_suites_have_the_public_numbers_of_trials() -> None:
    def trials(suite: str) -> dict[str, int]:
        counts: dict[str, int] = {}
        for setting in SUITES[suite]():
            counts[setting.task] = counts.get(setting.task, 0) + len(setting.layouts)
        return counts

    assert set(trials("widowx").values()) == {24} and len(trials("widowx")) == 4
    assert trials("google-va") == {"pick_coke_can": 825, "move_near": 600, "drawer": 378}
    assert set(trials("google-vm")) == {"pick_coke_can", "move_near", "drawer", "apple_in_drawer"}
    for suite in SUITES.values():
        settings = [(s.environment, tuple(sorted(s.build.items()))) for s in suite()]
        assert len(set(settings)) == len(settings)


class ToyWorld:
    """Ends after 5 steps; achieved where x is at least the layout's number, at each moment."""

    def __init__(self, setting: Setting) -> None:
        self.actions: list[Array] = []

    def reset(self, seed: int, layout: Mapping[str, Any]) -> None:
        self.wanted = layout["obj_init_options"]["episode_id"]
        self.x, self.steps = 0.0, 0

    def instruction(self) -> str:
        return "put the spoon on the towel"

    def picture(self) -> NDArray[np.uint8]:
        return np.zeros((480, 640, 3), np.uint8)

    def step(self, action: Array) -> tuple[bool, bool]:
        self.actions.append(action)
        self.x, self.steps = self.x + float(action[0]), self.steps + 1
        return self.x >= self.wanted, self.steps == 5

    def close(self) -> None:
        pass


class Steady:
    """One metre a step along x; fails after so many decisions."""

    def __init__(self, fails_after: int | None = None) -> None:
        self._left = fails_after

    def decide(self, trials: Sequence[SimplerAttempt]) -> list[Array]:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise ConnectionError("the policy server has gone")
        (trial,) = trials
        (picture,) = trial.pictures()
        assert picture.shape == (224, 224, 3)
        return [np.array([[1.0, 0, 0, 0, 0, 0, 1.0]] * 16)]


def evaluation(out: Path, policy: Steady, **settings: Any) -> Evaluation:
    plan = SimplerPlan("widowx", out, **({"trials": 7} | settings))
    return Evaluation(plan, policy, {"policy": "steady"}, ToyWorld)


def test_trials_count_as_they_stand_when_time_is_up(tmp_path: Path) -> None:
    run = evaluation(tmp_path, Steady())
    run.run()
    report = run.write()
    assert report.complete and len(report.rows) == 28
    assert report.results["spoon_on_towel"] == Proportion(6, 7)
    assert report.results["mean of the tasks' rates"] == pytest.approx(6 / 7)
    assert all(row["steps"] == 5 for row in report.rows)
    assert (tmp_path / "report.md").is_file()


def test_a_lost_policy_keeps_what_is_finished_and_can_be_resumed(tmp_path: Path) -> None:
    run = evaluation(tmp_path, Steady(fails_after=12))
    with pytest.raises(ConnectionError):
        run.run()
    assert len(run.write().rows) == 2
    resumed = evaluation(tmp_path, Steady(), resume=True)
    assert len(resumed.waiting()) == 26
    resumed.run()
    assert resumed.report().complete


def test_the_widowx_blends_seven_chunks() -> None:
    world = ToyWorld(SUITES["widowx"]()[0])
    world.reset(0, {"obj_init_options": {"episode_id": 0}})
    attempt = SimplerAttempt(world, "widowx")
    values = np.linspace(1.0, 2.0, 9)
    for value in values:
        attempt.step(np.tile([value, 0, 0, 0, 0, 0, 1.0], (16, 1)))
    newest, seen = np.array([2.0, 1.0]), np.stack([values[-7:], np.ones(7)], axis=1)
    cosines = seen @ newest / np.linalg.norm(seen, axis=1) / np.linalg.norm(newest)
    weights = np.exp(0.1 * cosines)
    assert world.actions[-1][0] == pytest.approx(weights @ values[-7:] / weights.sum())


def test_proprioception_is_refused() -> None:
    attempt = SimplerAttempt(ToyWorld(SUITES["widowx"]()[0]), "widowx")
    with pytest.raises(PolicyError, match="no proprioception"):
        attempt.proprioception()


def test_without_simplerenv_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "simpler_env", None)
    with pytest.raises(SimplerMissingError, match="SimplerEnv is not installed in this Python"):
        SimplerWorld(SUITES["widowx"]()[0])


def test_impossible_plans_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no suite 'kitchen'"):
        SimplerPlan("kitchen", tmp_path)
    with pytest.raises(ValueError, match="trials must be at least 1"):
        SimplerPlan("widowx", tmp_path, trials=0)
