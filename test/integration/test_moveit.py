"""The `moveit` backend against a node that keeps move_group's written contract.

The messages are MoveIt's own where moveit_msgs is installed; elsewhere they come from the tests'
interface package of the same names and fields (scripts/build_test_interfaces.sh). The test is the
same for both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("moveit_msgs.action", reason="scripts/build_test_interfaces.sh builds it")

from backend_bench import Bench, bench
from internvla_ros.action import MoveTo
from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import Header

from internvla_ros.motion.backend import BackendError
from internvla_ros.motion.se3 import Pose
from internvla_ros.nodes.converters import pose_message
from internvla_ros.nodes.moveit_backend import MoveItBackend

pytestmark = pytest.mark.integration


class Planned:
    """A bench that asks for planned motions and sees what reaches move_group."""

    def __init__(self, made: Bench) -> None:
        self.bench = made
        self.requests: list[JointState] = []
        self.joints: dict[str, float] = {}
        node = made.node
        kept = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node.create_subscription(JointState, "move_group/requests", self.requests.append, kept)
        node.create_subscription(JointState, "joint_states", self.on_joints, 10)
        self.client = ActionClient(node, MoveTo, "move_to")

    def on_joints(self, message: JointState) -> None:
        self.joints = dict(zip(message.name, message.position, strict=True))

    def ready(self) -> None:
        backend = self.bench.backend
        assert isinstance(backend, MoveItBackend)
        self.bench.wait(
            lambda: self.client.server_is_ready() and backend.planner_is_there, "the servers"
        )

    def done(self, future: Any, what: str) -> Any:
        self.bench.wait(future.done, what)
        return future.result()

    def send(self, target: int, pose: Pose | None = None, speed: float = 0.5) -> ClientGoalHandle:
        goal = MoveTo.Goal(target=target, speed=speed)
        if pose is not None:
            goal.pose = pose_message(pose, Header(frame_id="base_link"))
        handle: ClientGoalHandle = self.done(self.client.send_goal_async(goal), "the goal's answer")
        return handle

    def result(self, handle: ClientGoalHandle) -> MoveTo.Result:
        return self.done(handle.get_result_async(), "the result").result

    def move(self, target: int, pose: Pose | None = None, speed: float = 0.5) -> MoveTo.Result:
        return self.result(self.send(target, pose, speed))


@pytest.fixture
def planned() -> Iterator[Planned]:
    with bench("moveit", "move_group_stand_in.py") as made:
        yield Planned(made)


def here(planned: Planned) -> Pose:
    return planned.bench.at_rest().tip


def test_the_arm_goes_to_its_ready_pose_and_to_a_pose(planned: Planned) -> None:
    planned.ready()
    done = planned.move(MoveTo.Goal.READY)
    assert (done.error_code, done.message) == (MoveTo.Result.NONE, "done")
    planned.bench.wait(lambda: bool(planned.joints), "the joint states")
    robot = planned.bench.robot
    reached = [planned.joints[name] for name in robot.joints]
    assert np.allclose(reached, robot.ready)
    assert planned.requests[0].position[0] == pytest.approx(0.5)
    assert planned.move(MoveTo.Goal.POSE, here(planned)).error_code == MoveTo.Result.NONE
    assert planned.requests[1].name[0] == robot.tip_frame


def test_what_cannot_be_is_told_before_move_group_is_asked(planned: Planned) -> None:
    planned.ready()
    nowhere = Pose(np.full(3, np.nan), np.eye(3))
    outside = Pose(np.array([2.0, 0.0, 0.2]), np.eye(3))
    for pose, speed, part in (
        (outside, 0.5, "outside the workspace"),
        (nowhere, 0.5, "not a finite, rigid one"),
        (here(planned), 0.0, "speed"),
    ):
        done = planned.move(MoveTo.Goal.POSE, pose, speed)
        assert done.error_code == MoveTo.Result.INVALID_GOAL
        assert part in done.message
    assert planned.requests == []


def test_a_plan_that_fails_says_why(planned: Planned) -> None:
    planned.ready()
    upper = planned.bench.robot.workspace[1]
    far = Pose(upper - 1e-3, np.eye(3))
    done = planned.move(MoveTo.Goal.POSE, far)
    assert done.error_code == MoveTo.Result.PLANNING_FAILED
    assert "no joint positions reach the pose" in done.message


def test_recovery_goes_up_first_then_slowly_to_the_ready_pose() -> None:
    """In a contact nothing can be planned but the way up; after it, everything can."""
    arguments = ("--ros-args", "-p", "stuck:=true")
    with bench("moveit", "move_group_stand_in.py", *arguments) as made:
        planned = Planned(made)
        planned.ready()
        robot = made.robot
        assert planned.move(MoveTo.Goal.READY).error_code == MoveTo.Result.PLANNING_FAILED
        states = made.node.create_publisher(JointState, "joint_states", 10)
        finger = robot.gripper.joints[0]
        state = JointState(name=[*robot.joints, finger], position=[*robot.ready, 0.03])
        made.wait(lambda: bool(planned.joints), "joint states", lambda: states.publish(state))
        done = planned.move(MoveTo.Goal.RECOVER, speed=1.0)
        assert done.error_code == MoveTo.Result.NONE, done.message
        retreat, ready = planned.requests[1:]
        assert retreat.name[0] == robot.tip_frame
        assert ready.name[:-1] == list(robot.joints)
        assert ready.position[0] == pytest.approx(0.3)


def test_setpoints_and_planned_motions_exclude_each_other(planned: Planned) -> None:
    planned.ready()
    backend, rest = planned.bench.backend, planned.bench.at_rest()
    backend.start(rest, planned.bench.now())
    assert planned.move(MoveTo.Goal.READY).error_code == MoveTo.Result.BUSY
    backend.stop(planned.bench.now())
    handle = planned.send(MoveTo.Goal.READY)
    assert planned.move(MoveTo.Goal.READY).error_code == MoveTo.Result.BUSY
    with pytest.raises(BackendError, match="being cancelled"):
        backend.start(rest, planned.bench.now())
    done = planned.result(handle)
    assert done.error_code == MoveTo.Result.CANCELLED
    assert "an instruction came in" in done.message
    backend.start(rest, planned.bench.now())


def test_a_motion_is_cancelled_on_request(planned: Planned) -> None:
    planned.ready()
    handle = planned.send(MoveTo.Goal.READY)
    planned.bench.wait(lambda: bool(planned.requests), "move_group to be asked")
    planned.done(handle.cancel_goal_async(), "the cancellation")
    done = planned.result(handle)
    assert done.error_code == MoveTo.Result.CANCELLED
    assert planned.move(MoveTo.Goal.READY).error_code == MoveTo.Result.NONE


def test_an_arm_that_is_told_to_stop_does_and_is_not_moved_while_it_may_not(
    planned: Planned,
) -> None:
    """As arm_node does it in an emergency, and when it is deactivated."""
    planned.ready()
    handle = planned.send(MoveTo.Goal.READY)
    planned.bench.wait(lambda: bool(planned.requests), "move_group to be asked")
    planned.bench.hindrance = "emergency stop by topic"
    planned.bench.backend.stop(planned.bench.now())
    assert planned.result(handle).error_code == MoveTo.Result.CANCELLED
    done = planned.move(MoveTo.Goal.READY)
    assert done.error_code == MoveTo.Result.EXECUTION_FAILED
    assert done.message == "the arm may not be moved: emergency stop by topic"
    planned.bench.hindrance = ""
    assert planned.move(MoveTo.Goal.READY).error_code == MoveTo.Result.NONE


def test_a_goal_that_is_not_answered_is_taken_back_and_sent_again() -> None:
    with bench("moveit", "move_group_stand_in.py", "--ros-args", "-p", "slow:=4.0") as made:
        planned = Planned(made)
        planned.ready()
        done = planned.move(MoveTo.Goal.READY)
        assert (done.error_code, done.message) == (MoveTo.Result.NONE, "done")


def test_a_motion_is_cancelled_before_its_goal_is_answered() -> None:
    with bench("moveit", "move_group_stand_in.py", "--ros-args", "-p", "slow:=2.0") as made:
        planned = Planned(made)
        planned.ready()
        handle = planned.send(MoveTo.Goal.READY)
        planned.done(handle.cancel_goal_async(), "the cancellation")
        assert planned.result(handle).error_code == MoveTo.Result.CANCELLED
        assert planned.joints == {}


def test_a_move_group_that_dies_ends_the_motion(planned: Planned) -> None:
    planned.ready()
    handle = planned.send(MoveTo.Goal.READY)
    planned.bench.wait(lambda: bool(planned.requests), "move_group to be asked")
    planned.bench.process.terminate()
    planned.bench.process.wait(10.0)
    assert planned.result(handle).error_code == MoveTo.Result.EXECUTION_FAILED
    assert planned.move(MoveTo.Goal.READY).error_code == MoveTo.Result.NO_PLANNER
