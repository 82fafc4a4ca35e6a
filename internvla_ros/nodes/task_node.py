"""Carries out one instruction at a time and says how it went."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Bool, String

from internvla_ros.action import ExecuteInstruction
from internvla_ros.msg import ActionChunk, ExecutionState, Plan, SpatialPrediction
from internvla_ros.nodes.diagnostics import OK, Diagnostics, Health
from internvla_ros.nodes.instruction import InstructionError, check_instruction
from internvla_ros.nodes.parameters import declare, setting
from internvla_ros.nodes.qos import EVENTS, LATCHED, NEWEST, SENSOR_IN
from internvla_ros.nodes.runner import run
from internvla_ros.nodes.stamps import seconds
from internvla_ros.nodes.task_run import ArmReport, Outcome, Source, TaskRun
from internvla_ros.robots.embodiment import load_embodiment

_WATCH_PERIOD = 0.1  # s
_FEEDBACK_EVERY = 5  # periods
_LONGEST = 3600.0  # s, a goal's timeout


@dataclass(frozen=True)
class TaskConfig:
    """Parameters of task_node."""

    robot: str = setting("widowx_250s", "the robot's name, or the path of its YAML file")
    timeout: float = setting(
        30.0, "s for a goal that names no timeout", minimum=0.1, maximum=_LONGEST
    )
    start_patience: float = setting(
        30.0, "s to wait for the first plan, chunk, image and state", minimum=0.1, maximum=600.0
    )
    silence_patience: float = setting(
        3.0,
        "s without plan, chunk or image after which their source is lost",
        minimum=0.1,
        maximum=60.0,
    )
    arm_patience: float = setting(
        1.5, "s without execution state after which the arm is lost", minimum=0.1, maximum=60.0
    )
    stall_patience: float = setting(
        10.0,
        "s without motion after which a goal is given up; 0: never",
        minimum=0.0,
        maximum=600.0,
    )


class TaskNode(Node):
    """Action execute_instruction in; instruction out, empty when nothing is to be done."""

    def __init__(self) -> None:
        super().__init__("task")
        self._config = declare(self, TaskConfig)
        self._cameras = [camera.name for camera in load_embodiment(self._config.robot).cameras]
        self._instruction = ""
        self._run: TaskRun | None = None
        self._goal: ServerGoalHandle | None = None
        self._finished: Future | None = None
        self._began: float | None = None
        self._watches = 0
        self._prediction = SpatialPrediction()
        self._instruction_out = self.create_publisher(String, "instruction", LATCHED)
        self._instruct("")
        self._subscribe()
        self._server = ActionServer(
            self,
            ExecuteInstruction,
            "execute_instruction",
            execute_callback=self._execute,
            goal_callback=lambda goal: GoalResponse.ACCEPT,
            cancel_callback=lambda handle: CancelResponse.ACCEPT,
        )
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(_WATCH_PERIOD, self._watch, clock=steady)
        self._diagnostics = Diagnostics(self, self._health)

    def close(self) -> None:
        """Tell the others to stop."""
        if self.context.ok():
            self._instruct("")

    def _subscribe(self) -> None:
        self.create_subscription(Plan, "plan", self._on_plan, NEWEST)
        self.create_subscription(ActionChunk, "action_chunk", self._on_chunk, NEWEST)
        self.create_subscription(ExecutionState, "execution_state", self._on_arm, EVENTS)
        self.create_subscription(
            SpatialPrediction, "spatial_prediction", self._on_prediction, EVENTS
        )
        self.create_subscription(Bool, "task_success", self._on_success, LATCHED)
        for camera in self._cameras:
            self.create_subscription(
                CameraInfo, f"{camera}/camera_info", partial(self._on_camera, camera), SENSOR_IN
            )

    async def _execute(self, goal: ServerGoalHandle) -> ExecuteInstruction.Result:
        """Carry out one goal; what cannot be accepted is aborted with a code that says why."""
        refusal = self._refusal(goal.request)
        if refusal is not None:
            self.get_logger().error(refusal.message)
            goal.abort()
            return refusal
        self._begin(goal)
        assert self._finished is not None
        outcome: Outcome = await self._finished
        result = self._result(outcome)
        self._end()
        if outcome is Outcome.NONE:
            goal.succeed()
        elif outcome is Outcome.CANCELED:
            goal.canceled()
        else:
            goal.abort()
        return result

    def _refusal(self, request: ExecuteInstruction.Goal) -> ExecuteInstruction.Result | None:
        """Why a goal cannot be carried out, if so."""
        code, message = ExecuteInstruction.Result.NONE, ""
        try:
            check_instruction(request.instruction)
        except InstructionError as error:
            code, message = ExecuteInstruction.Result.INVALID_INSTRUCTION, str(error)
        if not code and not (math.isfinite(request.timeout) and 0 <= request.timeout <= _LONGEST):
            code = ExecuteInstruction.Result.INVALID_TIMEOUT
            message = f"timeout {request.timeout} is not between 0 and {_LONGEST:.0f} s"
        if not code and self._run is not None:
            code = ExecuteInstruction.Result.BUSY
            message = f"busy with '{self._instruction}'; cancel it or wait until it is done"
        return ExecuteInstruction.Result(error_code=code, message=message) if code else None

    def _begin(self, goal: ServerGoalHandle) -> None:
        patience = self._config.silence_patience
        sources = [
            *(Source(name, patience, Outcome.CAMERA_LOST) for name in self._cameras),
            Source("plan", patience, Outcome.PLANNER_LOST),
            Source("chunk", patience, Outcome.ACTOR_LOST),
            Source("arm", self._config.arm_patience, Outcome.ARM_LOST),
        ]
        self._run = TaskRun(
            time.monotonic(),
            goal.request.timeout or self._config.timeout,
            sources,
            start_patience=self._config.start_patience,
            stall_patience=self._config.stall_patience,
        )
        self._goal = goal
        self._finished = Future()
        self._began = None
        self._prediction = SpatialPrediction()
        self._instruct(check_instruction(goal.request.instruction))
        self.get_logger().info(f"carrying out '{self._instruction}'")

    def _result(self, outcome: Outcome) -> ExecuteInstruction.Result:
        message = outcome.value
        if outcome is Outcome.ROBOT_FAULT and self._run is not None:
            message = f"{message}: {self._run.fault()}"
        self.get_logger().info(f"'{self._instruction}': {message}")
        return ExecuteInstruction.Result(
            error_code=getattr(ExecuteInstruction.Result, outcome.name),
            message=message,
            elapsed=self._elapsed(),
            success=outcome is Outcome.NONE,
        )

    def _end(self) -> None:
        self._run = self._goal = self._finished = None
        self._instruct("")

    def _watch(self) -> None:
        """See whether the goal in progress has ended, and tell its client how it goes."""
        if self._run is None or self._goal is None or self._finished is None:
            return
        if self._finished.done():
            return
        outcome = self._run.outcome(time.monotonic(), self._elapsed())
        if self._goal.is_cancel_requested and outcome is not Outcome.NONE:
            outcome = Outcome.CANCELED
        if outcome is not None:
            self._finished.set_result(outcome)
            return
        self._watches += 1
        if self._watches % _FEEDBACK_EVERY == 0:
            self._goal.publish_feedback(
                ExecuteInstruction.Feedback(
                    subtask=self._instruction,
                    state=self._run.phase().value,
                    elapsed=self._elapsed(),
                    prediction=self._prediction,
                )
            )

    def _on_plan(self, message: Plan) -> None:
        if message.instruction == self._instruction:
            self._seen("plan")

    def _on_chunk(self, message: ActionChunk) -> None:
        if message.instruction == self._instruction:
            self._seen("chunk")

    def _on_prediction(self, message: SpatialPrediction) -> None:
        if message.instruction == self._instruction:
            self._prediction = message

    def _on_camera(self, camera: str, _: CameraInfo) -> None:
        self._seen(camera)

    def _on_success(self, message: Bool) -> None:
        if message.data and self._run is not None:
            self._run.succeed()

    def _on_arm(self, message: ExecutionState) -> None:
        if self._run is None:
            return
        self._seen("arm")
        at = message.measured.pose.position
        report = ArmReport(
            running=message.state == ExecutionState.RUNNING,
            fault=message.reason if message.state == ExecutionState.FAULT else "",
            tip=np.array([at.x, at.y, at.z]),
            gripper=message.gripper_measured,
        )
        self._run.arm(report, time.monotonic())

    def _seen(self, source: str) -> None:
        if self._run is not None:
            self._run.seen(source, time.monotonic())

    def _instruct(self, text: str) -> None:
        self._instruction = text
        self._instruction_out.publish(String(data=text))

    def _health(self) -> Health:
        return Health(OK, f"carrying out '{self._instruction}'" if self._run else "waiting")

    def _elapsed(self) -> float:
        """s since the goal began, by the robot's clock; 0 until a simulated clock runs."""
        now = seconds(self.get_clock().now().to_msg())
        if self._began is None and now > 0.0:
            self._began = now
        return max(0.0, now - self._began) if self._began is not None else 0.0


def main() -> int:
    """Run task_node."""
    return run(TaskNode, coroutines=True)


if __name__ == "__main__":
    sys.exit(main())
