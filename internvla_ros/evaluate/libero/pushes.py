"""Pushing the expert about, so that its demonstrations show the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEAST, MOST = 0.3, 1.0
"""Inputs of the pose controller: how strong a push is."""
SHORTEST, LONGEST = 3, 8
"""Steps that a push lasts."""
ROOMY = ("hover", "lift", "carry")
"""Phases of the expert in which nothing is close to the hand that it could hit."""
DESCENT = "descend"
"""Here the hand is made to close too early and to rise: what a policy that misses looks like."""


@dataclass(frozen=True)
class Pushes:
    """With `chance` a push begins at a step; while it lasts, it moves the tip, not the expert."""

    chance: float
    seed: int = 0

    def for_trial(self, task: int, trial: int) -> Pusher:
        """Pushes of one trial, the same whatever was done before it."""
        return Pusher(self.chance, np.random.default_rng((self.seed, task, trial)))


class Pusher:
    """The pushes of one trial."""

    def __init__(self, chance: float, rng: np.random.Generator) -> None:
        self._chance, self._rng = chance, rng
        self._push, self._left, self._closes = np.zeros(3), 0, False

    def disturbed(self, action: Array, phase: str) -> Array:
        """What is executed instead of an action [7], with the expert in `phase`."""
        begins = self._rng.random() < self._chance
        if phase not in (*ROOMY, DESCENT):
            self._left = 0
            return action
        if self._left == 0 and begins:
            self._begin(phase)
        if self._left == 0:
            return action
        self._left -= 1
        gripper = 0.0 if self._closes else action[6]
        return np.array([*self._push, *action[3:6], gripper])

    def _begin(self, phase: str) -> None:
        self._closes = phase == DESCENT
        direction = np.array([0.0, 0.0, 1.0]) if self._closes else self._rng.normal(size=3)
        strength = self._rng.uniform(LEAST, MOST)
        self._push = strength * direction / float(np.abs(direction).max())
        self._left = int(self._rng.integers(SHORTEST, LONGEST + 1))
