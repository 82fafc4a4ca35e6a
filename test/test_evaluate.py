"""The benchmarks in closed loop, with the expert and with a stand-in for the model."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from internvla_ros.evaluate import cli, policies
from internvla_ros.evaluate.policies import (
    ExpertPolicy,
    LearnedPolicy,
    PolicyError,
    fingerprint,
)
from internvla_ros.evaluate.report import Proportion
from internvla_ros.evaluate.run import Decision, Delivery, SceneRun
from internvla_ros.evaluate.tabletop import TableTop, held_out_scene, run_tabletop
from internvla_ros.robots.embodiment import load_embodiment
from internvla_ros.sim.world import World
from internvla_ros.spatial.types import Point, SpatialAnswer

Array = NDArray[np.float64]
ROBOT = load_embodiment("widowx_250s")
LATEST = Delivery(delay=0.1, blend="latest")


class ModelDouble:
    """A test double for the model: sees the simulator's truth, acts as the scripted expert.

    `off` is added to the pixels of its points; `dt` and the shapes are those of the real one.
    """

    def __init__(self, off: tuple[float, float] = (0.0, 0.0), silent: bool = False) -> None:
        actor = SimpleNamespace(num_points=2, state_dim=10)
        self.config = SimpleNamespace(cameras=("front", "wrist"), dt=0.2, actor=actor)
        self._off, self._silent, self._silenced = off, silent, False
        self._expert = ExpertPolicy(ROBOT)
        self.runs: Sequence[SceneRun] = ()
        self.acted: list[dict[str, Any]] = []
        self.statistics: dict[str, Any] = {}

    def look(
        self,
        images: Sequence[Sequence[NDArray[np.uint8]]],
        instructions: Sequence[str],
        *,
        drafts: dict[str, list[int]] | None = None,
    ) -> tuple[Any, list[SpatialAnswer]]:
        assert [run.instruction for run in self.runs] == list(instructions)
        assert all(view.shape == (480, 640, 3) for views in images for view in views)
        assert (drafts is not None) == (len(images) == 1)
        return "plan", [self._answer(run) for run in self.runs]

    def plan(self, images: Sequence[Any], instructions: Sequence[str]) -> str:
        assert len(images) == len(instructions)
        return "plan"

    def _answer(self, run: SceneRun) -> SpatialAnswer:
        assert not self._silenced, "nothing is to be decoded"
        if self._silent:
            return SpatialAnswer(problems=("nothing said",))
        points = run.true_points("front") + self._off
        return SpatialAnswer(points=tuple(Point(x, y) for x, y in points))

    def act(
        self,
        images: Sequence[Sequence[NDArray[np.uint8]]],
        plan: Any,
        states: Array | None = None,
        points: Array | None = None,
        *,
        seed: int = 0,
        unnorm_key: str | None = None,
    ) -> Array:
        assert plan == "plan" and states is not None and states.shape == (len(images), 10)
        self.acted.append({"points": points, "states": states, "seed": seed, "key": unnorm_key})
        return np.stack([d.actions for d in self._expert.decide(self.runs)])


class WatchedPolicy:
    """Lets the double see the runs that the policy under test is asked about."""

    def __init__(self, double: ModelDouble, **options: Any) -> None:
        self._double, self._policy = double, LearnedPolicy(double, **options)
        self.dt = self._policy.dt

    def decide(self, runs: Sequence[SceneRun]) -> list[Decision]:
        self._double.runs = runs
        return self._policy.decide(runs)


def test_the_expert_succeeds_through_the_controllers() -> None:
    plan = TableTop(scenes=3, seed=4, batch=2, delivery=LATEST)
    told: list[int] = []
    report = run_tabletop(
        ROBOT,
        ExpertPolicy(ROBOT),
        plan,
        {"policy": "expert"},
        lambda row: told.append(row["scene"]),
    )
    assert report.results["success"] == Proportion(3, 3)
    assert [row["scene"] for row in report.rows] == sorted(told) == [0, 1, 2]
    assert all(row["refused_chunks"] == 0 and row["held"] for row in report.rows)
    assert report.complete and report.settings["delay"] == 0.1


@pytest.mark.parametrize("name", ["google_robot", "franka_fr3"])
@pytest.mark.parametrize("delay", [0.0, 0.1])
def test_other_arms_succeed_with_their_own_conventions(name: str, delay: float) -> None:
    """The Google Robot's chunks are laid from the measured pose, and its gripper goes by changes
    and opens half as far as it could."""
    robot = load_embodiment(name)
    delivery = Delivery(delay, robot.ensemble.name, robot.ensemble.horizon)
    plan = TableTop(scenes=2, seed=7, delivery=delivery)
    report = run_tabletop(robot, ExpertPolicy(robot), plan, {})
    assert report.results["success"] == Proportion(2, 2), report.rows


def test_the_expert_foresees_the_whole_task() -> None:
    """One chunk of a slow, patient policy holds grasp and release; open loop it does the task."""
    world = World(ROBOT)
    run = SceneRun(world, Delivery(0.0, "open-loop", timeout=30.0))
    run.start(0, held_out_scene(4, 0, ROBOT))
    expert = ExpertPolicy(replace(ROBOT, chunk_size=40))
    (decision,) = expert.decide([run])
    closed = decision.actions[:, 6] == 0.0
    assert decision.actions.shape == (40, 7) and set(decision.actions[:, 6]) == {0.0, 1.0}
    assert not closed[0] and closed.any() and not closed[-1]
    while not run.outcome.success and world.time < 7.0:
        run.advance(decision, expert.dt, expert.dt)
    assert run.outcome.success and run.outcome.held == [run.scene.task.pick]


def test_batches_change_nothing() -> None:
    def rows(batch: int) -> Any:
        plan = TableTop(scenes=3, seed=9, batch=batch, delivery=LATEST)
        return run_tabletop(ROBOT, ExpertPolicy(ROBOT), plan, {}).rows

    assert rows(1) == rows(3)


def test_a_policy_that_does_nothing_is_given_up() -> None:
    class Idle:
        dt = 0.2

        def decide(self, runs: Sequence[SceneRun]) -> list[Decision]:
            return [Decision(np.zeros((4, 7))) for _ in runs]

    report = run_tabletop(ROBOT, Idle(), TableTop(scenes=1, max_seconds=1.0), {})
    assert report.results["success"] == Proportion(0, 1)
    assert report.rows[0]["how"] == "grasped nothing" and report.rows[0]["seconds"] == 1.0


def test_broken_chunks_are_counted_and_the_arm_stays() -> None:
    run = SceneRun(World(ROBOT), LATEST)
    run.start(0, held_out_scene(0, 0, ROBOT))
    before = run.world.tip_pose().position
    for _ in range(4):
        run.advance(Decision(np.full((4, 7), np.nan)), 0.2, 0.2)
    assert run.outcome.refused >= 3
    assert np.linalg.norm(run.world.tip_pose().position - before) < 2e-3


def test_what_the_model_is_given(tmp_path: Path) -> None:
    double = ModelDouble(off=(3.0, -4.0))
    policy = WatchedPolicy(double, seed=5)
    plan = TableTop(scenes=2, seed=4, batch=2, delivery=LATEST, record=tmp_path)
    report = run_tabletop(ROBOT, policy, plan, {})
    assert report.results["success"] == Proportion(2, 2)
    assert report.results["median pick point error, px"] == pytest.approx(5.0)
    first = double.acted[0]
    assert first["seed"] == 5 and first["points"].shape == (2, 2, 2)
    run = SceneRun(World(ROBOT), LATEST)
    run.start(0, held_out_scene(4, 0, ROBOT))
    expected = (run.true_points("front") + np.array([3.0, -4.0])) / [640, 480]
    np.testing.assert_allclose(first["points"][0], expected, atol=1e-9)
    np.testing.assert_allclose(first["states"][0], run.state(), atol=1e-9)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        f"scene_000{index}_success.{kind}" for index in (0, 1) for kind in ("mcap", "mp4")
    ]


def test_points_from_the_oracle_and_points_that_lack() -> None:
    run = SceneRun(World(ROBOT), LATEST)
    run.start(0, held_out_scene(4, 0, ROBOT))
    for silent, points in ((True, "predicted"), (True, "oracle"), (False, "oracle")):
        double = ModelDouble(off=(50.0, 50.0), silent=silent)
        WatchedPolicy(double, points=points).decide([run])
        given = double.acted[0]["points"][0]
        if points == "predicted":
            assert np.isnan(given).all()
        else:
            np.testing.assert_allclose(given, run.true_points("front") / [640, 480])
    with pytest.raises(PolicyError, match="predicted, oracle"):
        LearnedPolicy(ModelDouble(), "guessed")


def evaluate(*words: str) -> int:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return cli.run(parser.parse_args(words))


def test_withheld_points_are_not_decoded() -> None:
    double = ModelDouble()
    double._silenced = True
    policy = WatchedPolicy(double, points="withheld")
    run_tabletop(ROBOT, policy, TableTop(scenes=1, seed=4, max_seconds=0.3), {})
    assert double.acted and all(np.isnan(given["points"]).all() for given in double.acted)


def test_a_policy_of_several_robots_uses_the_robots_own_statistics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for known, wanted in (
        (("franka_panda_tabletop", ROBOT.unnorm_key), ROBOT.unnorm_key),
        (("bridge_dataset",), None),
    ):
        double = ModelDouble()
        double.statistics, double.config.dt = dict.fromkeys(known), 0.3
        monkeypatch.setattr(policies, "load_model", lambda name, device, d=double: d)
        learned = policies.load_policy("some/folder", ROBOT, device="cpu")
        assert isinstance(learned, LearnedPolicy)
        assert learned.dt == (1 / ROBOT.policy_rate if wanted else 0.3)
        watched = WatchedPolicy(double)
        watched._policy = learned
        run_tabletop(ROBOT, watched, TableTop(scenes=1, seed=4, max_seconds=0.3), {})
        assert {given["key"] for given in double.acted} == {wanted}


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.json"
    assert evaluate("tabletop", "--scenes", "1", "--seed", "4", "--json", str(path)) == 0
    assert re.search(r"success +1/1 = 100\.0 %", capsys.readouterr().out)
    settings = json.loads(path.read_text())["settings"]
    assert settings["policy"] == "expert" and settings["blend"] == "latest"


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(SystemExit):
        evaluate("tabletop", "--scenes", "0")
    with pytest.raises(ValueError, match="max_seconds must be above 0"):
        evaluate("tabletop", "--max-seconds", "0")


def test_fingerprints_follow_the_weights(tmp_path: Path) -> None:
    assert fingerprint(tmp_path) == ""
    (tmp_path / "model.safetensors").write_bytes(b"one")
    first = fingerprint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"two")
    assert len(first) == 16 and fingerprint(tmp_path) not in (first, "")
