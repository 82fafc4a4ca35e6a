"""A web page that shows what the robot sees, plans and does, and takes instructions."""

from __future__ import annotations

import random
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.subscription import Subscription
from rclpy.task import Future
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool

from internvla_ros.action import ExecuteInstruction
from internvla_ros.control.chunk import integrate
from internvla_ros.dashboard.charts import NAMES, Rates, Series
from internvla_ros.dashboard.gate import Gate
from internvla_ros.dashboard.journal import Journal, Outcome
from internvla_ros.dashboard.lift import lift_points, lift_trace
from internvla_ros.dashboard.page import Controls, Page, serve
from internvla_ros.dashboard.scene import Scene
from internvla_ros.motion.se3 import Pose
from internvla_ros.msg import ActionChunk, ExecutionState, SpatialPrediction
from internvla_ros.nodes.camera_poses import DescribedPoses
from internvla_ros.nodes.converters import (
    ConversionError,
    image_to_rgb,
    message_to_chunk,
    prediction_to_answer,
)
from internvla_ros.nodes.diagnostics import OK, Diagnostics, Health
from internvla_ros.nodes.goals import Goals
from internvla_ros.nodes.instruction import InstructionError, check_instruction
from internvla_ros.nodes.overlay import Overlay
from internvla_ros.nodes.parameters import declare, setting
from internvla_ros.nodes.qos import EVENTS, LATCHED, SENSOR_IN
from internvla_ros.nodes.runner import run
from internvla_ros.nodes.stamps import seconds
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import load_embodiment
from internvla_ros.spatial.projection import Camera, View
from internvla_ros.srv import ResetScene

_SAMPLE_EVERY = 5  # ticks
_SILENT = 1.5  # s without execution state after which the arm counts as silent
_SHOWN = 2.0  # s for which a prediction is drawn
_FADE = 6.0  # s in which a trace fades
_TARGET_HEIGHT = 0.02  # m above the table, where what is pointed at is drawn
_STOPPED_COLOUR = (220, 60, 60)
_AT_REST = ("stopped", "fault", "emergency")
_STATES = {
    ExecutionState.IDLE: "idle",
    ExecutionState.RUNNING: "running",
    ExecutionState.HOLDING: "holding",
    ExecutionState.STOPPED: "stopped",
    ExecutionState.FAULT: "fault",
}
_REFUSALS = (
    ExecuteInstruction.Result.INVALID_INSTRUCTION,
    ExecuteInstruction.Result.BUSY,
    ExecuteInstruction.Result.INVALID_TIMEOUT,
)


@dataclass(frozen=True)
class DashboardConfig:
    """Parameters of dashboard_node."""

    robot: str = setting("widowx_250s", "the robot's name, or the path of its YAML file")
    host: str = setting("127.0.0.1", "address to listen on; others than loopback need a token")
    port: int = setting(
        8080, "the page's port, or the next free one; 0: any", minimum=0, maximum=65535
    )
    token: str = setting("", "16 or more letters and digits; empty: one is made and printed")
    rate: float = setting(
        10.0, "Hz, the page is brought up to date at most so often", minimum=1.0, maximum=30.0
    )
    view_width: int = setting(
        480, "px, camera pictures are made at most so wide", minimum=64, maximum=1920
    )
    dark: bool = setting(True, "light letters on dark ground, until a browser chooses otherwise")


