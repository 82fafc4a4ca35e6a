"""Making the motion backend that a robot's arm_node asks for by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rclpy.node import Node

from internvla_ros.motion.backend import BackendError, MotionBackend
from internvla_ros.nodes.gripper_output import GRIPPERS, gripper_output
from internvla_ros.nodes.interbotix_backend import InterbotixBackend
from internvla_ros.nodes.moveit_backend import MoveItBackend
from internvla_ros.nodes.parameters import declare, setting
from internvla_ros.nodes.servo_backend import ServoBackend
from internvla_ros.nodes.trajectory_backend import TrajectoryBackend
from internvla_ros.robots.embodiment import Embodiment

MOTIONS = ("embedded", "moveit_servo", "moveit", "interbotix")
"""What the parameter `motion` may be."""


@dataclass(frozen=True)
class GripperConfig:
    """The parameter that chooses how the gripper is moved."""

    gripper_output: str = setting(
        "trajectory", "how the gripper is moved: a topic or one of two actions", choices=GRIPPERS
    )


def make_backend(
    motion: str, node: Node, robot: Embodiment, hindrance: Callable[[], str] = str
) -> MotionBackend:
    """The backend called `motion`, one of MOTIONS; declares its parameters on `node`.

    `hindrance` says why the arm may not be moved, "" while it may: for backends that move it by
    themselves.

    Raises:
        BackendError: there is no such backend, it does not fit the robot, or it needs a package
            that is not installed.
        ParameterError: one of its parameters is wrong.
    """
    if motion not in MOTIONS:
        raise BackendError(f"unknown motion '{motion}'; choose one of {', '.join(MOTIONS)}")
    if motion == "interbotix":
        return InterbotixBackend(node, robot)
    config = declare(node, GripperConfig)
    gripper = gripper_output(node, robot, config.gripper_output)
    if motion == "moveit_servo":
        return ServoBackend(node, robot, gripper)
    stream = TrajectoryBackend(node, robot, gripper)
    return stream if motion == "embedded" else MoveItBackend(node, robot, stream, hindrance)
