"""Grippers by action, Interbotix arms by topics, and drivers behind a node, each on a live graph.

The messages are the real packages' where those are installed; elsewhere they come from the tests'
interface packages of the same names and fields (scripts/build_test_interfaces.sh). The tests are
the same for both.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("control_msgs.action", reason="scripts/build_test_interfaces.sh builds it")
pytest.importorskip("interbotix_xs_msgs.msg", reason="scripts/build_test_interfaces.sh builds it")

import rclpy
from backend_bench import Bench
from control_msgs.action import GripperCommand, ParallelGripperCommand
from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand
from interbotix_xs_msgs.srv import OperatingModes
from rclpy.action import ActionServer
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from internvla_ros.motion.backend import BackendError
from internvla_ros.motion.profile import JointState
from internvla_ros.nodes.backends import make_backend
from internvla_ros.nodes.moveit_py_node import MoveItPyNode, MoveItPyPlanner, moveit_config
from internvla_ros.nodes.planning_messages import PlanningMessages
from internvla_ros.nodes.qos import LATCHED

pytestmark = pytest.mark.integration


@pytest.fixture
def ros() -> Iterator[None]:
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        yield
    finally:
        rclpy.try_shutdown()


def send(bench: Bench, gripper: float) -> None:
    bench.send(bench.at_rest().tip, gripper)


def test_setpoints_go_out_with_the_stop_that_follows_them(ros: None) -> None:
    bench, seen = Bench("embedded", {}), []
    node = bench.node
    node.create_subscription(JointTrajectory, "arm_controller/joint_trajectory", seen.append, 10)
    grips: list[JointTrajectory] = []
    node.create_subscription(
        JointTrajectory, "gripper_controller/joint_trajectory", grips.append, 10
    )
    n = len(bench.robot.joints)
    moving = JointState(bench.robot.ready, np.full(n, 0.5), np.zeros(n))

    def step() -> None:
        command = bench.command(moving)
        bench.backend.setpoint(command.tip, command, 1.0, bench.now() + bench.period)

    bench.wait(lambda: len(seen) > 3 and bool(grips), "trajectories", step)
    points = seen[-1].points
    times = [point.time_from_start.sec + point.time_from_start.nanosec * 1e-9 for point in points]
    assert times[0] == pytest.approx(bench.period)
    assert times == sorted(set(times))
    assert np.allclose(points[0].velocities, 0.5)
    assert np.allclose(points[-1].velocities, 0.0, atol=1e-9)
    assert len(grips) == 1, "the gripper is told what is new alone"
    assert 0.0 < grips[0].points[0].time_from_start.nanosec * 1e-9 < 1.0
    driver = node.create_publisher(String, "robot_fault", LATCHED)
    for fault in ("a reflex", ""):
        driver.publish(String(data=fault))
        bench.wait(lambda told=fault: bench.backend.fault == told, "what the driver says")
    bench.close()


@pytest.mark.parametrize(
    ("kind", "action", "name"),
    [
        ("gripper_command", GripperCommand, "franka_gripper/gripper_action"),
        ("parallel_gripper_command", ParallelGripperCommand, ""),
    ],
)
def test_a_gripper_is_told_by_an_action_when_the_opening_changes(
    ros: None, kind: str, action: Any, name: str
) -> None:
    named = {"gripper_action": name} if name else {}
    bench = Bench("embedded", {"gripper_output": kind, "gripper_effort": 5.0, **named})
    name = name or "gripper_controller/gripper_cmd"
    assert f"/{name} has no server" in bench.backend.fault
    goals: list[Any] = []

    def execute(handle: Any) -> Any:
        goals.append(handle.request.command)
        handle.abort()  # stalled on an object: no fault of the arm's
        return action.Result()

    server = ActionServer(bench.node, action, name, execute)
    bench.wait(lambda: not bench.backend.fault, "the server")
    bench.wait(lambda: len(goals) == 1, "the first goal", lambda: send(bench, 1.0))
    bench.wait(lambda: len(goals) == 2, "the second goal", lambda: send(bench, 0.0))
    positions = [goal.position if kind == "gripper_command" else goal.position[0] for goal in goals]
    gripper = bench.robot.gripper
    assert positions == pytest.approx([gripper.open, gripper.closed])
    assert bench.backend.fault == ""
    server.destroy()
    bench.close()


def test_an_interbotix_arm_is_set_up_and_then_streamed_to(ros: None) -> None:
    bench = Bench("interbotix", {})
    node, asked = bench.node, []
    assert "start xsarm_control" in bench.backend.fault
    with pytest.raises(BackendError, match="xsarm_control"):
        bench.backend.start(bench.at_rest(), bench.now())
    groups: list[JointGroupCommand] = []
    singles: list[JointSingleCommand] = []
    node.create_subscription(JointGroupCommand, "wx250s/commands/joint_group", groups.append, 10)
    node.create_subscription(JointSingleCommand, "wx250s/commands/joint_single", singles.append, 10)

    def set_mode(request: Any, response: Any) -> Any:
        asked.append((request.cmd_type, request.name, request.mode))
        return response

    node.create_service(OperatingModes, "wx250s/set_operating_modes", set_mode)
    bench.wait(lambda: not bench.backend.fault, "the set-up")
    assert asked == [("group", "arm", "position"), ("single", "gripper", "linear_position")]
    bench.backend.start(bench.at_rest(), bench.now())
    bench.wait(lambda: len(groups) > 3 and bool(singles), "commands", lambda: send(bench, 1.0))
    assert groups[-1].name == "arm"
    assert np.allclose(groups[-1].cmd, bench.robot.ready, atol=1e-6)
    assert len(singles) == 1
    assert singles[0].cmd == pytest.approx(2 * bench.robot.gripper.open)
    bench.close()


@pytest.mark.parametrize(
    ("motion", "module", "advice"),
    [
        ("moveit_servo", "moveit_msgs.msg", "ros-jazzy-moveit-msgs"),
        ("moveit", "moveit_msgs.msg", "ros-jazzy-moveit-msgs"),
        ("interbotix", "interbotix_xs_msgs.msg", "ros-jazzy-interbotix-xs-msgs"),
    ],
)
def test_a_package_that_is_missing_is_one_clear_error(
    ros: None, motion: str, module: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench("embedded", {})
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendError, match=advice):
        make_backend(motion, rclpy.create_node("lacking"), bench.robot)
    bench.close()


class FakePlan:
    """What moveit_py's plan() returns."""

    def __init__(self, found: bool) -> None:
        self.found, self.trajectory = found, "path"
        self.error_code = types.SimpleNamespace(val=1 if found else -12)

    def __bool__(self) -> bool:
        return self.found


