"""The `moveit` backend: planned motions by move_group beside setpoints to the controller."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

import numpy as np
from action_msgs.msg import GoalInfo
from action_msgs.srv import CancelGoal
from numpy.typing import NDArray
from rclpy.action import ActionClient, ActionServer, CancelResponse, GoalResponse
from rclpy.action.client import ClientGoalHandle
from rclpy.action.server import ServerGoalHandle
from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_msgs.msg import Header

from internvla_ros.action import MoveTo
from internvla_ros.motion.backend import BackendError, JointCommand
from internvla_ros.motion.backends.planning import (
    SUCCESS,
    PlanGoal,
    PlanningError,
    Target,
    meaning,
    plan_goals,
)
from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.motion.se3 import Pose
from internvla_ros.nodes.joints import JointReader, JointStateError
from internvla_ros.nodes.parameters import declare, setting
from internvla_ros.nodes.planning_messages import PlanningMessages, pose_of
from internvla_ros.nodes.qos import SENSOR_IN
from internvla_ros.nodes.trajectory_backend import TrajectoryBackend
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import Embodiment

_CONTROL_FAILED = -4
_WATCH = 0.5  # s between looks at move_group
_ANSWER_TIME = 3.0  # s for move_group to take a goal; DDS may lose an answer while peers are found
_TRIES = 3
_Result = MoveTo.Result


@dataclass(frozen=True)
class MoveItConfig:
    """Parameters of the backend."""

    move_action: str = setting("move_action", "name of the MoveGroup action")


class MoveItBackend:
    """Serves the action `move_to`, and streams setpoints when no planned motion is under way.

    The two never move the arm at once: `move_to` is refused while setpoints are being sent, and
    `start` while a planned motion is under way, which it cancels. Nothing waits: the node's control
    cycle goes on while move_group works.
    """

    def __init__(
        self,
        node: Node,
        robot: Embodiment,
        stream: TrajectoryBackend,
        hindrance: Callable[[], str],
    ) -> None:
        """`stream` takes the setpoints; `hindrance` says why the arm may not be moved, if so.

        Raises:
            BackendError: moveit_msgs is not installed.
        """
        self._node = node
        self._robot = robot
        self._stream = stream
        self._hindrance = hindrance
        self._tip = MeasuredTip(node, robot)
        self._streaming = False
        self._messages = PlanningMessages()
        name = declare(node, MoveItConfig).move_action
        self._client = ActionClient(node, self._messages.action, name)
        self._canceller = node.create_client(CancelGoal, f"{name}/_action/cancel_goal")
        self._name = node.resolve_topic_name(name)
        self._motion: _Motion | None = None
        node.create_timer(_WATCH, self._watch)
        ActionServer(
            node,
            MoveTo,
            "move_to",
            execute_callback=_never,
            goal_callback=lambda _: GoalResponse.ACCEPT,
            handle_accepted_callback=self._on_goal,
            cancel_callback=self._on_cancel,
        )

    def start(self, joints: JointCommand, t: float) -> None:
        """Setpoints follow."""
        if self._motion is not None:
            self._motion.cancel("an instruction came in")
            raise BackendError("a planned motion is being cancelled")
        self._streaming = True
        self._stream.start(joints, t)

    def setpoint(self, pose: Pose, joints: JointCommand, gripper: float, t: float) -> None:
        """Send one to the controller."""
        self._stream.setpoint(pose, joints, gripper, t)

    def stop(self, t: float) -> None:
        """No more setpoints; without any before, a planned motion is cancelled."""
        if self._motion is not None:
            self._motion.cancel("the arm was told to stop")
        self._streaming = False
        self._stream.stop(t)

    @property
    def planner_is_there(self) -> bool:
        """Whether move_group serves its action."""
        return self._client.server_is_ready()

    @property
    def fault(self) -> str:
        """What the controller's stream complains of. A failed plan is no fault of the arm's."""
        return self._stream.fault

    @property
    def notice(self) -> str:
        """What slows the controller's stream down."""
        return self._stream.notice

    def _on_goal(self, handle: ServerGoalHandle) -> None:
        """Begin a planned motion, or say at once why not."""
        goal = handle.request
        hindrance = self._hindrance()
        if hindrance:
            text = f"the arm may not be moved: {hindrance}"
            return _finish(handle, _Result.EXECUTION_FAILED, text)
        if self._streaming or self._motion is not None:
            return _finish(handle, _Result.BUSY, "the arm is moving already")
        if not self.planner_is_there:
            text = f"nobody serves {self._name}: start move_group, or set move_action"
            return _finish(handle, _Result.NO_PLANNER, text)
        try:
            plans = self._plans(goal)
        except (PlanningError, ValueError) as error:
            return _finish(handle, _Result.INVALID_GOAL, str(error))
        header = Header(frame_id=self._robot.base_frame)
        header.stamp = self._node.get_clock().now().to_msg()
        goals = [(plan, self._messages.goal(plan, header)) for plan in plans]
        retreat = Target(goal.target) is Target.RECOVER and len(goals) > 1
        clients = self._client, self._canceller
        self._motion = _Motion(clients, handle, goals, retreat, self._on_end)
        self._motion.next()

    def _watch(self) -> None:
        """A move_group that has gone never answers, and what it says may be lost."""
        if self._motion is not None and not self.planner_is_there:
            self._on_end(self._motion, _Result.EXECUTION_FAILED, f"{self._name} went away")
        elif self._motion is not None:
            self._motion.insist(time.monotonic())

    def _plans(self, goal: Any) -> list[PlanGoal]:
        target = Target(goal.target)
        frame = goal.pose.header.frame_id
        if target is Target.POSE and frame not in ("", self._robot.base_frame):
            raise PlanningError(
                f"the pose is in frame '{frame}'; give it in {self._robot.base_frame}"
            )
        pose = pose_of(goal.pose.pose)
        return plan_goals(self._robot, target, pose, self._tip.pose, goal.speed)

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        if self._motion is not None:
            self._motion.cancel("on request")
        return CancelResponse.ACCEPT

    def _on_end(self, motion: _Motion, code: int, message: str) -> None:
        if motion is self._motion:
            self._motion = None
            _finish(motion.handle, code, message)


