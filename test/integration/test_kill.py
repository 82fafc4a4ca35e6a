"""kill -9 in mid-motion: whatever dies, the arm comes to rest within its limits and goes on later.

The real processes with a policy of random weights, which moves the arm to no purpose; the test
itself gives the instruction. What the joints do is recorded from the simulated robot and
differentiated.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("internvla_ros.msg")

from internvla_ros.msg import ExecutionState
from moving_arm import MovingArm
from random_policy import save_random_policy
from std_srvs.srv import SetBool

from internvla_ros.nodes.stamps import seconds

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MovingArm]:
    started = MovingArm(save_random_policy(tmp_path_factory.mktemp("policy")))
    try:
        started.wait_until_ready()
        yield started
    finally:
        started.close()


@pytest.mark.parametrize("name", ["planner", "actor", "camera"])
def test_what_thinks_or_sees_dies_and_comes_back(running: MovingArm, name: str) -> None:
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


def test_the_arm_node_dies_and_comes_back(running: MovingArm) -> None:
    """The last setpoint carries its own stop: the robot needs nobody to come to rest."""
    running.wait_until_moving()
    killed = running.kill("arm")
    running.wait_until_still()
    rests = running.came_to_rest()
    print(f"arm: rests {rests - killed:.2f} s after the kill")
    assert rests - killed < 1.0
    running.assert_within_limits()
    running.wait_until_moving()


def test_an_emergency_stop_stays_until_it_is_released(running: MovingArm) -> None:
    running.wait_until_moving()
    client = running.client
    client.wait(running.stop_service.service_is_ready, 30.0, "the service")
    del running.record[:-25]
    asked = running.record[-1][0]
    client.answer(running.stop_service.call_async(SetBool.Request(data=True)))
    client.wait_for_state(ExecutionState.FAULT)
    assert client.state is not None
    stopped = seconds(client.state.header.stamp)
    running.wait_until_still()
    rests = running.came_to_rest()
    print(f"emergency stop: in force {stopped - asked:.2f} s after it is asked for", end=", ")
    print(f"rests {rests - stopped:.2f} s after that")
    assert rests - stopped < 1.0
    running.assert_within_limits()
    rest = running.record[-1][1]
    client.let_pass(1.0)
    assert np.abs(running.record[-1][1] - rest).max() < 0.01
    client.wait(lambda: client.state is not None and client.state.emergency_stop, 5.0, "the flag")
    assert client.state is not None and "emergency stop" in client.state.interventions
    client.answer(running.stop_service.call_async(SetBool.Request(data=False)))
    running.wait_until_moving()


def test_the_robot_falls_silent(running: MovingArm) -> None:
    """The simulator is the robot, its clock and its cameras: the arm node cannot but wait."""
    running.wait_until_moving()
    running.kill("sim")
    client = running.client
    client.wait(lambda: bool(running.supervisor.ended), 10.0, "the simulator to end")
    running.assert_within_limits()
    assert {"planner", "actor", "arm", "camera"} <= set(running.supervisor.pids())
