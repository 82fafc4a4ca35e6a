"""The solid shapes of a robot description: boxes, balls and capsules, each fixed to a link."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from internvla_ros.motion.se3 import Pose, rpy_to_matrix

Array = NDArray[np.float64]

_SAME = 1e-6  # m that count as the same place


class ShapeError(ValueError):
    """The description holds a solid shape that is neither box, ball nor capsule."""


@dataclass(frozen=True, eq=False)
class Shape:
    """A solid that is fixed to a link.

    Args:
        link: whose frame `pose` is in.
        pose: of the middle; a capsule lies along z.
        half: [3] m half the extents of a box, or (0, 0, half the length between the ends) of a
            capsule; zero for a ball.
        radius: m about the segment of a capsule or the middle of a ball; zero for a box.
    """

    link: str
    pose: Pose
    half: Array
    radius: float

    @property
    def is_box(self) -> bool:
        """Whether it is a box; else it is a ball or a capsule."""
        return self.radius == 0.0

    @property
    def reach(self) -> float:
        """Metres from its middle to its farthest point."""
        return float(np.linalg.norm(self.half)) + self.radius

    @property
    def corners(self) -> tuple[Array, float]:
        """Points [k, 3] (m, in its own frame) and a radius (m): the balls about them have the
        solid as their hull."""
        signs = np.array(list(product((-1.0, 1.0), repeat=3)))
        return np.unique(signs * self.half, axis=0), self.radius


def solid_shapes(urdf_xml: str) -> list[Shape]:
    """Every solid of a robot description, in its order.

    A cylinder between two balls of its radius is one capsule.

    Raises:
        ShapeError: a mesh, or a cylinder that has no balls at its ends.
    """
    try:
        root = ElementTree.fromstring(urdf_xml)
    except ElementTree.ParseError as error:
        raise ShapeError(f"robot description: {error}") from error
    return [shape for link in root.findall("link") for shape in _shapes_of(link)]


def _shapes_of(link: ElementTree.Element) -> list[Shape]:
    name = link.attrib["name"]
    shapes: list[Shape] = []
    balls: list[Shape] = []
    for collision in link.findall("collision"):
        solid = collision.find("geometry/*")
        pose = _origin(collision.find("origin"))
        if solid is not None and solid.tag == "box":
            half = 0.5 * _numbers(solid.attrib["size"])
            shapes.append(Shape(name, pose, half, 0.0))
        elif solid is not None and solid.tag == "cylinder":
            half = np.array([0.0, 0.0, 0.5 * float(solid.attrib["length"])])
            shapes.append(Shape(name, pose, half, float(solid.attrib["radius"])))
        elif solid is not None and solid.tag == "sphere":
            balls.append(Shape(name, pose, np.zeros(3), float(solid.attrib["radius"])))
        else:
            found = "nothing" if solid is None else solid.tag
            raise ShapeError(f"link {name}: a solid must be box, sphere or cylinder, not {found}")
    for capsule in [shape for shape in shapes if not shape.is_box]:
        _take_ends(capsule, balls)
    return shapes + balls


def _take_ends(capsule: Shape, balls: list[Shape]) -> None:
    """Removes the two balls that round off a cylinder."""
    along = capsule.pose.rotation[:, 2] * capsule.half[2]
    for end in (capsule.pose.position - along, capsule.pose.position + along):
        for ball in balls:
            if np.abs(ball.pose.position - end).max() < _SAME and ball.radius == capsule.radius:
                balls.remove(ball)
                break
        else:
            raise ShapeError(
                f"link {capsule.link}: a solid cylinder needs a ball of its radius at both ends"
            )


def _origin(origin: ElementTree.Element | None) -> Pose:
    if origin is None:
        return Pose.identity()
    rotation = rpy_to_matrix(_numbers(origin.attrib.get("rpy", "0 0 0")))
    return Pose(_numbers(origin.attrib.get("xyz", "0 0 0")), rotation)


def _numbers(text: str) -> Array:
    return np.array([float(word) for word in text.split()])
