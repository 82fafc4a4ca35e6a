"""Planner and actor ask a policy server; when it dies the arm holds, when it returns they go on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("internvla_ros.msg")

import rclpy
import yaml
from client import Client
from internvla_ros.msg import ExecutionState
from internvla_ros.srv import Ground
from random_policy import save_random_policy
from rclpy.signals import SignalHandlerOptions
from running_server import Serving
from std_msgs.msg import String

from internvla_ros.bringup import Options, environment, graph
from internvla_ros.model.policy import Policy
from internvla_ros.nodes.converters import message_to_chunk, rgb_to_image, tensor_to_array
from internvla_ros.nodes.preflight import PreflightError, check_policy
from internvla_ros.nodes.qos import LATCHED
from internvla_ros.nodes.supervisor import Supervisor, processes
from internvla_ros.resources import resource
from internvla_ros.serving.errors import ServerUnreachable
from internvla_ros.serving.service import PolicyService

pytestmark = pytest.mark.integration

NODES = ("planner", "actor", "arm", "camera", "sim")
TASK = "put the red cube on the blue plate"


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return Policy.from_pretrained(save_random_policy(tmp_path_factory.mktemp("policy")))


@pytest.fixture
def server(policy: Policy) -> Iterator[Serving]:
    running = Serving(PolicyService(policy))
    yield running
    running.stop()


def test_what_is_found_wrong_before_the_graph_starts(
    server: Serving, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert check_policy("widowx_250s", server.url, "") == ""
    content = yaml.safe_load(resource("config/robots/widowx_250s.yaml").read_text())
    del content["cameras"]["wrist"]
    (tmp_path / "widowx_250s.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(PreflightError, match=r"at ws://.* needs camera wrist; robot widowx_250s"):
        check_policy(str(tmp_path / "widowx_250s.yaml"), server.url, "")
    with pytest.raises(PreflightError, match="has its own checkpoint: give one of the two"):
        check_policy("widowx_250s", server.url, "checkpoints/nano")
    server.stop()
    monkeypatch.setattr("internvla_ros.nodes.preflight._SERVER_PATIENCE", 0.0)
    with pytest.raises(ServerUnreachable, match="no policy server answers"):
        check_policy("widowx_250s", server.url, "")


def test_the_graph_runs_on_a_remote_policy(policy: Policy, server: Serving) -> None:
    os.environ.update(environment())
    nodes = graph(Options(policy=server.url, seed=3))
    specs = processes([node for node in nodes if node.name in NODES], "")
    with Supervisor(specs, lambda name, line: print(f"{name}: {line}")) as supervisor:
        supervisor.start()
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        client = Client(lambda: supervisor.poll(0.0))
        instruction = client.node.create_publisher(String, "instruction", LATCHED)
        try:
            instruction.publish(String(data=TASK))
            client.wait_for_state(ExecutionState.RUNNING)
            assert client.plan is not None and client.chunk is not None
            states = tensor_to_array(client.plan.hidden_states)
            assert states.shape[-1] == policy.config.qformer.input_dim
            assert np.isfinite(message_to_chunk(client.chunk).actions).all()
            request = Ground.Request(query="red cube", kind=Ground.Request.BOX)
            request.image = rgb_to_image(np.zeros((120, 160, 3), np.uint8), request.image.header)
            answer = client.answer(client.ground.call_async(request)).result()
            assert answer.message == "the planner found no 'red cube'"

            server.stop()
            client.wait(
                lambda: client.state is not None and client.state.state != ExecutionState.RUNNING,
                60.0,
                "the arm to stop",
            )
            answer = client.answer(client.ground.call_async(request)).result()
            assert not answer.success and "no policy server answers" in answer.message

            returned = Serving(PolicyService(policy), port=server.server.port)
            try:
                client.wait_for_state(ExecutionState.RUNNING)
            finally:
                returned.stop()
            assert not supervisor.ended
        finally:
            client.close()
            rclpy.try_shutdown()
