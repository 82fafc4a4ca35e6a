"""What a robot's URDF says about its looks: coloured simple shapes, by link. Lengths in metres."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from internvla_ros.motion.se3 import Pose

Colour = tuple[int, int, int]

_MEASURES = {"box": ("size",), "cylinder": ("radius", "length"), "sphere": ("radius",)}
_PLAIN = (0.6, 0.6, 0.62, 1.0)


class ShapeError(ValueError):
    """A URDF whose looks cannot be read."""


@dataclass(frozen=True, eq=False)
class Shape:
    """A shape at a pose in its link.

    Attributes:
        kind: "box" (size: its edges), "cylinder" along z (radius, length) or "sphere" (radius).
        size: m, as the kind says.
        pose: in the link.
        colour, opacity: 0..255 and 0..1.
    """

    kind: str
    size: tuple[float, ...]
    pose: Pose
    colour: Colour
    opacity: float


@dataclass(frozen=True)
class Looks:
    """Link -> its shapes, and the links with meshes, which are not among them."""

    shapes: Mapping[str, tuple[Shape, ...]]
    meshes: tuple[str, ...]


def looks(urdf_xml: str) -> Looks:
    """The visual shapes of a URDF.

    Raises:
        ShapeError: it is not XML, or a number is missing or is none.
    """
    try:
        robot = ElementTree.fromstring(urdf_xml)
        palette = {
            each.get("name", ""): _rgba(each)
            for each in robot.findall("material")
            if each.find("color") is not None
        }
        shapes = {
            link.attrib["name"]: tuple(
                shape
                for visual in link.findall("visual")
                if (shape := _shape(visual, palette)) is not None
            )
            for link in robot.findall("link")
        }
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise ShapeError(f"the robot description's shapes cannot be read: {error}") from error
    meshes = tuple(
        link.attrib["name"]
        for link in robot.findall("link")
        if link.find("visual/geometry/mesh") is not None
    )
    return Looks(shapes, meshes)


def _shape(visual: ElementTree.Element, palette: Mapping[str, tuple[float, ...]]) -> Shape | None:
    """The simple shape of a visual; None for a mesh."""
    measured = _measured(visual)
    if measured is None:
        return None
    kind, size = measured
    red, green, blue, opacity = _colour(visual.find("material"), palette)
    colour = (round(255 * red), round(255 * green), round(255 * blue))
    return Shape(kind, size, _origin(visual), colour, opacity)


def _measured(visual: ElementTree.Element) -> tuple[str, tuple[float, ...]] | None:
    for kind, names in _MEASURES.items():
        found = visual.find(f"geometry/{kind}")
        if found is not None:
            size = tuple(float(word) for name in names for word in found.attrib[name].split())
            if kind == "box" and len(size) != 3:
                raise ValueError(f"a box has {len(size)} edges, not three")
            return kind, size
    return None


def _colour(
    material: ElementTree.Element | None, palette: Mapping[str, tuple[float, ...]]
) -> tuple[float, ...]:
    """Red, green, blue and opacity, 0..1."""
    if material is None:
        return _PLAIN
    if material.find("color") is not None:
        return _rgba(material)
    return palette.get(material.get("name", ""), _PLAIN)


def _origin(visual: ElementTree.Element) -> Pose:
    origin = visual.find("origin")
    if origin is None:
        return Pose.identity()
    return Pose.from_rpy(*(_numbers(origin.get(name, "0 0 0"), 3) for name in ("xyz", "rpy")))


def _rgba(material: ElementTree.Element) -> tuple[float, ...]:
    colour = material.find("color")
    assert colour is not None
    return tuple(_numbers(colour.attrib["rgba"], 4))


def _numbers(text: str, count: int) -> list[float]:
    numbers = [float(word) for word in text.split()]
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(f"'{text}' are not {count} numbers")
    return numbers
