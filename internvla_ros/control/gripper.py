"""A gripper target that does not flutter: hysteresis, a least dwell, and what the policy means."""

from __future__ import annotations

from internvla_ros.robots.embodiment import ActionConvention

_BAND = 0.1  # how far past the threshold a value must be to change the target
_DWELL = 0.3  # s that a target is kept at least


class GripperLatch:
    """Turns a stream of a policy's gripper numbers into a target: 0 (closed) or 1 (open).

    In absolute mode the number itself says how open; in relative mode its change says which way
    to go, and small changes say nothing. A change of the target is kept up for the convention's
    number of steps, and for a least dwell.
    """

    def __init__(self, convention: ActionConvention) -> None:
        self._relative = convention.gripper_mode == "relative"
        self._sign = convention.gripper_sign
        self._threshold = convention.gripper_threshold
        self._steps = convention.gripper_latch
        self._kept_until = float("-inf")
        self._last: float | None = None
        self.target = 1.0

    def reset(self, opening: float) -> None:
        """Start from a given opening 0..1."""
        self.target = 1.0 if opening > 0.5 else 0.0
        self._kept_until = float("-inf")
        self._last = None

    def update(self, value: float, t: float, dt: float) -> float:
        """The target at time t (s) given the number of the present step of `dt` s."""
        wanted = self._change(value) if self._relative else self._level(value)
        if wanted is not None and wanted != self.target and t >= self._kept_until:
            self.target = wanted
            self._kept_until = t + max(_DWELL, self._steps * dt)
        return self.target

    def _level(self, value: float) -> float | None:
        beyond = self._sign * (value - self._threshold)
        return None if abs(beyond) <= _BAND else float(beyond > 0.0)

    def _change(self, value: float) -> float | None:
        change = 0.0 if self._last is None else self._sign * (value - self._last)
        self._last = value
        return None if abs(change) <= self._threshold else float(change > 0.0)
