"""The servo: it tracks closely, and no stream of targets makes it break a limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from internvla_ros.motion import se3
from internvla_ros.motion.backend import JointCommand
from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.motion.se3 import Pose
from internvla_ros.motion.servo import EmbeddedServo, ServoError
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import TipLimits, load_embodiment

Array = NDArray[np.float64]
PERIOD = 0.02
ROBOT = load_embodiment("widowx_250s")
KINEMATICS = Kinematics(urdf(ROBOT.name), ROBOT.joints, ROBOT.tip_frame)
FAST = TipLimits(5.0, 100.0, 50.0, 1000.0)
DOWN = se3.rpy_to_matrix([0.0, math.pi / 2, 0.0])


def servo_at(position: tuple[float, float, float]) -> tuple[EmbeddedServo, Pose]:
    """A servo started with the tip pointing down at a position."""
    found = KINEMATICS.inverse(Pose(np.array(position), DOWN), ROBOT.ready)
    assert found.converged
    servo = EmbeddedServo(ROBOT, KINEMATICS)
    return servo, servo.start(found.q, 0.0).tip


def shifted(pose: Pose, y: float) -> Pose:
    """The pose moved along y by metres."""
    return Pose(pose.position + np.array([0.0, y, 0.0]), pose.rotation)


def follow(
    servo: EmbeddedServo, target: Callable[[float], Pose | None], seconds: float, t: float = 0.0
) -> list[JointCommand]:
    """Run the servo at its rate; a target of None is a stop."""
    commands = []
    for i in range(1, round(seconds / PERIOD) + 1):
        now = t + i * PERIOD
        pose = target(now)
        commands.append(servo.stop(now) if pose is None else servo.setpoint(pose, now))
    return commands


def assert_within_limits(q0: Array, commands: list[JointCommand]) -> None:
    """Positions as emitted, and their first, second and third differences."""
    q = np.array([q0, q0, q0, *(c.positions for c in commands)])
    assert np.isfinite(q).all()
    assert (q >= ROBOT.position_lower).all() and (q <= ROBOT.position_upper).all()
    for order, limit in enumerate((ROBOT.velocity, ROBOT.acceleration, ROBOT.jerk), start=1):
        rate = np.abs(np.diff(q, n=order, axis=0)) / PERIOD**order
        assert (rate <= limit * (1 + 1e-6)).all(), (order, rate.max(axis=0), limit)
    for c in commands:
        assert (np.abs(c.velocities) <= ROBOT.velocity).all()
        assert (np.abs(c.accelerations) <= ROBOT.acceleration).all()


@pytest.mark.parametrize(
    ("start", "direction"),
    [
        ((0.25, -0.15, 0.12), (0.0, 1.0, 0.0)),
        ((0.17, 0.10, 0.10), (1.0, 0.0, 0.0)),
        ((0.28, 0.00, 0.28), (0.0, 0.0, -1.0)),
    ],
)
def test_a_steady_ramp_is_followed_without_lag(
    start: tuple[float, float, float], direction: tuple[float, float, float]
) -> None:
    servo, tip = servo_at(start)
    speed, along = 0.3, np.array(direction)

    def ramp(t: float) -> Pose:
        return Pose(tip.position + speed * t * along, tip.rotation)

    commands = follow(servo, ramp, 0.8)
    for i, command in enumerate(commands[25:], start=26):
        gap = ramp(i * PERIOD).position - command.tip.position
        assert np.linalg.norm(gap) / speed < 0.040
        assert not command.limited, command.reason


@pytest.mark.parametrize("speed", [0.001, 0.003, 0.02])
def test_a_slow_ramp_is_followed_evenly(speed: float) -> None:
    """However little of the way a single period makes."""
    servo, tip = servo_at((0.28, 0.0, 0.15))
    commands = follow(servo, lambda t: shifted(tip, speed * t), 1.5)
    ys = np.array([c.tip.position[1] for c in commands[len(commands) // 2 :]])
    np.testing.assert_allclose(np.diff(ys) / PERIOD, speed, rtol=0.05)


def test_a_rounded_stop_overshoots_by_millimetres() -> None:
    servo, tip = servo_at((0.28, 0.0, 0.15))

    def path(t: float) -> Pose:
        x = min(t / 0.4, 1.0)
        return shifted(tip, 0.06 * x * x * (3 - 2 * x))

    commands = follow(servo, path, 1.0)
    errors = [
        np.linalg.norm(path((i + 1) * PERIOD).position - c.tip.position)
        for i, c in enumerate(commands)
    ]
    assert max(errors) < 0.004
    assert errors[-1] < 2e-4


def test_a_far_target_is_approached_in_a_straight_line() -> None:
    servo, tip = servo_at((0.22, -0.15, 0.05))
    goal = Pose(np.array([0.36, 0.16, 0.05]), DOWN)
    commands = follow(servo, lambda t: goal, 1.5)
    along = (goal.position - tip.position) / np.linalg.norm(goal.position - tip.position)
    for c in commands:
        offset = c.tip.position - tip.position
        assert np.linalg.norm(offset - (offset @ along) * along) < 0.005
    assert "tip speed" in commands[2].reason
    metres, radians = se3.distance(commands[-1].tip, goal)
    assert metres < 1e-3 and radians < 1e-2 and not commands[-1].limited


coordinates = st.one_of(st.floats(-1.5, 1.5), st.sampled_from([math.nan, math.inf, -1e12, 1e300]))
turns = st.one_of(st.floats(-4, 4), st.just(math.nan))
targets = st.one_of(
    st.none(),
    st.builds(
        lambda p, r: Pose(
            np.array(p), se3.rpy_to_matrix(r) if np.isfinite(r).all() else np.full((3, 3), np.nan)
        ),
        st.tuples(coordinates, coordinates, coordinates),
        st.tuples(turns, turns, turns),
    ),
)


@given(st.lists(st.tuples(targets, st.integers(1, 25)), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_no_stream_of_targets_breaks_a_limit(stream: list[tuple[Pose | None, int]]) -> None:
    servo = EmbeddedServo(ROBOT, KINEMATICS)
    servo.start(ROBOT.ready, 0.0)
    commands: list[JointCommand] = []
    for target, cycles in stream:
        start = len(commands) * PERIOD
        commands += follow(servo, lambda t, target=target: target, cycles * PERIOD, start)
    assert_within_limits(ROBOT.ready, commands)
    lower, upper = ROBOT.workspace
    for command in commands:
        assert (command.tip.position > lower - 0.01).all(), command.reason
        assert (command.tip.position < upper + 0.01).all(), command.reason


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_joints_driven_at_their_limits_stop_before_them(seed: int) -> None:
    """Targets made from joint positions beyond the limits, from a start close to them."""
    rng = np.random.default_rng(seed)
    span = ROBOT.position_upper - ROBOT.position_lower
    at_edge = np.where(rng.random(6) < 0.5, ROBOT.position_lower, ROBOT.position_upper)
    q0 = np.clip(at_edge + rng.normal(0, 0.05, 6), ROBOT.position_lower, ROBOT.position_upper)
    servo = EmbeddedServo(replace(ROBOT, tip_limits=FAST), KINEMATICS)
    servo.start(q0, 0.0)
    commands: list[JointCommand] = []
    for _ in range(6):
        beyond = KINEMATICS.forward(at_edge + rng.normal(0, 0.1, 6) * span)
        commands += follow(servo, lambda t, p=beyond: p, 0.3, len(commands) * PERIOD)
    assert_within_limits(q0, commands)


def test_stop_decelerates_then_holds_and_resumes() -> None:
    servo, tip = servo_at((0.25, -0.1, 0.12))
    moving = follow(servo, lambda t: shifted(tip, 0.3 * t), 0.4)
    q0 = moving[-1].positions
    stopped = follow(servo, lambda t: None, 0.6, 0.4)
    assert_within_limits(KINEMATICS.inverse(tip, ROBOT.ready).q, moving + stopped)
    assert np.linalg.norm(stopped[-1].tip.position - moving[-1].tip.position) < 0.06
    assert np.abs(stopped[0].positions - q0).max() > 0.0
    np.testing.assert_array_equal(stopped[-1].positions, stopped[-2].positions)
    assert not stopped[-1].velocities.any() and not stopped[-1].limited
    hold = stopped[-1].tip
    again = follow(servo, lambda t: hold, 0.2, 1.0)
    assert se3.distance(again[-1].tip, hold)[0] < 2e-4


def test_reasons_name_what_limited() -> None:
    servo, tip = servo_at((0.25, 0.0, 0.05))
    below = follow(servo, lambda t: Pose(np.array([0.25, 0.0, -0.2]), DOWN), 0.5)
    assert "workspace: z = -0.200 m is outside 0.012..0.400" in below[-1].reason
    assert below[-1].tip.position[2] > 0.011
    sideways = Pose(tip.position, se3.rpy_to_matrix([0.0, -math.pi / 2, 0.0]))
    turned = follow(servo, lambda t: sideways, 3.0, 0.5)
    assert "out of reach" in turned[-1].reason
    nan = servo.setpoint(Pose(np.full(3, np.nan), DOWN), 3.6)
    assert nan.limited and "not a finite, rigid pose: holding" in nan.reason


def test_time_that_stands_still_or_leaps() -> None:
    servo, tip = servo_at((0.25, 0.0, 0.12))
    ahead = shifted(tip, 0.1)
    first = servo.setpoint(ahead, 0.02)
    for t in (0.02, 0.01, math.nan):
        again = servo.setpoint(ahead, t)
        np.testing.assert_array_equal(again.positions, first.positions)
        assert "time did not advance" in again.reason
    late = servo.setpoint(ahead, 5.0)
    assert np.abs(late.positions - first.positions).max() < 0.05 * ROBOT.velocity.max()


def test_bad_starts_are_refused() -> None:
    servo = EmbeddedServo(ROBOT, KINEMATICS)
    with pytest.raises(ServoError, match="must come before"):
        servo.stop(0.0)
    with pytest.raises(ServoError, match="finite joint positions"):
        servo.start([0.0, math.nan, 0, 0, 0, 0], 0.0)
    with pytest.raises(ServoError, match=r"joint shoulder is at 2\.500, outside"):
        servo.start([0.0, 2.5, 0, 0, 0, 0], 0.0)
    with pytest.raises(ServoError, match="at time nan"):
        servo.start(ROBOT.ready, math.nan)
    other = Kinematics(urdf(ROBOT.name), ROBOT.joints[:5], ROBOT.tip_frame)
    with pytest.raises(ServoError, match="kinematics has joints"):
        EmbeddedServo(ROBOT, other)
