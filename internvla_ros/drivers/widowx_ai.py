"""WidowX AI over its own library (PyPI trossen_arm): joint positions at 200 Hz."""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from internvla_ros.drivers.process import (
    DriverError,
    Grip,
    Link,
    Path,
    PathFollower,
    Quit,
    Recover,
    Stop,
)
from internvla_ros.drivers.tracking import Array, Limits, Tracker

_CYCLE = 5e-3  # s
_RETRY = 2.0  # s between attempts to connect
_CONNECT_TIME = 5.0  # s that connecting may take
_GRIPPER_TIME = 0.4  # s for the whole stroke of the fingers


@dataclass(frozen=True, eq=False)
class WidowXAiSettings:
    """
    Attributes:
        address: of the arm's controller.
        joints: [6] names, as trajectories have them.
        limits: of the joints.
        end_effector: what is mounted, by the library's name for it.
    """

    address: str
    joints: tuple[str, ...]
    limits: Limits
    end_effector: str = "wxai_v0_follower"


def trossen_arm() -> Any:
    """The module.

    Raises:
        DriverError: it is not installed.
    """
    try:
        return importlib.import_module("trossen_arm")
    except ImportError as error:
        raise DriverError(
            f"the WidowX AI driver needs trossen_arm, which cannot be imported ({error}); "
            "install it: pip install trossen_arm==1.11.0"
        ) from error


def drive_arm(link: Link, settings: WidowXAiSettings) -> None:
    """Follow paths until asked to quit."""
    arm = _Arm(link, settings)
    while arm.wanted:
        try:
            arm.serve()
        except arm.errors as error:
            arm.fail(error)
    arm.close()


class _Arm:
    """One arm; its positions are commanded always, so that it holds when nothing moves it."""

    def __init__(self, link: Link, settings: WidowXAiSettings) -> None:
        self._library = trossen_arm()
        self.errors: tuple[type[Exception], ...] = (
            self._library.RuntimeError,
            self._library.LogicError,
        )
        self._link = link
        self._settings = settings
        self._tracker = Tracker(settings.limits)
        self._follower = PathFollower(settings.joints)
        self._driver: Any = None
        self._commanded: Array = np.zeros(len(settings.joints))
        self._moving = self._stopping = self._leaving = False
        self._next_path: Path | None = None  # came while the arm was braking
        self._next = 0.0
        self.wanted = True

    def serve(self) -> None:
        """Connect if need be; then one cycle."""
        if self._driver is None:
            self._connect()
        output = self._driver.get_robot_output().joint
        positions, velocities = np.array(output.arm.positions), np.array(output.arm.velocities)
        desired = self._commanded if self._moving else positions
        self._link.tell(positions, velocities, desired, float(output.gripper.position))
        self._obey(positions)
        if self._moving:
            self._move()
        self.wanted = self._moving or not self._leaving
        self._next = max(self._next + _CYCLE, time.monotonic())
        time.sleep(max(0.0, self._next - time.monotonic()))

    def fail(self, error: Exception) -> None:
        """Everything that fails is tried again from the connection on, when asked to recover."""
        text = " ".join(str(error).split())
        self._link.fault(
            f"WidowX AI at {self._settings.address}: {text}; clear its way and ask to recover"
        )
        self._moving, self._next_path = False, None
        self._driver = None
        while self.wanted:
            request = self._link.next_request()
            self.wanted = not isinstance(request, Quit)
            if isinstance(request, Recover):
                return
            time.sleep(0.02)

    def close(self) -> None:
        """Leave the arm to its own brakes."""
        if self._driver is not None:
            self._driver.cleanup()

    def _connect(self) -> None:
        library = self._library
        driver = library.TrossenArmDriver()
        driver.configure(
            library.Model.wxai_v0,
            getattr(library.StandardEndEffector, self._settings.end_effector),
            self._settings.address,
            True,
            _CONNECT_TIME,
        )
        driver.set_all_modes(library.Mode.position)
        self._driver, self._next = driver, time.monotonic()
        self._link.fault("")

    def _obey(self, here: Array) -> None:
        request = self._link.next_request()
        if request is None and self._next_path is not None and not self._moving:
            request, self._next_path = self._next_path, None
        if isinstance(request, Stop | Quit):
            self._stopping = True
            self._leaving |= isinstance(request, Quit)
        elif isinstance(request, Grip):
            self._driver.set_gripper_position(request.position, _GRIPPER_TIME, False)
        elif isinstance(request, Path) and self._moving and not self._stopping:
            self._link.refuse(self._follower.follow(request))
        elif isinstance(request, Path) and self._moving:
            self._next_path = request
        elif isinstance(request, Path):
            self._begin(request, here)

    def _begin(self, path: Path, here: Array) -> None:
        refused = self._follower.begin(path, here)
        self._link.refuse(refused)
        if not refused:
            self._commanded, self._moving, self._stopping = here, True, False
            self._tracker.reset()

    def _move(self) -> None:
        """One step along the path, or on the way to a stop."""
        if self._stopping:
            velocities = self._tracker.brake(_CYCLE)
            self._moving = not self._tracker.at_rest
        else:
            path, speed = self._follower.sample()
            velocities = self._tracker.follow(self._commanded, path, speed, _CYCLE)
        limits = self._settings.limits
        ahead = self._commanded + _CYCLE * velocities
        self._commanded = np.clip(ahead, limits.lower, limits.upper)
        self._driver.set_arm_positions(self._commanded, 0.0, False)
