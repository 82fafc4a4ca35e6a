"""The WidowX AI driver against a simulated controller: the maker's library, over loopback.

PyPI's trossen_arm_sim speaks the controller's own protocol. scripts/setup_simulators.sh sets it up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

pytest.importorskip("trossen_arm", reason="pip install trossen_arm==1.11.0")

from simulators import requires_simulators, widowx_ai

from internvla_ros.drivers.process import DriverProcess, Reading
from internvla_ros.drivers.tracking import Limits
from internvla_ros.drivers.widowx_ai import WidowXAiSettings, drive_arm

pytestmark = [pytest.mark.integration, requires_simulators]

JOINTS = tuple(f"joint_{i}" for i in range(6))
LIMITS = Limits(
    lower=np.array([-3.0, 0.0, 0.0, -1.5, -1.5, -3.1]),
    upper=np.array([3.0, 3.1, 2.3, 1.5, 1.5, 3.1]),
    velocity=np.full(6, 2.0),
    acceleration=np.full(6, 8.0),
    jerk=np.full(6, 200.0),
)
PATIENCE = 30.0  # s


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what} in vain"
        time.sleep(0.005)


def state(driver: DriverProcess) -> Reading:
    reading = driver.reading()
    assert reading is not None
    return reading


def is_at(driver: DriverProcess, place: np.ndarray) -> bool:
    return bool(np.abs(state(driver).positions - place).max() < 0.03)


def send(driver: DriverProcess, turn: list[float], duration: float) -> np.ndarray:
    """Send the arm on a way of `turn` [6] rad; where it ends."""
    here = state(driver).positions
    goal = here + turn
    still = [0.0] * 6
    points = [(0.01, here.tolist(), still), (duration, goal.tolist(), still)]
    driver.follow(time.monotonic(), JOINTS, points)
    return goal


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with widowx_ai() as found:
        yield found


@pytest.fixture
def driver(address: str) -> Iterator[DriverProcess]:
    made = DriverProcess(drive_arm, WidowXAiSettings(address, JOINTS, LIMITS), 6)
    try:
        until(lambda: made.reading() is not None and not made.fault, "the robot")
        yield made
    finally:
        made.close()


def test_the_arm_and_its_gripper_move(driver: DriverProcess) -> None:
    goal = send(driver, [0.4, 0.5, 0.4, 0.0, 0.0, 0.3], 1.5)
    until(lambda: is_at(driver, goal), "the arm to arrive")
    driver.grip(0.03)
    until(lambda: abs(state(driver).gripper - 0.03) < 0.003, "the gripper to open")
    assert driver.fault == ""


def test_a_stop_ends_a_motion_short_of_its_goal(driver: DriverProcess) -> None:
    start = state(driver).positions
    goal = send(driver, [-1.0, 0.0, 0.0, 0.0, 0.0, 0.0], 10.0)
    until(lambda: abs(state(driver).positions[0] - start[0]) > 0.03, "the arm to move")
    driver.stop()
    until(lambda: bool(np.abs(state(driver).velocities).max() < 0.01), "the arm to stop")
    assert not is_at(driver, goal)
    here = state(driver).positions
    again = send(driver, [0.1, 0.0, 0.0, 0.0, 0.0, 0.0], 1.0)
    until(lambda: is_at(driver, again), "the arm to move again")
    assert np.allclose(again - here, [0.1, 0, 0, 0, 0, 0], atol=0.05)


def test_an_arm_that_is_not_there_is_one_clear_fault() -> None:
    settings = WidowXAiSettings("127.255.0.1", JOINTS, LIMITS)
    driver = DriverProcess(drive_arm, settings, 6)
    try:
        until(lambda: bool(driver.fault), "the fault")
        assert "WidowX AI at 127.255.0.1" in driver.fault
        assert "ask to recover" in driver.fault
    finally:
        driver.close()
