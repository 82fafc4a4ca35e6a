"""Executing chunks: anchoring, delays, blending, refusals, holding."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from internvla_ros.control.chunk import Chunk, Path, integrate
from internvla_ros.control.ensemble import EnsembleError, Prediction, blend
from internvla_ros.control.executor import ChunkExecutor, ExecutorError, Setpoint, State
from internvla_ros.control.gripper import GripperLatch
from internvla_ros.control.realtime import remaining
from internvla_ros.motion import se3
from internvla_ros.motion.limits import Limit
from internvla_ros.motion.se3 import Pose
from internvla_ros.robots.embodiment import ActionConvention

Array = NDArray[np.float64]
TARGET = ActionConvention("base", "rpy", "target", 0.5)
PERIOD, DT, STEPS = 0.02, 0.2, 16
HOME = Pose(np.array([0.25, 0.0, 0.15]), se3.rpy_to_matrix([0.0, math.pi / 2, 0.0]))
STEADY = np.array([0.04, -0.03, 0.01, 0.02, 0.01, -0.05, 1.0])  # one step of an even motion


def chunk(stamp: float, sequence: int = 1, action: Array = STEADY, steps: int = STEPS) -> Chunk:
    return Chunk(stamp, DT, np.tile(action, (steps, 1)), sequence)


def executor(**options: object) -> ChunkExecutor:
    made = ChunkExecutor(TARGET, **options)  # type: ignore[arg-type]
    made.reset(HOME, 1.0)
    return made


class Clock:
    """Runs an executor at the control rate, the arm following exactly."""

    def __init__(self, target: ChunkExecutor) -> None:
        self.executor, self.tick = target, 0
        self.setpoints: list[Setpoint] = []
        self.run(1)

    @property
    def now(self) -> float:
        return self.tick * PERIOD

    def run(self, ticks: int) -> Setpoint:
        for _ in range(ticks):
            self.tick += 1
            setpoint = self.executor.setpoint(self.now)
            self.executor.record(self.now, setpoint.pose, setpoint.pose)
            self.setpoints.append(setpoint)
        return self.setpoints[-1]

    def positions(self) -> Array:
        return np.array([s.pose.position for s in self.setpoints])


def test_integration_by_hand() -> None:
    actions = np.array([[0.1, 0, 0, 0, 0, math.pi / 2, 1.0], [0, 0.2, 0, math.pi / 2, 0, 0, 0.0]])
    poses = integrate(Pose(np.array([1.0, 0, 0]), np.eye(3)), actions, TARGET)
    np.testing.assert_allclose(poses[2].position, [1.1, 0.2, 0.0])
    # The second turn is about the base's x axis, not about the turned frame's.
    expected = se3.rpy_to_matrix([math.pi / 2, 0, 0]) @ se3.rpy_to_matrix([0, 0, math.pi / 2])
    np.testing.assert_allclose(poses[2].rotation, expected, atol=1e-12)


@given(st.lists(st.lists(st.floats(-0.2, 0.2), min_size=6, max_size=6), min_size=1, max_size=16))
def test_integration_is_undone_by_differences(deltas: list[list[float]]) -> None:
    actions = np.column_stack([np.array(deltas), np.ones(len(deltas))])
    for convention in (TARGET, replace(TARGET, rotation="rotvec")):
        poses = integrate(HOME, actions, convention)
        assert all(pose.is_valid(1e-9) for pose in poses)
        for before, after, action in zip(poses, poses[1:], actions, strict=False):
            np.testing.assert_allclose(after.position - before.position, action[:3], atol=1e-12)
            turn = after.rotation @ before.rotation.T
            angles = se3.matrix_to_rpy if convention.rotation == "rpy" else se3.matrix_to_rotvec
            np.testing.assert_allclose(angles(turn), action[3:6], atol=1e-9)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_a_path_is_continuous_in_pose_and_velocity(seed: int) -> None:
    rng = np.random.default_rng(seed)
    actions = np.column_stack([rng.uniform(-0.06, 0.06, (5, 6)), np.ones(5)])
    poses = integrate(HOME, actions, TARGET)
    path = Path(10.0, DT, poses, actions[:, 6])
    assert se3.distance(path.pose(9.0), poses[0]) == pytest.approx((0.0, 0.0), abs=1e-12)
    assert se3.distance(path.pose(12.0), poses[-1]) == pytest.approx((0.0, 0.0), abs=1e-7)
    middle = path.pose(10.0 + 2.5 * DT)
    halfway = se3.interpolate(poses[2], poses[3], 0.5)
    assert se3.distance(middle, halfway) == pytest.approx((0.0, 0.0), abs=1e-7)
    times = np.arange(10.0, 11.0, 0.004)
    positions = np.array([path.pose(t).position for t in times])
    speeds = np.diff(positions, axis=0) / 0.004
    assert np.abs(np.diff(speeds, axis=0)).max() < 0.004 * 0.13 / DT**2 + 1e-9


@given(
    st.sampled_from([0.11, 0.19]).flatmap(
        lambda most: st.lists(st.floats(0.0, most), min_size=6, max_size=6)
    ),
    st.sampled_from(["latest", "temporal", "adaptive"]),
    st.sampled_from(["target", "measured"]),
)
@settings(max_examples=40, deadline=None)
def test_an_even_motion_sent_again_and_again_stays_even(
    delays: list[float], method: str, anchor: str
) -> None:
    made = ChunkExecutor(replace(TARGET, anchor=anchor), blend=method, horizon=4)
    made.reset(HOME, 1.0)
    clock = Clock(made)
    first = clock.now + delays[0]
    arrivals = [(clock.now + i * DT, clock.now + i * DT + d) for i, d in enumerate(delays)]
    for i, (stamp, arrival) in enumerate(arrivals):
        while clock.now + PERIOD <= arrival:
            clock.run(1)
        assert made.add(chunk(stamp, i), arrival).accepted
    clock.run(10)
    path = Path(first, DT, integrate(HOME, np.tile(STEADY, (20, 1)), TARGET), np.ones(20))
    before: Pose | None = None
    for i, setpoint in enumerate(clock.setpoints, start=1):
        due = path.pose(i * PERIOD)
        metres, radians = se3.distance(setpoint.pose, due)
        assert metres < 0.015 and radians < 0.03  # what setting out smoothly may cost, once
        left = Pose(setpoint.pose.position - due.position, setpoint.pose.rotation @ due.rotation.T)
        # Each chunk is laid from where the arm has come to; those that come so late that the arm is
        # still passing over to the one before take that into what they are laid from.
        if i * PERIOD > first + 0.9 and max(delays) < 0.12:
            assert before is not None
            metres, radians = se3.distance(left, before)
            assert metres < 5e-4 and radians < 3e-3
        before = left


@given(lag=st.integers(1, 10), delay=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_an_arm_that_trails_is_not_called_back_by_deltas_to_its_measured_pose(
    lag: int, delay: int
) -> None:
    """Lag and delay in control periods; chunks lead from where the arm is onto one even way."""
    made = ChunkExecutor(replace(TARGET, anchor="measured"), blend="latest")
    made.reset(HOME, 1.0)
    made.record(0.0, HOME, HOME)
    commanded = [HOME] * (lag + 1)
    way = STEADY * np.array([1, 1, 1, 0, 0, 0, 1])
    for tick in range(60):
        if tick % 10 == 0:
            stamp = tick * PERIOD
            due = stamp / DT + 1 if tick == 0 else (stamp - delay * PERIOD) / DT + 1
            actions = np.tile(way, (STEPS, 1))
            actions[0, :3] *= due
            actions[0, :3] -= commanded[-1 - lag].position - HOME.position
        if tick % 10 == delay:
            assert made.add(Chunk(stamp, DT, actions, tick), tick * PERIOD).accepted
        commanded.append(made.setpoint((tick + 1) * PERIOD).pose)
        made.record((tick + 1) * PERIOD, commanded[-1], commanded[-1 - lag])
    steps = np.diff([pose.position for pose in commanded], axis=0)
    assert (steps @ way[:3]).min() > -1e-12
    np.testing.assert_allclose(steps[lag + 30 :] - way[:3] * PERIOD / DT, 0, atol=2e-5)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["latest", "temporal", "adaptive"]))
@settings(max_examples=20, deadline=None)
def test_setpoints_never_jump_whatever_arrives(seed: int, method: str) -> None:
    """Contradicting chunks, late, early, repeated, broken, with pauses and holds between."""
    rng = np.random.default_rng(seed)
    made = executor(blend=method)
    clock = Clock(made)
    for i in range(25):
        actions = np.column_stack(
            [rng.uniform(-0.05, 0.05, 6) * np.ones((8, 1)), rng.uniform(0, 1, 8)]
        )
        if rng.random() < 0.2:
            actions[rng.integers(8), rng.integers(7)] = rng.choice([np.nan, np.inf, 1e6])
        made.add(Chunk(clock.now - rng.uniform(-0.2, 1.5), DT, actions, i), clock.now)
        if rng.random() < 0.1:
            made.hold(clock.now)
        clock.run(int(rng.integers(1, 20)))
    steps = np.linalg.norm(np.diff(clock.positions(), axis=0), axis=1)
    # A chunk's speed, that of an offset fading, and what makes up for a velocity fading.
    fastest = (1.0 + 2.0 / 3.0) * 0.05 * math.sqrt(3) / DT + 0.3 * 4.0 / 3.0
    assert steps.max() < fastest * PERIOD * 1.01
    assert all(s.pose.is_valid() and s.gripper in (0.0, 1.0) for s in clock.setpoints)


def test_steps_already_past_are_dropped() -> None:
    """A chunk seen 0.3 s ago by a moving arm goes on in the middle of its second step."""
    clock = Clock(executor(blend="latest"))
    clock.executor.add(chunk(clock.now), clock.now)
    clock.run(20)
    stamp = clock.now
    seen = clock.setpoints[-1].pose
    clock.run(15)
    still = np.array([0, 0, 0, 0, 0, 0, 1.0])
    actions = np.array([STEADY, still, still, still])
    assert clock.executor.add(Chunk(stamp, DT, actions, 2), clock.now).accepted
    end = clock.run(60)
    expected = seen.position + STEADY[:3]
    np.testing.assert_allclose(end.pose.position, expected, atol=1e-9)


def test_an_arm_that_stood_still_misses_no_step() -> None:
    clock = Clock(executor())
    stamp = clock.now
    clock.run(25)
    clock.executor.add(chunk(stamp, steps=3), clock.now)
    clock.run(20)
    early = np.linalg.norm(clock.setpoints[-1].pose.position - HOME.position)
    assert early == pytest.approx(20 * PERIOD / DT * np.linalg.norm(STEADY[:3]))
    end = clock.run(60)
    np.testing.assert_allclose(end.pose.position, HOME.position + 3 * STEADY[:3], atol=1e-9)


def test_time_out_slows_down_and_holds_then_resumes() -> None:
    clock = Clock(executor(timeout=0.6))
    clock.executor.add(chunk(clock.now), clock.now)
    clock.run(100)
    states = [s.state for s in clock.setpoints]
    assert states[0] is State.IDLE and states[10] is State.RUNNING and states[-1] is State.HOLDING
    speeds = np.linalg.norm(np.diff(clock.positions(), axis=0), axis=1) / PERIOD
    full = np.linalg.norm(STEADY[:3]) / DT
    assert speeds[20:30].max() == pytest.approx(full, rel=1e-3)
    assert speeds[:30].max() < 1.34 * full
    slowing = speeds[states.index(State.HOLDING) - 1 :]
    assert (np.diff(slowing) <= 1e-12).all() and slowing[20:].max() == 0.0
    assert -np.diff(speeds)[25:].min() < 1.1 * full * PERIOD / 0.3
    held = clock.setpoints[-1].pose.position
    assert np.linalg.norm(held - HOME.position) > 0.5 * full
    assert clock.executor.add(chunk(clock.now, 2), clock.now).accepted
    assert clock.run(5).state is State.RUNNING
    assert np.linalg.norm(clock.setpoints[-1].pose.position - held) <= 5 * PERIOD * full + 1e-9


def test_a_chunk_that_runs_out_ends_at_its_last_pose() -> None:
    clock = Clock(executor(timeout=10.0))
    clock.executor.add(chunk(clock.now, steps=4), clock.now)
    end = clock.run(80)
    assert end.state is State.HOLDING
    expected = integrate(HOME, np.tile(STEADY, (4, 1)), TARGET)[-1]
    assert se3.distance(end.pose, expected) == pytest.approx((0.0, 0.0), abs=1e-7)
    assert end.chunk_age == pytest.approx(80 * PERIOD)


def test_refusals_say_why_and_change_nothing() -> None:
    clock = Clock(executor())
    clock.run(50)
    now, add = clock.now, clock.executor.add
    bad = np.tile(STEADY, (4, 1))
    bad[2, 1] = math.nan
    far = np.tile(STEADY, (4, 1))
    far[3, 0] = 0.5
    wild = np.tile(STEADY, (4, 1))
    wild[1, 4] = 3.0
    grip = np.tile(STEADY, (4, 1))
    grip[0, 6] = 1e300
    assert add(chunk(now - 0.1, 7), now).accepted
    before = clock.executor.setpoint(now + 0.1).pose
    cases = [
        (chunk(now - 0.1, 7), "chunk 7: duplicate"),
        (chunk(now - 0.2, 6), "chunk 6: out of order: chunk 7 is newer"),
        (chunk(now + 0.5, 8), "0.50 s in the future"),
        (Chunk(now, DT, bad, 8), "step 2 is not finite"),
        (Chunk(now, DT, far, 8), "step 3 moves 0.50 m"),
        (Chunk(now, DT, wild, 8), "step 1 turns 3.00 rad"),
        (Chunk(now, DT, grip, 8), "step 0 has a gripper number of 1e+300"),
        (Chunk(now, 0.0, bad, 8), "step time is 0.0"),
        (Chunk(math.nan, DT, bad, 8), "stamp is nan"),
        (Chunk(now, DT, np.zeros((0, 7)), 8), r"shape (0, 7)"),
        (Chunk(now, DT, np.zeros((3, 6)), 8), r"shape (3, 6)"),
    ]
    for refused, reason in cases:
        verdict = add(refused, now)
        assert not verdict.accepted and reason in verdict.reason
    after = clock.executor.setpoint(now + 0.1).pose
    assert se3.distance(before, after) == (0.0, pytest.approx(0.0, abs=1e-12))


def test_late_chunks_are_refused() -> None:
    clock = Clock(executor(timeout=1.0))
    clock.run(100)
    verdict = clock.executor.add(chunk(clock.now - 1.2), clock.now)
    assert "late: observed 1.20 s ago, over 1.00 s" in verdict.reason
    clock.executor.add(chunk(clock.now, 1), clock.now)
    stamp = clock.now + PERIOD
    clock.run(30)
    verdict = clock.executor.add(chunk(stamp, 2, steps=3), clock.now)
    assert not verdict.accepted and "of its 0.60 s are past" in verdict.reason


def test_a_restarted_sender_is_accepted() -> None:
    clock = Clock(executor())
    assert clock.executor.add(chunk(clock.now, 900), clock.now).accepted
    clock.run(5)
    assert clock.executor.add(chunk(clock.now, 1), clock.now).accepted


def test_chunks_need_a_recorded_pose_at_their_stamp() -> None:
    made = executor()
    assert "not known yet" in made.add(chunk(0.0), 0.0).reason
    made.record(5.0, HOME, HOME)
    assert "before the first recorded pose" in made.add(chunk(4.5), 5.0).reason
    assert "is the arm's state coming in" in made.add(chunk(5.5), 5.5).reason
    nowhere = Pose(np.full(3, math.nan), np.eye(3))
    made.record(6.0, nowhere, HOME)
    assert "is the arm's state coming in" in made.add(chunk(6.0), 6.0).reason


def test_hold_refuses_what_was_observed_before_it() -> None:
    clock = Clock(executor())
    clock.executor.add(chunk(clock.now), clock.now)
    clock.run(10)
    seen = clock.now
    clock.run(5)
    clock.executor.hold(clock.now)
    assert "observed before the hold" in clock.executor.add(chunk(seen, 2), clock.now).reason
    assert clock.run(1).state is State.HOLDING
    clock.run(30)
    assert np.ptp(clock.positions()[-10:], axis=0).max() == 0.0
    assert clock.executor.add(chunk(clock.now, 3), clock.now).accepted


def test_reset_starts_over() -> None:
    clock = Clock(executor())
    clock.executor.add(chunk(clock.now), clock.now)
    clock.run(10)
    clock.executor.reset(HOME, 0.0)
    setpoint = clock.executor.setpoint(clock.now)
    assert setpoint.state is State.IDLE and setpoint.gripper == 0.0
    assert setpoint.chunk_age is None
    assert se3.distance(setpoint.pose, HOME)[0] == 0.0
    with pytest.raises(ExecutorError, match="must come before"):
        ChunkExecutor(TARGET).setpoint(0.0)


def test_bad_options_are_refused() -> None:
    with pytest.raises(EnsembleError, match="known: latest, temporal, adaptive"):
        ChunkExecutor(TARGET, blend="mean")
    with pytest.raises(EnsembleError, match="at least 1"):
        ChunkExecutor(TARGET, horizon=0)
    with pytest.raises(ValueError, match="timeout"):
        ChunkExecutor(TARGET, timeout=math.nan)


def test_the_gripper_is_latched() -> None:
    latch = GripperLatch(TARGET)
    latch.reset(1.0)
    noisy = [latch.update(v, 0.02 * i, DT) for i, v in enumerate([0.45, 0.55, 0.41, 0.59] * 5)]
    assert set(noisy) == {1.0}
    assert latch.update(0.3, 1.0, DT) == 0.0
    assert latch.update(0.9, 1.1, DT) == 0.0  # too soon after the change
    assert latch.update(0.9, 1.31, DT) == 1.0


def test_the_gripper_closes_at_its_step_and_stays_closed_on_hold() -> None:
    clock = Clock(executor(timeout=10.0))
    actions = np.tile(STEADY, (4, 1))
    actions[2:, 6] = 0.0
    start = clock.now
    clock.executor.add(Chunk(start, DT, actions, 1), start)
    clock.run(100)
    closed = [s.gripper == 0.0 for s in clock.setpoints]
    first = closed.index(True)
    assert (first + 1) * PERIOD - start == pytest.approx(2 * DT, abs=PERIOD + 1e-9)
    assert all(closed[first:])


def test_ensembles_by_hand() -> None:
    old = Prediction(0.0, DT, np.array([[0.1, 0, 0, 0, 0, 0, 1.0], [0.2, 0, 0, 0, 0, 0.4, 1.0]]))
    new = Prediction(DT, DT, np.array([[0.0, 0.2, 0, 0, 0, 0, 1.0], [0.3, 0, 0, 0, 0, 0, 0.0]]))
    np.testing.assert_array_equal(blend([old, new], "latest", "rpy"), new.actions)
    mixed = blend([old, new], "temporal", "rpy")
    w = 1.0 / (1.0 + math.exp(-0.01))
    np.testing.assert_allclose(mixed[0, :2], [0.2 * w, 0.2 * (1 - w)])
    np.testing.assert_allclose(mixed[0, 5], 0.4 * w)
    np.testing.assert_allclose(mixed[1], new.actions[1], atol=1e-12)  # the old one has ended
    a, b = old.actions[1], new.actions[0]
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    w = math.exp(0.1 * cosine) / (math.exp(0.1 * cosine) + math.exp(0.1))
    np.testing.assert_allclose(blend([old, new], "adaptive", "rpy")[0], w * a + (1 - w) * b)


@given(st.floats(0.0, 2.5), st.floats(0.05, 0.4))
def test_an_older_chunk_says_of_a_moment_what_its_steps_make_up(shift: float, dt: float) -> None:
    """A chunk of even motion, seen from any moment and in steps of any length, is still even."""
    even = np.array([0.03, -0.01, 0.02, 0.1, 0.2, -0.3, 1.0])
    old = Prediction(0.0, DT, np.tile(even, (20, 1)))
    scale = np.array([dt / DT] * 6 + [1.0])
    new = Prediction(shift * DT, dt, np.zeros((3, 7)))
    mixed = blend([old, new], "temporal", "rotvec")
    w = 1.0 / (1.0 + math.exp(-0.01))
    np.testing.assert_allclose(mixed, np.tile(w * scale * even, (3, 1)), atol=1e-9)


def test_steps_that_do_not_begin_together_are_blended_by_parts() -> None:
    old = Prediction(0.0, DT, np.array([[0.1, 0, 0, 0, 0, 0, 1.0], [0.2, 0, 0, 0, 0, 0, 0.0]]))
    new = Prediction(0.25 * DT, DT, np.zeros((2, 7)))
    mixed = blend([old, new], "temporal", "rotvec")
    w = 1.0 / (1.0 + math.exp(-0.01))
    np.testing.assert_allclose(mixed[0, [0, 6]], [w * (0.75 * 0.1 + 0.25 * 0.2), w])
    np.testing.assert_array_equal(mixed[1], new.actions[1])  # not covered to its end


def test_turns_are_blended_as_rotations() -> None:
    turn = np.array([[0, 0, 0, 1.2, -0.7, 0.9, 1.0]])
    same = [Prediction(0.0, DT, turn), Prediction(0.0, DT, turn)]
    np.testing.assert_allclose(blend(same, "adaptive", "rpy"), turn, atol=1e-12)
    other = np.array([[0, 0, 0, -1.2, 0.7, 0.9, 1.0]])
    mixed = blend([Prediction(0.0, DT, turn), Prediction(0.0, DT, other)], "temporal", "rotvec")
    w = 1.0 / (1.0 + math.exp(-0.01))
    np.testing.assert_allclose(mixed[0, 3:6], w * turn[0, 3:6] + (1 - w) * other[0, 3:6])


def test_deltas_along_the_tip_and_scaled() -> None:
    tip = replace(TARGET, delta_frame="tip", translation_scale=0.5, rotation_scale=2.0)
    turned = Pose(np.array([1.0, 0, 0]), se3.rpy_to_matrix([0, 0, math.pi / 2]))
    actions = np.array([[0.2, 0, 0, 0, 0, math.pi / 4, 1.0], [0.2, 0, 0, 0, 0, 0, 1.0]])
    poses = integrate(turned, actions, tip)
    np.testing.assert_allclose(poses[1].position, [1.0, 0.1, 0.0], atol=1e-12)
    np.testing.assert_allclose(poses[2].position, [0.9, 0.1, 0.0], atol=1e-12)


@given(st.floats(0.0, 1.0), st.floats(0.05, 1.5), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_velocity_does_not_jump_when_chunks_change(at: float, size: float, seed: int) -> None:
    """Whatever the two chunks and whenever the second arrives, from one millisecond to the next."""
    rng = np.random.default_rng(seed)
    made = executor(timeout=10.0)
    made.record(0.0, HOME, HOME)
    first, second = (
        np.column_stack([rng.uniform(-0.1, 0.1, (1, 6)).repeat(8, 0) * size, np.ones(8)])
        for _ in range(2)
    )
    assert made.add(Chunk(0.0, DT, first, 1), 0.0).accepted
    moment = 1e-3
    here = made.setpoint(at).pose
    made.record(max(at, 1e-6), here, here)
    before = (made.setpoint(at).pose.position - made.setpoint(at - moment).pose.position) / moment
    if at < moment:
        before = np.zeros(3) if at == 0.0 else before
    assert made.add(Chunk(max(at, 1e-6), DT, second, 2), max(at, 1e-6)).accepted
    now = max(at, 1e-6)
    after = (made.setpoint(now + moment).pose.position - made.setpoint(now).pose.position) / moment
    fastest = 0.1 * math.sqrt(3) * size / DT
    # 4 v / T of acceleration while a velocity fades out, for a millisecond or two.
    assert (
        np.linalg.norm(after - before) < 2 * moment * (8 * fastest / 0.15 + 2 * fastest / DT) + 1e-9
    )


@given(st.lists(st.tuples(st.integers(1, 30), st.floats(0.0, 1.0)), min_size=1, max_size=8))
@settings(max_examples=30, deadline=None)
def test_a_slower_arm_goes_the_same_way(changes: list[tuple[int, float]]) -> None:
    """At any speed the tip is where full speed has it after as many seconds of the path."""
    made = executor(timeout=100.0)
    clock = Clock(made)
    start = clock.now
    rng = np.random.default_rng(0)
    actions = np.column_stack([rng.uniform(-0.05, 0.05, (16, 6)), np.ones(16)])
    assert made.add(Chunk(start, DT, actions, 1), start).accepted
    clock.run(10)  # past setting out
    path = Path(start, DT, integrate(HOME, actions, TARGET), np.ones(16))
    for ticks, share in changes:
        made.set_speed(share, clock.now)
        for _ in range(ticks):
            before = made.progress(clock.now)
            setpoint = clock.run(1)
            after = made.progress(clock.now)
            assert before is not None and after is not None
            if setpoint.state is State.HOLDING:
                return
            assert after[1] - before[1] == pytest.approx(share * PERIOD, abs=1e-9)
            due = path.pose(start + after[1])
            assert se3.distance(setpoint.pose, due)[0] < 1e-9


def test_the_path_waits_for_an_arm_that_falls_behind_and_no_corner_is_cut() -> None:
    """An arm at a third of the path's speed goes the whole way, three times as slowly."""
    made = executor(timeout=100.0)
    clock = Clock(made)
    corner = np.array([[0.04, 0, 0, 0, 0, 0, 1.0], [0, 0.04, 0, 0, 0, 0, 1.0]]).repeat(4, 0)
    assert made.add(Chunk(clock.now, DT, corner, 1), clock.now).accepted
    line = np.array([p.position for p in integrate(HOME, corner, TARGET)])
    reached, ticks, setpoint = HOME, 0, clock.setpoints[-1]
    while setpoint.state is not State.HOLDING or ticks < 100:
        setpoint, ticks = clock.run(1), ticks + 1
        gap = setpoint.pose.position - reached.position
        step = min(1.0, 0.07 * PERIOD / max(float(np.linalg.norm(gap)), 1e-9))
        reached = Pose(reached.position + step * gap, HOME.rotation)
        assert np.linalg.norm(gap) < 0.026
        legs = [_from_leg(reached.position, line[0], 0), _from_leg(reached.position, line[4], 1)]
        assert min(legs) < 0.012
        assert made.followed(setpoint, reached, (), clock.now) is setpoint.pose
        assert ticks < 2000
    assert ticks * PERIOD == pytest.approx(0.32 / 0.07, rel=0.15)
    end = clock.run(20).pose  # it slows down at the end of the path
    assert se3.distance(end, Pose(line[-1], HOME.rotation))[0] < 1e-9


