"""The robot as other tools want it: its URDF, and the frames of its links and cameras in TF."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from internvla_ros.motion.link_tree import LinkTree
from internvla_ros.motion.se3 import Pose
from internvla_ros.nodes.pacing import RateLimit
from internvla_ros.nodes.qos import LATCHED
from internvla_ros.nodes.stamps import seconds
from internvla_ros.robots.embodiment import Embodiment

_TF = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)


def transforms_type() -> Any:
    """tf2_msgs/TFMessage where it is installed, else None."""
    try:
        return importlib.import_module("tf2_msgs.msg").TFMessage
    except ImportError:
        return None


class RobotState:
    """Publishes what a robot looks like and where its links and cameras are.

    What its driver publishes already can be left out: two sources of one frame contradict.
    """

    def __init__(
        self, node: Node, robot: Embodiment, urdf_xml: str, *, links: bool, rate: float
    ) -> None:
        """
        Args:
            node: publishes.
            robot: whose joints and cameras.
            urdf_xml: its description.
            links: publish robot_description and the frames of the links too, not the cameras' only.
            rate: Hz, frames of moving links at most so often.
        """
        self._node = node
        self._tree = LinkTree(urdf_xml)
        self._links = links
        self._limit = RateLimit(rate)
        self._message = transforms_type()
        if links:
            self._description_out = node.create_publisher(String, "robot_description", LATCHED)
            self._description_out.publish(String(data=urdf_xml))
        if self._message is None:
            node.get_logger().info("tf2_msgs is not installed: frames are not published")
            return
        self._static_out = node.create_publisher(self._message, "/tf_static", LATCHED)
        self._static_out.publish(self._message(transforms=self._still(robot)))
        if links:
            self._moving_out = node.create_publisher(self._message, "/tf", _TF)

    def joints(self, state: JointState) -> None:
        """Publish where the links are by a joint state, if it is time to."""
        if self._message is None or not self._links:
            return
        if not self._limit.ready(seconds(state.header.stamp)):
            return
        placements = self._tree.placements(dict(zip(state.name, state.position, strict=False)))
        moving = (
            _transform(link.parent, link.name, pose, state.header.stamp)
            for link, pose in zip(self._tree.links, placements, strict=True)
            if link.moves
        )
        self._moving_out.publish(self._message(transforms=list(moving)))

    def _still(self, robot: Embodiment) -> list[TransformStamped]:
        """The cameras and, where they are ours to publish, the links that no joint moves."""
        stamp = self._node.get_clock().now().to_msg()
        frames: Iterable[tuple[str, str, Pose]] = [
            (camera.frame, camera.optical_frame, Pose(camera.position, camera.optical_rotation()))
            for camera in robot.cameras
        ]
        if self._links:
            placements = self._tree.placements({})
            frames = [
                *frames,
                *(
                    (link.parent, link.name, pose)
                    for link, pose in zip(self._tree.links, placements, strict=True)
                    if not link.moves
                ),
            ]
        return [_transform(parent, child, pose, stamp) for parent, child, pose in frames]


def _transform(parent: str, child: str, pose: Pose, stamp: Any) -> TransformStamped:
    message = TransformStamped(child_frame_id=child)
    message.header.stamp = stamp
    message.header.frame_id = parent
    at, turn = message.transform.translation, message.transform.rotation
    at.x, at.y, at.z = pose.position.tolist()
    turn.x, turn.y, turn.z, turn.w = pose.quaternion().tolist()
    return message
