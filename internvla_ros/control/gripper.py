"""A gripper target that does not flutter: hysteresis and a least dwell."""

from __future__ import annotations

_BAND = 0.1  # how far past the threshold a value must be to change the target
_DWELL = 0.3  # s that a target is kept at least


class GripperLatch:
    """Turns a stream of values 0..1 into a target that is either 0 (closed) or 1 (open).

    Args:
        threshold: values above it mean open.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._changed = float("-inf")
        self.target = 1.0

    def reset(self, target: float) -> None:
        """Start from a given opening 0..1."""
        self.target = 1.0 if target > self._threshold else 0.0
        self._changed = float("-inf")

    def update(self, value: float, t: float) -> float:
        """The target at time t (s) given the newest value."""
        wanted = self.target
        if value > self._threshold + _BAND:
            wanted = 1.0
        elif value < self._threshold - _BAND:
            wanted = 0.0
        if wanted != self.target and t - self._changed >= _DWELL:
            self.target, self._changed = wanted, t
        return self.target
