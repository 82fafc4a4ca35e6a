"""The `moveit_servo` backend against a node that keeps MoveIt Servo's written contract.

The messages are MoveIt's own where moveit_msgs is installed; elsewhere they come from the tests'
interface package of the same names and fields (scripts/build_test_interfaces.sh). The test is the
same for both.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("moveit_msgs.msg", reason="scripts/build_test_interfaces.sh builds it")

from backend_bench import Bench, bench
from geometry_msgs.msg import PoseStamped

from internvla_ros.motion.backend import BackendError
from internvla_ros.motion.backends.servo_session import Phase
from internvla_ros.motion.se3 import Pose
from internvla_ros.nodes.servo_backend import ServoBackend

pytestmark = pytest.mark.integration

HERE = Pose(np.array([0.3, 0.0, 0.2]), np.eye(3))


class Servo:
    """A bench that sees where Servo moves the tip."""

    def __init__(self, made: Bench) -> None:
        self.bench = made
        self.tip: np.ndarray | None = None
        made.node.create_subscription(PoseStamped, "servo_node/tip", self.on_tip, 10)

    def on_tip(self, message: PoseStamped) -> None:
        at = message.pose.position
        self.tip = np.array([at.x, at.y, at.z])

    def ready(self) -> None:
        self.bench.wait(lambda: not self.bench.backend.fault, "Servo to be switched to poses")

    def begin(self) -> None:
        self.ready()
        self.bench.backend.start(self.bench.at_rest(), self.bench.now())

    def go(self, x: float, y: float, z: float, what: str) -> None:
        """Send a pose again and again until the tip is there."""
        goal = np.array([x, y, z])
        self.bench.wait(
            lambda: self.tip is not None and bool(np.abs(self.tip - goal).max() < 1e-6),
            what,
            lambda: self.bench.send(Pose(goal, np.eye(3))),
        )

    def fail(self, x: float, y: float, z: float) -> str:
        """Send a pose until it leads to a fault; which one."""
        pose = Pose(np.array([x, y, z]), np.eye(3))
        backend = self.bench.backend
        self.bench.wait(lambda: bool(backend.fault), "a fault", lambda: self.bench.send(pose))
        return backend.fault


@pytest.fixture
def servo() -> Iterator[Servo]:
    with bench("moveit_servo", "moveit_servo_stand_in.py") as made:
        yield Servo(made)


def test_the_arm_follows_poses_once_servo_is_switched_and_resumed(servo: Servo) -> None:
    assert "MoveIt Servo" in servo.bench.backend.fault
    with pytest.raises(BackendError, match="MoveIt Servo"):
        servo.bench.backend.start(servo.bench.at_rest(), servo.bench.now())
    servo.begin()
    servo.go(0.35, 0.05, 0.2, "the tip to arrive")
    servo.go(0.30, -0.05, 0.25, "the tip to arrive again")
    assert servo.bench.backend.fault == ""


def test_a_stop_pauses_servo_and_a_start_resumes_it(servo: Servo) -> None:
    servo.begin()
    servo.go(0.32, 0.0, 0.2, "the tip to arrive")
    backend = servo.bench.backend
    assert isinstance(backend, ServoBackend)
    backend.stop(servo.bench.now())
    servo.bench.wait(lambda: backend.phase is Phase.PAUSED, "the pause")
    tips = []
    there = Pose(np.array([0.36, 0.0, 0.2]), np.eye(3))

    def send() -> None:
        servo.bench.send(there)
        tips.append(servo.tip)

    servo.bench.wait(lambda: len(tips) == 20, "20 cycles", send)
    assert np.allclose(tips, [0.32, 0.0, 0.2]), "a paused Servo obeys nothing"
    servo.begin()
    servo.go(0.36, 0.0, 0.2, "the tip to arrive after the pause")


def test_an_invalid_pose_is_one_clear_fault_and_servo_serves_again_after_it(servo: Servo) -> None:
    servo.begin()
    servo.go(0.32, 0.0, 0.2, "the tip to arrive")
    reason = servo.fail(0.9, 0.0, 0.3)
    assert "takes the command for invalid" in reason
    assert servo.tip is not None
    assert np.allclose(servo.tip, [0.32, 0.0, 0.2]), "nothing moves on INVALID"
    servo.begin()
    servo.go(0.30, 0.0, 0.2, "the tip to move again")


def test_a_halt_before_a_collision_is_a_fault_and_slowing_down_is_a_notice(servo: Servo) -> None:
    servo.begin()
    low = Pose(np.array([0.3, 0.0, 0.03]), np.eye(3))
    backend = servo.bench.backend
    servo.bench.wait(lambda: bool(backend.notice), "the notice", lambda: servo.bench.send(low))
    assert "slows down near a collision" in backend.notice
    assert backend.fault == ""
    assert "halted before a collision" in servo.fail(0.3, 0.0, -0.02)


def test_a_servo_that_dies_is_missed(servo: Servo) -> None:
    servo.begin()
    servo.go(0.32, 0.0, 0.2, "the tip to arrive")
    servo.bench.process.terminate()
    servo.bench.process.wait(10.0)
    servo.bench.wait(
        lambda: bool(servo.bench.backend.fault), "the fault", lambda: servo.bench.send(HERE)
    )
    assert "MoveIt Servo" in servo.bench.backend.fault
