"""The real processes over Fast DDS: what becomes of instructions, good and bad.

The policy is of the real classes with random weights: it moves the arm, though not to any purpose.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("internvla_ros.msg")

import rclpy
from client import Client
from internvla_ros.action import ExecuteInstruction
from internvla_ros.msg import ExecutionState
from internvla_ros.srv import Ground, ResetScene
from random_policy import save_random_policy
from rclpy.signals import SignalHandlerOptions

from internvla_ros.bringup import Options, environment, graph
from internvla_ros.nodes.converters import rgb_to_image
from internvla_ros.nodes.supervisor import Supervisor, processes

pytestmark = pytest.mark.integration

Result = ExecuteInstruction.Result
TASK = "put the red cube on the blue plate"


class Graph:
    """A running graph with its client; what its processes print is shown when a test fails."""

    def __init__(self, checkpoint: Path) -> None:
        nodes = graph(Options(checkpoint=str(checkpoint), seed=3, respawn=False))
        self.expected_deaths: set[str] = set()
        self.supervisor = Supervisor(
            processes(nodes, ""), lambda name, line: print(f"{name}: {line}"), environment()
        )
        self.supervisor.start()
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self.client = Client(self._poll)

    def _poll(self) -> None:
        self.supervisor.poll(0.0)
        unexpected = [e for e in self.supervisor.ended if e.name not in self.expected_deaths]
        assert not unexpected, str(unexpected[0])

    def kill(self, name: str) -> None:
        self.expected_deaths.add(name)
        os.kill(self.supervisor.pid(name), signal.SIGKILL)

    def close(self) -> None:
        self.supervisor.stop()
        self.client.close()
        rclpy.try_shutdown()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    """One graph for all tests here; the last one kills a part of it."""
    profiles = environment()["FASTRTPS_DEFAULT_PROFILES_FILE"]
    os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] = profiles
    started = Graph(save_random_policy(tmp_path_factory.mktemp("policy")))
    try:
        started.client.wait_until_ready()
        yield started
    finally:
        started.close()


@pytest.mark.parametrize("text", ["", "   ", "x" * 10_000, "put the\ncube", "put \x1b[31mit"])
def test_a_bad_instruction_is_refused(running: Graph, text: str) -> None:
    result = running.client.result(running.client.send(text))
    assert result.error_code == Result.INVALID_INSTRUCTION
    assert not result.success
    assert result.message
    assert "\n" not in result.message


def test_a_bad_timeout_is_refused(running: Graph) -> None:
    result = running.client.result(running.client.send(TASK, timeout=float("nan")))
    assert result.error_code == Result.INVALID_TIMEOUT


def test_scenes_are_laid_on_request(running: Graph) -> None:
    reset = running.client.reset
    answer = running.client.answer(reset.call_async(ResetScene.Request(seed=5))).result()
    assert answer.success
    assert answer.instruction
    request = ResetScene.Request(seed=5, instruction="fly to the moon")
    answer = running.client.answer(reset.call_async(request)).result()
    assert not answer.success
    assert "fly to the moon" in answer.message
    request = ResetScene.Request(seed=6, instruction=TASK)
    answer = running.client.answer(reset.call_async(request)).result()
    assert (answer.success, answer.instruction) == (True, TASK)


def test_the_planner_answers_about_an_image(running: Graph) -> None:
    picture = np.zeros((120, 160, 3), np.uint8)
    request = Ground.Request(query="red cube", kind=Ground.Request.BOX)
    request.image = rgb_to_image(picture, request.image.header)
    answer = running.client.answer(running.client.ground.call_async(request)).result()
    assert (answer.prediction.width, answer.prediction.height) == (160, 120)
    assert not answer.success
    assert "red cube" in answer.message
    request.image.encoding = "yuv422"
    answer = running.client.answer(running.client.ground.call_async(request)).result()
    assert "yuv422" in answer.message


def test_an_instruction_becomes_motion_and_a_second_goal_is_refused(running: Graph) -> None:
    client = running.client
    client.let_pass(0.5)
    assert client.joints is not None
    start = client.joints.copy()
    handle = client.send(TASK)
    client.wait(lambda: np.abs(client.joints - start).max() > 0.05, 60.0, "the arm to move")
    client.wait(lambda: client.plan is not None, 20.0, "a plan")
    client.wait(lambda: client.chunk is not None, 20.0, "a chunk")
    client.wait(lambda: client.prediction is not None, 20.0, "a prediction")
    assert client.plan is not None
    assert client.chunk is not None
    assert client.prediction is not None
    assert client.plan.instruction == client.chunk.instruction == TASK
    assert client.plan.hidden_states.shape[0] == 1
    assert (client.chunk.horizon, client.chunk.action_dim) == (16, 7)
    assert (client.prediction.camera, client.prediction.width) == ("front", 640)
    client.wait(
        lambda: client.state is not None and client.state.stamp_to_setpoint > 0.0,
        20.0,
        "the delay from image to setpoint",
    )

    second = client.result(client.send("put the green ball in the red bowl"))
    assert second.error_code == Result.BUSY
    assert TASK in second.message
    assert client.stop(handle).error_code == Result.CANCELED


def test_a_goal_that_is_not_achieved_times_out(running: Graph) -> None:
    result = running.client.result(running.client.send(TASK, timeout=1.5))
    assert result.error_code == Result.TIMEOUT
    assert result.elapsed >= 1.5


def test_a_killed_planner_becomes_a_hold(running: Graph) -> None:
    client = running.client
    client.wait_for_state(ExecutionState.STOPPED)
    handle = client.send(TASK)
    client.wait_for_state(ExecutionState.RUNNING)
    client.let_pass(0.5)
    running.kill("planner")
    killed = client.time
    client.wait_for_state(ExecutionState.HOLDING)
    assert client.time - killed < 4.0  # 1 s of plan age, 1 s of chunk, and the time to notice
    assert client.state is not None
    assert "chunks stopped" in client.state.reason
    client.let_pass(0.8)
    assert client.joints is not None
    held = client.joints.copy()
    client.let_pass(0.5)
    assert np.abs(client.joints - held).max() < 0.02
    assert client.result(handle).error_code == Result.PLANNER_LOST
