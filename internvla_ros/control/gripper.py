"""A gripper target that does not flutter: hysteresis, a least dwell, and what the policy means."""

from __future__ import annotations

from internvla_ros.robots.embodiment import ActionConvention

_BAND = 0.1  # how far past the threshold a value must be to change the target
_DWELL = 0.3  # s that a target is kept at least


class GripperLatch:
    """Turns a stream of a policy's gripper numbers into a target: closed (0) or open.

    In absolute mode the number itself says how open; in relative mode its change says which way
    to go: a rise or fall by more than the threshold since the number last turned, in however many
    steps, as an average over several predictions changes in small ones. A change of the target is
    kept up for the convention's number of steps, and for a least dwell; what is asked for in that
    time is done after it.

    Args:
        convention: what the numbers mean.
        opening: 0..1, how far an open gripper is open.
    """

    def __init__(self, convention: ActionConvention, opening: float = 1.0) -> None:
        self._relative = convention.gripper_mode == "relative"
        self._sign = convention.gripper_sign
        self._threshold = convention.gripper_threshold
        self._steps = convention.gripper_latch
        self._opening = opening
        self.reset(opening)

    def reset(self, opening: float) -> None:
        """Start from a given opening 0..1."""
        self._open = opening > 0.5 * self._opening
        self._wanted = self._open
        self._kept_until = float("-inf")
        self._lowest, self._highest = float("inf"), float("-inf")

    @property
    def target(self) -> float:
        """The opening wanted, 0 when closed."""
        return self._opening if self._open else 0.0

    def update(self, value: float, t: float, dt: float) -> float:
        """The target at time t (s) given the number of the present step of `dt` s."""
        said = self._change(value) if self._relative else self._level(value)
        self._wanted = self._wanted if said is None else said
        if self._wanted != self._open and t >= self._kept_until:
            self._open = self._wanted
            self._kept_until = t + max(_DWELL, self._steps * dt)
        return self.target

    def _level(self, value: float) -> bool | None:
        beyond = self._sign * (value - self._threshold)
        return None if abs(beyond) <= _BAND else beyond > 0.0

    def _change(self, value: float) -> bool | None:
        level = self._sign * value
        self._lowest, self._highest = min(self._lowest, level), max(self._highest, level)
        rise, fall = level - self._lowest, self._highest - level
        if max(rise, fall) <= self._threshold:
            return None
        self._lowest = self._highest = level
        return rise > fall
