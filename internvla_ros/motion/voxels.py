"""Sets of points as voxels, and how far solids are from them (pure numpy).

A voxel counts as the ball about its cube, so that a distance is never overstated; it is understated
by at most 0.37 voxels. Voxels lie in blocks, and only blocks that can hold the nearest one are
looked into.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from internvla_ros.motion.se3 import Pose
from internvla_ros.motion.shapes import Shape

Array = NDArray[np.float64]

_BLOCK = 4  # voxels along the edge of a block


@dataclass(frozen=True, eq=False)
class Found:
    """The solid nearest to a voxel: its number, metres between them (negative: overlap), where.

    `on_solid` and `on_voxel` [3] are the points nearest to each other; `normal` [3] points from
    the solid to the voxel.
    """

    solid: int
    distance: float
    on_solid: Array
    on_voxel: Array
    normal: Array


def voxels(points: Array, size: float) -> Array:
    """Centres [M, 3] of the cubes of edge `size` (m) that hold a point of [N, 3], each once."""
    if not len(points):
        return np.empty((0, 3))
    cells = np.unique(np.floor(points / size).astype(np.int64), axis=0)
    return np.asarray((cells + 0.5) * size)


class VoxelCloud:
    """Voxels of one size.

    Args:
        centres: [M, 3] m, at least one, as `voxels` gives them.
        size: the edge of a voxel (m).
    """

    def __init__(self, centres: Array, size: float) -> None:
        self._ball = 0.5 * np.sqrt(3.0) * size
        blocks = np.floor(centres / (_BLOCK * size)).astype(np.int64)
        order = np.lexsort(blocks.T)
        self._centres = centres[order]
        blocks = blocks[order]
        starts = np.flatnonzero(np.any(np.diff(blocks, axis=0, prepend=blocks[:1] - 1), axis=1))
        self._spans = list(zip(starts, [*starts[1:], len(blocks)], strict=True))
        self._blocks: Array = np.asarray((blocks[starts] + 0.5) * (_BLOCK * size), np.float64)
        self._block_reach = _BLOCK * self._ball

    def nearest(self, solids: Sequence[tuple[Shape, Pose]], within: float = np.inf) -> Found | None:
        """The solid and the voxel that are nearest to each other.

        Args:
            solids: with where their middles are.
            within: m; None is the answer where nothing is nearer than this.
        """
        bound = np.stack([_from_solid(self._blocks, *solid) for solid in solids], axis=1)
        bound -= self._block_reach
        best: tuple[float, int, Array] | None = None
        for index in np.argsort(bound, axis=None):
            block, k = divmod(int(index), len(solids))
            if bound[block, k] >= within:
                break
            start, end = self._spans[block]
            distances = _from_solid(self._centres[start:end], *solids[k]) - self._ball
            i = int(distances.argmin())
            if distances[i] < within:
                within = float(distances[i])
                best = (within, k, self._centres[start + i])
        return None if best is None else self._found(best, solids)

    def _found(self, best: tuple[float, int, Array], solids: Sequence[tuple[Shape, Pose]]) -> Found:
        distance, k, centre = best
        normal = _away_from(centre, *solids[k])
        on_voxel = centre - self._ball * normal
        return Found(k, distance, on_voxel - distance * normal, on_voxel, normal)


def _from_solid(points: Array, shape: Shape, pose: Pose) -> Array:
    """[N] signed m from points [N, 3] to the surface of a solid."""
    local = (points - pose.position) @ pose.rotation
    beyond = np.abs(local) - shape.half
    outside = np.sqrt(np.einsum("nc,nc->n", np.maximum(beyond, 0.0), np.maximum(beyond, 0.0)))
    if shape.is_box:
        return np.asarray(outside + np.minimum(beyond.max(axis=1), 0.0))
    return np.asarray(outside - shape.radius)


def _away_from(point: Array, shape: Shape, pose: Pose) -> Array:
    """[3] unit vector from the nearest place on a solid out towards a point."""
    local = pose.rotation.T @ (point - pose.position)
    beyond = np.abs(local) - shape.half
    out = np.sign(local) * np.maximum(beyond, 0.0)
    if not out.any():  # within a box, or on a capsule's own segment
        face = int(beyond.argmax()) if shape.is_box else 0
        out = np.eye(3)[face] * (np.sign(local[face]) or 1.0)
    return np.asarray(pose.rotation @ (out / np.linalg.norm(out)))
