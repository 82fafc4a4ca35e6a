"""What a policy must know of the chunk in execution so that its next one goes on from there."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from internvla_ros.control.chunk import Chunk

Array = NDArray[np.float64]

_NO_STEP = 1e-6  # steps that do not count
_REMEMBERED = 16  # chunks


def remaining(chunk: Chunk, progress: float) -> Array:
    """The actions [K, 7] of a chunk from `progress` (s, executed since its observation) on.

    The steps are as long as the chunk's and the first one begins at `progress`: in the middle of
    the chunk's own steps each of them is made of parts of two. K is 0 when nothing is left.
    """
    actions = np.asarray(chunk.actions, dtype=np.float64)
    past = max(progress, 0.0) / chunk.dt
    whole = math.floor(past + _NO_STEP)
    part = max(past - whole, 0.0)
    if part < _NO_STEP:
        return actions[whole:].copy()
    first, second = actions[whole:-1], actions[whole + 1 :]
    mixed = (1.0 - part) * first + part * second
    mixed[:, 6] = (first if part < 0.5 else second)[:, 6]  # an opening is no amount of motion
    return mixed


def frozen_steps(delay: float, dt: float, known: int) -> int:
    """How many steps of `dt` (s) a delay (s) covers, at least in part; at most `known`."""
    return min(math.ceil(max(delay, 0.0) / dt - _NO_STEP), known)


class Commitments:
    """A sender's memory of its chunks, and of how far the arm says it has come with them."""

    def __init__(self) -> None:
        self._sent: deque[Chunk] = deque(maxlen=_REMEMBERED)
        self._executed: tuple[int, float, float, float] | None = None
        self._delay = 0.0

    def forget(self) -> None:
        """Another task begins."""
        self._sent.clear()
        self._executed = None

    def sent(self, chunk: Chunk) -> None:
        """A chunk was sent to the arm."""
        self._sent.append(chunk)

    def executed(
        self, sequence: int, progress: float, at: float, speed: float, delay: float
    ) -> None:
        """What the arm tells.

        Args:
            sequence: of the chunk in execution.
            progress: s of it that are executed by time `at` (s); below 0: none is executed.
            at: when that was so.
            speed: s of the chunk that are executed each second from then on; 0 for a resting arm.
            delay: s from a chunk's stamp to its first setpoint; below 0 while unknown.
        """
        self._executed = (sequence, progress, at, speed) if progress >= 0.0 else None
        self._delay = max(delay, 0.0)

    def at(self, stamp: float) -> tuple[Array, int] | None:
        """For an observation at `stamp` (s): what is left of the chunk in execution [K, 7], K >= 1,
        and how many of its steps will be executed before a new chunk arrives.

        None where nothing is known to be in execution.
        """
        if self._executed is None:
            return None
        sequence, progress, at, speed = self._executed
        chunk = next((each for each in self._sent if each.sequence == sequence), None)
        if chunk is None:
            return None
        left = remaining(chunk, progress + speed * (stamp - at))
        return (left, frozen_steps(self._delay, chunk.dt, len(left))) if len(left) else None
