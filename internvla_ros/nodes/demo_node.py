"""The demo's own node: sends instructions, watches what becomes of them, and films it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import Image

from internvla_ros.action import ExecuteInstruction
from internvla_ros.msg import ActionChunk, ExecutionState, Plan, SpatialPrediction
from internvla_ros.nodes.converters import image_to_rgb, prediction_to_answer
from internvla_ros.nodes.demo_report import SceneReport
from internvla_ros.nodes.qos import EVENTS, NEWEST, SENSOR_IN
from internvla_ros.nodes.screen import Screen
from internvla_ros.nodes.stamps import seconds
from internvla_ros.spatial.types import SpatialAnswer
from internvla_ros.srv import ResetScene

_MOVED = 0.005  # m


class DemoNode(Node):
    """A client of the graph. What it sees goes to the scene that is set with `watch`."""

    def __init__(self, screen: Screen) -> None:
        super().__init__("demo")
        self._screen = screen
        self._scene: SceneReport | None = None
        self._answer: SpatialAnswer | None = None
        self._began = self._sim_began = 0.0
        self._plans = self._chunks = 0
        self._last_chunk = 0
        self._start_tip: np.ndarray | None = None
        self.images = 0
        """Images seen."""
        self.image_stamp = 0.0
        """Stamp of the newest image, s."""
        self.state: ExecutionState | None = None
        """What the arm said last."""
        self.on_motion: Callable[[], None] | None = None
        """Called when the arm has moved by 5 mm in a scene."""
        self.reset_client = self.create_client(ResetScene, "sim/reset")
        self.goal_client = ActionClient(self, ExecuteInstruction, "execute_instruction")
        self.create_subscription(Image, "front/image_raw", self._on_image, SENSOR_IN)
        self.create_subscription(
            SpatialPrediction, "spatial_prediction", self._on_prediction, EVENTS
        )
        self.create_subscription(Plan, "plan", self._on_plan, NEWEST)
        self.create_subscription(ActionChunk, "action_chunk", self._on_chunk, NEWEST)
        self.create_subscription(ExecutionState, "execution_state", self._on_state, EVENTS)

    def missing(self) -> list[str]:
        """Nodes that are not ready yet."""
        ready = {
            "sim": self.reset_client.service_is_ready() and self.images > 0,
            "planner": self.count_publishers("plan") > 0,
            "actor": self.count_publishers("action_chunk") > 0,
            "camera": self.count_publishers("camera_views") > 0,
            "arm": self.state is not None and self.state.reason == "",
            "task": self.goal_client.server_is_ready(),
        }
        return [name for name, is_ready in ready.items() if not is_ready]

    def watch(self, scene: SceneReport) -> None:
        """Write what comes from now on into a scene's report."""
        self._scene, self._answer, self._start_tip = scene, None, None
        self._began, self._sim_began = time.monotonic(), self.image_stamp
        self._plans = self._chunks = 0

    def conclude(self, result: ExecuteInstruction.Result) -> None:
        """End the scene that is being watched."""
        scene = self._scene
        assert scene is not None
        wall = max(time.monotonic() - self._began, 1e-6)
        scene.planner_rate, scene.actor_rate = self._plans / wall, self._chunks / wall
        scene.real_time_factor = (self.image_stamp - self._sim_began) / wall
        scene.success, scene.outcome = result.success, result.message
        scene.elapsed = result.elapsed
        self._scene = None

    def send(self, instruction: str, timeout: float) -> Future:
        """Send a goal; the future of its handle."""
        goal = ExecuteInstruction.Goal(instruction=instruction, timeout=timeout)
        return self.goal_client.send_goal_async(goal)

    @staticmethod
    def accepted(handle: Future) -> ClientGoalHandle:
        """The goal handle that a future holds."""
        return handle.result()

    def _on_image(self, message: Image) -> None:
        self.images += 1
        self.image_stamp = seconds(message.header.stamp)
        if self._scene is not None:
            state = self.state
            doing = _STATE_NAMES.get(state.state, "") if state is not None else ""
            caption = self._scene.instruction
            status = f"scene {self._scene.number}  {doing}"
            self._screen.show(image_to_rgb(message), self._answer, caption, status)

    def _on_prediction(self, message: SpatialPrediction) -> None:
        scene = self._scene
        if scene is None or message.instruction != scene.instruction:
            return
        answer = prediction_to_answer(message)
        traces = answer.traces or (self._answer.traces if self._answer is not None else ())
        self._answer = SpatialAnswer(answer.boxes, answer.points, traces, answer.text)
        if not scene.boxes and not scene.points:
            scene.boxes, scene.points = list(answer.boxes), list(answer.points)

    def _on_plan(self, message: Plan) -> None:
        if self._plans == 0 and self._chunks == 0:
            self._began, self._sim_began = time.monotonic(), self.image_stamp
        self._plans += 1

    def _on_chunk(self, message: ActionChunk) -> None:
        self._chunks += 1

    def _on_state(self, message: ExecutionState) -> None:
        self.state = message
        scene = self._scene
        if scene is None or message.state != ExecutionState.RUNNING:
            return
        scene.control_rates.append(float(message.control_rate))
        if message.chunk_sequence != self._last_chunk and message.stamp_to_setpoint >= 0.0:
            self._last_chunk = message.chunk_sequence
            scene.delays.append(float(message.stamp_to_setpoint))
        at = message.measured.pose.position
        tip = np.array([at.x, at.y, at.z])
        if self._start_tip is None:
            self._start_tip = tip
        elif self.on_motion is not None and np.linalg.norm(tip - self._start_tip) > _MOVED:
            self.on_motion()
            self.on_motion = None


_STATE_NAMES = {
    ExecutionState.IDLE: "ready",
    ExecutionState.RUNNING: "moving",
    ExecutionState.HOLDING: "holding",
    ExecutionState.STOPPED: "stopped",
    ExecutionState.FAULT: "fault",
}
