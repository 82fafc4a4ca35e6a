"""A running graph whose simulated arm moves, and a record of what its joints do.

The policy has random weights and moves the arm to no purpose; who uses this gives the instruction.
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import rclpy
from client import Client
from internvla_ros.msg import ExecutionState
from numpy.typing import NDArray
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool

from internvla_ros.bringup import Options, environment, graph
from internvla_ros.nodes.qos import LATCHED, SENSOR_IN
from internvla_ros.nodes.stamps import seconds
from internvla_ros.nodes.supervisor import Supervisor, processes
from internvla_ros.robots.embodiment import load_embodiment

NODES = ("planner", "actor", "arm", "camera", "sim")
ROBOT = load_embodiment("widowx_250s")
TASK = "put the red cube on the blue plate"
MOVING = 0.05  # rad/s
AT_REST = 0.01  # rad/s


class MovingArm:
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

    def mark(self) -> float:
        """The robot's time. What the joints do from shortly before is recorded."""
        del self.record[:-25]
        self.client.state = None
        return self.record[-1][0]

    def kill(self, name: str) -> float:
        """kill -9; the robot's time then, from shortly before which the joints are recorded."""
        marked = self.mark()
        os.kill(self.supervisor.pid(name), signal.SIGKILL)
        return marked

    def wait_until_still(self) -> None:
        self.client.wait(lambda: self.speed() < AT_REST, 30.0, "the arm to rest")

    def came_to_rest(self) -> float:
        """The robot's time from which on its joints have rested, by what is recorded."""
        t = np.array([each[0] for each in self.record])
        q = np.array([each[1] for each in self.record])
        moving = np.abs(q[5:] - q[:-5]).max(axis=1) / (t[5:] - t[:-5]) >= AT_REST
        return float(t[5:][moving].max(initial=t[0]))

    def assert_within_limits(self) -> None:
        """The joints from shortly before the mark to their rest, differentiated.

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

    def wait_until_ready(self) -> None:
        """Until the robot tells of its joints; then it is instructed."""
        self.client.wait(lambda: len(self.record) > 5, 60.0, "joint states")
        self.instruct(TASK)