def _from_leg(place: Array, start: Array, axis: int) -> float:
    """m from a place to a leg of 0.16 m along an axis."""
    nearest = start.copy()
    nearest[axis] += np.clip(place[axis] - start[axis], 0.0, 0.16)
    return float(np.linalg.norm(place - nearest))


def test_the_path_does_not_wait_where_a_limit_of_place_is_in_the_way() -> None:
    made = executor(timeout=100.0)
    clock = Clock(made)
    assert made.add(chunk(clock.now), clock.now).accepted
    for _ in range(100):
        setpoint = clock.run(1)
        commanded = made.followed(setpoint, HOME, (Limit.TIP_SPEED, Limit.WORKSPACE), clock.now)
        assert commanded is HOME
    assert made.progress(clock.now) == (1, pytest.approx(100 * PERIOD))


def test_predictions_are_blended_in_executed_time() -> None:
    """A second chunk for the same motion changes nothing, at whatever speed the arm goes."""
    rng = np.random.default_rng(3)
    actions = np.column_stack([rng.uniform(-0.03, 0.03, (16, 6)), np.ones(16)])
    actions[2] = actions[3]  # no corner where the second one begins
    ends = []
    for speed, second in ((1.0, False), (0.5, False), (0.5, True), (0.3, True)):
        made = executor(blend="temporal", timeout=100.0)
        clock = Clock(made)
        made.set_speed(speed, clock.now)
        assert made.add(Chunk(clock.now, DT, actions, 1), clock.now).accepted
        clock.run(round(3 * DT / PERIOD / speed))
        if second:
            past = made.progress(clock.now)
            assert past is not None
            left = remaining(Chunk(0.0, DT, actions, 1), past[1])
            assert made.add(Chunk(clock.now, DT, left, 2), clock.now).accepted
        ends.append(clock.run(round(18 * DT / PERIOD / speed)).pose)
    for end in ends[1:]:
        assert se3.distance(end, ends[0]) == pytest.approx((0.0, 0.0), abs=1e-3)


