"""Suites of the table-top evaluation: their scenes, and the expert in one of each."""

from __future__ import annotations

import pytest

from internvla_ros.evaluate.policies import ExpertPolicy
from internvla_ros.evaluate.run import Delivery
from internvla_ros.evaluate.tabletop import (
    TableTop,
    scene_rows,
    scene_runs,
    scene_source,
    tabletop_report,
    tabletop_settings,
)
from internvla_ros.robots.embodiment import load_embodiment
from internvla_ros.sim.scene import Scene, SceneError
from internvla_ros.sim.task_scene import TaskScene

ROBOT = load_embodiment("widowx_250s")
LATEST = Delivery(blend="latest")


def test_scenes_follow_from_suite_seed_and_number() -> None:
    one = scene_source(ROBOT, TableTop(scenes=2, seed=4, suite="seen"))
    again = scene_source(ROBOT, TableTop(scenes=9, seed=4, suite="seen"))
    other = scene_source(ROBOT, TableTop(scenes=2, seed=4, suite="clutter"))
    first, same, cluttered = one(1), again(1), other(1)
    assert isinstance(first, TaskScene) and isinstance(same, TaskScene)
    assert isinstance(cluttered, TaskScene)
    assert first.things == same.things and first.instruction == same.instruction
    assert first.things != cluttered.things and first.things != one(0).things  # type: ignore[union-attr]
    assert isinstance(scene_source(ROBOT, TableTop(scenes=1))(0), Scene)
    with pytest.raises(SceneError, match="unknown split"):
        TableTop(scenes=1, suite="hard")


def test_the_expert_is_measured_on_a_suite() -> None:
    plan = TableTop(scenes=2, seed=3, suite="unseen_pairs", delivery=LATEST)
    rows = list(scene_rows(scene_runs(ROBOT, plan), ExpertPolicy(ROBOT), plan, [0]))
    assert [row["success"] for row in rows] == [True]
    assert rows[0]["family"] in ("put", "next_to", "between")
    assert rows[0]["steps"] == rows[0]["steps_done"] == 1
    report = tabletop_report(ROBOT, plan, {"policy": "expert"}, rows, 1.0, False)
    assert f"success: {rows[0]['family']}" in report.results and "steps done" in report.results
    assert tabletop_settings(ROBOT, plan)["suite"] == "unseen_pairs"
