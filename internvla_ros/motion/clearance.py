"""Whether an arm keeps its distances along a whole motion, with as few looks as that takes.

A pair of solids that were a distance apart are still nearly so after a small motion: no point of
either has moved by more than its reach (see `reach`) times the joints' motion. What was measured
once therefore holds for a while, and only the pairs for which it may no longer do so are measured
again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from internvla_ros.motion.collision import CollisionModel

Array = NDArray[np.float64]

_ROUNDING = 1e-5  # m that a measured distance may be wrong by


class Room(Protocol):
    """What a guard asks about what stands around an arm."""

    def room(self, q: Array) -> float:
        """Metres to spare at joint positions [n] before the arm is closer to anything than it
        may be."""

    def least(self, path: Array) -> float:
        """The least room (m) at any of some joint positions [k, n]; infinite where there is
        proof that it is not negative."""


class Clearance:
    """The room around one robot.

    Not to be shared between threads, nor the model with others.
    """

    def __init__(self, model: CollisionModel) -> None:
        self._model = model
        self._leverage = np.vstack([pairs.leverage for pairs in model.pairs])
        self._seen = np.zeros_like(self._leverage)
        self._rooms = np.full(len(self._leverage), -math.inf)
        self._revision = model.revision

    def room(self, q: Array) -> float:
        """Metres to spare at joint positions q [n], measured."""
        return self._model.room(q)

    def least(self, path: Array) -> float:
        """The least room (m) at any of some joint positions [k, n].

        Infinite where what has been measured before proves that all of it is above zero.
        """
        if self._revision != self._model.revision:
            self._rooms[:], self._revision = -math.inf, self._model.revision
        doubted = self._doubted(path)
        if not len(doubted):
            return math.inf
        self._look(path[0], doubted)
        left = self._left(path, doubted)
        pairs, moments = left.min(axis=0) < _ROUNDING, left.min(axis=1) < _ROUNDING
        if not pairs.any():
            return math.inf
        return float(self._model.rooms(path[moments], doubted[pairs].tolist()).min())

    def _doubted(self, path: Array) -> NDArray[np.intp]:
        """The pairs that may come too close somewhere in the box about some positions [k, n]."""
        low, high = path.min(axis=0), path.max(axis=0)
        moved = np.maximum(high - self._seen, self._seen - low)
        left = self._rooms - np.vecdot(self._leverage, moved)
        return np.flatnonzero(left < _ROUNDING)

    def _left(self, path: Array, pairs: NDArray[np.intp]) -> Array:
        """[k, p] the least room that some pairs can have at positions [k, n]."""
        moved = np.abs(path[:, None] - self._seen[pairs])
        result: Array = self._rooms[pairs] - np.vecdot(moved, self._leverage[pairs])
        return result

    def _look(self, q: Array, pairs: NDArray[np.intp]) -> None:
        """Measure some pairs at positions [n] and remember it."""
        self._rooms[pairs] = self._model.rooms(q[None], pairs.tolist())[0]
        self._seen[pairs] = q


class Measured:
    """Room (m) that a function of joint positions [n] tells: it is asked about every one."""

    def __init__(self, room: Callable[[Array], float]) -> None:
        self.room = room

    def least(self, path: Array) -> float:
        """The least room (m) at any of some joint positions [k, n]."""
        return min(map(self.room, path))
