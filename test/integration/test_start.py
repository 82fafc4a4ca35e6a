"""A graph forms in any order of start, and again when a process comes back; peers that do not fit
are told."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("internvla_ros.msg")

import rclpy
from client import Client
from diagnostic_msgs.msg import DiagnosticArray
from internvla_ros.action import ExecuteInstruction
from internvla_ros.msg import ActionChunk, ExecutionState
from random_policy import save_random_policy
from rclpy.action.client import ClientGoalHandle
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image
from trajectory_msgs.msg import JointTrajectory

from internvla_ros.bringup import Options, environment, graph
from internvla_ros.nodes.qos import EVENTS, SENSOR_IN, SENSOR_OUT
from internvla_ros.nodes.supervisor import Supervisor, processes
from internvla_ros.robots.embodiment import known_embodiments

pytestmark = pytest.mark.integration

TASK = "put the red cube on the blue plate"


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def ros() -> Iterator[None]:
    os.environ.update(environment())
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    yield
    rclpy.try_shutdown()


class Watched:
    """A graph, what watches it, and how long it takes to the first command."""

    def __init__(self, checkpoint: Path, seed: int) -> None:
        options = Options(checkpoint=str(checkpoint), seed=3, markers=False)
        specs = processes(graph(options), "")
        random.Random(seed).shuffle(specs)
        self.order = [spec.name for spec in specs]
        specs = [replace(spec, respawn=spec.name != "sim") for spec in specs]
        self.supervisor = Supervisor(specs, lambda name, line: print(f"{name}: {line}"))
        self.client = Client(self._poll)
        self.commands = 0
        self.client.node.create_subscription(
            JointTrajectory, "arm_controller/joint_trajectory", self._on_command, SENSOR_IN
        )

    def _poll(self) -> None:
        self.supervisor.poll(0.0)
        assert not self.supervisor.ended, str(self.supervisor.ended[0])

    def _on_command(self, message: JointTrajectory) -> None:
        self.commands += 1

    def start(self) -> float:
        """Start it and give it something to do; s until the first command."""
        began = time.monotonic()
        self.supervisor.start()
        self.client.wait_until_ready()
        ready = time.monotonic()
        self.obey()
        print(f"order {', '.join(self.order)}: ready after {ready - began:.1f} s")
        return time.monotonic() - began

    def obey(self) -> None:
        """An instruction becomes commands."""
        self.client.wait(self.client.goals.server_is_ready, 60.0, "the action")
        self.commands = 0
        handle = self._send()
        self.client.wait(lambda: self.commands > 3, 120.0, "commands")
        self.client.stop(handle)

    def _send(self) -> ClientGoalHandle:
        """Send the goal until it is answered: DDS takes a dead server for alive for a while."""
        for _ in range(10):
            sent = time.monotonic()
            goal = ExecuteInstruction.Goal(instruction=TASK, timeout=60.0)
            answer = self.client.goals.send_goal_async(goal)
            while not answer.done() and time.monotonic() < sent + 5.0:
                self.client.turn()
            if answer.done() and answer.result().accepted:
                return answer.result()
        raise AssertionError("no goal was taken")

    def restart(self, name: str) -> None:
        before = self.supervisor.pid(name)
        os.kill(before, signal.SIGKILL)
        self.client.wait(
            lambda: self.supervisor.pids().get(name, before) != before, 20.0, f"another {name}"
        )
        self.client.state = None
        self.client.wait(
            lambda: self.client.state is not None and not self.client.state.reason,
            60.0,
            "an arm that knows its joints",
        )

    def close(self) -> None:
        self.supervisor.stop()
        self.client.close()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_graph_forms_in_any_order_of_start(
    ros: None, policy: Path, seed: int, record_property: Callable[[str, object], None]
) -> None:
    watched = Watched(policy, seed)
    try:
        first = f"{watched.start():.1f} s"
        record_property(f"from start to first command, as {', '.join(watched.order)}", first)
    finally:
        watched.close()


def test_a_graph_forms_again_after_each_process_has_died(
    ros: None, policy: Path, record_property: Callable[[str, object], None]
) -> None:
    """test_kill.py says what the arm does meanwhile."""
    watched = Watched(policy, seed=2)
    try:
        watched.start()
        for name in ("task", "camera", "arm", "planner", "actor"):
            watched.restart(name)
            began = time.monotonic()
            watched.obey()
            record_property(
                f"from a restarted {name} to commands", f"{time.monotonic() - began:.1f} s"
            )
    finally:
        watched.close()


def node(name: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"internvla_ros.nodes.{name}", "--ros-args", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(
    ("name", "parameter", "message"),
    [
        ("camera_node", "rate:=-1.0", "'rate' of camera"),
        ("arm_node", "motion:=telepathy", "'motion' of arm is 'telepathy'; it must be one of"),
        ("task_node", "timeout:=soon", "'timeout' of task"),
        ("arm_node", "robot:=r2d2", "unknown robot 'r2d2'"),
        ("planner_node", "checkpoint:=/nowhere", "no checkpoint folder at /nowhere"),
        ("sim_node", "robot:=r2d2", "unknown robot 'r2d2'"),
    ],
)
def test_a_wrong_parameter_is_one_line_and_the_end(name: str, parameter: str, message: str) -> None:
    process = node(name, "-p", parameter)
    output, _ = process.communicate(timeout=60.0)
    assert process.returncode == 2
    (line,) = (each for each in output.splitlines() if "error" in each.lower())
    assert message in line
    assert "Traceback" not in output


def test_a_missing_camera_is_named(ros: None) -> None:
    process = node("camera_node")
    client = Client(lambda: None)
    found: list[str] = []

    def on_diagnostics(message: DiagnosticArray) -> None:
        found.extend(status.message for status in message.status if status.name == "camera")

    client.node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, EVENTS)
    image = client.node.create_publisher(Image, "front/image_raw", SENSOR_OUT)
    info = client.node.create_publisher(CameraInfo, "front/camera_info", SENSOR_OUT)

    def publish() -> bool:
        stamp = client.node.get_clock().now().to_msg()
        picture = Image(height=480, width=640, step=1920, encoding="rgb8", data=bytes(921600))
        picture.header.stamp = stamp
        about = CameraInfo()
        about.header.stamp = stamp
        image.publish(picture)
        info.publish(about)
        return any("wrist/image" in text and "front" not in text for text in found)

    try:
        client.wait(publish, 60.0, f"the name of the camera that is missing; {found}")
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20.0)
        client.close()


def test_a_peer_of_another_quality_of_service_is_told(ros: None) -> None:
    """Chunks that may get lost are not taken, and the arm's node says so."""
    process = node("arm_node")
    client = Client(lambda: None)
    unreliable = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    chunks = client.node.create_publisher(ActionChunk, "action_chunk", unreliable)
    try:
        client.wait(lambda: client.state is not None, 60.0, "the arm's node")
        client.wait(lambda: client.node.count_subscribers("action_chunk") == 2, 20.0, "its topic")
        chunks.publish(ActionChunk(instruction=TASK))
        assert client.state is not None and client.state.state != ExecutionState.RUNNING
    finally:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20.0)
        client.close()
    assert "incompatible QoS" in output and "action_chunk" in output


@pytest.mark.parametrize("robot", known_embodiments())
def test_up_brings_each_robot_up_and_ends_cleanly(robot: str, policy: Path) -> None:
    """One process a node, each line with its node's name; Ctrl-C ends them all with status 0."""
    words = ["up", "--robot", robot, "--checkpoint", str(policy)]
    up = subprocess.Popen(
        [sys.executable, "-m", "internvla_ros.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    names = {node.name for node in graph(Options(robot=robot))}
    assert up.stdout is not None
    heard: set[str] = set()
    try:
        for line in up.stdout:
            name, bar, _ = line.partition(" |")
            if line.startswith("internvla up: removed"):  # what earlier tests have killed left it
                continue
            assert bar and name.strip() in names, line
            heard |= {name.strip()} if "ready with" in line else set()
            if heard == {"planner", "actor"}:
                break
        children = Path(f"/proc/{up.pid}/task/{up.pid}/children").read_text().split()
        assert len(children) == len(names)
    finally:
        began = time.monotonic()
        up.send_signal(signal.SIGINT)
        rest, _ = up.communicate(timeout=30.0)
        print(f"{robot}: ended {time.monotonic() - began:.1f} s after Ctrl-C")
    assert up.returncode == 0
    assert "Traceback" not in rest