class DashboardNode(Node):
    """Listens to the graph and shows it; sends goals, ends them and stops the arm when told to."""

    def __init__(self) -> None:
        super().__init__("dashboard")
        config = declare(self, DashboardConfig)
        self._robot = load_embodiment(config.robot)
        xml = urdf(self._robot.name)
        self._poses = DescribedPoses(self._robot, xml)
        self._sizes = {
            camera.name: fitted(camera.width, camera.height, config.view_width)
            for camera in self._robot.cameras
        }
        self._gate = Gate(config.host, config.port, config.token)
        self._server = serve(self._gate)
        controls = Controls(
            run=lambda text: self._soon(partial(self._run, text)),
            pause=lambda: self._soon(self._pause),
            stop=lambda: self._soon(self._stop),
            release=lambda: self._soon(self._release),
            new_scene=lambda: self._soon(self._lay_scene),
        )
        self._page = Page(self._server, list(self._sizes.items()), controls, dark=config.dark)
        self._scene = Scene(self._server, self._robot, xml)
        self._announce(config.port)
        self._journal = Journal()
        self._series, self._rates = Series(NAMES), Rates()
        self._overlay = Overlay(_SHOWN, _FADE)
        self._ticks = 0
        self._joints: JointState | None = None
        self._state: ExecutionState | None = None
        self._state_at = float("-inf")
        self._chunk: ActionChunk | None = None
        self._prediction: SpatialPrediction | None = None
        self._pictures: dict[str, Image] = {}
        self._cameras: list[Subscription] = []
        self._anchors: deque[tuple[float, Pose]] = deque(maxlen=32)
        self._make_interfaces()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(1.0 / config.rate, self._tick, clock=steady)
        self._diagnostics = Diagnostics(self, self._health)

    def close(self) -> None:
        """Take the page off."""
        self._gate.close()
        self._server.stop()

    def _announce(self, wanted: int) -> None:
        """Say where the page is: to who started this, not to the network, for the token's sake."""
        if wanted and self._gate.port != wanted:
            self.get_logger().warning(f"port {wanted} is taken; using {self._gate.port}")
        if self._scene.meshes:
            links = ", ".join(self._scene.meshes)
            self.get_logger().warning(f"not drawn, because their shapes are meshes: {links}")
        print(f"page: {self._gate.url}", flush=True)

    def _make_interfaces(self) -> None:
        self._goals = Goals(self, self._on_progress, self._on_end)
        self._reset = self.create_client(ResetScene, "sim/reset")
        self._stop_out = self.create_publisher(Bool, "emergency_stop", EVENTS)
        self._stop_service = self.create_client(SetBool, "emergency_stop")
        for kind, topic, callback in (
            (JointState, "joint_states", self._on_joints),
            (ExecutionState, "execution_state", self._on_state),
            (ActionChunk, "action_chunk", self._on_chunk),
            (SpatialPrediction, "spatial_prediction", self._on_prediction),
        ):
            self.create_subscription(kind, topic, callback, SENSOR_IN)
        self.create_subscription(String, "instruction", self._on_instruction, LATCHED)

    def _follow_cameras(self) -> None:
        """Take pictures in only while somebody looks at them."""
        if self._page.watched == bool(self._cameras):
            return
        for subscription in self._cameras:
            self.destroy_subscription(subscription)
        self._cameras = []
        self._pictures.clear()
        if self._page.watched:
            self._cameras = [
                self.create_subscription(
                    Image, f"{name}/image_raw", partial(self._on_image, name), SENSOR_IN
                )
                for name in self._sizes
            ]

    def _on_joints(self, message: JointState) -> None:
        self._joints = message

    def _on_image(self, camera: str, message: Image) -> None:
        self._pictures[camera] = message

    def _on_state(self, message: ExecutionState) -> None:
        self._state, self._state_at = message, time.monotonic()
        anchored = self._robot.action.anchor == "target"
        pose = (message.commanded if anchored else message.measured).pose
        self._anchors.append((seconds(message.header.stamp), _pose(pose)))
        running = message.state == ExecutionState.RUNNING
        self._series.note("error", float(message.tracking_error))
        self._series.note("age", float(message.chunk_age) if running else np.nan)
        self._series.note("setpoint", float(message.stamp_to_setpoint) if running else np.nan)

    def _on_chunk(self, message: ActionChunk) -> None:
        self._chunk = message
        self._series.note("actor", float(message.latency))

    def _on_prediction(self, message: SpatialPrediction) -> None:
        self._series.note("planner", float(message.latency))
        if message.width == 0 or message.height == 0 or message.camera not in self._sizes:
            return
        self._prediction = message
        answer = prediction_to_answer(message)
        self._overlay.add(message.camera, answer, (message.width, message.height), time.monotonic())

    def _on_instruction(self, message: String) -> None:
        instruction = message.data.strip()
        self._goals.instructed(instruction)
        if not instruction:
            self._journal.idle()
            return
        self._journal.begin(instruction)
        self._overlay.clear()
        self._scene.forget()
        self._prediction = None

    def _on_progress(self, feedback: ExecuteInstruction.Feedback) -> None:
        self._journal.progress(feedback.subtask, feedback.elapsed)

    def _on_end(self, instruction: str, ours: bool, result: ExecuteInstruction.Result) -> None:
        if result.error_code in _REFUSALS:
            if ours:
                self._page.note(result.message)
            return
        canceled = result.error_code == ExecuteInstruction.Result.CANCELED
        self._journal.end(
            Outcome(
                clock=time.strftime("%H:%M:%S"),
                instruction=instruction,
                success=result.success,
                stopped=canceled,
                message=result.message,
                elapsed=result.elapsed,
            )
        )

    def _soon(self, action: Callable[[], None]) -> None:
        """Have the node's own thread do something at once."""
        assert self.executor is not None
        self.executor.create_task(action)

    def _run(self, text: str) -> None:
        """Send an instruction as a goal."""
        try:
            instruction = check_instruction(text)
        except InstructionError as error:
            self._page.note(str(error))
            return
        if not self._goals.ready:
            self._page.note("nobody carries instructions out yet: is task_node up?")
            return
        self._page.note("")
        self._journal.remember(instruction)
        self._goals.send(instruction)

    def _pause(self) -> None:
        """Interrupt what is being done, or take up again what was interrupted."""
        if self._journal.instruction:
            self._journal.pause()
            self._goals.end_all()
        elif self._journal.paused:
            self._run(self._journal.paused)

    def _stop(self) -> None:
        """Stop the arm, whatever it does and whoever told it to; it stays stopped."""
        self._stop_out.publish(Bool(data=True))  # at once, whether or not somebody answers
        if self._stop_service.service_is_ready():
            self._stop_service.call_async(SetBool.Request(data=True))
        self._journal.paused = ""
        self._goals.end_all()

    def _release(self) -> None:
        """Let the arm move again when it is told to."""
        self._stop_service.call_async(SetBool.Request(data=False))

    def _lay_scene(self) -> None:
        """Have the simulator lay another scene, and put its instruction into the box."""
        if self._journal.instruction:
            self._page.note("stop or pause first: the arm is at work")
            return
        request = ResetScene.Request(seed=random.randrange(2**31))
        self._reset.call_async(request).add_done_callback(self._scene_laid)

    def _scene_laid(self, answer: Future) -> None:
        response = answer.result()
        self._page.note("" if response.success else response.message)
        if response.success:
            self._page.suggest(response.instruction)
            self._overlay.clear()
            self._scene.forget()

    def _tick(self) -> None:
        """Bring the page up to date."""
        self._ticks += 1
        self._follow_cameras()
        self._goals.tick()
        now = time.monotonic()
        state = self._state if now - self._state_at < _SILENT else None
        name, reason = _named(state), state.reason if state is not None else ""
        self._page.status(name, reason, self._journal, latched=name == "emergency")
        if self._ticks % _SAMPLE_EVERY == 0:
            self._note_interventions(state, now)
            self._series.sample(now)
            self._page.simulated(self._reset.service_is_ready())
        if not self._page.watched:
            return
        self._scene.workspace_colour(_STOPPED_COLOUR if name in _AT_REST else None)
        if self._ticks % _SAMPLE_EVERY == 0:
            self._page.plots(self._series)
            if state is not None:
                counts = zip(state.interventions, state.intervention_counts, strict=False)
                self._page.interventions({str(what): int(count) for what, count in counts})
        self._show_robot(state)
        self._show_prediction(now)
        self._show_pictures(now)

    def _note_interventions(self, state: ExecutionState | None, now: float) -> None:
        """How fast safety's counters grow."""
        if state is None:
            return
        for name in ("limited", "refused", "late"):
            count = int(getattr(state, f"{name}_count"))
            self._series.note(name, self._rates.of(name, count, now))

    def _show_robot(self, state: ExecutionState | None) -> None:
        """The arm where it stands, the way it has come, and the chunk that it will follow."""
        joints, self._joints = self._joints, None
        if joints is not None:
            self._scene.joints(dict(zip(joints.name, joints.position, strict=False)))
        if state is not None and state.state == ExecutionState.RUNNING:
            at = state.measured.pose.position
            self._scene.tip((at.x, at.y, at.z))
        chunk, self._chunk = self._chunk, None
        if chunk is None or not self._anchors:
            return
        try:
            actions = message_to_chunk(chunk).actions
        except ConversionError:
            return  # arm_node says so
        stamp = seconds(chunk.header.stamp)
        anchor = min(self._anchors, key=lambda each: abs(each[0] - stamp))[1]
        poses = integrate(anchor, actions, self._robot.action)
        self._scene.chunk([pose.position for pose in poses], actions[:, 6])

    def _show_prediction(self, now: float) -> None:
        """The planner's words, and its points and traces in space."""
        message, self._prediction = self._prediction, None
        if message is None:
            return
        self._page.planner(message.text, message.latency)
        answer = self._overlay.answer(message.camera, now)
        view = self._view(message)
        if answer is None or view is None:
            return
        if answer.points:
            self._scene.targets(lift_points(view, answer.points, _TARGET_HEIGHT))
        if answer.traces and self._anchors:
            start = float(self._anchors[-1][1].position[2])
            self._scene.trace(lift_trace(view, answer.traces[0], start, _TARGET_HEIGHT))

    def _view(self, message: SpatialPrediction) -> View | None:
        """The camera that a prediction is about, where it is fixed."""
        camera = self._robot.camera(message.camera)
        pose = self._poses.pose(message.camera, seconds(message.header.stamp), None)
        if pose is None:
            return None
        size = (int(message.width), int(message.height))
        return View(Camera(*size, camera.intrinsics(*size), np.zeros(0)), pose)

    def _show_pictures(self, now: float) -> None:
        pictures, self._pictures = self._pictures, {}
        for camera, message in pictures.items():
            try:
                picture = shrunk(image_to_rgb(message), self._sizes[camera])
            except ConversionError as error:
                self.get_logger().error(f"{camera}: {error}", throttle_duration_sec=5.0)
                continue
            self._page.view(camera, self._overlay.draw(camera, picture, "", "", now))

    def _health(self) -> Health:
        return Health(OK, "watched" if self._page.watched else "nobody looks")


def fitted(width: int, height: int, widest: int) -> tuple[int, int]:
    """(width, height) px of a picture made at most `widest` px wide, its shape kept."""
    if width <= widest:
        return width, height
    return widest, max(1, round(height * widest / width))


def shrunk(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture uint8 [h, w, 3] at another size (width, height)."""
    if (picture.shape[1], picture.shape[0]) == size:
        return picture
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _named(state: ExecutionState | None) -> str:
    """What the arm does, by the page's own name."""
    if state is None:
        return "silent"
    return "emergency" if state.emergency_stop else _STATES.get(state.state, "fault")


def _pose(message: object) -> Pose:
    """A Pose of a geometry_msgs Pose."""
    at, turn = message.position, message.orientation  # type: ignore[attr-defined]
    return Pose.from_quaternion([at.x, at.y, at.z], [turn.x, turn.y, turn.z, turn.w])


def main() -> int:
    """Run dashboard_node."""
    return run(DashboardNode)


if __name__ == "__main__":
    sys.exit(main())
