"""Where everything is: the state of a scene that relations are true or false of.

Positions are metres in the robot's base frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from internvla_ros.sim.kinds import Container, Kind, kind_of
from internvla_ros.sim.parts import Triple

Array = NDArray[np.float64]

_CORNER = 1.2  # a disc that stands for a square: its radius to half the side


@dataclass(frozen=True, eq=False)
class Body:
    """One object.

    Attributes:
        name: as instructions call it.
        kind: of it.
        size: its extents along its own axes.
        position: [3] of its middle.
        rotation: [3, 3] from its own frame to the base's.
    """

    name: str
    kind: Kind | Container
    size: Triple
    position: Array
    rotation: Array

    @property
    def is_container(self) -> bool:
        """Whether it is there to put things on or in."""
        return isinstance(self.kind, Container)

    @cached_property
    def extent(self) -> Array:
        """[3] half its extents along the axes of the base frame."""
        half = 0.5 * np.array(self.size)
        if isinstance(self.kind, Kind) and self.kind.ovoid:
            return np.sqrt((self.rotation**2) @ half**2)
        axis = self.axis
        if axis is None:
            return np.abs(self.rotation) @ half
        along = np.abs(self.rotation[:, axis])
        return along * half[axis] + np.sqrt(1 - np.minimum(along, 1.0) ** 2) * half[1]

    @property
    def axis(self) -> int | None:
        """The own axis that it is turned about, if any."""
        grips = self.kind.grips if isinstance(self.kind, Kind) else ""
        return {"round": 2, "roll": 0}.get(grips)

    @property
    def bottom(self) -> float:
        """Height of its lowest point."""
        return float(self.position[2] - self.extent[2])

    @property
    def top(self) -> float:
        """Height of its highest point."""
        return float(self.position[2] + self.extent[2])

    @property
    def upright(self) -> bool:
        """Whether it stands as it was put down."""
        return bool(self.rotation[2, 2] > 0.94)

    @property
    def floor(self) -> float:
        """Height of what would be put on or in it."""
        return self.bottom + self.kind.floor if isinstance(self.kind, Container) else self.top

    @cached_property
    def discs(self) -> Array:
        """[K, 3] x, y and radius of discs that together cover it, seen from above."""
        half = 0.5 * np.array(self.size)
        flat = np.argsort(np.abs(self.rotation[2]))[:2]  # the two axes that lie flattest
        long, wide = sorted((int(i) for i in flat), key=lambda i: -half[i])
        radius = _CORNER * half[wide]
        if isinstance(self.kind, Kind) and self.kind.grips == "round":
            radius = half[wide] if self.upright else radius
        spare = max(half[long] - half[wide], 0.0)
        steps = np.linspace(-spare, spare, 1 + int(np.ceil(spare / half[wide])))
        middles = self.position[:2] + steps[:, None] * self.rotation[:2, long]
        return np.column_stack([middles, np.full(len(steps), radius)])

    @property
    def radius(self) -> float:
        """Of the disc about its middle that covers it."""
        return float(np.max(np.linalg.norm(self.discs[:, :2] - self.position[:2], axis=1))) + float(
            self.discs[0, 2]
        )

    def own(self, point: Array) -> Array:
        """A point [3] in its own frame."""
        return np.asarray((point - self.position) @ self.rotation)


@dataclass(frozen=True, eq=False)
class State:
    """All objects, and how far drawers are open.

    Attributes:
        bodies: by name.
        table: height of the table.
        right: [2] the direction over the table that runs to the right in the front picture.
        drawers: metres that each is open.
    """

    bodies: Mapping[str, Body]
    table: float
    right: Array
    drawers: Mapping[str, float]

    def __getitem__(self, name: str) -> Body:
        return self.bodies[name]

    def moved(self, name: str, place: Array) -> State:
        """The same with one body's bottom at a place [3]."""
        body = self[name]
        at = np.array([*place[:2], place[2] + body.position[2] - body.bottom])
        return replace(self, bodies={**self.bodies, name: replace(body, position=at)})


def gap(one: Body, other: Body) -> float:
    """Metres between the outlines of two bodies, seen from above; negative where they overlap."""
    return disc_gap(one.discs, other.discs)


def disc_gap(one: Array, other: Array) -> float:
    """The least distance (m) between two sets of discs [K, 3]."""
    apart = np.linalg.norm(one[:, None, :2] - other[None, :, :2], axis=-1)
    return float((apart - one[:, None, 2] - other[None, :, 2]).min())


def standing(name: str, kind: str, size: Triple, x: float, y: float, yaw: float, z: float) -> Body:
    """A body that stands at x, y with its bottom at height z, turned by `yaw`."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    rotation = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    return Body(name, kind_of(kind), size, np.array([x, y, z + size[2] / 2]), rotation)
