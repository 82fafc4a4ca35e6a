"""Where cameras stand in the base frame: from the robot's description, or from TF."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.time import Time

from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.motion.se3 import Pose
from internvla_ros.nodes.stamps import time_message
from internvla_ros.robots.embodiment import CameraSpec, Embodiment

try:
    import tf2_ros
except ImportError:  # tf2 is not among the ROS wheels
    tf2_ros = None


class CameraPoseError(RuntimeError):
    """Poses cannot be had from where they were asked for."""


class CameraPoses(Protocol):
    """A source of camera poses."""

    def pose(self, camera: str, stamp: float, joints: NDArray[np.float64] | None) -> Pose | None:
        """The optical frame in the base frame at `stamp` (s); None: not known.

        `joints`: [n] the arm's positions at that time, None where they are not known.
        """


class DescribedPoses:
    """From config/robots: fixed cameras at once, those on the arm by its joint positions."""

    def __init__(self, robot: Embodiment, urdf_xml: str) -> None:
        self._mounts = {
            camera.name: Pose(camera.position, camera.optical_rotation())
            for camera in robot.cameras
        }
        self._carriers = {
            camera.name: Kinematics(urdf_xml, robot.joints, camera.frame)
            for camera in robot.cameras
        }
        self._fixed = {
            camera.name: self._carriers[camera.name].forward(np.zeros(len(robot.joints)))
            for camera in robot.cameras
            if not self._rides_on_the_arm(camera, robot)
        }

    def pose(self, camera: str, stamp: float, joints: NDArray[np.float64] | None) -> Pose | None:
        """As `CameraPoses.pose`; None for a camera on an arm whose positions are not known."""
        carrier = self._fixed.get(camera)
        if carrier is None and joints is not None and camera in self._carriers:
            carrier = self._carriers[camera].forward(joints)
        return None if carrier is None else carrier @ self._mounts[camera]

    def _rides_on_the_arm(self, camera: CameraSpec, robot: Embodiment) -> bool:
        carrier = self._carriers[camera.name]
        return bool(np.abs(carrier.jacobian(robot.ready)).max() > 1e-9)


class TfPoses:
    """From TF, where a calibration or a moving mount is published."""

    def __init__(self, node: Node, robot: Embodiment) -> None:
        """
        Raises:
            CameraPoseError: tf2_ros is not installed.
        """
        if tf2_ros is None:
            raise CameraPoseError(
                "camera_poses is 'tf', but tf2_ros is not installed: install a full ROS 2, or set "
                "camera_poses to 'description'"
            )
        self._buffer: Any = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)
        self._base = robot.base_frame
        self._frames = {camera.name: camera.optical_frame for camera in robot.cameras}

    def pose(self, camera: str, stamp: float, joints: NDArray[np.float64] | None) -> Pose | None:
        """As `CameraPoses.pose`; None where TF does not know it for that time."""
        try:
            found = self._buffer.lookup_transform(
                self._base, self._frames[camera], Time.from_msg(time_message(stamp))
            )
        except tf2_ros.TransformException:
            return None
        at, turn = found.transform.translation, found.transform.rotation
        return Pose.from_quaternion([at.x, at.y, at.z], [turn.x, turn.y, turn.z, turn.w])
