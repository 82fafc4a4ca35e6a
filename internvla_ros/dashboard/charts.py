"""The live plots: what each shows, and the last minute of its numbers."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SPAN = 60.0
"""s that a plot looks back."""


@dataclass(frozen=True)
class Curve:
    """A line of a plot: the name of its numbers, what it is called, a CSS colour and a factor."""

    key: str
    label: str
    colour: str
    factor: float = 1.0


@dataclass(frozen=True)
class Chart:
    """A plot: its title with the unit, its curves, the least top of its axis, its height (px)."""

    title: str
    curves: tuple[Curve, ...]
    least: float
    height: int


CHARTS = (
    Chart(
        "Delays, ms",
        (
            Curve("planner", "planner", "#ffb300", 1e3),
            Curve("actor", "actor", "#00c8e6", 1e3),
            Curve("setpoint", "camera to setpoint", "#ec40a0", 1e3),
            Curve("age", "age of chunk", "#a078ff", 1e3),
        ),
        200.0,
        96,
    ),
    Chart("Tracking error, mm", (Curve("error", "tip", "#8cd23c", 1e3),), 10.0, 70),
    Chart(
        "Safety, interventions a second",
        (
            Curve("limited", "limited", "#ffb300"),
            Curve("refused", "refused", "#ec40a0"),
            Curve("late", "late", "#00c8e6"),
        ),
        5.0,
        70,
    ),
)

NAMES = tuple(curve.key for chart in CHARTS for curve in chart.curves)
"""What all plots together need."""


class Series:
    """Numbers by name over the last minute: of each stretch of time the worst, the largest one."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._worst: dict[str, float] = {}
        self._times: deque[float] = deque()
        self._rows: deque[tuple[float, ...]] = deque()

    def note(self, name: str, value: float) -> None:
        """Take in a number of the present stretch."""
        if np.isfinite(value):
            self._worst[name] = max(value, self._worst.get(name, value))

    def sample(self, now: float) -> None:
        """End a stretch at time `now` (s); names of which nothing was noted have a gap there."""
        self._times.append(now)
        self._rows.append(tuple(self._worst.get(name, np.nan) for name in self._names))
        self._worst = {}
        while now - self._times[0] > SPAN:
            self._times.popleft()
            self._rows.popleft()

    def columns(self, chart: Chart) -> tuple[NDArray[np.float64], ...]:
        """Seconds before the last sample (<= 0), then each curve of a chart; at least one row."""
        if not self._times:
            return tuple(np.full(1, value) for value in (0.0, *[np.nan] * len(chart.curves)))
        times, table = np.array(self._times), np.array(self._rows)
        picked = (curve.factor * table[:, self._names.index(curve.key)] for curve in chart.curves)
        return (times - times[-1], *picked)


class Rates:
    """How fast counters grow, by name."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, int]] = {}

    def of(self, name: str, count: int, now: float) -> float:
        """Counts a second since the last call for this name; a counter set back starts anew."""
        then, before = self._last.get(name, (now, count))
        self._last[name] = (now, count)
        return max(0.0, (count - before) / (now - then)) if now > then else 0.0
