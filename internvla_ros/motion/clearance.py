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
_FEW = 100  # pairs in doubt, counted at each moment, that are measured one by one


class Room(Protocol):
    """What a guard asks about what stands around an arm."""

    def room(self, q: Array) -> float:
        """Metres to spare at joint positions [n] before the arm is closer to anything than it
        may be."""

    def remains(self, path: Array, least: float) -> bool:
        """Whether there is proof that at least so many metres are to spare at each of some joint
        positions [k, n]."""


class Clearance:
    """The room around one robot.

    Not to be shared between threads, nor the model with others.
    """

    def __init__(self, model: CollisionModel) -> None:
        self._model = model
        self._leverage = model.leverage
        self._seen = np.zeros_like(self._leverage)
        self._rooms = np.full(len(self._leverage), -math.inf)
        self._revision = model.revision

    def room(self, q: Array) -> float:
        """Metres to spare at joint positions q [n], measured."""
        return self._model.room(q)

    def remains(self, path: Array, least: float) -> bool:
        """Whether at least so many metres are to spare at each of some joint positions [k, n]."""
        if self._revision != self._model.revision:
            self._rooms[:], self._revision = -math.inf, self._model.revision
        pairs = self._doubted(path, least + _ROUNDING)
        return not len(pairs) or self._proven(path, least, pairs)

    def _doubted(self, path: Array, least: float) -> NDArray[np.intp]:
        """The pairs that may come too close somewhere in the box about some positions [k, n]."""
        low, high = np.minimum.reduce(path), np.maximum.reduce(path)
        moved = np.maximum(high - self._seen, self._seen - low)
        left = self._rooms - np.vecdot(self._leverage, moved)
        return (left < least).nonzero()[0]

    def _proven(self, path: Array, least: float, pairs: NDArray[np.intp]) -> bool:
        """As `remains`, for some pairs: each look, amid the moments that are in doubt, tells of
        those around it, too. What is left in doubt in the end is measured moment by moment."""
        left, moments = np.full((len(path), len(pairs)), -math.inf), np.arange(len(path))
        while True:
            middle = moments[len(moments) // 2]
            rooms = self._look(path[middle], pairs)
            if min(rooms.tolist()) < least:
                return False
            left = np.maximum(left, self._left(path, path[middle], rooms, pairs))
            left[middle] = math.inf
            doubt = left < least + _ROUNDING
            moments = np.logical_or.reduce(doubt, 1).nonzero()[0]
            if not len(moments):
                return True
            if np.count_nonzero(doubt) <= _FEW:
                keeps = self._model.keeps
                return all(keeps(path[i], pairs[doubt[i]].tolist(), least) for i in moments)
            chosen = np.logical_or.reduce(doubt, 0).nonzero()[0]
            pairs, left = pairs[chosen], left[:, chosen]

    def _left(self, path: Array, seen: Array, rooms: Array, pairs: NDArray[np.intp]) -> Array:
        """[k, p] the least room that some pairs can have at positions [k, n], having had the rooms
        [p] at the positions seen [n]."""
        result: Array = rooms - np.abs(path - seen).dot(self._leverage[pairs].T)
        return result

    def _look(self, q: Array, pairs: NDArray[np.intp]) -> Array:
        """[p] the rooms of some pairs, measured at positions [n] and remembered."""
        rooms = self._model.rooms(q[None], pairs.tolist())[0]
        self._rooms[pairs], self._seen[pairs] = rooms, q
        return rooms


class Measured:
    """Room (m) that a function of joint positions [n] tells: it is asked about every one."""

    def __init__(self, room: Callable[[Array], float]) -> None:
        self.room = room

    def remains(self, path: Array, least: float) -> bool:
        """Whether at least so many metres are to spare at each of some joint positions [k, n]."""
        return all(self.room(q) >= least for q in path)
