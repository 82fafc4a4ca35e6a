"""Transitions of planner, actor and arm in mid-motion, by their services and the command line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("internvla_ros.msg")

from internvla_ros.msg import ExecutionState
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from moving_arm import MovingArm
from random_policy import save_random_policy
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from internvla_ros.nodes.qos import SENSOR_IN

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MovingArm]:
    started = MovingArm(save_random_policy(tmp_path_factory.mktemp("policy")))
    try:
        started.wait_until_ready()
        yield started
    finally:
        started.close()


@pytest.fixture(autouse=True)
def moves(running: MovingArm) -> None:
    """Every test begins with an arm in motion."""
    running.wait_until_moving()


def change(running: MovingArm, node: str, label: str) -> float:
    """Have a transition done; the robot's time when it was asked for, from shortly before which
    the joints are recorded."""
    client = running.client.node.create_client(ChangeState, f"{node}/change_state")
    running.client.wait(client.service_is_ready, 30.0, "the service")
    request = ChangeState.Request(transition=Transition(label=label))
    asked = running.mark()
    answer = running.client.answer(client.call_async(request), 60.0).result()
    running.client.node.destroy_client(client)
    assert answer.success
    return asked


def lifecycle(running: MovingArm, *words: str) -> tuple[int, str]:
    """Status and output of `internvla lifecycle`, while the graph's output is passed on."""
    process = subprocess.Popen(
        [sys.executable, "-m", "internvla_ros.cli", "lifecycle", "--patience", "60", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    running.client.wait(lambda: process.poll() is not None, 90.0, "the command's end")
    return process.returncode, process.communicate()[0]


def test_a_planner_that_is_held_holds_the_arm(running: MovingArm) -> None:
    """Its plans stop, the actor takes no old one, and the arm slows down and holds."""
    client = running.client
    held = change(running, "planner", "deactivate")
    client.wait_for_state(ExecutionState.HOLDING)
    print(f"planner: holds {running.record[-1][0] - held:.2f} s after it is deactivated")
    running.wait_until_still()
    running.assert_within_limits()
    client.plan = client.chunk = None
    client.let_pass(1.0)
    assert client.plan is None and client.chunk is None
    status, output = lifecycle(running, "planner", "activate")
    assert (status, output.splitlines()[-1]) == (0, "active")
    running.wait_until_moving()


def test_an_actor_is_freed_and_made_anew(running: MovingArm) -> None:
    client = running.client
    change(running, "actor", "deactivate")
    client.wait_for_state(ExecutionState.HOLDING)
    running.wait_until_still()
    running.assert_within_limits()
    change(running, "actor", "cleanup")
    client.wait(lambda: client.node.count_publishers("action_chunk") == 0, 20.0, "no publisher")
    status, output = lifecycle(running, "actor", "configure")
    assert (status, output.splitlines()[-1]) == (0, "inactive")
    change(running, "actor", "activate")
    running.wait_until_moving()


def test_an_arm_that_is_held_brakes_within_its_limits_and_sends_nothing_more(
    running: MovingArm,
) -> None:
    client = running.client
    sent: list[JointTrajectory] = []
    listener = client.node.create_subscription(
        JointTrajectory, "arm_controller/joint_trajectory", sent.append, SENSOR_IN
    )
    client.wait(lambda: bool(sent), 20.0, "setpoints")
    asked = change(running, "arm", "deactivate")
    running.wait_until_still()
    print(f"arm: rests {running.record[-1][0] - asked:.2f} s after it is deactivated")
    assert running.record[-1][0] - asked < 2.0
    running.assert_within_limits()
    client.wait_for_state(ExecutionState.STOPPED)
    client.wait(lambda: client.state is not None and client.state.reason == "inactive", 20.0, "why")
    sent.clear()
    rest = running.record[-1][1]
    client.let_pass(1.0)
    assert sent == []
    assert np.abs(running.record[-1][1] - rest).max() < 0.01
    client.node.destroy_subscription(listener)
    change(running, "arm", "activate")
    running.wait_until_moving()


def test_an_emergency_stop_holds_while_an_arm_is_held_and_freed(running: MovingArm) -> None:
    client = running.client
    change(running, "arm", "deactivate")
    client.answer(running.stop_service.call_async(SetBool.Request(data=True)))
    for transition in ("cleanup", "configure", "activate"):
        change(running, "arm", transition)
    client.wait_for_state(ExecutionState.FAULT)
    client.wait(lambda: client.state is not None and client.state.emergency_stop, 20.0, "the flag")
    rest = running.record[-1][1]
    client.let_pass(1.0)
    assert np.abs(running.record[-1][1] - rest).max() < 0.01
    client.answer(running.stop_service.call_async(SetBool.Request(data=False)))
    running.wait_until_moving()


def test_what_is_not_possible_is_told(running: MovingArm) -> None:
    status, output = lifecycle(running, "planner", "configure")
    assert status == 1
    assert "planner did not configure: not possible while active" in output
    status, output = lifecycle(running, "camera", "state", "--patience", "3")
    assert status == 2
    (line,) = output.splitlines()
    assert "no managed node /camera is seen" in line
    seen = line.rpartition(": ")[2].split(", ")
    assert set(seen) & {"/actor", "/arm", "/planner"}
    assert not set(seen) & {"/camera", "/sim"}
