"""Whether the arm may move at all, and how fast: stops, watchdogs and what they are counted as.

Limits on single setpoints are the servo's and its guard's; here is what concerns the whole arm.
Time is passed in; nothing here knows of ROS.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum

_RAMP = 2.0  # 1/s: how quickly the share of speed changes


class Halt(Enum):
    """Why the arm is not allowed to move; the values are names for counters and reports."""

    EMERGENCY = "emergency stop"
    JOINT_STATES = "joint states stale"
    TRACKING = "tracking error"
    ROBOT = "robot fault"


class Event(Enum):
    """What else safety notes; the values are names for counters and reports."""

    CHUNK = "chunk refused"
    PLAN = "plan stale"
    STEPS = "step shortened"
    SILENCE = "chunks stale"
    LATE_CYCLE = "late cycle"


@dataclass(frozen=True)
class SafetyConfig:
    """How patient safety is.

    Attributes:
        joint_timeout: s without a joint reading after which the arm stops.
        plan_timeout: s after a plan's views for which chunks made from it are followed.
        tracking_tolerance: rad (or m) that a joint may be away from where it was sent.
        speed: share of full speed to begin with, 0..1.
        dry_run: nothing is sent, so the arm is not expected to follow.
    """

    joint_timeout: float = 0.5
    plan_timeout: float = 3.0
    tracking_tolerance: float = 0.5
    speed: float = 1.0
    dry_run: bool = False


class Safety:
    """Keeps an arm's stops, its speed, and count of everything that was prevented."""

    def __init__(self, config: SafetyConfig) -> None:
        self.config = config
        self.counts: Counter[str] = Counter()
        """How often each intervention took place, by its name."""
        self._emergency = ""
        self._tracking = ""
        self._halt: Halt | None = None
        self._asked = self._share = min(max(config.speed, 0.0), 1.0)
        self._at: float | None = None

    @property
    def emergency(self) -> bool:
        """Whether an emergency stop was called for and not released."""
        return bool(self._emergency)

    def stop(self, reason: str) -> None:
        """Emergency stop, latched until `release`; `reason` says who asked for it."""
        self._emergency = reason or "no reason given"

    def release(self) -> None:
        """Take the emergency stop back. The arm stays where it is until it is told to move."""
        self._emergency = ""

    def begin(self) -> None:
        """A new task begins: an arm that had lost its way may try again."""
        self._tracking = ""

    def slow(self, share: float) -> None:
        """Ask for a share of full speed, 0..1; numbers beyond are cut, NaN means standing still."""
        self._asked = min(max(share, 0.0), 1.0) if share == share else 0.0

    def speed(self, now: float) -> float:
        """The share of full speed at time `now` (s), on its way to the one asked for."""
        passed = 0.0 if self._at is None else max(now - self._at, 0.0)
        self._at = now
        change = self._asked - self._share
        self._share += min(max(change, -_RAMP * passed), _RAMP * passed)
        return self._share

    def check(self, joint_age: float, tracking: float, robot_fault: str) -> tuple[Halt, str] | None:
        """Why the arm must not move in this cycle, and a line about it; None: it may.

        Args:
            joint_age: s since the last joint reading.
            tracking: the largest distance (rad or m) of a joint from where it was sent.
            robot_fault: what the robot complains of, empty when nothing.
        """
        if tracking > self.config.tracking_tolerance and not self.config.dry_run:
            self._tracking = (
                f"the arm is {tracking:.2f} rad away from where it was sent, "
                f"over {self.config.tracking_tolerance}; send an instruction to try again"
            )
        found = self._found(joint_age, robot_fault)
        halt = None if found is None else found[0]
        if halt is not None and halt is not self._halt:
            self.counts[halt.value] += 1
        self._halt = halt
        return found

    def _found(self, joint_age: float, robot_fault: str) -> tuple[Halt, str] | None:
        if self._emergency:
            return Halt.EMERGENCY, f"emergency stop: {self._emergency}"
        if joint_age > self.config.joint_timeout:
            return Halt.JOINT_STATES, "joint states stopped coming"
        if robot_fault:
            return Halt.ROBOT, robot_fault
        return (Halt.TRACKING, self._tracking) if self._tracking else None
