"""Reading joint states by name, and remembering them for a while."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from internvla_ros.robots.embodiment import Embodiment


class JointStateError(ValueError):
    """A joint state that lacks a joint or a number."""


@dataclass(frozen=True)
class JointReading:
    """The arm at one instant: stamp (s), positions [n] (rad), gripper opening 0..1."""

    stamp: float
    positions: NDArray[np.float64]
    gripper: float


class JointReader:
    """Picks a robot's joints out of a joint state, whatever their order."""

    def __init__(self, embodiment: Embodiment) -> None:
        self._arm = embodiment.joints
        self._gripper = embodiment.gripper
        self._names: list[str] = []
        self._indices: list[int] = []

    def read(self, stamp: float, names: Sequence[str], positions: Sequence[float]) -> JointReading:
        """One reading from a joint state's `names` and `positions` (rad; m for the fingers).

        Raises:
            JointStateError: a joint of the arm or the gripper is missing, or is not finite.
        """
        if list(names) != self._names:
            self._indices = self._find(list(names))
            self._names = list(names)
        if len(positions) < len(names):
            raise JointStateError(
                f"joint state has {len(names)} names and {len(positions)} positions"
            )
        values = np.array([positions[index] for index in self._indices], dtype=np.float64)
        if not np.isfinite(values).all():
            raise JointStateError("joint state has positions that are not finite")
        return JointReading(stamp, values[:-1], self._gripper.opening(float(values[-1])))

    def _find(self, names: list[str]) -> list[int]:
        wanted = [*self._arm, self._gripper.joints[0]]
        missing = [name for name in wanted if name not in names]
        if missing:
            raise JointStateError(
                f"joint state lacks {', '.join(missing)}; it has {', '.join(names) or 'no joints'}"
            )
        return [names.index(name) for name in wanted]


class JointHistory:
    """The readings of the last moments, found by time."""

    def __init__(self, depth: int = 128) -> None:
        """`depth`: how many readings are kept."""
        self._readings: deque[JointReading] = deque(maxlen=depth)

    def add(self, reading: JointReading) -> None:
        """Take in a reading; one older than the last (a clock set back) starts anew."""
        if self._readings and reading.stamp < self._readings[-1].stamp:
            self._readings.clear()
        self._readings.append(reading)

    @property
    def newest(self) -> JointReading | None:
        """The last reading."""
        return self._readings[-1] if self._readings else None

    def at(self, stamp: float, tolerance: float) -> JointReading | None:
        """The reading nearest to `stamp` (s), unless it is further off than `tolerance` (s)."""
        nearest = min(self._readings, key=lambda each: abs(each.stamp - stamp), default=None)
        if nearest is None or abs(nearest.stamp - stamp) > tolerance:
            return None
        return nearest
