"""Rotations and poses: round trips, group laws, edge angles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from internvla_ros.motion import se3
from internvla_ros.motion.se3 import Pose

Array = NDArray[np.float64]
angles = st.floats(-math.pi, math.pi)
lengths = st.floats(-2.0, 2.0)
rotvecs = st.tuples(angles, angles, angles).map(np.array)
poses = st.builds(
    lambda p, w: Pose(np.array(p), se3.rotvec_to_matrix(w)),
    st.tuples(lengths, lengths, lengths),
    rotvecs,
)


def assert_same(a: Pose, b: Pose, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(a.matrix(), b.matrix(), atol=tolerance)


@given(rotvecs)
def test_rotvec_gives_a_rotation(w: Array) -> None:
    r = se3.rotvec_to_matrix(w)
    np.testing.assert_allclose(r.T @ r, np.eye(3), atol=1e-12)
    assert np.linalg.det(r) == pytest.approx(1.0)


@given(rotvecs)
def test_every_form_of_a_rotation_comes_back(w: Array) -> None:
    r = se3.rotvec_to_matrix(w)
    np.testing.assert_allclose(se3.rotvec_to_matrix(se3.matrix_to_rotvec(r)), r, atol=1e-9)
    np.testing.assert_allclose(se3.rpy_to_matrix(se3.matrix_to_rpy(r)), r, atol=1e-7)
    np.testing.assert_allclose(se3.quaternion_to_matrix(se3.matrix_to_quaternion(r)), r, atol=1e-9)
    np.testing.assert_allclose(se3.rot6d_to_matrix(se3.rot6d(r)), r, atol=1e-12)


@pytest.mark.parametrize("axis", np.vstack([np.eye(3), np.full((1, 3), 1 / math.sqrt(3))]))
@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-9, 1e-6, math.pi - 1e-9, math.pi])
def test_rotvec_at_the_edges(axis: Array, angle: float) -> None:
    r = se3.rotvec_to_matrix(axis * angle)
    back = se3.matrix_to_rotvec(r)
    assert np.linalg.norm(back) == pytest.approx(angle, abs=1e-9)
    np.testing.assert_allclose(se3.rotvec_to_matrix(back), r, atol=1e-9)


@pytest.mark.parametrize("pitch", [math.pi / 2, -math.pi / 2])
def test_rpy_at_gimbal_lock(pitch: float) -> None:
    r = se3.rpy_to_matrix([0.3, pitch, -0.7])
    np.testing.assert_allclose(se3.rpy_to_matrix(se3.matrix_to_rpy(r)), r, atol=1e-9)


def test_rpy_turns_about_fixed_axes() -> None:
    rx = se3.rotvec_to_matrix([0.2, 0, 0])
    ry = se3.rotvec_to_matrix([0, -0.4, 0])
    rz = se3.rotvec_to_matrix([0, 0, 1.1])
    np.testing.assert_allclose(se3.rpy_to_matrix([0.2, -0.4, 1.1]), rz @ ry @ rx, atol=1e-12)


def test_rot6d_is_the_first_two_columns() -> None:
    r = np.arange(9.0).reshape(3, 3)
    assert se3.rot6d(r).tolist() == [0, 3, 6, 1, 4, 7]


@given(poses, poses, poses)
def test_group_laws(a: Pose, b: Pose, c: Pose) -> None:
    assert_same((a @ b) @ c, a @ (b @ c))
    assert_same(a @ a.inverse(), Pose.identity())
    point = np.array([0.1, -0.2, 0.3])
    np.testing.assert_allclose((a @ b).apply(point), a.apply(b.apply(point)), atol=1e-9)


@given(poses)
@settings(max_examples=50)
def test_forms_of_a_pose_come_back(a: Pose) -> None:
    assert_same(Pose.from_matrix(a.matrix()), a)
    assert_same(Pose.from_quaternion(a.position, a.quaternion()), a)
    assert_same(Pose.from_rpy(a.position, a.rpy()), a, 1e-7)


@given(poses)
def test_exp_of_log_comes_back(a: Pose) -> None:
    if np.linalg.norm(se3.matrix_to_rotvec(a.rotation)) < math.pi - 1e-3:
        assert_same(se3.exp(se3.log(a)), a, 1e-8)


def test_exp_matches_many_small_steps() -> None:
    twist = np.array([0.3, -0.2, 0.5, 0.9, -1.2, 0.4])
    step, pose = se3.exp(twist / 1000), Pose.identity()
    for _ in range(1000):
        pose = pose @ step
    assert_same(pose, se3.exp(twist), 1e-9)


@given(poses, poses, st.floats(0.0, 1.0))
def test_interpolation_is_even(a: Pose, b: Pose, s: float) -> None:
    metres, turn = se3.distance(a, b)
    middle = se3.interpolate(a, b, s)
    assert se3.distance(a, middle) == (
        pytest.approx(s * metres, abs=1e-7),
        pytest.approx(s * turn, abs=1e-7),
    )
    assert_same(se3.interpolate(a, b, 1.0), b, 1e-8)


def test_orthonormalise_mends_drift() -> None:
    r = se3.rpy_to_matrix([0.4, 0.5, 0.6])
    mended = se3.orthonormalise(r + 1e-4)
    assert Pose(np.zeros(3), mended).is_valid(1e-12)
    np.testing.assert_allclose(mended, r, atol=3e-4)


def test_validity() -> None:
    assert Pose.identity().is_valid()
    assert not Pose(np.array([0.0, np.nan, 0.0]), np.eye(3)).is_valid()
    assert not Pose(np.zeros(3), np.diag([1.0, 1.0, -1.0])).is_valid()
    assert not Pose(np.zeros(3), 2 * np.eye(3)).is_valid()


@pytest.mark.parametrize("bad", [[0, 0, 0, 0], [1, 0, 0], [np.nan, 0, 0, 1]])
def test_bad_quaternions_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="quaternion"):
        se3.quaternion_to_matrix(bad)


def test_bad_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="position"):
        Pose(np.zeros(2), np.eye(3))
    with pytest.raises(ValueError, match="span"):
        se3.rot6d_to_matrix([1, 0, 0, 1, 0, 0])


def test_poses_cannot_be_changed_in_place() -> None:
    pose = Pose.identity()
    with pytest.raises(ValueError, match="read-only"):
        pose.position[0] = 1.0
