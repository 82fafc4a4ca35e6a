"""Reading joint states by name, and remembering them for a while."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
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
    """Picks a robot's joints out of joint states, whatever their order.

    The arm's joints come in one message; the finger in the same or, where a gripper has a driver of
    its own, in another on the same topic.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        self._arm = list(embodiment.joints)
        self._gripper = embodiment.gripper
        self._finger = embodiment.gripper.joints[0]
        self._opening: float | None = None

    def read(
        self, stamp: float, names: Sequence[str], positions: Sequence[float]
    ) -> JointReading | None:
        """One reading from a joint state's `names` and `positions` (rad; m for the fingers).

        None: the message holds the finger alone, which is remembered for the arm's next one.

        Raises:
            JointStateError: a joint of the arm or the gripper is missing, or is not finite.
        """
        if len(positions) < len(names):
            raise JointStateError(
                f"joint state has {len(names)} names and {len(positions)} positions"
            )
        found = dict(zip(names, positions, strict=False))
        if self._finger in found:
            self._opening = self._gripper.opening(self._finite(found, [self._finger])[0])
            if not any(name in found for name in self._arm):
                return None
        missing = [name for name in self._arm if name not in found]
        missing += [self._finger] if self._opening is None else []
        if missing or self._opening is None:
            raise JointStateError(
                f"joint state lacks {', '.join(missing)}; it has {', '.join(names) or 'no joints'}"
            )
        return JointReading(stamp, self._finite(found, self._arm), self._opening)

    def _finite(self, found: Mapping[str, float], names: Sequence[str]) -> NDArray[np.float64]:
        values = np.array([found[name] for name in names], dtype=np.float64)
        if not np.isfinite(values).all():
            raise JointStateError("joint state has positions that are not finite")
        return values


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
