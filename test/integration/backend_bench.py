"""A node of the tests' own with a motion backend in it, and a robot's stand-in beside it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from internvla_ros.motion.backend import JointCommand, MotionBackend
from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.motion.profile import JointState, VelocityProfile
from internvla_ros.motion.se3 import Pose
from internvla_ros.nodes.backends import make_backend
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import Embodiment, load_embodiment

PATIENCE = 30.0  # s


class Bench:
    """Spins only while it waits. Sends setpoints like an arm node's control cycle."""

    def __init__(
        self,
        motion: str,
        parameters: dict[str, object],
        process: subprocess.Popen[bytes] | None = None,
    ) -> None:
        """`process`: the robot's stand-in, where it is not the test itself."""
        self.process = process
        self.robot: Embodiment = load_embodiment("widowx_250s")
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        self.node = Node("bench", parameter_overrides=overrides)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self.hindrance = ""
        """Why the arm may not be moved."""
        self.backend: MotionBackend = make_backend(
            motion, self.node, self.robot, lambda: self.hindrance
        )
        self.period = 1.0 / self.robot.control_rate
        self._next = 0.0
        robot = self.robot
        self._profile = VelocityProfile(
            robot.acceleration, robot.jerk, robot.position_lower, robot.position_upper
        )
        self._kinematics = Kinematics(urdf(robot.name), robot.joints, robot.tip_frame)
        n = len(robot.joints)
        self._moving = self.command(JointState(robot.ready, np.full(n, 0.01), np.zeros(n)))

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()

    def now(self) -> float:
        return self.node.get_clock().now().nanoseconds * 1e-9

    def at_rest(self, q: np.ndarray | None = None) -> JointCommand:
        """A setpoint at rest."""
        return self.command(JointState.at_rest(self.robot.ready if q is None else q))

    def command(self, state: JointState) -> JointCommand:
        tip = self._kinematics.forward(state.positions)
        stop = self._profile.stop(state)
        return JointCommand(
            state.positions, state.velocities, state.accelerations, False, "", tip, stop
        )

    def wait(
        self, condition: Callable[[], bool], what: str, step: Callable[[], None] | None = None
    ) -> None:
        """Work until a condition holds; `step` is called once a control period meanwhile."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, (
                f"waited {PATIENCE} s for {what} in vain; {self._stand_in_state()}"
            )
            if step is not None and time.monotonic() >= self._next:
                self._next = time.monotonic() + self.period
                step()
            self._executor.spin_once(timeout_sec=0.005)

    def _stand_in_state(self) -> str:
        if self.process is None:
            return "the test itself is the stand-in"
        code = self.process.poll()
        return "the stand-in runs" if code is None else f"the stand-in ended with {code}"

    def send(self, pose: Pose, gripper: float = 1.0, moves: bool = True) -> None:
        """One setpoint of the tip, on the way or at rest."""
        joints = self._moving if moves else self.at_rest()
        self.backend.setpoint(pose, joints, gripper, self.now() + self.period)


@contextlib.contextmanager
def stand_in(name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of this folder that takes a robot's place."""
    path = Path(__file__).with_name(name)
    process = subprocess.Popen([sys.executable, str(path), *arguments])
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def bench(motion: str, beside: str, *arguments: str, **parameters: object) -> Iterator[Bench]:
    """A bench with the backend `motion` and its parameters, and the stand-in `beside`, run with
    `arguments` in a process of its own."""
    with stand_in(beside, *arguments) as process:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        try:
            made = Bench(motion, parameters, process)
            try:
                yield made
            finally:
                made.close()
        finally:
            rclpy.try_shutdown()
