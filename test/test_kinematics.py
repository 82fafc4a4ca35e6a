"""Kinematics against a chain whose geometry is known by hand, and its own inverse."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from internvla_ros.motion import kinematics, se3
from internvla_ros.motion.kinematics import Kinematics, KinematicsError
from internvla_ros.motion.se3 import Pose
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import known_embodiments, load_embodiment

Array = NDArray[np.float64]
JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
AXES = ("0 0 1", "0 1 0", "0 1 0", "1 0 0", "0 1 0", "1 0 0")
ORIGINS = ("0 0 0.07", "0 0 0.04", "0.05 0 0.25", "0.17 0 0", "0.08 0 0", "0.06 0 0")
LIMITS = ((-3.1, 3.1), (-1.88, 1.99), (-2.14, 1.6), (-3.1, 3.1), (-1.74, 2.14), (-3.1, 3.1))


def chain(fingers: bool = True, joint_type: str = "revolute") -> str:
    """A six-joint arm of the proportions of a small table-top robot."""
    links = ["base_link", *(f"{name}_link" for name in JOINTS)]
    parts = [f'<link name="{name}"/>' for name in [*links, "tip"]]
    for i, name in enumerate(JOINTS):
        low, high = LIMITS[i]
        parts.append(
            f'<joint name="{name}" type="{joint_type}"><parent link="{links[i]}"/>'
            f'<child link="{links[i + 1]}"/><origin xyz="{ORIGINS[i]}"/><axis xyz="{AXES[i]}"/>'
            f'<limit lower="{low}" upper="{high}" velocity="3.14" effort="10"/></joint>'
        )
    if fingers:
        parts.append(
            '<link name="finger"/><joint name="finger_joint" type="prismatic">'
            '<parent link="wrist_rotate_link"/><child link="finger"/><axis xyz="0 1 0"/>'
            '<limit lower="0" upper="0.04" velocity="1" effort="5"/></joint>'
        )
    parts.append(
        '<joint name="tip_joint" type="fixed"><parent link="wrist_rotate_link"/>'
        '<child link="tip"/><origin xyz="0.09 0 0"/></joint>'
    )
    return f'<robot name="arm">{"".join(parts)}</robot>'


@pytest.fixture(scope="module")
def arm() -> Kinematics:
    return Kinematics(chain(), JOINTS, "tip")


inside = st.tuples(*(st.floats(low, high) for low, high in LIMITS)).map(np.array)


def by_hand(q: Array) -> Pose:
    """The chain multiplied out joint by joint."""
    pose = Pose.identity()
    for origin, axis, angle in zip(ORIGINS, AXES, q, strict=True):
        turn = se3.rotvec_to_matrix(angle * np.array(axis.split(), dtype=float))
        pose = pose @ Pose(np.array(origin.split(), dtype=float), turn)
    return pose @ Pose(np.array([0.09, 0, 0]), np.eye(3))


@given(inside)
@settings(max_examples=50)
def test_forward_matches_the_chain_multiplied_out(arm: Kinematics, q: Array) -> None:
    np.testing.assert_allclose(arm.forward(q).matrix(), by_hand(q).matrix(), atol=1e-12)


@given(inside)
@settings(max_examples=30)
def test_jacobian_matches_finite_differences(arm: Kinematics, q: Array) -> None:
    jacobian, here = arm.jacobian(q), arm.forward(q)
    for i in range(6):
        moved = arm.forward(q + 1e-6 * np.eye(6)[i])
        turn = se3.matrix_to_rotvec(moved.rotation @ here.rotation.T)
        change = np.concatenate([moved.position - here.position, turn]) / 1e-6
        np.testing.assert_allclose(jacobian[:, i], change, atol=1e-4)


def test_joint_order_is_the_callers() -> None:
    q = np.array([0.1, -0.4, 0.5, 0.2, 0.9, -0.3])
    mixed = [4, 0, 5, 2, 1, 3]
    other = Kinematics(chain(), [JOINTS[i] for i in mixed], "tip")
    arm = Kinematics(chain(), JOINTS, "tip")
    np.testing.assert_allclose(other.forward(q[mixed]).matrix(), arm.forward(q).matrix())
    np.testing.assert_allclose(other.jacobian(q[mixed]), arm.jacobian(q)[:, mixed])
    np.testing.assert_allclose(other.lower, arm.lower[mixed])
    found = other.inverse(arm.forward(q + 0.05), q[mixed])
    assert found.converged
    np.testing.assert_allclose(found.q, (q + 0.05)[mixed], atol=5e-3)


@given(inside, st.tuples(*[st.floats(-0.1, 0.1)] * 6).map(np.array))
@settings(max_examples=100)
def test_inverse_finds_near_poses_within_the_limits(
    arm: Kinematics, q: Array, change: Array
) -> None:
    target = arm.forward(np.clip(q + change, arm.lower, arm.upper))
    found = arm.inverse(target, q)
    metres, radians = se3.distance(arm.forward(found.q), target)
    assert (found.position_error, found.rotation_error) == (
        pytest.approx(metres, abs=1e-9),
        pytest.approx(radians, abs=1e-7),
    )
    assert np.all(found.q >= arm.lower) and np.all(found.q <= arm.upper)
    assert metres <= 5e-3 and radians <= 5e-2


def test_inverse_from_a_ready_pose_over_a_table(arm: Kinematics) -> None:
    rng, down = np.random.default_rng(0), se3.rpy_to_matrix([0, math.pi / 2, 0])
    ready, missed = np.array([0.0, -0.3, 0.6, 0.0, 1.2, 0.0]), 0
    for _ in range(200):
        target = Pose(rng.uniform([0.2, -0.18, 0.02], [0.38, 0.18, 0.2]), down)
        missed += not arm.inverse(target, ready).converged
    assert missed == 0


def test_unreachable_targets_give_the_nearest_pose(arm: Kinematics) -> None:
    seed = np.array([0.0, 0.2, 0.3, 0.0, 0.3, 0.0])
    there = arm.forward(seed)
    found = arm.inverse(Pose(np.array([2.0, 0.0, 0.3]), there.rotation), seed)
    assert not found.converged
    assert np.all(np.isfinite(found.q))
    assert np.all(found.q >= arm.lower) and np.all(found.q <= arm.upper)
    assert arm.forward(found.q).position[0] > there.position[0]


@pytest.mark.parametrize(("far", "converges"), [(0.005, True), (2.0, False)])
def test_a_search_ends_with_a_step_that_leaves_too_much(
    arm: Kinematics, monkeypatch: pytest.MonkeyPatch, far: float, converges: bool
) -> None:
    """Within reach a step takes nearly all of the error away; beyond it hardly any."""
    steps = 0

    def counted(*args: object) -> Array:
        nonlocal steps
        steps += 1
        return step(*args)

    step = kinematics._step
    monkeypatch.setattr(kinematics, "_step", counted)
    seed = np.array([0.0, -0.3, 0.6, 0.0, 1.2, 0.0])
    here = arm.forward(seed)
    target = Pose(here.position + np.array([far, 0.0, 0.0]), here.rotation)
    found = arm.inverse(target, seed, most_left=0.25)
    assert found.converged == converges
    assert found.position_error < far
    assert 1 <= steps <= 5


def test_own_limits_are_kept(arm: Kinematics) -> None:
    lower, upper = arm.lower.copy(), arm.upper.copy()
    lower[0], upper[0] = -0.2, 0.2
    seed = np.array([0.0, -0.3, 0.6, 0.0, 1.2, 0.0])
    target = arm.forward(seed + np.array([0.8, 0, 0, 0, 0, 0]))
    found = arm.inverse(target, seed, lower=lower, upper=upper)
    assert -0.2 <= found.q[0] <= 0.2 and not found.converged


def test_posture_uses_only_freedom_that_is_left() -> None:
    """Three joints that all yaw: the tip's yaw stays, the posture decides how it is shared."""
    xml = '<robot name="r"><link name="l0"/>' + "".join(
        f'<link name="l{i}"/><joint name="j{i}" type="revolute"><parent link="l{i - 1}"/>'
        f'<child link="l{i}"/><axis xyz="0 0 1"/>'
        '<limit lower="-3" upper="3" velocity="1" effort="1"/></joint>'
        for i in (1, 2, 3)
    )
    chain3 = Kinematics(xml + "</robot>", ("j1", "j2", "j3"), "l3")
    target = chain3.forward([0.9, 0.0, 0.0])
    posture = np.array([0.0, 0.3, 0.6])
    found = chain3.inverse(target, [0.9, 0.0, 0.1], posture=posture, rotation_tolerance=1e-9)
    assert found.q.sum() == pytest.approx(0.9, abs=1e-6)
    assert np.linalg.norm(found.q - posture) < np.linalg.norm([0.9, -0.3, -0.5])


