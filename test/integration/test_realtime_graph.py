"""Real-time chunking over topics: the actor's next chunk begins with what the arm is executing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("internvla_ros.msg")

import rclpy
import yaml
from client import Client
from internvla_ros.msg import ActionChunk, ExecutionState
from random_policy import save_random_policy
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import String

from internvla_ros.bringup import Options, environment, graph
from internvla_ros.control.realtime import remaining
from internvla_ros.nodes.converters import message_to_chunk
from internvla_ros.nodes.qos import LATCHED, NEWEST
from internvla_ros.nodes.supervisor import Supervisor, processes
from internvla_ros.resources import resource

pytestmark = pytest.mark.integration

NODES = ("planner", "actor", "arm", "camera", "sim")
TASK = "put the red cube on the blue plate"


def continues(earlier: ActionChunk, later: ActionChunk) -> bool:
    """Whether the later chunk's first step is a step of the earlier one, or made of two."""
    chunk, first = message_to_chunk(earlier), message_to_chunk(later).actions[0]
    for progress in np.linspace(0.0, 10 * chunk.dt, 1000):
        left = remaining(chunk, float(progress))
        if np.abs(left[0, :6] - first[:6]).max() < 2e-4 and left[0, 6] == first[6]:
            return True
    return False


def test_chunks_go_on_from_each_other(tmp_path: Path) -> None:
    content = yaml.safe_load(resource("config/robots/widowx_250s.yaml").read_text())
    content["ensemble"]["name"] = "rtc"
    robot = tmp_path / "widowx_250s.yaml"
    robot.write_text(yaml.safe_dump(content))
    checkpoint = save_random_policy(tmp_path / "policy")
    os.environ.update(environment())
    nodes = graph(Options(robot=str(robot), checkpoint=str(checkpoint), seed=3))
    specs = processes([node for node in nodes if node.name in NODES], "")
    with Supervisor(specs, lambda name, line: print(f"{name}: {line}")) as supervisor:
        supervisor.start()
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        client = Client(lambda: supervisor.poll(0.0))
        chunks: list[ActionChunk] = []
        client.node.create_subscription(ActionChunk, "action_chunk", chunks.append, NEWEST)
        instruction = client.node.create_publisher(String, "instruction", LATCHED)
        try:
            instruction.publish(String(data=TASK))
            client.wait(lambda: len(chunks) > 12, 180.0, "chunks")
            client.wait_for_state(ExecutionState.RUNNING)
            joined = sum(
                any(continues(earlier, chunks[i]) for earlier in chunks[i - 3 : i])
                for i in range(3, len(chunks))
            )
            # Chunks sampled apart never continue each other; a starved machine breaks some links.
            assert joined >= 0.4 * (len(chunks) - 3)
        finally:
            client.close()
            rclpy.try_shutdown()
