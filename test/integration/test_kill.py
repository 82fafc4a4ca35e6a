"""kill -9 in mid-motion: whatever dies, the arm comes to rest within its limits and goes on later.

The real processes with a policy of random weights, which moves the arm to no purpose; the test
itself gives the instruction. What the joints do is recorded from the simulated robot and
differentiated.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("rclpy")
pytest.importorskip("internvla_ros.msg")

import rclpy
from client import Client
from internvla_ros.msg import ExecutionState
from random_policy import save_random_policy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool

from internvla_ros.bringup import Options, environment, graph
from internvla_ros.nodes.qos import LATCHED, SENSOR_IN
from internvla_ros.nodes.stamps import seconds
from internvla_ros.nodes.supervisor import Supervisor, processes
from internvla_ros.robots.embodiment import load_embodiment

pytestmark = pytest.mark.integration

NODES = ("planner", "actor", "arm", "camera", "sim")
ROBOT = load_embodiment("widowx_250s")
TASK = "put the red cube on the blue plate"
MOVING = 0.05  # rad/s
AT_REST = 0.01  # rad/s


class Running:
    """A graph whose parts come back when they die, and a record of the joints."""

    def __init__(self, checkpoint: Path) -> None:
        os.environ.update(environment())
        nodes = [n for n in graph(Options(checkpoint=str(checkpoint), seed=3)) if n.name in NODES]
        specs = [replace(spec, respawn=spec.name != "sim") for spec in processes(nodes, "")]
        self.supervisor = Supervisor(specs, lambda name, line: print(f"{name}: {line}"))
        self.supervisor.start()
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self.client = Client(lambda: self.supervisor.poll(0.0))
        self.record: list[tuple[float, NDArray[np.float64]]] = []
        node = self.client.node
        node.create_subscription(JointState, "joint_states", self._on_joints, SENSOR_IN)
        self._instruction = node.create_publisher(String, "instruction", LATCHED)
        self.stop_service = node.create_client(SetBool, "emergency_stop")

    def instruct(self, text: str) -> None:
        self._instruction.publish(String(data=text))

    def _on_joints(self, message: JointState) -> None:
        n = len(ROBOT.joints)
        self.record.append((seconds(message.header.stamp), np.array(message.position[:n])))

    def speed(self) -> float:
        """rad/s of the fastest joint, over the last tenth of a second."""
        if len(self.record) < 6:
            return 0.0
        (t0, q0), (t1, q1) = self.record[-6], self.record[-1]
        return float(np.abs(q1 - q0).max() / (t1 - t0))

    def wait_until_moving(self) -> None:
        def moving() -> bool:
            state = self.client.state
            running = state is not None and state.state == ExecutionState.RUNNING
            return running and self.speed() > MOVING

        self.client.wait(moving, 120.0, "the arm to move")

    def kill(self, name: str) -> float:
        """kill -9; the robot's time then. What the joints do from shortly before is recorded."""
        del self.record[:-25]
        self.client.state = None
        os.kill(self.supervisor.pid(name), signal.SIGKILL)
        return self.record[-1][0]

    def wait_until_still(self) -> None:
        self.client.wait(lambda: self.speed() < AT_REST, 30.0, "the arm to rest")

    def assert_within_limits(self) -> None:
        """The joints from shortly before the death to their rest, differentiated.

        They are the simulated robot's, whose servos ring a little: a tenth more acceleration.
        """
        t = np.array([each[0] for each in self.record])
        q = np.array([each[1] for each in self.record])
        assert (q > ROBOT.position_lower - 0.01).all() and (q < ROBOT.position_upper + 0.01).all()
        speeds = np.diff(q, axis=0) / np.diff(t)[:, None]
        assert (np.abs(speeds) < ROBOT.velocity).all()
        middles = 0.5 * (t[1:] + t[:-1])
        forces = np.diff(speeds, axis=0) / np.diff(middles)[:, None]
        print(f"speed up to {np.abs(speeds).max():.2f}, acceleration {np.abs(forces).max():.2f}")
        assert (np.abs(forces) < 1.1 * ROBOT.acceleration).all()

    def close(self) -> None:
        self.supervisor.stop()
        self.client.close()
        rclpy.try_shutdown()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    started = Running(save_random_policy(tmp_path_factory.mktemp("policy")))
    try:
        started.client.wait(lambda: len(started.record) > 5, 60.0, "joint states")
        started.instruct(TASK)
        yield started
    finally:
        started.close()


@pytest.mark.parametrize("name", ["planner", "actor", "camera"])
def test_what_thinks_or_sees_dies_and_comes_back(running: Running, name: str) -> None:
    running.wait_until_moving()
    killed = running.kill(name)
    running.client.wait_for_state(ExecutionState.HOLDING)
    held = running.record[-1][0]
    running.wait_until_still()
    print(f"{name}: holds {held - killed:.2f} s after the kill, rests after", end=" ")
    print(f"{running.record[-1][0] - killed:.2f} s")
    assert held - killed < 4.0  # 1 s of plan age, 1 s of chunk, and the time to notice
    running.assert_within_limits()
    running.wait_until_moving()


def test_the_arm_node_dies_and_comes_back(running: Running) -> None:
    """The last setpoint carries its own stop: the robot needs nobody to come to rest."""
    running.wait_until_moving()
    killed = running.kill("arm")
    running.wait_until_still()
    rests = running.record[-1][0]
    print(f"arm: rests {rests - killed:.2f} s after the kill")
    assert rests - killed < 1.0
    running.assert_within_limits()
    running.wait_until_moving()


def test_an_emergency_stop_stays_until_it_is_released(running: Running) -> None:
    running.wait_until_moving()
    client = running.client
    client.wait(running.stop_service.service_is_ready, 30.0, "the service")
    del running.record[:-25]
    asked = running.record[-1][0]
    client.answer(running.stop_service.call_async(SetBool.Request(data=True)))
    client.wait_for_state(ExecutionState.FAULT)
    running.wait_until_still()
    print(f"emergency stop: rests {running.record[-1][0] - asked:.2f} s after it")
    assert running.record[-1][0] - asked < 1.0
    running.assert_within_limits()
    rest = running.record[-1][1]
    client.let_pass(1.0)
    assert np.abs(running.record[-1][1] - rest).max() < 0.01
    client.wait(lambda: client.state is not None and client.state.emergency_stop, 5.0, "the flag")
    assert client.state is not None and "emergency stop" in client.state.interventions
    client.answer(running.stop_service.call_async(SetBool.Request(data=False)))
    running.wait_until_moving()


def test_the_robot_falls_silent(running: Running) -> None:
    """The simulator is the robot, its clock and its cameras: the arm node cannot but wait."""
    running.wait_until_moving()
    running.kill("sim")
    client = running.client
    client.wait(lambda: bool(running.supervisor.ended), 10.0, "the simulator to end")
    running.assert_within_limits()
    assert {"planner", "actor", "arm", "camera"} <= set(running.supervisor.pids())