def test_descriptions_that_lack_something_are_refused() -> None:
    with pytest.raises(KinematicsError, match=r"lacks joint hip; it has waist"):
        Kinematics(chain(), ("waist", "hip"), "tip")
    with pytest.raises(KinematicsError, match=r"lacks the tip frame 'nose'"):
        Kinematics(chain(), JOINTS, "nose")
    with pytest.raises(KinematicsError, match=r"robot description"):
        Kinematics("<robot", JOINTS, "tip")
    with pytest.raises(KinematicsError, match=r"one number each"):
        Kinematics(chain(joint_type="continuous"), JOINTS, "tip")


def test_wrong_number_of_joints_is_refused(arm: Kinematics) -> None:
    with pytest.raises(ValueError, match="need 6 joints"):
        arm.forward(np.zeros(5))


ROBOTS = {name: load_embodiment(name) for name in known_embodiments()}
CHAINS = {
    name: Kinematics(urdf(name), robot.joints, robot.tip_frame) for name, robot in ROBOTS.items()
}
each_robot = pytest.mark.parametrize("name", ROBOTS)


def somewhere(name: str, rng: np.random.Generator, inset: float = 0.0) -> Array:
    robot = ROBOTS[name]
    margin = inset * (robot.position_upper - robot.position_lower)
    return rng.uniform(robot.position_lower + margin, robot.position_upper - margin)


