"""With a scripted stand-in for planner and actor, the rest of the graph does its tasks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("internvla_ros.msg")

import rclpy
import yaml
from client import Client
from internvla_ros.action import ExecuteInstruction
from internvla_ros.srv import ResetScene
from rclpy.signals import SignalHandlerOptions

from internvla_ros.bringup import Options, environment, graph
from internvla_ros.nodes.supervisor import ProcessSpec, Supervisor, processes
from internvla_ros.resources import resource

pytestmark = pytest.mark.integration

SCRIPT = Path(__file__).with_name("scripted_sim.py")


@pytest.fixture
def robot(tmp_path: Path) -> str:
    """The robot, following the newest chunk alone: the expert foresees a world that stands still,
    so that its older chunks say nothing of the present."""
    content = yaml.safe_load(resource("config/robots/widowx_250s.yaml").read_text())
    content["ensemble"]["name"] = "latest"
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.fixture
def client(robot: str) -> Iterator[Client]:
    """The graph's arm, camera and task nodes, and the stand-in for the others."""
    os.environ.update(environment())
    nodes = [node for node in graph(Options(robot=robot)) if node.name in ("arm", "camera", "task")]
    specs = [*processes(nodes, ""), ProcessSpec("sim", (sys.executable, str(SCRIPT)))]
    with Supervisor(specs, lambda name, line: print(f"{name}: {line}")) as supervisor:
        supervisor.start()
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        watching = Client(lambda: supervisor.poll(0.0))
        try:
            watching.wait_until_ready()
            yield watching
        finally:
            watching.close()
            rclpy.try_shutdown()


def test_two_tasks_are_carried_out_one_after_the_other(client: Client) -> None:
    for seed in (1, 2):
        request = ResetScene.Request(seed=seed)
        instruction = client.answer(client.reset.call_async(request)).result().instruction
        client.let_pass(0.3)
        result = client.result(client.send(instruction))
        assert result.error_code == ExecuteInstruction.Result.NONE, result.message
        assert result.success
        assert client.state is not None
        assert client.state.refused_count == 0
