"""Extents of simulated objects and where cameras see them; runs in LIBERO's environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MESH = 7  # mjtGeom.mjGEOM_MESH


def world_vertices(sim: Any, body: int) -> Array:
    """Corners [n, 3] of all solid parts of a body and of those joined to it, world frame, m."""
    found = [
        _corners(sim.model._model, geom) @ _rotation(sim, geom).T + sim.data._data.geom_xpos[geom]
        for geom in _solid_geoms(sim, body)
    ]
    return np.concatenate(found) if found else np.array(sim.data._data.xpos[body])[None]


def parts(sim: Any, body: int) -> dict[str, Array]:
    """The boxes around each of the k solid parts, world frame, m.

    Their "centres" [k, 3], "axes" [k, 3, 3] (columns) and half "sizes" [k, 3].
    """
    centres, axes, sizes = [np.empty((0, 3))], [np.empty((0, 3, 3))], [np.empty((0, 3))]
    for geom in _solid_geoms(sim, body):
        corners, rotation = _corners(sim.model._model, geom), _rotation(sim, geom)
        low, high = corners.min(axis=0), corners.max(axis=0)
        centres.append((rotation @ (low + high) / 2.0 + sim.data._data.geom_xpos[geom])[None])
        axes.append(rotation[None])
        sizes.append(((high - low) / 2.0)[None])
    return {
        "centres": np.concatenate(centres),
        "axes": np.concatenate(axes),
        "sizes": np.concatenate(sizes),
    }


def extent(sim: Any, body: int) -> Array:
    """Lowest and highest corner [2, 3] of a body's solid parts in its own frame, m."""
    rotation = sim.data._data.xmat[body].reshape(3, 3)
    local = (world_vertices(sim, body) - sim.data._data.xpos[body]) @ rotation
    return np.array([local.min(axis=0), local.max(axis=0)])


def _solid_geoms(sim: Any, body: int) -> list[int]:
    model = sim.model._model
    return [
        geom
        for geom in range(model.ngeom)
        if model.geom_contype[geom] and _belongs(model, int(model.geom_bodyid[geom]), body)
    ]


def _rotation(sim: Any, geom: int) -> Array:
    rotation: Array = sim.data._data.geom_xmat[geom].reshape(3, 3)
    return rotation


def _belongs(model: Any, body: int, root: int) -> bool:
    while body > 0:
        if body == root:
            return True
        body = int(model.body_parentid[body])
    return False


def _corners(model: Any, geom: int) -> Array:
    """Vertices of a mesh, else the corners of the box around the shape, in the shape's frame."""
    if model.geom_type[geom] == MESH:
        mesh = int(model.geom_dataid[geom])
        first = int(model.mesh_vertadr[mesh])
        return np.array(model.mesh_vert[first : first + int(model.mesh_vertnum[mesh])], np.float64)
    middle, half = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
    corners: Array = middle + signs * half
    return corners


@dataclass(frozen=True, eq=False)
class View:
    """A camera at one moment.

    Attributes:
        position: [3], world frame, m.
        rotation: [3, 3], columns are the camera's x right, y up and z backwards.
        focal: focal length, px.
        size: width and height of the picture, px.
    """

    position: Array
    rotation: Array
    focal: float
    size: int

    @classmethod
    def of(cls, sim: Any, camera: str, size: int) -> View:
        """A camera of a simulation."""
        index = sim.model.camera_name2id(camera)
        data = sim.data._data
        half_angle = 0.5 * np.radians(float(sim.model._model.cam_fovy[index]))
        return cls(
            np.array(data.cam_xpos[index]),
            np.array(data.cam_xmat[index]).reshape(3, 3),
            0.5 * size / float(np.tan(half_angle)),
            size,
        )

    def project(self, points: Array) -> Array:
        """Pixels [..., 2] (u right, v down) of world points [..., 3]; NaN behind the camera."""
        local = (points - self.position) @ self.rotation
        depth = np.where(local[..., 2] < 0.0, -local[..., 2], np.nan)
        u = self.size / 2.0 + self.focal * local[..., 0] / depth
        v = self.size / 2.0 - self.focal * local[..., 1] / depth
        return np.stack([u, v], axis=-1)

    def box(self, points: Array) -> Array:
        """x1 y1 x2 y2 around the points within the picture; NaN when it is outside or behind."""
        pixels = self.project(points)
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        if not np.isfinite(pixels).all() or (high <= 0).any() or (low >= self.size).any():
            return np.full(4, np.nan)
        return np.concatenate([np.clip(low, 0, self.size), np.clip(high, 0, self.size)])
