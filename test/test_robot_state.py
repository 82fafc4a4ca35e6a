"""Frames of links and cameras in TF; where tf2_msgs is not installed, with the tests' own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("tf2_msgs")

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.motion.se3 import Pose
from internvla_ros.nodes.robot_state import RobotState
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import load_embodiment

ROBOT = load_embodiment("widowx_250s")


def published(links: bool) -> dict[str, tuple[str, Pose]]:
    """Parent and pose of every frame, by its name, after one joint state."""
    rclpy.init()
    node, other = rclpy.create_node("shower"), rclpy.create_node("looker")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    executor.add_node(other)
    heard: list[Any] = []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    other.create_subscription(TFMessage, "/tf", heard.append, 10)
    other.create_subscription(TFMessage, "/tf_static", heard.append, latched)
    state = RobotState(node, ROBOT, urdf(ROBOT.name), links=links, rate=20.0)
    joints = JointState(header=Header(), name=list(ROBOT.joints), position=ROBOT.ready.tolist())
    deadline = node.get_clock().now().nanoseconds + 10_000_000_000
    while len({len(message.transforms) for message in heard}) < 1 + links:
        assert node.get_clock().now().nanoseconds < deadline
        joints.header.stamp = node.get_clock().now().to_msg()
        state.joints(joints)
        executor.spin_once(timeout_sec=0.05)
    executor.shutdown()
    node.destroy_node()
    other.destroy_node()
    rclpy.try_shutdown()
    return {
        each.child_frame_id: (each.header.frame_id, _pose(each.transform))
        for message in heard
        for each in message.transforms
    }


def _pose(transform: Any) -> Pose:
    at, turn = transform.translation, transform.rotation
    return Pose.from_quaternion([at.x, at.y, at.z], [turn.x, turn.y, turn.z, turn.w])


def test_the_chain_of_frames_leads_to_the_tip_and_to_every_camera() -> None:
    frames = published(links=True)

    def in_base(name: str) -> Pose:
        pose = Pose.identity()
        while name != ROBOT.base_frame:
            parent, step = frames[name]
            pose, name = step @ pose, parent
        return pose

    kinematics = Kinematics(urdf(ROBOT.name), ROBOT.joints, ROBOT.tip_frame)
    tip = kinematics.forward(ROBOT.ready)
    np.testing.assert_allclose(in_base(ROBOT.tip_frame).matrix(), tip.matrix(), atol=1e-6)
    front = ROBOT.camera("front")
    found = in_base(front.optical_frame)
    np.testing.assert_allclose(found.position, front.position, atol=1e-9)
    np.testing.assert_allclose(found.rotation, front.optical_rotation(), atol=1e-6)
    assert ROBOT.camera("wrist").optical_frame in frames


def test_beside_a_driver_only_the_cameras_have_frames() -> None:
    frames = published(links=False)
    assert set(frames) == {camera.optical_frame for camera in ROBOT.cameras}
