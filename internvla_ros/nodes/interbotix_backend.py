"""The `interbotix` backend: setpoints on the topics of Interbotix's xs_sdk driver."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from rclpy.node import Node
from rclpy.task import Future

from internvla_ros.motion.backend import BackendError, JointCommand
from internvla_ros.motion.backends.interbotix import (
    ARM,
    GRIPPER,
    InterbotixSession,
    Mode,
    streaming_modes,
)
from internvla_ros.motion.se3 import Pose
from internvla_ros.nodes.optional import optional_module
from internvla_ros.nodes.parameters import declare, setting
from internvla_ros.nodes.qos import EVENTS, NEWEST
from internvla_ros.robots.embodiment import Embodiment

_TICK = 0.1  # s between looks at the driver


@dataclass(frozen=True)
class InterbotixConfig:
    """Parameters of the backend."""

    interbotix_namespace: str = setting("wx250s", "namespace of the Interbotix driver")


class InterbotixBackend:
    """Joint positions to `commands/joint_group`, the gripper's width to `commands/joint_single`.

    The driver is set up for streaming whenever it appears. Its `joint_states` are to be remapped
    to the arm node's. A stop is the last setpoint: the motors hold it.
    """

    def __init__(self, node: Node, robot: Embodiment) -> None:
        """
        Raises:
            BackendError: interbotix_xs_msgs is not installed.
        """
        purpose, package = "an Interbotix arm", "interbotix-xs-msgs"
        messages: Any = optional_module("interbotix_xs_msgs.msg", purpose, package)
        modes: Any = optional_module("interbotix_xs_msgs.srv", purpose, package).OperatingModes
        namespace = declare(node, InterbotixConfig).interbotix_namespace
        self._robot = robot
        self._group_type, self._single_type = (
            messages.JointGroupCommand,
            messages.JointSingleCommand,
        )
        self._modes_type = modes
        self._sent: float | None = None
        period = 1.0 / robot.control_rate
        self._session = InterbotixSession(
            node.resolve_topic_name(namespace), streaming_modes(period)
        )
        at = f"{namespace}/commands"
        self._arm = node.create_publisher(self._group_type, f"{at}/joint_group", NEWEST)
        self._gripper = node.create_publisher(self._single_type, f"{at}/joint_single", EVENTS)
        self._modes = node.create_client(modes, f"{namespace}/set_operating_modes")
        node.create_timer(_TICK, self._tick)

    def start(self, joints: JointCommand, t: float) -> None:
        """The driver must be set up."""
        if self.fault:
            raise BackendError(self.fault)
        self._sent = None

    def setpoint(self, pose: Pose, joints: JointCommand, gripper: float, t: float) -> None:
        """Send the positions, and the gripper's width when it changes."""
        self._arm.publish(self._group_type(name=ARM, cmd=joints.positions.tolist()))
        if gripper != self._sent:
            self._sent = gripper
            width = 2.0 * self._robot.gripper.position(gripper)
            self._gripper.publish(self._single_type(name=GRIPPER, cmd=width))

    def stop(self, t: float) -> None:
        """The motors hold the last setpoint."""

    @property
    def fault(self) -> str:
        """Why the driver cannot be used."""
        return self._session.fault

    @property
    def notice(self) -> str:
        """The driver tells nothing."""
        return ""

    def _tick(self) -> None:
        self._set(self._session.tick(time.monotonic(), self._modes.service_is_ready()))

    def _set(self, mode: Mode | None) -> None:
        if mode is None:
            return
        answer = self._modes.call_async(self._modes_type.Request(**asdict(mode)))
        answer.add_done_callback(lambda future: self._on_reply(future, mode))

    def _on_reply(self, future: Future, mode: Mode) -> None:
        if future.exception() is None:
            self._set(self._session.answered(mode, time.monotonic()))
