"""The guard: whatever velocities are wished, every state has a safe way to a standstill."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from internvla_ros.motion.clearance import Clearance, Measured
from internvla_ros.motion.collision import CollisionModel
from internvla_ros.motion.guard import EDGE, Guard
from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.motion.limits import Limit, Reasons
from internvla_ros.motion.profile import JointState, VelocityProfile
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import Embodiment, known_embodiments, load_embodiment

Array = NDArray[np.float64]
ROBOTS = {name: load_embodiment(name) for name in known_embodiments()}
KINEMATICS = {
    name: Kinematics(urdf(name), robot.joints, robot.tip_frame) for name, robot in ROBOTS.items()
}
ROOM = {name: CollisionModel(robot).room for name, robot in ROBOTS.items()}
MILLIMETRE = 1e-3


def guard_of(robot: Embodiment) -> Guard:
    return Guard(robot, KINEMATICS[robot.name], Clearance(CollisionModel(robot)))


def driven(robot: Embodiment, wishes: list[Array], cycles: int) -> tuple[Array, Guard]:
    """The positions [k, n], at the control rate, of a guard that is wished one thing after another,
    then brakes for a second."""
    guard, period = guard_of(robot), 1.0 / robot.control_rate
    rows = [guard.state.positions] * 3
    for wish in wishes:
        for _ in range(cycles):
            guard.move(wish, period, Reasons())
            rows.append(guard.state.positions)
    for _ in range(round(1.0 / period)):
        guard.brake(period)
        rows.append(guard.state.positions)
    return np.array(rows), guard


def wishes_of(robot: Embodiment, seed: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    scale = rng.choice([0.1, 1.0, 10.0])
    return [scale * robot.velocity * rng.uniform(-1, 1, len(robot.joints)) for _ in range(6)]


@given(st.sampled_from(sorted(ROBOTS)), st.integers(0, 2**32 - 1), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_no_wish_breaks_a_limit(name: str, seed: int, cycles: int) -> None:
    robot = ROBOTS[name]
    q, guard = driven(robot, wishes_of(robot, seed), cycles)
    assert (q >= robot.position_lower).all() and (q <= robot.position_upper).all()
    for order, limit in enumerate((robot.velocity, robot.acceleration, robot.jerk), start=1):
        rate = np.abs(np.diff(q, n=order, axis=0)) * robot.control_rate**order
        assert (rate <= limit * (1 + 1e-6)).all()
    lower, upper = robot.workspace
    tips = np.array([KINEMATICS[name].forward(each).position for each in q])
    start = float(np.maximum(lower - tips[0], tips[0] - upper).max())
    beyond = np.maximum(lower - tips, tips - upper).max(axis=1)
    assert (beyond <= max(EDGE, start) + MILLIMETRE).all()
    least = min(0.0, ROOM[name](q[0])) - MILLIMETRE
    assert all(ROOM[name](each) >= least for each in q)
    speeds = np.linalg.norm(np.diff(tips, axis=0), axis=1) * robot.control_rate
    assert speeds.max() <= 1.15 * robot.tip_limits.speed
    np.testing.assert_array_equal(q[-1], q[-2])
    assert guard.stop.duration == 0.0


@given(st.sampled_from(sorted(ROBOTS)), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_what_is_entered_is_safe_by_measure_too(name: str, seed: int) -> None:
    """Whatever the guard takes for proven: every moment of every stop, looked at without bounds.

    What is worse than allowed must be no worse than it was in the state before.
    """
    robot, guard = ROBOTS[name], guard_of(ROBOTS[name])
    lower, upper = robot.workspace

    def outside(q: Array) -> float:
        tip = KINEMATICS[name].forward(q).position
        return float(np.maximum(lower - tip, tip - upper).max())

    def excess(q: Array, v: Array) -> float:
        twist = KINEMATICS[name].jacobian(q) @ v
        shift, turn = np.linalg.norm(twist[:3]), np.linalg.norm(twist[3:])
        return float(max(shift / robot.tip_limits.speed, turn / robot.tip_limits.turn))

    for wish in wishes_of(robot, seed):
        for _ in range(8):
            before = guard.state
            if guard.move(wish, 1.0 / robot.control_rate, Reasons()):
                continue
            stop, now = guard.stop, excess(before.positions, before.velocities)
            shares = [1.0] + [1.1] * (len(stop.times) - 1)
            room = min(0.0, ROOM[name](before.positions))
            edge = max(EDGE, outside(before.positions))
            for q, v, share in zip(stop.positions, stop.velocities, shares, strict=True):
                assert ROOM[name](q) >= room - 1e-5
                assert outside(q) <= edge + 1e-9
                assert excess(q, v) <= max(share, now) + 1e-9


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_joints_slow_down_towards_the_ends_of_their_range(seed: int) -> None:
    """The FR3's own curve of velocities against positions."""
    robot = ROBOTS["franka_fr3"]
    assert robot.velocity_curve is not None
    free = replace(robot, workspace=(np.full(3, -9.0), np.full(3, 9.0)))
    guard = Guard(free, KINEMATICS[robot.name])
    wish = robot.velocity * np.random.default_rng(seed).choice([-1.0, 1.0], len(robot.joints))
    for _ in range(150):
        guard.move(wish, 0.01, Reasons())
        low, high = robot.velocity_curve.limits(guard.state.positions)
        assert (guard.state.velocities >= low - 2e-3).all()
        assert (guard.state.velocities <= high + 2e-3).all()