@each_robot
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_every_pose_an_arm_can_take_is_found_again(name: str, seed: int) -> None:
    """With restarts from all over the joint space; whatever is found lies within the limits."""
    robot, arm = ROBOTS[name], CHAINS[name]
    target = arm.forward(somewhere(name, np.random.default_rng(seed), inset=0.02))
    found = arm.inverse(target, robot.ready, posture=robot.posture, restarts=60)
    assert found.converged
    metres, radians = se3.distance(arm.forward(found.q), target)
    assert metres <= 1e-4 and radians <= 1e-3
    assert (found.q >= arm.lower).all() and (found.q <= arm.upper).all()


@each_robot
@given(seed=st.integers(0, 2**32 - 1), shift=st.floats(0.3, 5.0))
@settings(max_examples=15, deadline=None)
def test_limits_hold_for_poses_that_no_arm_can_take(name: str, seed: int, shift: float) -> None:
    robot, arm, rng = ROBOTS[name], CHAINS[name], np.random.default_rng(seed)
    here = arm.forward(somewhere(name, rng))
    away = Pose(here.position + shift * rng.normal(size=3), here.rotation)
    found = arm.inverse(away, somewhere(name, rng), posture=robot.posture, max_iterations=30)
    assert np.isfinite(found.q).all()
    assert (found.q >= arm.lower).all() and (found.q <= arm.upper).all()


@pytest.mark.parametrize("name", ["franka_fr3", "franka_panda", "google_robot"])
def test_seven_joints_lean_towards_their_posture(name: str) -> None:
    robot, arm, rng = ROBOTS[name], CHAINS[name], np.random.default_rng(4)
    nearer = 0
    for _ in range(30):
        q = np.clip(robot.ready + rng.uniform(-0.4, 0.4, 7), arm.lower, arm.upper)
        target = arm.forward(np.clip(q + 0.02, arm.lower, arm.upper))
        plain = arm.inverse(target, q)
        leaning = arm.inverse(target, q, posture=robot.ready, position_tolerance=1e-5)
        assert leaning.converged and plain.converged
        nearer += bool(
            np.linalg.norm(leaning.q - robot.ready) < np.linalg.norm(plain.q - robot.ready)
        )
    assert nearer >= 27


@pytest.mark.parametrize("name", ["franka_fr3", "widowx_250s"])
def test_singular_poses_are_left_without_a_leap(name: str) -> None:
    """Stretched out, the Jacobian has lost a direction; a step towards it stays small."""
    robot, arm = ROBOTS[name], CHAINS[name]
    q = np.clip(np.zeros(len(robot.joints)), robot.position_lower, robot.position_upper)
    here = arm.forward(q)
    for direction in np.vstack([np.eye(3), -np.eye(3)]):
        target = Pose(here.position + 0.01 * direction, here.rotation)
        found = arm.inverse(target, q, posture=robot.posture)
        assert np.isfinite(found.q).all() and found.position_error <= 0.0101
