"""The path still ahead of the gripper, as a few evenly spaced waypoints."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def future_waypoints(path: NDArray[np.floating], count: int) -> NDArray[np.float64]:
    """For each moment of a path, `count` waypoints from there to its end.

    Args:
        path: float[T, 2], pixels, one row a frame.
        count: waypoints for each frame, >= 2: the first is where the path is now, the last its
            end, all equally spaced in path length.

    Returns:
        float[T, count, 2].
    """
    if count < 2:
        raise ValueError(f"a trace needs at least 2 waypoints, not {count}")
    points = np.asarray(path, np.float64)
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    travelled = np.concatenate([[0.0], np.cumsum(steps)])
    fractions = np.linspace(0.0, 1.0, count)
    wanted = travelled[:, None] * (1.0 - fractions) + travelled[-1] * fractions
    return np.stack([np.interp(wanted, travelled, points[:, axis]) for axis in range(2)], axis=-1)
