"""driver_node on a live graph, in front of a simulated Franka (scripts/setup_simulators.sh)."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pylibfranka", reason="pip install pylibfranka==0.21.3")

import rclpy
from builtin_interfaces.msg import Duration
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState
from simulators import franka, requires_simulators
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from internvla_ros.bringup import Options, command, graph
from internvla_ros.nodes.qos import LATCHED
from internvla_ros.robots.embodiment import load_embodiment

pytestmark = [pytest.mark.integration, requires_simulators]

ROBOT = load_embodiment("franka_fr3")
PATIENCE = 60.0  # s


class Operator:
    """Spins only while it waits."""

    def __init__(self) -> None:
        self.node = rclpy.create_node("operator")
        self.joints: dict[str, float] = {}
        self.node.create_subscription(JointState, "joint_states", self.on_joints, 10)
        self.arm = self.node.create_publisher(JointTrajectory, "arm_controller/joint_trajectory", 1)
        self.faults: list[str] = []
        self.node.create_subscription(
            String, "robot_fault", lambda message: self.faults.append(message.data), LATCHED
        )

    def on_joints(self, message: JointState) -> None:
        self.joints = dict(zip(message.name, message.position, strict=True))

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, (
                f"waited for {what} in vain; faults {self.faults}, joints {self.joints}"
            )
            rclpy.spin_once(self.node, timeout_sec=0.02)

    def call(self, service: str) -> Any:
        client = self.node.create_client(Trigger, service)
        self.wait(client.service_is_ready, service)
        answer = client.call_async(Trigger.Request())
        self.wait(answer.done, f"the answer of {service}")
        return answer.result()

    def turn_until(self, past: Callable[[float], bool], turning: float, what: str) -> None:
        """Turn the first joint until it is somewhere.

        A computer without a real-time kernel sends too late at times, which ends in a reflex: what
        an operator does then is to ask for recovery, and for the motion once more.
        """
        asked = -math.inf

        def there() -> bool:
            nonlocal asked
            if time.monotonic() > asked + 2.0:
                if "ask to recover" in "".join(self.faults[-1:]):
                    assert self.call("driver/recover").success
                self.turn_first_joint(turning, 1)
                asked = time.monotonic()
            return past(self.joints[ROBOT.joints[0]])

        self.wait(there, what)

    def turn_first_joint(self, by: float, seconds: int) -> None:
        goal = [self.joints[name] for name in ROBOT.joints]
        goal[0] += by
        point = JointTrajectoryPoint(positions=goal, velocities=[0.0] * len(goal))
        point.time_from_start = Duration(sec=seconds)
        self.arm.publish(JointTrajectory(joint_names=list(ROBOT.joints), points=[point]))


@pytest.fixture
def operator() -> Iterator[Operator]:
    with franka() as address:
        options = Options(robot=ROBOT.name, sim="none", hardware="libfranka", robot_ip=address)
        (driver,) = (node for node in graph(options) if node.name == "driver")
        process = subprocess.Popen(command(driver))
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        made = Operator()
        try:
            made.wait(lambda: bool(made.joints) and made.arm.get_subscription_count() > 0, "joints")
            yield made
            process.terminate()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait()
            made.node.destroy_node()
            rclpy.try_shutdown()


def test_a_franka_follows_trajectories_stops_and_goes_on(operator: Operator) -> None:
    assert set(operator.joints) == {*ROBOT.joints, *ROBOT.gripper.joints}
    first = ROBOT.joints[0]
    start = operator.joints[first]
    operator.turn_first_joint(0.2, 1)
    operator.wait(lambda: operator.joints[first] > start + 0.15, "the arm to move")
    assert operator.call("driver/stop").success
    operator.wait(lambda: "ask it to recover" in "".join(operator.faults[-1:]), "the fault")
    stopped = operator.joints[first]
    assert operator.call("driver/recover").success
    operator.wait(lambda: operator.faults[-1] == "", "the recovery to be told")
    operator.turn_until(lambda q: q < stopped - 0.1, -0.2, "the arm to move back")
    known = ("", "the driver was stopped: ask it to recover")
    assert all(fault in known or "aborted by reflex" in fault for fault in operator.faults)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("driver:=widowx_ai", "drives 6 joints, robot franka_fr3 has 7"),
        ("driver:=franka", "needs the parameter address"),
    ],
)
def test_a_driver_that_cannot_be_says_why(given: str, error: str) -> None:
    words = [sys.executable, "-m", "internvla_ros.nodes.driver_node", "--ros-args", "-p", given]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert error in done.stderr