@pytest.mark.parametrize(
    ("wish", "limit"),
    [([0, 0, 0, 0, 0, 2.0], Limit.POSITION), ([0, 0, 0, 0, 3.0, 0], Limit.WORKSPACE),
     ([3.0, 0, 0, 0, 0, 0], Limit.TIP_SPEED), ([0, 1.0, 0, 0, 0, 0], Limit.CLEARANCE)],
)  # fmt: skip
def test_reasons_are_named(wish: list[float], limit: Limit) -> None:
    robot = ROBOTS["widowx_250s"]
    guard, seen = guard_of(robot), set()
    for _ in range(150):
        reasons = Reasons()
        guard.move(np.array(wish), 0.02, reasons)
        seen |= set(reasons.limits)
        assert bool(reasons.limits) == bool(reasons.text)
    assert limit in seen


def test_an_obstacle_is_not_touched_and_the_way_back_is_free() -> None:
    """A wall that only `room` knows of, at a turn of the waist."""
    robot = ROBOTS["widowx_250s"]
    guard = Guard(robot, KINEMATICS[robot.name], Measured(lambda q: 0.1 - float(q[0])))
    there, back = np.zeros(6), np.zeros(6)
    there[0], back[0] = 0.5, -0.5
    reasons = Reasons()
    for _ in range(100):
        guard.move(there, 0.02, reasons)
        assert guard.state.positions[0] <= 0.1
    assert Limit.CLEARANCE in reasons.limits
    assert guard.state.positions[0] > 0.08
    for _ in range(50):
        guard.move(back, 0.02, reasons)
    assert guard.state.positions[0] < 0.0


@given(
    st.floats(-3.0, 3.0), st.floats(-3.0, 3.0), st.floats(-25.0, 25.0), st.floats(0.0, 1.5)
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_stop_is_where_braking_leads(p: float, v: float, a: float, ago: float) -> None:
    """`within` says whether the whole way is inside; any later look at the stop agrees with it."""
    profile = VelocityProfile(
        np.array([25.0]), np.array([800.0]), np.array([-3.0]), np.array([3.0])
    )
    state = JointState(np.array([p]), np.array([v]), np.array([a]))
    stop = profile.stop(state)
    assert stop.points[-1][0] == pytest.approx(stop.duration)
    assert abs(stop.points[-1][1].velocities[0]) < 1e-6
    fine = [
        profile.towards(state, np.zeros(1), s).positions[0]
        for s in np.linspace(0.0, stop.duration, 400)
    ]
    inside = min(fine) >= -3.0 and max(fine) <= 3.0
    if abs(min(fine) + 3.0) > 1e-4 and abs(max(fine) - 3.0) > 1e-4:
        assert bool(stop.within[0]) == inside
    later = profile.towards(state, np.zeros(1), min(ago, stop.duration))
    again = profile.stop(later).points[-1][1].positions[0]
    assert math.isclose(again, stop.points[-1][1].positions[0], abs_tol=1e-6)
