"""What a policy must know of the chunk in execution so that its next one goes on from there."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from internvla_ros.control.chunk import Chunk

Array = NDArray[np.float64]

_NO_STEP = 1e-6  # steps that do not count


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
