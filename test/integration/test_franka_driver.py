"""The Franka driver against a simulated control unit: the real libfranka, over loopback.

PyPI's franka-sim speaks the robot's own protocol and aborts motions that break the real robot's
limits. Its arm moves by the machine's clock, and so goes further than its desired positions when
cycles are lost on a busy machine: it is the desired positions that are judged, and a motion aborted
for lost cycles is taken up again. scripts/setup_simulators.sh sets it up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

pytest.importorskip("pylibfranka", reason="pip install pylibfranka==0.21.3")

from simulators import franka, requires_simulators

from internvla_ros.drivers.franka import FrankaSettings, HandSettings, drive_arm, drive_hand
from internvla_ros.drivers.process import DriverProcess, Link, Reading
from internvla_ros.drivers.tracking import Limits
from internvla_ros.robots.embodiment import load_embodiment

pytestmark = [pytest.mark.integration, requires_simulators]

ROBOT = load_embodiment("franka_fr3")
PATIENCE = 30.0  # s
ATTEMPTS = 6
SHARES = np.linspace(0.05, 1.0, 20)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what} in vain"
        time.sleep(0.005)


def settings(address: str) -> FrankaSettings:
    return FrankaSettings(address, ROBOT.joints, Limits.of(ROBOT))


def state(driver: DriverProcess) -> Reading:
    until(lambda: driver.reading() is not None, "a state")
    reading = driver.reading()
    assert reading is not None
    return reading


def swing(driver: DriverProcess, turn: list[float], duration: float) -> np.ndarray:
    """Send the arm on a smooth way of `turn` [7] rad; where it ends."""
    here, way = state(driver).desired, np.array(turn)
    path = [
        (here + way * (3 * s**2 - 2 * s**3), way * (6 * s - 6 * s**2) / duration) for s in SHARES
    ]
    points = [
        (duration * s, q.tolist(), v.tolist()) for s, (q, v) in zip(SHARES, path, strict=True)
    ]
    driver.follow(time.monotonic(), ROBOT.joints, points)
    return here + way


def is_at(driver: DriverProcess, place: np.ndarray) -> bool:
    return bool(np.abs(state(driver).desired - place).max() < 1e-3)


def arrives(driver: DriverProcess, turn: list[float], duration: float) -> None:
    """Send the arm on a way, which it goes to the end."""
    before = state(driver).positions
    goal = swing(driver, turn, duration)
    for _ in range(ATTEMPTS):
        until(lambda: is_at(driver, goal) or bool(driver.fault), "the arm to arrive")
        if not driver.fault:
            break
        assert "reflex" in driver.fault
        driver.recover()
        until(lambda: not driver.fault, "the recovery")
        swing(driver, (goal - state(driver).desired).tolist(), duration)
    assert is_at(driver, goal), driver.fault
    moved, way = state(driver).positions - before, np.array(turn)
    assert (moved * way)[way != 0.0].min() > 0.0, "the arm itself has moved"


def rests(driver: DriverProcess) -> bool:
    """Whether the robot wants to be where it wanted to be some cycles ago."""
    first = state(driver)
    until(lambda: state(driver).time > first.time + 0.05, "the next states")
    return bool(np.abs(state(driver).desired - first.desired).max() < 1e-5)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with franka() as found:
        yield found


@pytest.fixture
def driver(address: str) -> Iterator[DriverProcess]:
    made = DriverProcess(drive_arm, settings(address), 7)
    try:
        until(lambda: made.reading() is not None and not made.fault, "the robot")
        yield made
    finally:
        made.close()


def test_the_arm_follows_paths_and_holds_their_ends(driver: DriverProcess) -> None:
    arrives(driver, [0.3, 0.1, 0.0, 0.2, 0.0, -0.1, 0.2], 1.5)
    arrives(driver, [-0.3, -0.1, 0.0, -0.2, 0.0, 0.1, -0.2], 1.5)


def test_a_stop_ends_a_motion_short_of_its_goal(driver: DriverProcess) -> None:
    start = state(driver).desired
    goal = swing(driver, [1.0, 0, 0, 0, 0, 0, 1.0], 8.0)
    until(lambda: bool(state(driver).desired[0] > start[0] + 0.05), "the arm to move")
    driver.stop()
    until(lambda: rests(driver), "the arm to stop")
    assert not is_at(driver, goal)
    assert driver.fault == ""
    arrives(driver, [0, 0, 0, 0.1, 0, 0, 0], 1.0)


def test_a_path_that_begins_elsewhere_is_refused(driver: DriverProcess) -> None:
    here = state(driver).desired
    driver.follow(time.monotonic(), ROBOT.joints, [(0.02, (here + 0.3).tolist(), [0.0] * 7)])
    until(lambda: bool(driver.fault), "the refusal")
    assert "rad away from where the arm rests" in driver.fault
    until(lambda: not driver.fault, "the refusal to pass")
    assert is_at(driver, here)


def test_an_impatient_path_is_followed_within_the_limits_of_the_robot(
    driver: DriverProcess,
) -> None:
    """It asks for 9 rad/s: the driver is late for it instead of provoking a reflex."""
    arrives(driver, [-0.3, 0, 0, 0, 0, 0, -0.6], 0.1)


def leap(link: Link, settings: FrankaSettings) -> None:
    """A driver whose first path asks for a leap in velocity, which the robot aborts."""
    from internvla_ros.drivers import franka as module

    arm = module._Arm(link, settings)
    tracker, follow = arm._tracker, arm._tracker.follow
    leaps = [np.full(7, 1.5)]

    def once(*arguments: object) -> np.ndarray:
        return leaps.pop() if leaps else follow(*arguments)

    tracker.follow = once
    while arm.wanted:
        try:
            arm.serve()
        except RuntimeError as error:
            arm.fail(error)


def test_a_reflex_is_told_and_survived(address: str) -> None:
    driver = DriverProcess(leap, settings(address), 7)
    try:
        until(lambda: driver.reading() is not None, "the robot")
        swing(driver, [0.1, 0, 0, 0, 0, 0, 0], 1.0)
        until(lambda: bool(driver.fault), "the reflex")
        assert "reflex" in driver.fault
        assert "ask to recover" in driver.fault
        kept = swing(driver, [0.1, 0, 0, 0, 0, 0, 0], 1.0)
        driver.recover()
        until(lambda: not driver.fault, "the recovery")
        assert rests(driver)
        assert not is_at(driver, kept), "a path is not kept for later"
        arrives(driver, [0.1, 0, 0, 0, 0, 0, 0], 1.0)
    finally:
        driver.close()


def test_an_arm_that_is_not_there_is_one_clear_fault() -> None:
    driver = DriverProcess(drive_arm, settings("127.255.0.1"), 7)
    try:
        until(lambda: bool(driver.fault), "the fault")
        assert "Franka at 127.255.0.1 lost or refused" in driver.fault
    finally:
        driver.close()


def test_the_hand_opens_and_closes(address: str) -> None:
    hand = DriverProcess(drive_hand, HandSettings(address), 0)
    try:
        until(lambda: hand.reading() is not None, "the hand")
        hand.grip(0.0)
        until(lambda: state(hand).gripper < 0.002, "the hand to close")
        hand.grip(0.04)
        until(lambda: abs(state(hand).gripper - 0.04) < 0.002, "the hand to open")
        assert hand.fault == ""
    finally:
        hand.close()


def test_the_driver_ends_with_the_node_that_started_it(address: str) -> None:
    driver = DriverProcess(drive_arm, settings(address), 7)
    until(lambda: driver.reading() is not None, "the robot")
    driver._pipe.close()
    until(lambda: not driver._process.is_alive(), "the driver's end")
