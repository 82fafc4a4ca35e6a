"""Stops and watchdogs, and executor and servo together: the joints keep their limits."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from internvla_ros.control.chunk import Chunk
from internvla_ros.control.executor import ChunkExecutor
from internvla_ros.control.safety import Event, Halt, Safety, SafetyConfig
from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.motion.servo import EmbeddedServo
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import load_embodiment

Array = NDArray[np.float64]
PERIOD = 0.02
ROBOT = load_embodiment("widowx_250s")
KINEMATICS = Kinematics(urdf(ROBOT.name), ROBOT.joints, ROBOT.tip_frame)


class Arm:
    """An arm that follows its joint commands exactly."""

    def __init__(self, blend: str) -> None:
        self.executor = ChunkExecutor(ROBOT.action, blend, 4, 0.8)
        self.servo = EmbeddedServo(ROBOT, KINEMATICS)
        tip = self.servo.start(ROBOT.ready, 0.0).tip
        self.executor.reset(tip, 1.0)
        self.executor.record(0.0, tip, tip)
        self.now, self.positions, self.tips = 0.0, [ROBOT.ready] * 3, [tip]

    def run(self, cycles: int) -> None:
        for _ in range(cycles):
            self.now += PERIOD
            setpoint = self.executor.setpoint(self.now)
            command = self.servo.setpoint(setpoint.pose, self.now)
            commanded = self.executor.followed(setpoint, command.tip, command.limits, self.now)
            self.executor.record(self.now, commanded, command.tip)
            self.positions.append(command.positions)
            self.tips.append(command.tip)


def wild_chunk(rng: np.random.Generator, now: float, sequence: int) -> Chunk:
    """Motions of any size, some broken, seen at any time."""
    scale = rng.choice([0.01, 0.05, 0.2, 1.0])
    actions = np.column_stack([rng.normal(0, scale, (8, 6)), rng.uniform(0, 1, 8)])
    if rng.random() < 0.3:
        actions[:] = actions[0]
    if rng.random() < 0.2:
        actions[rng.integers(8), rng.integers(7)] = rng.choice([math.nan, math.inf, 1e9])
    stamp = now - rng.choice([0.0, 0.1, 0.3, 2.0, -0.05, math.nan])
    return Chunk(stamp, rng.choice([0.2, 0.05, 1.0]), actions, sequence)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["latest", "temporal", "adaptive"]))
@settings(max_examples=25, deadline=None)
def test_no_chunk_makes_a_joint_break_its_limits(seed: int, blend: str) -> None:
    rng = np.random.default_rng(seed)
    arm = Arm(blend)
    for sequence in range(15):
        arm.executor.add(wild_chunk(rng, arm.now, sequence), arm.now)
        arm.run(int(rng.integers(1, 15)))
    q = np.array(arm.positions)
    assert (q >= ROBOT.position_lower).all() and (q <= ROBOT.position_upper).all()
    for order, limit in enumerate((ROBOT.velocity, ROBOT.acceleration, ROBOT.jerk), start=1):
        assert (np.abs(np.diff(q, n=order, axis=0)) <= limit * PERIOD**order * (1 + 1e-6)).all()
    lower, upper = ROBOT.workspace
    tips = np.array([tip.position for tip in arm.tips])
    assert (tips > lower - 0.01).all() and (tips < upper + 0.01).all()


def test_a_dead_policy_leaves_the_arm_at_rest_where_it_was() -> None:
    arm = Arm("adaptive")
    forward = np.tile([0.0, 0.05, 0.0, 0.0, 0.0, 0.0, 1.0], (16, 1))
    assert arm.executor.add(Chunk(0.0, 0.2, forward, 1), 0.0).accepted
    arm.run(200)
    end = arm.tips[-1].position
    travelled = np.linalg.norm(end - arm.tips[0].position)
    assert 0.15 < travelled < 0.25 * (0.8 + 0.3)
    assert np.ptp(np.array(arm.positions[-100:]), axis=0).max() < 1e-6


def test_an_emergency_stop_is_latched_and_counted_once() -> None:
    safety = Safety(SafetyConfig())
    assert safety.check(0.0, 0.0, "") is None
    safety.stop("by hand")
    for _ in range(5):
        found = safety.check(0.0, 0.0, "")
        assert found == (Halt.EMERGENCY, "emergency stop: by hand")
    assert safety.emergency
    safety.begin()  # a new task does not release it
    assert safety.check(0.0, 0.0, "") is not None
    safety.release()
    assert safety.check(0.0, 0.0, "") is None
    assert safety.counts == {Halt.EMERGENCY.value: 1}


def test_what_does_not_follow_waits_for_a_new_task() -> None:
    safety = Safety(SafetyConfig(tracking_tolerance=0.2))
    assert safety.check(0.0, 0.19, "") is None
    found = safety.check(0.0, 0.21, "")
    assert found is not None and found[0] is Halt.TRACKING
    assert safety.check(0.0, 0.0, "") is not None
    safety.begin()
    assert safety.check(0.0, 0.0, "") is None
    assert Safety(SafetyConfig(dry_run=True)).check(0.0, 9.0, "") is None


def test_stale_joints_and_robot_faults_pass_by_themselves() -> None:
    safety = Safety(SafetyConfig(joint_timeout=0.5))
    assert safety.check(0.6, 0.0, "") == (Halt.JOINT_STATES, "joint states stopped coming")
    assert safety.check(0.1, 0.0, "reflex") == (Halt.ROBOT, "reflex")
    assert safety.check(0.1, 0.0, "") is None
    assert safety.check(0.6, 0.0, "") is not None
    assert safety.counts == {Halt.JOINT_STATES.value: 2, Halt.ROBOT.value: 1}
    assert not {halt.value for halt in Halt} & {event.value for event in Event}


@given(
    st.lists(st.tuples(st.floats(allow_nan=True), st.floats(0.0, 0.5)), min_size=1, max_size=20)
)  # fmt: skip
def test_speed_changes_little_by_little_and_stays_a_share(asked: list[tuple[float, float]]) -> None:
    safety, now = Safety(SafetyConfig()), 0.0
    before = safety.speed(now)
    assert before == 1.0
    for share, passed in asked:
        safety.slow(share)
        now += passed
        speed = safety.speed(now)
        assert 0.0 <= speed <= 1.0
        assert abs(speed - before) <= 2.0 * passed + 1e-9
        before = speed
    asked_for = 0.0 if math.isnan(share) else min(max(share, 0.0), 1.0)
    assert math.isclose(safety.speed(now + 1.0), asked_for, abs_tol=1e-9)
