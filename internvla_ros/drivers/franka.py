"""Franka arms straight over libfranka (PyPI pylibfranka): joint velocities at 1 kHz.

Velocities forgive a lost cycle: the robot goes on at the last one, where a position that comes late
is a leap. The robot makes desired positions of them (q_d), and it is those that are led along the
path, so that no contact winds them up.

The arm and the hand have a process each: a gripper command blocks until the fingers have stopped.
On a robot, give the arm's process a real-time kernel and set `realtime`; without one, libfranka
fills in for late commands and aborts after 20 ms of silence.
"""

from __future__ import annotations

import contextlib
import importlib
import math
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
from internvla_ros.drivers.tracking import Limits, Tracker

_CYCLE = 1e-3  # s
_RETRY = 2.0  # s between attempts to connect
_HAND_PERIOD = 0.05  # s between readings of the hand
_SETTLE = 20  # cycles at rest before a motion is ended


@dataclass(frozen=True, eq=False)
class FrankaSettings:
    """
    Attributes:
        address: of the robot's control unit.
        joints: [7] names, as trajectories have them.
        limits: of the joints.
        realtime: insist on a real-time kernel.
        torque, force: Nm [7], N and Nm [6]: contact beyond these is a reflex.
    """

    address: str
    joints: tuple[str, ...]
    limits: Limits
    realtime: bool = False
    torque: tuple[float, ...] = (25.0,) * 7
    force: tuple[float, ...] = (30.0,) * 6


@dataclass(frozen=True)
class HandSettings:
    """
    Attributes:
        address: of the robot's control unit.
        speed: m/s of the opening.
        force: N to grasp with.
    """

    address: str
    speed: float = 0.1
    force: float = 30.0


def pylibfranka() -> Any:
    """The module.

    Raises:
        DriverError: it is not installed.
    """
    try:
        return importlib.import_module("pylibfranka")
    except ImportError as error:
        raise DriverError(
            f"the Franka driver needs pylibfranka, which cannot be imported ({error}); "
            "install it: pip install pylibfranka==0.21.3"
        ) from error


def drive_arm(link: Link, settings: FrankaSettings) -> None:
    """Follow paths until asked to quit."""
    arm = _Arm(link, settings)
    while arm.wanted:
        try:
            arm.serve()
        except RuntimeError as error:  # all of libfranka's are
            arm.fail(error)


class _Arm:
    """One arm: connected or not, at rest or following a path."""

    def __init__(self, link: Link, settings: FrankaSettings) -> None:
        self._library = pylibfranka()
        self._link = link
        self._settings = settings
        self._tracker = Tracker(settings.limits)
        self._follower = PathFollower(settings.joints)
        self._robot: Any = None
        self._failed = False
        self._next: Path | None = None  # came while the arm was braking
        self.wanted = True

    def serve(self) -> None:
        """Connect if need be; then one look at an arm at rest, and whatever was asked for."""
        if self._robot is None:
            self._connect()
        state = self._robot.read_once()
        self._link.tell(state.q, state.dq, state.q_d, math.nan)
        request = self._next or self._link.next_request()
        self._next = None
        if isinstance(request, Quit):
            self.wanted = False
        elif isinstance(request, Recover):
            self._recover()
        elif isinstance(request, Path) and not self._failed:
            refused = self._follower.begin(request, np.array(state.q_d))
            self._link.refuse(refused)
            if not refused:
                self._move()

    def fail(self, error: Exception) -> None:
        """A reflex waits for recovery; a lost connection is made again."""
        lost = isinstance(error, self._library.NetworkException) or self._robot is None
        self._failed, self._next = True, None
        kind = "lost or refused" if lost else "stopped"
        advice = "checking again" if lost else "clear its way and ask to recover"
        self._link.fault(f"Franka at {self._settings.address} {kind}: {error}; {advice}")
        if lost:
            self._robot = None
            self._wait(_RETRY)

    def _wait(self, seconds: float) -> None:
        """Let time pass, unless asked to quit."""
        end = time.monotonic() + seconds
        while self.wanted and time.monotonic() < end:
            self.wanted = not isinstance(self._link.next_request(), Quit)
            time.sleep(0.02)

    def _connect(self) -> None:
        library, settings = self._library, self._settings
        config = library.RealtimeConfig
        self._robot = library.Robot(
            settings.address, config.kEnforce if settings.realtime else config.kIgnore
        )
        self._robot.set_collision_behavior(
            settings.torque, settings.torque, settings.force, settings.force
        )
        reflex = self._robot.read_once().robot_mode == library.RobotMode.Reflex
        self._failed = reflex
        self._link.fault("Franka is in a reflex: ask to recover" if reflex else "")

    def _recover(self) -> None:
        self._robot.automatic_error_recovery()
        self._failed = False
        self._link.fault("")

    def _move(self) -> None:
        """Follow paths until a stop; the arm is actively held at the end of each."""
        library = self._library
        control = self._robot.start_joint_velocity_control(library.ControllerMode.JointImpedance)
        self._tracker.reset()
        stopping, still = False, 0
        while True:
            state, _ = control.readOnce()
            self._tracker.resume(np.array(state.dq_d), np.array(state.ddq_d))
            self._link.tell(state.q, state.dq, state.q_d, math.nan)
            stopping |= self._obey(stopping)
            here = np.array(state.q_d)  # what the robot has made of the commands so far
            if stopping:
                velocities = self._tracker.brake(_CYCLE)
                still = still + 1 if self._tracker.at_rest else 0
            else:
                velocities = self._tracker.follow(here, *self._follower.sample(), _CYCLE)
            command = library.JointVelocities(velocities.tolist())
            command.motion_finished = still > _SETTLE
            control.writeOnce(command)
            if command.motion_finished:
                return

    def _obey(self, stopping: bool) -> bool:
        """Take in a request while moving; whether it is to stop."""
        request = self._link.next_request()
        if isinstance(request, Path) and stopping:
            self._next = request
        elif isinstance(request, Path):
            self._link.refuse(self._follower.follow(request))
        elif isinstance(request, Quit):
            self.wanted = False
        return isinstance(request, Stop | Quit)


def drive_hand(link: Link, settings: HandSettings) -> None:
    """Move the fingers until asked to quit. Positions are of one finger: half the width."""
    library = pylibfranka()
    wanted: float | None = None
    hand: Any = None
    while True:
        request = link.next_request()
        if isinstance(request, Quit):
            return
        if isinstance(request, Grip):
            wanted = request.position
        try:
            if hand is None:
                hand = library.Gripper(settings.address)
                link.fault("")
            if wanted is None:
                link.tell([], [], [], hand.read_once().width / 2.0)
                time.sleep(_HAND_PERIOD)
            elif request is None:  # the newest of several
                _grip(library, hand, wanted, settings)
                wanted = None
        except RuntimeError as error:  # all of libfranka's are
            link.fault(f"Franka Hand at {settings.address}: {error}; trying again")
            hand = None
            time.sleep(_RETRY)


def _grip(library: Any, hand: Any, position: float, settings: HandSettings) -> None:
    """Open by moving, close by grasping whatever is there: a hand that grips nothing is fine."""
    state = hand.read_once()
    # Homing finds fingers that open a hair less than the description says: beyond it no goal goes.
    width = min(2.0 * position, state.max_width) if state.max_width > 0.0 else 2.0 * position
    with contextlib.suppress(library.CommandException):
        if width >= state.width:
            hand.move(width, settings.speed)
        else:
            everything = 0.1  # m: however wide the thing is
            hand.grasp(width, settings.speed, settings.force, everything, everything)
