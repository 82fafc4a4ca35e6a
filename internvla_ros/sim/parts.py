"""The solids that objects are built from: primitives and meshes made in code.

Lengths are metres in the object's own frame, whose origin is the middle of its extents and whose z
axis points up when it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import mujoco
import numpy as np
from numpy.typing import NDArray

from internvla_ros.motion.se3 import matrix_to_quaternion, rpy_to_matrix

Triple = tuple[float, float, float]

OWN = "own"
"""The paint of parts that have the colour of their object."""
PAINTS: dict[str, Triple] = {
    "white": (0.95, 0.95, 0.93),
    "black": (0.10, 0.10, 0.11),
    "grey": (0.62, 0.63, 0.65),
    "wood": (0.66, 0.45, 0.25),
    "leaf": (0.20, 0.50, 0.16),
    "cream": (0.93, 0.86, 0.68),
    "hollow": (0.16, 0.14, 0.13),
}
FACETS = 32
"""Of what is turned."""

_GEOM = mujoco.mjtGeom
_TYPES = {
    "box": _GEOM.mjGEOM_BOX,
    "cylinder": _GEOM.mjGEOM_CYLINDER,
    "ball": _GEOM.mjGEOM_ELLIPSOID,
    "capsule": _GEOM.mjGEOM_CAPSULE,
    "mesh": _GEOM.mjGEOM_MESH,
}


@dataclass(frozen=True, eq=False)
class Part:
    """One solid of an object.

    Attributes:
        shape: a key of `_TYPES`.
        size: half extents of a box or a ball; radius and half the length of a cylinder or capsule.
        at: of its middle.
        turn: roll, pitch and yaw (rad); cylinders and capsules lie along z.
        paint: `OWN`, or a key of `PAINTS`.
        solid: whether it is felt; seen: whether it is drawn.
        mesh: vertices [n, 3] and triangles [m, 3] of a mesh; it is felt as its convex hull.
    """

    shape: str
    size: Triple
    at: Triple = (0.0, 0.0, 0.0)
    turn: Triple = (0.0, 0.0, 0.0)
    paint: str = OWN
    solid: bool = True
    seen: bool = True
    mesh: tuple[NDArray[np.float64], NDArray[np.int32]] | None = None

    def add_to(self, spec: mujoco.MjSpec, body: mujoco.MjsBody, name: str) -> mujoco.MjsGeom:
        """Adds it to a body as the geom called `name`; its mesh, if any, to the model."""
        rotation = rpy_to_matrix(self.turn)
        x, y, z, w = matrix_to_quaternion(rotation)
        geom = body.add_geom(
            name=name, type=_TYPES[self.shape], pos=self.at, quat=(w, x, y, z), mass=0.0
        )
        if self.mesh is None:
            geom.size = self.size
            return geom
        vertices, triangles = self.mesh
        mesh = spec.add_mesh(name=f"{name} mesh")
        mesh.uservert = vertices.ravel()
        mesh.userface = triangles.ravel()
        mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX
        geom.meshname = mesh.name
        return geom


def box(
    half: Triple,
    at: Triple = (0.0, 0.0, 0.0),
    paint: str = OWN,
    turn: Triple = (0.0, 0.0, 0.0),
    solid: bool = True,
) -> Part:
    """A box of half extents `half`."""
    return Part("box", half, at, turn, paint, solid)


def drum(
    radius: float,
    half: float,
    at: Triple = (0.0, 0.0, 0.0),
    paint: str = OWN,
    turn: Triple = (0.0, 0.0, 0.0),
    solid: bool = True,
) -> Part:
    """A cylinder along z."""
    return Part("cylinder", (radius, half, 0.0), at, turn, paint, solid)


def ball(half: Triple, at: Triple = (0.0, 0.0, 0.0), paint: str = OWN, solid: bool = True) -> Part:
    """A ball, or an ellipsoid of half extents `half`."""
    return Part("ball", half, at, paint=paint, solid=solid)


def rod(start: Triple, end: Triple, radius: float, paint: str = OWN, solid: bool = True) -> Part:
    """A rounded bar from one point to another (the middles of its ends)."""
    first, last = np.array(start), np.array(end)
    along = last - first
    length = float(np.linalg.norm(along))
    yaw, pitch = np.arctan2(along[1], along[0]), np.arccos(along[2] / length)
    x, y, z = (first + last) / 2
    return Part(
        "capsule",
        (radius, length / 2, 0.0),
        (float(x), float(y), float(z)),
        (0.0, float(pitch), float(yaw)),
        paint,
        solid,
    )


def lathe(
    profile: list[tuple[float, float]], paint: str = OWN, solid: bool = True, scale: float = 1.0
) -> Part:
    """A closed surface of revolution about z.

    Args:
        profile: (radius, height) from the axis at the top outwards and down to the axis.
        paint: as of every part.
        solid: felt as its convex hull, or not at all.
        scale: of y against x, for what is not quite round.
    """
    angles = np.arange(FACETS) * 2 * np.pi / FACETS
    ring = np.column_stack([np.cos(angles), scale * np.sin(angles)])
    vertices: list[NDArray[np.float64]] = []
    faces: list[NDArray[np.int64]] = []
    for (r0, z0), (r1, z1) in pairwise(profile):
        # Rings are not shared between bands, so that edges stay sharp.
        here = len(vertices) * FACETS + np.arange(FACETS)
        after = len(vertices) * FACETS + (np.arange(FACETS) + 1) % FACETS
        for radius, height in ((r0, z0), (r1, z1)):
            vertices.append(np.column_stack([ring * radius, np.full(FACETS, height)]))
        if r0 > 0:
            faces.append(np.column_stack([here, here + FACETS, after]))
        if r1 > 0:
            faces.append(np.column_stack([after, here + FACETS, after + FACETS]))
    mesh = (np.concatenate(vertices), np.concatenate(faces).astype(np.int32))
    return Part("mesh", (0.0, 0.0, 0.0), paint=paint, solid=solid, mesh=mesh)


def prism(
    outline: list[tuple[float, float]],
    half: float,
    at: Triple = (0.0, 0.0, 0.0),
    paint: str = OWN,
    turn: Triple = (0.0, 0.0, 0.0),
    top: float = 1.0,
    solid: bool = True,
) -> Part:
    """An upright prism over an outline (counter-clockwise, star-shaped about the origin).

    `top` scales the upper outline: below 1 it is a pyramid without its tip.
    """
    flat, n = np.array(outline), len(outline)
    lower = np.column_stack([flat, np.full(n, -half)])
    upper = np.column_stack([flat * top, np.full(n, half)])
    vertices = np.concatenate([lower, upper, [[0, 0, -half], [0, 0, half]]])
    faces = []
    for i in range(n):
        j = (i + 1) % n
        faces += [(i, j, n + i), (j, n + j, n + i), (2 * n, j, i), (2 * n + 1, n + i, n + j)]
    mesh = (vertices, np.array(faces, dtype=np.int32))
    return Part("mesh", (0.0, 0.0, 0.0), at, turn, paint, solid, mesh=mesh)


def polygon(corners: int, radius: float) -> list[tuple[float, float]]:
    """The outline of a regular polygon with one side square to y."""
    angles = np.pi / 2 + (2 * np.arange(corners) - 1) * np.pi / corners
    return [(float(radius * np.cos(a)), float(radius * np.sin(a))) for a in angles]


def hidden(part: Part) -> Part:
    """The same solid, felt and not seen."""
    return Part(
        part.shape, part.size, part.at, part.turn, part.paint, True, seen=False, mesh=part.mesh
    )