def test_open_loop_lets_no_other_chunk_in() -> None:
    clock = Clock(executor(blend="open-loop", timeout=10.0))
    assert clock.executor.add(chunk(clock.now, 1, steps=4), clock.now).accepted
    clock.run(20)
    verdict = clock.executor.add(chunk(clock.now, 2), clock.now)
    assert not verdict.accepted and "open loop" in verdict.reason
    end = clock.run(60)
    expected = integrate(HOME, np.tile(STEADY, (4, 1)), TARGET)[-1]
    assert se3.distance(end.pose, expected) == pytest.approx((0.0, 0.0), abs=1e-7)
    assert clock.executor.add(chunk(clock.now, 3), clock.now).accepted


def test_steps_that_are_too_fast_are_shortened_and_counted() -> None:
    made = executor(step_speed=0.1, step_turn=0.5)
    clock = Clock(made)
    actions = np.tile(STEADY, (4, 1))
    actions[1, :6] = [0.2, 0, 0, 0, 0, 1.0]
    verdict = made.add(Chunk(clock.now, DT, actions, 1), clock.now)
    assert verdict.accepted and verdict.shortened == 4
    end = clock.run(80).pose.position - HOME.position
    shift = STEADY[:3] * 0.02 / np.linalg.norm(STEADY[:3])
    np.testing.assert_allclose(end, 3 * shift + [0.02, 0, 0], atol=1e-9)


