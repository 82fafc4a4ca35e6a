"""A driver in a process of its own, so that nothing else's pauses reach its control loop.

The node's side is a `DriverProcess`, the driver's side a `Link`. States go one way through shared
memory, where only the newest counts; requests and faults go through a pipe, where each one does.
Times are seconds of the machine's monotonic clock, which both sides share.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from internvla_ros.motion.trajectory import TrajectoryError, TrajectoryFollower

Array = NDArray[np.float64]
Points = Sequence[tuple[float, Sequence[float], Sequence[float]]]

_CLOSE_TIME = 5.0  # s for a driver to bring its robot to rest and end
_FAR = 0.1  # rad that a path may begin away from an arm at rest,
_PACE = 1.0  # and rad/s that it may take to get there
_REFUSED = 1.0  # s for which a path that is not followed is a fault


class DriverError(RuntimeError):
    """A robot cannot be reached or does not obey; the text says why and what to do."""


@dataclass(frozen=True, eq=False)
class Reading:
    """A robot at one instant.

    Attributes:
        time: s, monotonic.
        positions, velocities: [n] rad, rad/s, as measured.
        desired: [n] rad, where the robot itself wants to be.
        gripper: position of the first finger joint (m); NaN where the driver has none.
    """

    time: float
    positions: Array
    velocities: Array
    desired: Array
    gripper: float


class Slot:
    """The newest of some numbers, shared between a process that writes and one that reads.

    The writer makes a counter odd, writes, and makes it even again: a reader that finds the same
    even counter before and after has read one whole state.
    """

    def __init__(self, context: Any, size: int) -> None:
        self._raw = context.RawArray("d", size + 1)

    def write(self, values: Array) -> None:
        """Replace all numbers."""
        memory = np.frombuffer(self._raw)
        memory[0] += 1.0
        memory[1:] = values
        memory[0] += 1.0

    def read(self) -> Array | None:
        """The numbers; None before the first ones."""
        memory = np.frombuffer(self._raw)
        while True:
            count = memory[0]
            values = memory[1:].copy()
            if count == memory[0] and count % 2.0 == 0.0:
                return values if count > 0.0 else None


@dataclass(frozen=True)
class Path:
    """Request: follow a trajectory; its points are (s after `start`, positions, velocities)."""

    start: float
    names: tuple[str, ...]
    points: tuple[tuple[float, tuple[float, ...], tuple[float, ...]], ...]


@dataclass(frozen=True)
class Grip:
    """Request: the first finger joint to this position (m)."""

    position: float


@dataclass(frozen=True)
class Stop:
    """Request: brake within the limits, and follow nothing until the next path."""


@dataclass(frozen=True)
class Recover:
    """Request: take back a fault, if the robot lets it."""


@dataclass(frozen=True)
class Quit:
    """Request: brake and end."""


Request = Path | Grip | Stop | Recover | Quit


class Link:
    """The driver's side: what was asked for, and where to tell what is.

    `next_request` is to be called all the time; it returns nothing when the node has gone, after
    asking to quit.
    """

    def __init__(self, pipe: Connection, slot: Slot) -> None:
        self._pipe = pipe
        self._slot = slot
        self._parent = os.getppid()
        self._refused: float | None = None  # when a path was refused, until that is over

    def tell(
        self,
        positions: ArrayLike,
        velocities: ArrayLike,
        desired: ArrayLike,
        gripper: float,
    ) -> None:
        """Where the robot is now."""
        now = time.monotonic()
        parts = ([now, gripper], positions, velocities, desired)
        self._slot.write(np.concatenate([np.asarray(part, dtype=np.float64) for part in parts]))

    def fault(self, text: str) -> None:
        """Why the robot does not obey; "": it does again."""
        self._refused = None
        with contextlib.suppress(OSError):
            self._pipe.send(text)

    def refuse(self, text: str) -> None:
        """Why a path is not followed, a fault that passes by itself; "": it is followed."""
        self.fault(text)
        self._refused = time.monotonic() if text else None

    def next_request(self) -> Request | None:
        """The next request; None: there is none now."""
        if self._refused is not None and time.monotonic() - self._refused > _REFUSED:
            self.fault("")
        try:
            if self._pipe.poll():
                request: Request = self._pipe.recv()
                return request
        except (EOFError, OSError):
            return Quit()
        return Quit() if os.getppid() != self._parent else None


class PathFollower:
    """Where the newest path leads, for a driver that may be at rest or under way."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._follower = TrajectoryFollower(self._names, np.zeros(len(self._names)))

    def begin(self, path: Path, here: Array) -> str:
        """Follow a path from rest at `here` [n]; why not, or an empty text."""
        self._follower.reset(here)
        reason = self.follow(path)
        if reason:
            return reason
        first = np.array(path.points[0][1])[[path.names.index(name) for name in self._names]]
        away = float(np.abs(first - here).max())
        ahead = path.start + path.points[0][0] - time.monotonic()
        if away > _FAR + _PACE * max(0.0, ahead):
            return f"a path begins {away:.2f} rad away from where the arm rests; it is not followed"
        return ""

    def follow(self, path: Path) -> str:
        """Replace the path under way; why not, or an empty text."""
        try:
            self._follower.follow(time.monotonic(), path.start, path.names, path.points)
        except TrajectoryError as error:
            return str(error)
        return ""

    def sample(self) -> tuple[Array, Array]:
        """Positions [n] and velocities [n] for now."""
        return self._follower.sample(time.monotonic())


