"""One instruction being carried out: when it ends, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

_STILL = 0.005  # m, a tip that stays within this is not moving
_GRIPPER_STILL = 0.1


class Outcome(Enum):
    """How a run ended; the names are those of the action's error codes."""

    NONE = "done"
    TIMEOUT = "not done in time"
    CANCELED = "canceled"
    PREEMPTED = "the task node went down"
    CAMERA_LOST = "a camera sends nothing; check its driver"
    PLANNER_LOST = "no plan comes; check planner_node and camera_node"
    ACTOR_LOST = "no action chunk comes; check actor_node"
    ARM_LOST = "no execution state comes; check arm_node"
    ROBOT_FAULT = "the arm reports a fault"
    STALLED = "the arm stopped moving before the task was done"


class Phase(Enum):
    """What the run is doing; the names are those of the action's feedback."""

    WAITING = 0
    MOVING = 1
    HOLDING = 2


@dataclass(frozen=True)
class Source:
    """Something that must keep coming: its name, s of silence allowed, and what silence means."""

    name: str
    silence: float
    lost: Outcome


@dataclass(frozen=True)
class ArmReport:
    """What the arm says: it follows chunks, its fault ("": none), tip [3] (m), gripper 0..1."""

    running: bool
    fault: str
    tip: NDArray[np.float64]
    gripper: float


class TaskRun:
    """Follows one instruction from its start. Times are seconds of a clock that never stands."""

    def __init__(
        self,
        now: float,
        timeout: float,
        sources: Sequence[Source],
        *,
        start_patience: float,
        stall_patience: float,
    ) -> None:
        """
        Args:
            now: s.
            timeout: s, > 0.
            sources: what must keep coming, each after what it depends on: when one has been
                silent for too long, the first that has been so for half as long is to blame.
            start_patience: s until each of them has come once.
            stall_patience: s for the tip to move 5 mm, or the gripper; 0: for ever.
        """
        self._started = now
        self._timeout = timeout
        self._sources = tuple(sources)
        self._start_patience = start_patience
        self._stall_patience = stall_patience
        self._seen: dict[str, float] = {}
        self._success = False
        self._arm: ArmReport | None = None
        self._moved: tuple[float, ArmReport] | None = None

    def seen(self, source: str, now: float) -> None:
        """Something came from a source."""
        self._seen[source] = now

    def succeed(self) -> None:
        """The task was seen to be done."""
        self._success = True

    def arm(self, report: ArmReport, now: float) -> None:
        """The arm reported."""
        self._arm = report
        before = self._moved[1] if self._moved is not None else None
        if (
            before is None
            or not report.running
            or float(np.linalg.norm(report.tip - before.tip)) > _STILL
            or abs(report.gripper - before.gripper) > _GRIPPER_STILL
        ):
            self._moved = (now, report)

    def phase(self) -> Phase:
        """What is being done now."""
        if any(source.name not in self._seen for source in self._sources):
            return Phase.WAITING
        return Phase.MOVING if self._arm is not None and self._arm.running else Phase.HOLDING

    def outcome(self, now: float, elapsed: float) -> Outcome | None:
        """How the run has ended by `now`; None while it goes on.

        `elapsed`: s since the start by the robot's own clock, which a simulator may slow down.
        """
        if self._success:
            return Outcome.NONE
        if self._arm is not None and self._arm.fault:
            return Outcome.ROBOT_FAULT
        if elapsed > self._timeout:
            return Outcome.TIMEOUT
        if any(self._silent(source, now) for source in self._sources):
            return next(s.lost for s in self._sources if self._suspect(s, now))
        return Outcome.STALLED if self._stalled(now) else None

    def fault(self) -> str:
        """What the arm reported as its fault."""
        return self._arm.fault if self._arm is not None else ""

    def _silent(self, source: Source, now: float) -> bool:
        """Whether nothing has come from a source for longer than is allowed."""
        last = self._seen.get(source.name)
        if last is not None:
            return now - last > source.silence
        return now - self._started > max(source.silence, self._start_patience)

    def _suspect(self, source: Source, now: float) -> bool:
        """Whether nothing has come from a source for half as long as is allowed."""
        return now - self._seen.get(source.name, self._started) > 0.5 * source.silence

    def _stalled(self, now: float) -> bool:
        if self._stall_patience == 0.0 or self._moved is None:
            return False
        return now - self._moved[0] > self._stall_patience