def fake_moveit(found: bool, executed: list[Any]) -> types.ModuleType:
    """moveit.planning as documented, as far as the planner calls it."""
    component = types.SimpleNamespace(
        set_start_state_to_current_state=lambda: None,
        set_goal_state=lambda motion_plan_constraints: None,
        plan=lambda single_plan_parameters: (
            executed.append(single_plan_parameters) or FakePlan(found)
        ),
    )
    moveit = types.SimpleNamespace(
        get_planning_component=lambda name: component,
        execute=lambda trajectory, controllers: executed.append(trajectory) or True,
    )
    module = types.ModuleType("moveit.planning")
    module.MoveItPy = lambda node_name, config_dict: moveit  # type: ignore[attr-defined]
    module.PlanRequestParameters = (  # type: ignore[attr-defined]
        lambda moveit, namespace: types.SimpleNamespace()
    )
    return module


@pytest.mark.parametrize(("found", "code"), [(True, 1), (False, -12)])
def test_moveit_py_plans_and_executes_what_move_group_is_asked(
    found: bool, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against moveit_py's documented calls, as it is not on the package index."""
    executed: list[Any] = []
    monkeypatch.setitem(sys.modules, "moveit", types.ModuleType("moveit"))
    monkeypatch.setitem(sys.modules, "moveit.planning", fake_moveit(found, executed))
    planner = MoveItPyPlanner("widowx_250s", True)
    goal = PlanningMessages().action.Goal()
    goal.request.max_velocity_scaling_factor = 0.4
    assert planner.move(goal)[0] == code
    assert executed[0].max_velocity_scaling_factor == pytest.approx(0.4)
    assert executed[1:] == (["path"] if found else [])


def test_moveit_py_is_given_all_it_needs_and_is_named_when_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = moveit_config("franka_fr3", True)
    assert config["use_sim_time"] is True
    assert "<robot" in config["robot_description_semantic"]
    assert "OMPLPlanner" in config["ompl"]["planning_plugins"][0]
    monkeypatch.setitem(sys.modules, "moveit.planning", None)
    with pytest.raises(BackendError, match="ros-jazzy-moveit-py"):
        MoveItPyPlanner("franka_fr3", False)


def test_moveit_py_is_not_for_namespaces() -> None:
    rclpy.init(args=["--ros-args", "-r", "__ns:=/left"])
    try:
        with pytest.raises(BackendError, match="in namespace /left"):
            MoveItPyNode()
    finally:
        rclpy.try_shutdown()