Drive = Callable[[Link, Any], None]
"""Runs in the driver's process until it is asked to quit, with the driver's own settings."""


class DriverProcess:
    """The node's side of one driver: starts its process, and ends it."""

    def __init__(self, drive: Drive, settings: Any, joints: int) -> None:
        """
        Args:
            drive: a function of a module, so that a new Python finds it.
            settings: its second argument; anything that can be pickled.
            joints: how many a state has, without the gripper.
        """
        context = multiprocessing.get_context("spawn")
        self._n = joints
        self._slot = Slot(context, 2 + 3 * joints)
        self._pipe, theirs = context.Pipe()
        self._fault = ""
        self._process = context.Process(
            target=_run, args=(drive, theirs, self._slot, settings), daemon=True
        )
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int | None:
        """Of the driver's process."""
        return self._process.pid

    @property
    def fault(self) -> str:
        """Why the robot does not obey; empty when it does."""
        try:
            while self._pipe.poll():
                self._fault = self._pipe.recv()
        except (EOFError, OSError):
            self._fault = self._fault or "the driver's process has ended"
        return self._fault

    def reading(self) -> Reading | None:
        """The newest state; None before the first one."""
        values = self._slot.read()
        if values is None:
            return None
        positions, velocities, desired = values[2:].reshape(3, self._n)
        return Reading(float(values[0]), positions, velocities, desired, float(values[1]))

    def follow(self, start: float, names: Sequence[str], points: Points) -> None:
        """Follow a trajectory that starts at `start` (s, monotonic)."""
        frozen = tuple((float(t), tuple(p), tuple(v)) for t, p, v in points)
        self._send(Path(start, tuple(names), frozen))

    def grip(self, position: float) -> None:
        """Move the first finger joint to a position (m)."""
        self._send(Grip(position))

    def stop(self) -> None:
        """Brake within the limits; the next path moves the arm again."""
        self._send(Stop())

    def recover(self) -> None:
        """Take back a fault."""
        self._send(Recover())

    def close(self) -> None:
        """Brake, and end the process."""
        self._send(Quit())
        self._process.join(_CLOSE_TIME)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()

    def _send(self, request: Request) -> None:
        with contextlib.suppress(OSError):
            self._pipe.send(request)


def _run(drive: Drive, pipe: Connection, slot: Slot, settings: Any) -> None:
    """The driver's process: Ctrl-C is the node's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = Link(pipe, slot)
    try:
        drive(link, settings)
    except DriverError as error:
        link.fault(str(error))
