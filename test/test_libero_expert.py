"""The scripted expert, in a world where what is gripped follows the gripper."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from internvla_ros.evaluate.libero.conventions import POSITION_UNIT, ROTATION_UNIT
from internvla_ros.evaluate.libero.expert import (
    DOWN,
    MAX_GRASP_WIDTH,
    Expert,
    ExpertError,
    goal_of,
    grasps,
    outline,
)
from internvla_ros.motion.se3 import rotvec_to_matrix

Array = NDArray[np.float64]

CAN = np.array([[-0.03, -0.03, -0.04], [0.03, 0.03, 0.04]])
BOWL = np.array([[-0.054, -0.054, 0.0], [0.054, 0.054, 0.05]])
BASKET = np.array([[-0.08, -0.08, 0.0], [0.08, 0.08, 0.14]])
PLATE = np.array([[-0.07, -0.07, 0.0], [0.07, 0.07, 0.015]])


def boxes(extent: Array, position: Array) -> dict[str, Array]:
    """One part, as LIBERO's process describes it."""
    return {
        "centres": (extent.mean(axis=0) + position)[None],
        "axes": np.eye(3)[None],
        "sizes": ((extent[1] - extent[0]) / 2.0)[None],
    }


class Toy:
    """Where the gripper goes as told, and holds what it closes on; nothing collides."""

    def __init__(self, relation: str, pick: Array, place: Array, yaw: float, slips: int = 0):
        self.names = ("thing_1", "target_1")
        self.goal = [[relation, "thing_1", "target_1_contain_region"]]
        self.extents = dict(zip(self.names, (pick, place), strict=True))
        turn = rotvec_to_matrix([0.0, 0.0, yaw])
        self.rotations = {"thing_1": turn, "target_1": np.eye(3)}
        self.positions = {
            "thing_1": np.array([0.05, -0.1, -pick[0, 2]]),
            "target_1": np.array([0.0, 0.25, 0.0]),
        }
        self.tip, self.rotation = np.array([-0.15, 0.0, 0.26]), DOWN
        self.held, self.opening, self.slips = False, 1.0, slips

    def facts(self) -> dict[str, Any]:
        parts = {n: boxes(self.extents[n], self.positions[n]) for n in self.names}
        return {"goal": self.goal, "extents": self.extents, "parts": parts}

    def state(self) -> dict[str, Any]:
        return {
            "tip": self.tip.copy(),
            "rotation": self.rotation,
            "opening": self.opening,
            "positions": {name: place.copy() for name, place in self.positions.items()},
            "rotations": self.rotations,
        }

    def step(self, action: Array) -> None:
        assert np.abs(action[:6]).max() <= 1.0 and action[6] in (0.0, 1.0)
        move = 0.6 * POSITION_UNIT * action[:3]
        self.tip = self.tip + move
        self.rotation = rotvec_to_matrix(0.6 * ROTATION_UNIT * action[3:6]) @ self.rotation
        closes = action[6] == 0.0 and self.opening == 1.0
        if closes and np.linalg.norm(self.tip - self.positions["thing_1"]) < 0.09:
            self.held = self.slips == 0
            self.slips = max(0, self.slips - 1)
        self.opening = float(action[6])
        if self.opening == 1.0:
            self.held = False
        if self.held:
            self.positions["thing_1"] = self.positions["thing_1"] + move

    def over_target(self) -> float:
        """Horizontal distance from the thing to its target."""
        return float(np.linalg.norm((self.positions["thing_1"] - self.positions["target_1"])[:2]))


def carried_out(toy: Toy, steps: int = 280) -> int:
    """Steps until the thing was let go over its target."""
    expert = Expert(toy.facts())
    for step in range(steps):
        toy.step(expert.act(toy.state()))
        if toy.over_target() < 0.02 and not toy.held:
            return step
    raise AssertionError("the expert did not let go over the target")


@settings(max_examples=20, deadline=None)
@given(st.floats(-np.pi, np.pi), st.booleans())
def test_things_are_put_where_they_belong(yaw: float, wide: bool) -> None:
    toy = Toy("on", BOWL, PLATE, yaw) if wide else Toy("in", CAN, BASKET, yaw)
    carried_out(toy)


def test_what_slips_is_grasped_again() -> None:
    assert carried_out(Toy("in", CAN, BASKET, 0.0, slips=2)) > carried_out(
        Toy("in", CAN, BASKET, 0.0)
    )


@given(st.floats(-np.pi, np.pi))
def test_narrow_things_are_grasped_across(yaw: float) -> None:
    extent = np.array([[-0.04, -0.02, -0.01], [0.04, 0.02, 0.01]])
    found = grasps(extent, rotvec_to_matrix([0.0, 0.0, yaw]))
    assert len(found) == 1  # its other side is wider than the fingers open
    across = np.array([-np.sin(found[0].yaw), np.cos(found[0].yaw)])
    narrow = np.array([-np.sin(yaw), np.cos(yaw)])
    assert abs(across @ narrow) == pytest.approx(1.0)
    assert abs(found[0].yaw) <= np.pi / 2 + 1e-9


def test_wide_things_are_grasped_at_the_rim() -> None:
    assert (BOWL[1] - BOWL[0])[0] > MAX_GRASP_WIDTH
    for grasp in grasps(BOWL, np.eye(3)):
        place = grasp.offset[:2]
        assert np.linalg.norm(place) == pytest.approx(0.049)
        across = np.array([-np.sin(grasp.yaw), np.cos(grasp.yaw)])
        assert abs(across @ place) == pytest.approx(0.049)  # the fingers close on the wall


@given(st.lists(st.floats(-3.0, 3.0), min_size=3, max_size=3))
def test_the_outline_encloses_every_corner(turn: list[float]) -> None:
    rotation = rotvec_to_matrix(turn)
    low, high = outline(CAN, rotation)
    for i, j, k in np.ndindex(2, 2, 2):
        corner = rotation @ [CAN[i, 0], CAN[j, 1], CAN[k, 2]]
        assert (low <= corner + 1e-12).all() and (corner <= high + 1e-12).all()


def test_grasps_keep_away_from_obstacles() -> None:
    toy = Toy("on", BOWL, PLATE, 0.0)
    wall = boxes(np.array([[-0.2, 0.0, 0.0], [0.2, 0.02, 0.2]]), np.array([0.05, -0.04, 0.0]))
    facts = toy.facts()
    facts["parts"]["wall_1"] = wall
    facts["extents"]["wall_1"] = BASKET
    expert = Expert(facts)
    state = toy.state()
    state["positions"]["wall_1"] = np.zeros(3)
    while expert._phase == "hover":
        toy.step(expert.act({**state, "tip": toy.tip, "rotation": toy.rotation}))
    assert toy.tip[1] < toy.positions["thing_1"][1] + 0.02  # not on the wall's side


@pytest.mark.parametrize(
    "goal",
    [
        [["open", "cabinet_1_top_region"]],
        [["on", "a_1", "b_1"], ["on", "c_1", "b_1"]],
        [["on", "a_1", "nowhere_1"]],
    ],
)
def test_other_tasks_are_refused(goal: list[list[str]]) -> None:
    with pytest.raises(ExpertError):
        goal_of(goal, ["a_1", "b_1", "c_1"])


def test_a_place_may_be_a_region_of_a_body() -> None:
    found = goal_of([["in", "soup_1", "basket_1_contain_region"]], ["soup_1", "basket_1"])
    assert (found.relation, found.pick, found.place) == ("in", "soup_1", "basket_1")
