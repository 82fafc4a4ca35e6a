"""The URDF of the WidowX 250 S: its kinematics, limits and masses."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.robots.description import DescriptionError, urdf
from internvla_ros.robots.embodiment import load_embodiment

ROBOT = load_embodiment("widowx_250s")
TREE = ElementTree.fromstring(urdf("widowx_250s"))


def joint(name: str) -> ElementTree.Element:
    found = TREE.find(f"joint[@name='{name}']")
    assert found is not None
    return found


def number(element: ElementTree.Element, path: str, attribute: str) -> float:
    found = element.find(path)
    assert found is not None
    return float(found.attrib[attribute])


def test_unknown_robot() -> None:
    with pytest.raises(DescriptionError, match="no description of robot 'r2d2'"):
        urdf("r2d2")


def test_frames_and_joints_of_the_embodiment_exist() -> None:
    links = {link.attrib["name"] for link in TREE.iter("link")}
    assert {ROBOT.base_frame, ROBOT.tip_frame} <= links
    assert {camera.frame for camera in ROBOT.cameras} <= links
    for name in (*ROBOT.joints, *ROBOT.gripper.joints):
        joint(name)


def test_limits_agree_with_the_embodiment() -> None:
    for index, name in enumerate(ROBOT.joints):
        limits = (
            (ROBOT.position_lower, "lower"),
            (ROBOT.position_upper, "upper"),
            (ROBOT.velocity, "velocity"),
        )
        for values, attribute in limits:
            stated = number(joint(name), "limit", attribute)
            assert values[index] == pytest.approx(stated, abs=1e-4), (name, attribute)
        assert number(joint(name), "limit", "lower") <= ROBOT.position_lower[index]
        assert number(joint(name), "limit", "upper") >= ROBOT.position_upper[index]
    left = joint(ROBOT.gripper.joints[0])
    assert number(left, "limit", "lower") == ROBOT.gripper.closed
    assert number(left, "limit", "upper") == ROBOT.gripper.open


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


def test_ready_points_down() -> None:
    kinematics = Kinematics(urdf(ROBOT.name), ROBOT.joints, ROBOT.tip_frame)
    tip = kinematics.forward(ROBOT.ready)
    np.testing.assert_allclose(tip.rotation[:, 0], (0, 0, -1), atol=5e-3)
    assert (tip.position > ROBOT.workspace[0]).all() and (tip.position < ROBOT.workspace[1]).all()


def test_masses_and_inertias_are_physical() -> None:
    total = 0.0
    for link in TREE.iter("link"):
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
    assert total == pytest.approx(2.1296, abs=1e-3)
