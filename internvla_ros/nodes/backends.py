"""Making the motion backend that a robot's arm_node asks for by name."""

from __future__ import annotations

from dataclasses import dataclass

from rclpy.node import Node

from internvla_ros.motion.backend import MotionBackend
from internvla_ros.nodes.gripper_output import GRIPPERS, gripper_output
from internvla_ros.nodes.parameters import declare, setting
from internvla_ros.nodes.trajectory_backend import TrajectoryBackend
from internvla_ros.robots.embodiment import Embodiment

MOTIONS = ("embedded",)
"""What the parameter `motion` may be."""


@dataclass(frozen=True)
class GripperConfig:
    """Parameters that choose how the gripper is moved."""

    gripper_output: str = setting(
        "trajectory", "how the gripper is moved: a topic or one of two actions", choices=GRIPPERS
    )
    gripper_effort: float = setting(
        0.0, "N or Nm to grip with at most; 0: the controller's own", minimum=0.0, maximum=500.0
    )


def make_backend(motion: str, node: Node, robot: Embodiment) -> MotionBackend:
    """The backend called `motion`, one of MOTIONS; declares its parameters on `node`.

    Raises:
        BackendError: it needs a package that is not installed, or does not fit the robot.
        ParameterError: one of its parameters is wrong.
    """
    config = declare(node, GripperConfig)
    gripper = gripper_output(node, robot, config.gripper_output, config.gripper_effort)
    return TrajectoryBackend(node, robot, gripper)
