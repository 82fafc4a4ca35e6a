"""The limits that may keep a setpoint from being where its target was, by name."""

from __future__ import annotations

from enum import Enum


class Limit(Enum):
    """What altered a setpoint; the values are names for counters and reports."""

    TARGET = "invalid target"
    TIME = "time stood still"
    REACH = "out of reach"
    WORKSPACE = "workspace"
    TIP_SPEED = "tip speed"
    VELOCITY = "joint velocity"
    POSITION = "joint position"
    CLEARANCE = "clearance"


class Reasons:
    """Collects what altered one setpoint, and a line of text for each."""

    def __init__(self) -> None:
        self._texts: dict[Limit, str] = {}

    def add(self, limit: Limit, text: str) -> None:
        """Note a limit; the last text of each counts."""
        self._texts[limit] = text

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The limits, in the order in which they were met."""
        return tuple(self._texts)

    @property
    def text(self) -> str:
        """All of them on one line; empty when there are none."""
        return "; ".join(self._texts.values())
