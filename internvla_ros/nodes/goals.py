"""Watching every goal of execute_instruction, whoever sent it, and sending or ending some."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from action_msgs.msg import GoalInfo, GoalStatus, GoalStatusArray
from action_msgs.srv import CancelGoal
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.qos import qos_profile_action_status_default
from rclpy.task import Future

from internvla_ros.action import ExecuteInstruction
from internvla_ros.nodes.qos import EVENTS

_ACTION = "execute_instruction"
_RUNNING = (GoalStatus.STATUS_ACCEPTED, GoalStatus.STATUS_EXECUTING, GoalStatus.STATUS_CANCELING)

Progress = Callable[[ExecuteInstruction.Feedback], None]
End = Callable[[str, bool, ExecuteInstruction.Result], None]


@dataclass
class Goal:
    """A goal that was seen.

    Attributes:
        instruction: as far as it is known, else "".
        ours: sent from here.
        asked: its result was asked for.
    """

    instruction: str = ""
    ours: bool = False
    asked: bool = False


class Goals:
    """The action from outside: an action client sees only its own goals, this sees all."""

    def __init__(self, node: Node, on_progress: Progress, on_end: End) -> None:
        """
        Args:
            node: whose executor does the work.
            on_progress: called with the feedback of the goal in progress.
            on_end: called with the instruction, whether it was sent from here, and the result of
                each goal that ended.
        """
        self._on_progress = on_progress
        self._on_end = on_end
        self._goals: dict[bytes, Goal] = {}
        self._instruction = ""
        self._client = ActionClient(node, ExecuteInstruction, _ACTION)
        hidden = f"{_ACTION}/_action"
        self._cancel = node.create_client(CancelGoal, f"{hidden}/cancel_goal")
        self._result = node.create_client(
            ExecuteInstruction.Impl.GetResultService, f"{hidden}/get_result"
        )
        node.create_subscription(
            GoalStatusArray, f"{hidden}/status", self._on_status, qos_profile_action_status_default
        )
        node.create_subscription(
            ExecuteInstruction.Impl.FeedbackMessage, f"{hidden}/feedback", self._on_feedback, EVENTS
        )

    @property
    def ready(self) -> bool:
        """Whether somebody carries goals out."""
        return self._client.server_is_ready()

    def instructed(self, instruction: str) -> None:
        """Take in what the graph is told to do: the instruction of goals that others sent."""
        if not instruction:
            return
        self._instruction = instruction
        for goal in self._goals.values():
            goal.instruction = goal.instruction or instruction

    def send(self, instruction: str) -> None:
        """Have an instruction carried out, in the time that task_node gives by itself."""
        sent = self._client.send_goal_async(ExecuteInstruction.Goal(instruction=instruction))
        sent.add_done_callback(lambda done: self._sent(instruction, done))

    def end_all(self) -> None:
        """End every goal, whoever sent it."""
        self._cancel.call_async(CancelGoal.Request(goal_info=GoalInfo()))

    def tick(self) -> None:
        """Ask for the results of new goals; to be called again and again."""
        if not self._result.service_is_ready():
            return
        for identity, goal in self._goals.items():
            if not goal.asked:
                goal.asked = True
                request = ExecuteInstruction.Impl.GetResultService.Request()
                request.goal_id.uuid = list(identity)
                answer = self._result.call_async(request)
                answer.add_done_callback(partial(self._ended, identity))

    def _sent(self, instruction: str, sent: Future) -> None:
        goal = self._goals.setdefault(bytes(sent.result().goal_id.uuid), Goal())
        goal.instruction, goal.ours = instruction, True

    def _on_status(self, message: GoalStatusArray) -> None:
        for each in message.status_list:
            if each.status in _RUNNING:
                self._goals.setdefault(bytes(each.goal_info.goal_id.uuid), Goal())

    def _on_feedback(self, message: ExecuteInstruction.Impl.FeedbackMessage) -> None:
        self._on_progress(message.feedback)

    def _ended(self, identity: bytes, answer: Future) -> None:
        goal = self._goals.pop(identity)
        response = answer.result()
        if response.status in (GoalStatus.STATUS_UNKNOWN, *_RUNNING):
            return  # forgotten by the server: it ended before anybody asked
        self._on_end(goal.instruction or self._instruction, goal.ours, response.result)
