"""Bounds on what a motion of the joints does: never less than what it really does."""

from __future__ import annotations

import numpy as np
import pinocchio as pin
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from internvla_ros.motion.clearance import Clearance, Measured
from internvla_ros.motion.collision import CollisionModel
from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.motion.reach import bends, reach
from internvla_ros.motion.tip import TipLimits
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import Embodiment, known_embodiments, load_embodiment

Array = NDArray[np.float64]
ROBOTS = {name: load_embodiment(name) for name in known_embodiments()}
MODELS = {name: CollisionModel(robot) for name, robot in ROBOTS.items()}
TIPS = {
    name: TipLimits(robot, Kinematics(urdf(name), robot.joints, robot.tip_frame))
    for name, robot in ROBOTS.items()
}
ROUNDING = 1e-5  # m, of measured distances
names = st.sampled_from(sorted(ROBOTS))
seeds = st.integers(0, 2**32 - 1)
scales = st.sampled_from([0.003, 0.03, 0.3, 3.0])


def place(robot: Embodiment, rng: np.random.Generator) -> Array:
    """[n] anywhere within the limits."""
    return rng.uniform(robot.position_lower, robot.position_upper)


def walk(robot: Embodiment, rng: np.random.Generator, scale: float) -> Array:
    """[k, n] joint positions on a bent way of about `scale` rad, within the limits."""
    steps = (
        rng.normal(0.0, scale / 8, (8, len(robot.joints)))
        + rng.normal(0.0, scale / 8, 7)[: len(robot.joints)]
    )
    path = place(robot, rng) + np.cumsum(steps, axis=0)
    return np.clip(path, robot.position_lower, robot.position_upper)


@given(names, seeds, scales)
@settings(max_examples=200, deadline=None)
def test_no_distance_changes_by_more_than_its_leverage(name: str, seed: int, scale: float) -> None:
    robot, model, rng = ROBOTS[name], MODELS[name], np.random.default_rng(seed)
    a = place(robot, rng)
    b = np.clip(a + rng.normal(0.0, scale, len(a)), robot.position_lower, robot.position_upper)
    every = range(len(model.leverage))
    before, after = model.rooms(np.array([a, b]), every)
    change = np.abs(after - before)
    assert (change <= model.leverage @ np.abs(b - a) + ROUNDING).all()


@given(names, seeds)
@settings(max_examples=40, deadline=None)
def test_rooms_of_all_pairs_are_the_room(name: str, seed: int) -> None:
    robot, model = ROBOTS[name], MODELS[name]
    q = place(robot, np.random.default_rng(seed))
    every = range(len(model.leverage))
    assert model.rooms(q[None], every).min() == pytest.approx(model.room(q), abs=ROUNDING)


@given(names, seeds, scales, st.sampled_from([-0.05, 0.0, 0.03]))
@settings(max_examples=100, deadline=None)
def test_no_room_is_overrated_however_much_was_measured_before(
    name: str, seed: int, scale: float, least: float
) -> None:
    """Where room is said to remain every moment has it; where not, one has not."""
    robot, model, rng = ROBOTS[name], MODELS[name], np.random.default_rng(seed)
    clearance, exact = Clearance(model), Measured(model.room)
    path = walk(robot, rng, scale)
    for _ in range(4):
        if clearance.remains(path, least):
            assert exact.remains(path, least - ROUNDING)
        else:
            assert not exact.remains(path, least + ROUNDING)
        path = np.clip(
            path + rng.normal(0.0, 0.3 * scale, path.shape[1]),
            robot.position_lower,
            robot.position_upper,
        )


def test_what_was_measured_counts_no_more_when_the_fingers_move() -> None:
    """Beside the table, where open fingers have room and closed ones reach further."""
    robot = ROBOTS["google_robot"]
    model = CollisionModel(robot)
    clearance, rng, differed = Clearance(model), np.random.default_rng(0), 0
    for _ in range(200):
        path = place(robot, rng)[None]
        opened = clearance.remains(path, 0.0)
        model.set_opening(0.0)
        shut, exact = clearance.remains(path, 0.0), model.room(path[0])
        assert shut == (exact >= 0.0)
        differed += opened != shut
        model.set_opening(1.0)
    assert differed


@given(names, seeds, scales)
@settings(max_examples=200, deadline=None)
def test_the_tip_is_nowhere_else_than_its_bounds_say(name: str, seed: int, scale: float) -> None:
    """Neither farther outside the workspace nor faster."""
    robot, limits, rng = ROBOTS[name], TIPS[name], np.random.default_rng(seed)
    path = walk(robot, rng, scale)
    velocities = rng.uniform(-1, 1, path.shape) * robot.velocity
    tip = limits.at(path[0])
    rows = np.stack([path - tip.q, velocities, rng.normal(0.0, 9.0, path.shape)], axis=1)
    outside, excess = limits.most(tip, rows)
    for q, v, most, fastest in zip(path, velocities, outside, excess, strict=True):
        there = limits.at(q)
        assert limits.outside(there) == pytest.approx(limits.outside_at(q), abs=1e-12)
        assert limits.outside(there) <= most + 1e-9
        assert limits.excess(there, v) <= fastest + 1e-9
        assert limits.excess_at(q, v) == pytest.approx(limits.excess(there, v), abs=1e-12)
    assert outside[0] == pytest.approx(limits.outside(tip), abs=1e-12)
    assert excess[0] == pytest.approx(limits.excess(tip, velocities[0]), abs=1e-12)


def sliding_arm() -> pin.Model:
    """A slide of 0.3 m between two hinges, the second half a metre on."""
    model = pin.Model()
    first = model.addJoint(0, pin.JointModelRZ(), pin.SE3.Identity(), "hinge")
    limits = (np.array([1.0]), np.array([1.0]), np.array([0.0]), np.array([0.3]))
    slide = model.addJoint(first, pin.JointModelPX(), pin.SE3.Identity(), "slide", *limits)
    half = pin.SE3(np.eye(3), np.array([0.5, 0.0, 0.0]))
    model.addJoint(slide, pin.JointModelRZ(), half, "wrist")
    return model


def test_reach_counts_what_slides() -> None:
    model, point = sliding_arm(), np.array([0.2, 0.0, 7.0])
    np.testing.assert_allclose(reach(model, 3, point), [1.0, 1.0, 0.2])
    np.testing.assert_allclose(reach(model, 3, point, 0.1), [1.1, 1.0, 0.3])
    np.testing.assert_allclose(reach(model, 1, point), [0.2, 0.0, 0.0])
    shift, turn = bends(model, 3, point)
    np.testing.assert_allclose(shift, [[1.0, 1.0, 0.2], [1.0, 0.0, 0.0], [0.2, 0.0, 0.2]])
    np.testing.assert_allclose(turn, [[0, 0, 1], [0, 0, 0], [1, 0, 0]])


def test_a_room_that_only_a_function_tells_is_asked_for_everywhere() -> None:
    seen = Measured(lambda q: float(q[0]))
    assert seen.room(np.array([0.5])) == 0.5
    assert seen.remains(np.array([[0.5], [0.1], [0.3]]), 0.1)
    assert not seen.remains(np.array([[0.5], [0.1], [0.3]]), 0.2)
