"""Ways to move a gripper: a trajectory of its first joint, or one of the gripper actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from internvla_ros.motion.backends.trajectory import GripperMotion
from internvla_ros.nodes.optional import optional_module
from internvla_ros.nodes.parameters import declare, setting
from internvla_ros.nodes.qos import EVENTS
from internvla_ros.nodes.stamps import duration_message, time_message
from internvla_ros.robots.embodiment import Embodiment

GRIPPERS = ("trajectory", "gripper_command", "parallel_gripper_command")

_RETRY = 1.0  # s until a refused goal is sent again


@dataclass(frozen=True)
class GripperActionConfig:
    """Parameters of a gripper that is moved by an action, whose name cannot be remapped."""

    gripper_action: str = setting(
        "gripper_controller/gripper_cmd", "name of the gripper's action, where it is moved by one"
    )
    gripper_effort: float = setting(
        0.0, "N or Nm to grip with at most; 0: the controller's own", minimum=0.0, maximum=500.0
    )


class GripperOutput(Protocol):
    """Takes the opening wanted every cycle and sends it on when it changes. Never blocks."""

    def send(self, opening: float, t: float) -> None:
        """Openings run from 0 closed to 1 open; t is the time of the cycle (s)."""

    def forget(self) -> None:
        """Send the next opening even if it is the last one's: others may have moved the fingers."""

    @property
    def fault(self) -> str:
        """Why the gripper cannot be reached; empty when all is well or nothing is known."""


class GripperTrajectory:
    """To a joint_trajectory_controller, on `gripper_controller/joint_trajectory`."""

    def __init__(self, node: Node, robot: Embodiment) -> None:
        self._joint = robot.gripper.joints[0]
        self._motion = GripperMotion(robot.gripper)
        self._out = node.create_publisher(
            JointTrajectory, "gripper_controller/joint_trajectory", EVENTS
        )

    def send(self, opening: float, t: float) -> None:
        """One point: the controller starts from where the fingers are."""
        point = self._motion.change(opening, t)
        if point is None:
            return
        message = JointTrajectory(joint_names=[self._joint])
        message.header.stamp = time_message(t)
        message.points = [
            JointTrajectoryPoint(
                positions=point.positions.tolist(),
                velocities=point.velocities.tolist(),
                time_from_start=duration_message(point.time),
            )
        ]
        self._out.publish(message)

    def forget(self) -> None:
        """Send the next opening whatever it is."""
        self._motion.forget()

    @property
    def fault(self) -> str:
        """A topic tells nothing."""
        return ""


class GripperAction:
    """To an action server of control_msgs, by the name in the parameter `gripper_action`.

    A goal that ends short of its position (an object is in the way) is no fault. The newest goal
    counts: the one before it is cancelled. The position is that of one finger, which is what
    Franka's `franka_gripper/gripper_action` takes as well.
    """

    def __init__(self, node: Node, robot: Embodiment, *, parallel: bool) -> None:
        """`parallel`: the action is ParallelGripperCommand, otherwise GripperCommand.

        Raises:
            BackendError: control_msgs is not installed.
            ParameterError: one of the parameters is wrong.
        """
        config = declare(node, GripperActionConfig)
        name = config.gripper_action
        actions = optional_module("control_msgs.action", "a gripper action", "control-msgs")
        self._node = node
        self._joint = robot.gripper.joints[0]
        self._position = robot.gripper.position
        self._effort = config.gripper_effort
        self._type: Any = actions.ParallelGripperCommand if parallel else actions.GripperCommand
        self._parallel = parallel
        self._client = ActionClient(node, self._type, name)
        self._name = node.resolve_topic_name(name)
        self._sent: float | None = None
        self._goal: ClientGoalHandle | None = None
        self._number = 0
        self._not_before = 0.0
        self._now = 0.0

    def send(self, opening: float, t: float) -> None:
        """Send a goal when the opening changes and the server is there."""
        self._now = t
        if opening == self._sent or t < self._not_before or not self._client.server_is_ready():
            return
        self._sent = opening
        self._number += 1
        number = self._number
        if self._goal is not None:
            self._goal.cancel_goal_async()
            self._goal = None
        sent = self._client.send_goal_async(self._message(opening))
        sent.add_done_callback(lambda future: self._on_answer(future, number))

    def forget(self) -> None:
        """Send the next opening whatever it is."""
        self._sent = None

    @property
    def fault(self) -> str:
        """Whether the action server is missing."""
        if self._client.server_is_ready():
            return ""
        return (
            f"the gripper's action {self._name} has no server: start its controller, or name "
            "another by gripper_action"
        )

    def _message(self, opening: float) -> Any:
        goal = self._type.Goal()
        position = float(self._position(opening))
        if self._parallel:
            effort = [self._effort] if self._effort > 0 else []
            goal.command = JointState(name=[self._joint], position=[position], effort=effort)
        else:
            goal.command.position, goal.command.max_effort = position, self._effort
        return goal

    def _on_answer(self, future: Future, number: int) -> None:
        """Remember the goal that is under way; send again what was refused."""
        handle: ClientGoalHandle = future.result()
        if number != self._number:
            if handle.accepted:
                handle.cancel_goal_async()
        elif handle.accepted:
            self._goal = handle
            handle.get_result_async().add_done_callback(lambda _: self._on_end(handle))
        else:
            self._sent, self._not_before = None, self._now + _RETRY
            self._node.get_logger().warning(
                "the gripper refused a goal; sending it again", throttle_duration_sec=5.0
            )

    def _on_end(self, handle: ClientGoalHandle) -> None:
        if self._goal is handle:
            self._goal = None


def gripper_output(node: Node, robot: Embodiment, kind: str) -> GripperOutput:
    """A gripper's output by its kind, one of GRIPPERS.

    Raises:
        BackendError: it needs a package that is not installed.
        ParameterError: one of its parameters is wrong.
    """
    if kind == "trajectory":
        return GripperTrajectory(node, robot)
    return GripperAction(node, robot, parallel=kind == "parallel_gripper_command")
