"""The `moveit_servo` backend: absolute tip poses to MoveIt Servo (ROS 2 Jazzy)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.task import Future
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from internvla_ros.motion.backend import BackendError, JointCommand
from internvla_ros.motion.backends.servo_session import Ask, Phase, Request, ServoSession
from internvla_ros.motion.se3 import Pose
from internvla_ros.nodes.converters import pose_message
from internvla_ros.nodes.gripper_output import GripperOutput
from internvla_ros.nodes.optional import optional_module
from internvla_ros.nodes.parameters import declare, setting
from internvla_ros.nodes.qos import EVENTS, NEWEST
from internvla_ros.nodes.stamps import time_message
from internvla_ros.robots.embodiment import Embodiment

_TICK = 0.02  # s between looks at Servo
_AT_REST = 1e-6  # rad/s
_LEAST_RATE = 50.0  # Hz; Servo moves in straight jerks between poses that come more seldom


@dataclass(frozen=True)
class ServoConfig:
    """Parameters of the backend."""

    servo_node: str = setting("servo_node", "name of MoveIt Servo's node")


class ServoBackend:
    """Streams poses while Servo is switched to them, resumed and well; pauses it otherwise, also
    where the arm holds.

    Each pose is stamped with the time it is sent, so that Servo's own `incoming_command_timeout`
    halts the arm when this node dies.
    """

    def __init__(self, node: Node, robot: Embodiment, gripper: GripperOutput) -> None:
        """
        Raises:
            BackendError: moveit_msgs is not installed, or the robot's control rate is too low.
        """
        if robot.control_rate < _LEAST_RATE:
            raise BackendError(
                f"MoveIt Servo takes poses at {_LEAST_RATE:.0f} Hz or more; the control rate of "
                f"{robot.name} is {robot.control_rate:g} Hz"
            )
        purpose = "motion through MoveIt Servo"
        status = optional_module("moveit_msgs.msg", purpose, "moveit-msgs").ServoStatus
        switch = optional_module("moveit_msgs.srv", purpose, "moveit-msgs").ServoCommandType
        name = declare(node, ServoConfig).servo_node
        self._frame = robot.base_frame
        self._period = 1.0 / robot.control_rate
        self._gripper = gripper
        self._switch_type: Any = switch
        self._log = node.get_logger()
        self._session = ServoSession(node.resolve_topic_name(name))
        self._out = node.create_publisher(PoseStamped, f"{name}/pose_target_cmds", NEWEST)
        self._switch = node.create_client(switch, f"{name}/switch_command_type")
        self._pause = node.create_client(SetBool, f"{name}/pause_servo")
        node.create_subscription(status, f"{name}/status", self._on_status, EVENTS)
        node.create_timer(_TICK, self._tick)

    def start(self, joints: JointCommand, t: float) -> None:
        """Resume Servo."""
        self._gripper.forget()
        self._send(self._session.start(time.monotonic()))

    def setpoint(self, pose: Pose, joints: JointCommand, gripper: float, t: float) -> None:
        """Send the pose."""
        now = t - self._period
        moves = bool(np.abs(joints.velocities).max() > _AT_REST)
        self._send(self._session.command(moves, time.monotonic()))
        if self._session.phase is not Phase.PAUSED:
            header = Header(stamp=time_message(now), frame_id=self._frame)
            self._out.publish(pose_message(pose, header))
        self._gripper.send(gripper, now)

    def stop(self, t: float) -> None:
        """Pause Servo."""
        self._send(self._session.stop(time.monotonic()))

    @property
    def phase(self) -> Phase:
        """Where the conversation with Servo stands."""
        return self._session.phase

    @property
    def fault(self) -> str:
        """Why Servo does not obey, or what the gripper complains of."""
        return self._session.fault or self._gripper.fault

    @property
    def notice(self) -> str:
        """What keeps Servo from full speed; empty when nothing does."""
        return self._session.notice

    def _tick(self) -> None:
        present = self._switch.service_is_ready() and self._pause.service_is_ready()
        self._send(self._session.tick(time.monotonic(), present))

    def _send(self, request: Request | None) -> None:
        if request is None:
            return
        if request.ask is Ask.SWITCH_TO_POSE:
            pose = self._switch_type.Request.POSE
            answer = self._switch.call_async(self._switch_type.Request(command_type=pose))
        else:
            answer = self._pause.call_async(SetBool.Request(data=request.ask is Ask.PAUSE))
        answer.add_done_callback(lambda future: self._on_reply(future, request.number))

    def _on_reply(self, future: Future, number: int) -> None:
        response = future.result()
        if response is not None:
            self._session.reply(number, response.success, time.monotonic())

    def _on_status(self, message: Any) -> None:
        self._session.status(message.code, time.monotonic())
        if self._session.notice:
            self._log.warning(
                f"{self._session.notice}: {message.message}", throttle_duration_sec=2.0
            )
