"""The reference: a tip that is led after its targets, never faster or harder than it may be."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from internvla_ros.motion.reference import Reference
from internvla_ros.motion.se3 import Pose, matrix_to_rotvec, rotvec_to_matrix

SPEED, ACCELERATION, TURN, TURN_ACCELERATION = 0.5, 2.5, 3.0, 15.0
STEP = 0.01


def reference_at(pose: Pose) -> Reference:
    reference = Reference(SPEED, ACCELERATION, TURN, TURN_ACCELERATION)
    reference.reset(pose)
    return reference


def a_pose(rng: np.random.Generator, size: float) -> Pose:
    return Pose(size * rng.normal(0.0, 0.2, 3), rotvec_to_matrix(size * rng.normal(0.0, 0.5, 3)))


def rates(poses: list[Pose]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[k, 3] velocities and rates of turning from each pose to the next."""
    pairs = list(pairwise(poses))
    turns = [matrix_to_rotvec(b.rotation @ a.rotation.T) for a, b in pairs]
    return np.array([b.position - a.position for a, b in pairs]) / STEP, np.array(turns) / STEP


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.01, 0.1, 1.0]), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_no_stream_of_targets_makes_it_too_fast_or_too_hard(
    seed: int, size: float, kept: int
) -> None:
    """Targets that jump, each kept for some steps, then one that is reached."""
    rng = np.random.default_rng(seed)
    reference = reference_at(Pose.identity())
    poses = [reference.pose] * 2
    for _ in range(6):
        target = a_pose(rng, size)
        poses += [reference.towards(target, STEP) for _ in range(kept)]
    poses += [reference.towards(target, STEP) for _ in range(600)]
    for rate, most, hardest in zip(
        rates(poses), (SPEED, TURN), (ACCELERATION, TURN_ACCELERATION), strict=True
    ):
        assert np.linalg.norm(rate, axis=1).max() <= most * (1 + 1e-6)
        change = np.linalg.norm(np.diff(rate, axis=0), axis=1) / STEP
        assert change.max() <= hardest * (1 + 1e-6)
    np.testing.assert_allclose(poses[-1].matrix(), target.matrix(), atol=1e-6)


def test_it_goes_on_from_where_it_was_really_led() -> None:
    """Its velocity is what its last way was, not what it had been meant to be."""
    reference = reference_at(Pose.identity())
    target = Pose(np.array([1.0, 0.0, 0.0]), np.eye(3))
    for _ in range(10):
        before = reference.pose
        led = reference.towards(target, STEP)
    less = Pose(before.position + 0.5 * (led.position - before.position), np.eye(3))
    reference.correct(less, STEP)
    after = reference.towards(target, STEP)
    velocity, _ = rates([before, less, after])
    assert np.abs(np.diff(velocity, axis=0)).max() <= ACCELERATION * STEP * (1 + 1e-6)
