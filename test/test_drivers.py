"""Drivers without robots: what is commanded keeps every limit, requests and states get across."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from internvla_ros.drivers import franka, widowx_ai
from internvla_ros.drivers.process import DriverError, DriverProcess, Grip, Link, Path, Quit
from internvla_ros.drivers.tracking import Limits, Tracker
from internvla_ros.robots.embodiment import load_embodiment

LIMITS = Limits.of(load_embodiment("franka_fr3"))
NAMES = ("a", "b")
CYCLE = 1e-3
TARGET = st.lists(st.floats(-3.0, 3.0), min_size=7, max_size=7).map(np.array)
COMMANDS = st.lists(st.tuples(TARGET, TARGET, st.booleans()), min_size=1, max_size=40)


@given(COMMANDS)
def test_velocities_keep_the_limits_of_the_robot(
    commands: list[tuple[np.ndarray, np.ndarray, bool]],
) -> None:
    tracker, here = Tracker(LIMITS), np.zeros(7)
    before, change = np.zeros(7), np.zeros(7)
    for path, speed, brake in commands:
        for _ in range(5):
            follow = tracker.follow(here, path, speed, CYCLE) if not brake else None
            velocities = tracker.brake(CYCLE) if follow is None else follow
            now = (velocities - before) / CYCLE
            assert (np.abs(velocities) <= LIMITS.velocity).all()
            assert (np.abs(now) <= LIMITS.acceleration).all()
            assert (np.abs(now - change) / CYCLE <= LIMITS.jerk).all()
            before, change = velocities, now
            here = here + CYCLE * velocities


@settings(max_examples=15)
@given(TARGET.map(lambda turn: 0.3 * turn))
def test_a_path_that_rests_is_reached_without_overshoot(goal: np.ndarray) -> None:
    tracker, here, still = Tracker(LIMITS), np.zeros(7), np.zeros(7)
    furthest = np.zeros(7)
    for _ in range(3000):
        here = here + CYCLE * tracker.follow(here, goal, still, CYCLE)
        furthest = np.maximum(furthest, here * np.sign(goal))
    assert np.allclose(here, goal, atol=1e-4)
    assert (furthest <= np.abs(goal) + 2e-3).all()


def test_braking_ends_at_rest() -> None:
    tracker = Tracker(LIMITS)
    for _ in range(300):
        tracker.follow(np.zeros(7), np.ones(7), np.zeros(7), CYCLE)
    cycles = 0
    while not tracker.at_rest:
        tracker.brake(CYCLE)
        cycles += 1
        assert cycles < 1000
    assert not tracker.brake(CYCLE).any()


def echo(link: Link, opening: float) -> None:
    """A driver whose robot is at once wherever it is sent."""
    positions, gripper = np.zeros(2), opening
    while True:
        request = link.next_request()
        if isinstance(request, Quit):
            return
        if isinstance(request, Path):
            positions = np.array(request.points[-1][1])
            link.fault("" if positions.any() else "sent home")
        if isinstance(request, Grip):
            gripper = request.position
        link.tell(positions, -positions, 2.0 * positions, gripper)


def fail(link: Link, _: None) -> None:
    raise DriverError("there is no robot")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_states_requests_and_faults_cross_between_the_processes() -> None:
    driver = DriverProcess(echo, 0.5, 2)
    try:
        until(lambda: driver.reading() is not None)
        driver.follow(0.0, NAMES, [(1.0, [0.1, 0.2], [])])
        driver.grip(0.03)
        until(lambda: driver.reading().gripper == 0.03)
        reading = driver.reading()
        assert reading is not None
        assert np.allclose(reading.positions, [0.1, 0.2])
        assert np.allclose(reading.velocities, [-0.1, -0.2])
        assert np.allclose(reading.desired, [0.2, 0.4])
        assert driver.fault == ""
        driver.follow(0.0, NAMES, [(1.0, [0.0, 0.0], [])])
        until(lambda: driver.fault == "sent home")
    finally:
        driver.close()


def test_a_driver_that_cannot_go_on_says_why() -> None:
    driver = DriverProcess(fail, None, 2)
    until(lambda: bool(driver.fault))
    assert driver.fault == "there is no robot"
    driver.close()


@pytest.mark.parametrize(
    ("load", "module"),
    [(franka.pylibfranka, "pylibfranka"), (widowx_ai.trossen_arm, "trossen_arm")],
)
def test_a_library_that_is_missing_is_named(
    load: Callable[[], object], module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DriverError, match=f"pip install {module}"):
        load()