def test_a_relative_gripper_goes_by_changes_and_is_latched() -> None:
    relative = replace(
        TARGET, gripper_mode="relative", gripper_sign=-1, gripper_threshold=0.5, gripper_latch=10
    )
    latch = GripperLatch(relative)
    latch.reset(1.0)
    assert latch.update(0.0, 0.0, DT) == 1.0  # the first number says nothing
    assert latch.update(0.3, 0.2, DT) == 1.0
    assert latch.update(1.0, 0.4, DT) == 0.0  # a rise closes
    assert latch.update(0.0, 0.6, DT) == 0.0  # kept up for ten steps
    assert latch.update(0.0, 2.38, DT) == 0.0
    assert latch.update(0.0, 2.41, DT) == 1.0  # what was asked for meanwhile is done now
    assert latch.update(0.0, 9.0, DT) == 1.0  # no change, no news
    assert latch.update(1.0, 9.2, DT) == 0.0
    latch.update(0.0, 9.4, DT)
    latch.update(1.0, 9.6, DT)
    assert latch.update(1.0, 20.0, DT) == 0.0  # the last word counts


@given(st.integers(1, 12))
def test_a_relative_gripper_notices_a_change_in_small_steps(steps: int) -> None:
    """As averaging over several chunks makes it."""
    latch = GripperLatch(replace(TARGET, gripper_mode="relative"), opening=0.4)
    latch.reset(0.4)
    closing, opening = np.linspace(1.0, 0.0, steps + 1), np.linspace(0.0, 1.0, steps + 1)
    targets = [latch.update(v, float(t), DT) for t, v in enumerate([*closing, *opening])]
    assert targets[0] == 0.4 and targets[steps] == 0.0 and targets[-1] == 0.4
    assert sum(a != b for a, b in itertools.pairwise(targets)) == 2


def test_an_open_gripper_is_as_far_open_as_it_was_told() -> None:
    made = executor(opening=0.5, timeout=10.0)
    made.reset(HOME, 0.45)
    clock = Clock(made)
    actions = np.tile(STEADY, (8, 1))
    actions[2:5, 6] = 0.0
    made.add(Chunk(clock.now, DT, actions, 1), clock.now)
    clock.run(70)
    targets = [s.gripper for s in clock.setpoints]
    assert set(targets) == {0.0, 0.5} and targets[0] == targets[-1] == 0.5


@given(st.lists(st.tuples(st.floats(-2, 3), st.floats(0.0, 0.5)), min_size=2, max_size=60))
def test_a_gripper_never_changes_twice_within_its_dwell(stream: list[tuple[float, float]]) -> None:
    for mode in ("absolute", "relative"):
        latch, now, changed = GripperLatch(replace(TARGET, gripper_mode=mode)), 0.0, -math.inf
        for value, passed in stream:
            now, before = now + passed, latch.target
            if latch.update(value, now, DT) != before:
                assert now - changed >= 0.3 - 1e-9
                changed = now