class MeasuredTip:
    """Where the tip is by the newest joint state."""

    def __init__(self, node: Node, robot: Embodiment) -> None:
        self._reader = JointReader(robot)
        self._kinematics = Kinematics(urdf(robot.name), robot.joints, robot.tip_frame)
        self._joints: NDArray[np.float64] | None = None
        node.create_subscription(JointState, "joint_states", self._on_joints, SENSOR_IN)

    @property
    def pose(self) -> Pose | None:
        """In the base frame; None before the first joint state."""
        return None if self._joints is None else self._kinematics.forward(self._joints)

    def _on_joints(self, message: JointState) -> None:
        # A state that cannot be read is what the arm node itself complains of.
        with contextlib.suppress(JointStateError):
            reading = self._reader.read(0.0, message.name, message.position)
            self._joints = self._joints if reading is None else reading.positions


@dataclass(frozen=True, eq=False)
class _Asked:
    """A request to move_group that has not been answered: how many tries it took, and when."""

    goal: Any
    info: GoalInfo
    time: float  # s, monotonic
    tries: int


class _Motion:
    """One goal of `move_to` on its way: its requests to move_group, one after the other."""

    def __init__(
        self,
        clients: tuple[ActionClient, Client],
        handle: ServerGoalHandle,
        goals: list[tuple[PlanGoal, Any]],
        optional_first: bool,
        end: Callable[[_Motion, int, str], None],
    ) -> None:
        """
        Args:
            clients: of move_group's action, and of the service that cancels its goals.
            goals: requests, tried until one succeeds.
            optional_first: the first is to be tried, and the second after it in any case.
            end: takes this, the error code of MoveTo and a line of text.
        """
        self.handle = handle
        self._client, self._canceller = clients
        self._goals = goals
        self._optional_first = optional_first
        self._end = end
        self._asked: _Asked | None = None
        self._running: ClientGoalHandle | None = None
        self._cancelled = ""

    def next(self) -> None:
        """Send the next request."""
        _, goal = self._goals.pop(0)
        self._ask(goal, 1)

    def insist(self, now: float) -> None:
        """Take back a request that was not answered in time, and send it again."""
        asked = self._asked
        if asked is None or now - asked.time < _ANSWER_TIME:
            return
        self._take_back(asked)
        if self._cancelled:
            self._end(self, _Result.CANCELLED, f"cancelled: {self._cancelled}")
        elif asked.tries == _TRIES:
            text = f"move_group did not answer within {_ANSWER_TIME:g} s, asked {_TRIES} times"
            self._end(self, _Result.EXECUTION_FAILED, text)
        else:
            self._ask(asked.goal, asked.tries + 1)

    def _ask(self, goal: Any, tries: int) -> None:
        info = GoalInfo()
        info.goal_id.uuid = list(uuid4().bytes)
        asked = _Asked(goal, info, time.monotonic(), tries)
        self._asked = asked
        sent = self._client.send_goal_async(goal, self._on_feedback, info.goal_id)
        sent.add_done_callback(partial(self._on_answer, asked))

    def cancel(self, reason: str) -> None:
        """Stop moving; the end follows when move_group has stopped."""
        self._cancelled = self._cancelled or reason
        if self._running is not None:
            self._running.cancel_goal_async()
        elif self._asked is not None:
            self._take_back(self._asked)

    def _take_back(self, asked: _Asked) -> None:
        """Cancel a request that was not answered: it may be under way all the same."""
        self._canceller.call_async(CancelGoal.Request(goal_info=asked.info))

    def _on_feedback(self, message: Any) -> None:
        if self.handle.is_active:
            self.handle.publish_feedback(MoveTo.Feedback(phase=message.feedback.state))

    def _on_answer(self, asked: _Asked, future: Future) -> None:
        handle: ClientGoalHandle = future.result()
        if asked is not self._asked:  # too late
            if handle.accepted:
                handle.cancel_goal_async()
            return
        self._asked = None
        if not handle.accepted:
            return self._end(self, _Result.PLANNING_FAILED, "move_group refused the goal")
        self._running = handle
        handle.get_result_async().add_done_callback(self._on_result)
        if self._cancelled:
            handle.cancel_goal_async()

    def _on_result(self, future: Future) -> None:
        error = future.result().result.error_code
        text = meaning(error.val, error.message)
        self._running = None
        if self._cancelled:
            return self._end(self, _Result.CANCELLED, f"cancelled: {self._cancelled}")
        first, self._optional_first = self._optional_first, False
        if self._goals and (first or error.val != SUCCESS):
            return self.next()
        if error.val == SUCCESS:
            return self._end(self, _Result.NONE, text)
        failed = error.val == _CONTROL_FAILED
        code = _Result.EXECUTION_FAILED if failed else _Result.PLANNING_FAILED
        return self._end(self, code, text)


def _finish(handle: ServerGoalHandle, code: int, message: str) -> None:
    """Have a goal end with a result; the server sends it from a callback of its own."""
    result = _Result(error_code=code, message=message)
    handle.execute(lambda ended: _answer(ended, result))


def _never(handle: ServerGoalHandle) -> Any:
    """Goals are executed by `_finish` alone."""
    raise AssertionError("a goal of move_to was executed without a result")


def _answer(handle: ServerGoalHandle, result: Any) -> Any:
    """The result, and the goal in the state that goes with it."""
    if result.error_code == _Result.NONE:
        handle.succeed()
    elif handle.is_cancel_requested:
        handle.canceled()
    else:
        handle.abort()
    return result
