"""The kinds of objects that tasks are about, each a shape that is given its extents.

Extents are metres along the object's own x, y and z when it stands on the table. Whatever is to be
grasped is between 21 and 44 mm wide somewhere, which suits every gripper here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from internvla_ros.sim import dishes, figures
from internvla_ros.sim.parts import Part, Triple
from internvla_ros.sim.scene import COLOURS

ANY = tuple(COLOURS)
Shape = Callable[[float, float, float], tuple[Part, ...]]
Range = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Kind:
    """A kind of object.

    Attributes:
        name: one word; instructions say it after the colour.
        shape: its parts, from half its extents.
        x, y, z: the ranges of its extents; `y` None: as long as along x, `z` None likewise.
        grips: the axes across which fingers may close while it stands: "x", "y", both; "round":
            every direction, it is turned about z; or "roll": across x, about which it is turned.
        share: its width where it is gripped, as a share of its extent.
        off: where it is gripped along x, as a share of half its extent from the middle.
        flat: other things can stand on it, and it on them.
        ovoid: it has no edges: however it rolls, it is as wide and as high as before.
        colours: that it comes in.
    """

    name: str
    shape: Shape
    x: Range
    y: Range | None = None
    z: Range | None = None
    grips: str = "xy"
    share: float = 1.0
    off: float = 0.0
    flat: bool = False
    ovoid: bool = False
    colours: tuple[str, ...] = ANY

    def sample(self, rng: np.random.Generator) -> Triple:
        """Extents from the ranges."""
        x = float(rng.uniform(*self.x))
        y = x if self.y is None else float(rng.uniform(*self.y))
        z = x if self.z is None else float(rng.uniform(*self.z))
        return x, y, z

    def parts(self, size: Triple) -> tuple[Part, ...]:
        """Its parts at these extents."""
        return self.shape(size[0] / 2, size[1] / 2, size[2] / 2)


@dataclass(frozen=True, eq=False)
class Container:
    """A kind of thing to put others on or in.

    Attributes:
        name: one word.
        relation: things lie "on" it or "in" it.
        shape: its parts, from half its extents.
        x, y, z: the ranges of its extents; `y` None: as long as along x.
        floor: height of its floor.
        usable: share of half its extents within which a thing's middle counts as placed.
        round: whether its floor is a disc.
    """

    name: str
    relation: str
    shape: Shape
    x: Range
    y: Range | None
    z: Range
    floor: float
    usable: float
    round: bool
    colours: tuple[str, ...] = ANY

    def sample(self, rng: np.random.Generator) -> Triple:
        """Extents from the ranges."""
        x = float(rng.uniform(*self.x))
        y = x if self.y is None else float(rng.uniform(*self.y))
        return x, y, float(rng.uniform(*self.z))

    def parts(self, size: Triple) -> tuple[Part, ...]:
        """Its parts at these extents."""
        return self.shape(size[0] / 2, size[1] / 2, size[2] / 2)


_UP = (0.030, 0.042)  # what stands and is not high
_TALL = (0.058, 0.074)
_WIDE = (0.034, 0.044)
_LONG = (0.054, 0.072)
_LOW = (0.024, 0.032)

MOVABLES: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("cube", figures.cube, _UP, flat=True),
        Kind("cylinder", figures.cylinder, _UP, grips="round", flat=True),
        Kind("ball", figures.sphere, _UP, grips="round", ovoid=True),
        Kind("block", figures.cube, _LONG, _LOW, _LOW, grips="y", flat=True),
        Kind(
            "brick", figures.brick, (0.052, 0.064), (0.028, 0.034), (0.026, 0.034), "y", flat=True
        ),
        Kind("plank", figures.cube, (0.075, 0.095), (0.024, 0.028), (0.022, 0.026), "y"),
        Kind("domino", figures.domino, (0.050, 0.060), (0.026, 0.032), (0.022, 0.026), "y"),
        Kind("die", figures.die, _UP, flat=True),
        Kind("wedge", figures.wedge, (0.044, 0.056), _UP, _UP, "y"),
        Kind("pyramid", figures.pyramid, (0.038, 0.044), None, (0.034, 0.042), share=0.75),
        Kind("cone", figures.cone, (0.038, 0.044), None, (0.044, 0.056), "round", share=0.7),
        Kind(
            "hexagon",
            figures.hexagon,
            (0.036, 0.044),
            None,
            (0.028, 0.036),
            "y",
            share=0.87,
            flat=True,
        ),
        Kind("puck", figures.puck, _WIDE, None, (0.022, 0.028), "round", flat=True),
        Kind("can", figures.can, (0.032, 0.042), None, (0.046, 0.060), "round", flat=True),
        Kind("bottle", figures.bottle, (0.030, 0.040), None, _TALL, "round"),
        Kind("jar", figures.jar, (0.034, 0.042), None, (0.040, 0.052), "round"),
        Kind("mug", figures.mug, (0.050, 0.056), (0.034, 0.040), (0.036, 0.046), "y", off=-0.3),
        Kind("cup", figures.cup, (0.036, 0.044), None, (0.040, 0.052), "round", share=0.9),
        Kind("egg", figures.egg, (0.032, 0.038), None, (0.042, 0.048), "round", ovoid=True),
        Kind(
            "lemon",
            figures.lemon,
            (0.050, 0.060),
            (0.034, 0.040),
            (0.034, 0.040),
            "roll",
            ovoid=True,
            colours=("yellow", "green"),
        ),
        Kind(
            "apple",
            figures.apple,
            (0.036, 0.044),
            None,
            (0.038, 0.046),
            "round",
            ovoid=True,
            colours=("red", "green", "yellow"),
        ),
        Kind(
            "pear",
            figures.pear,
            (0.034, 0.042),
            None,
            (0.050, 0.060),
            "round",
            colours=("green", "yellow"),
        ),
        Kind(
            "tomato",
            figures.tomato,
            (0.038, 0.044),
            None,
            (0.034, 0.040),
            "round",
            ovoid=True,
            colours=("red",),
        ),
        Kind(
            "banana",
            figures.banana,
            (0.075, 0.090),
            (0.034, 0.040),
            (0.024, 0.028),
            "y",
            share=0.8,
            colours=("yellow",),
        ),
        Kind(
            "carrot",
            figures.carrot,
            (0.075, 0.090),
            (0.026, 0.032),
            (0.026, 0.032),
            "roll",
            colours=("orange",),
        ),
        Kind(
            "strawberry",
            figures.strawberry,
            (0.034, 0.042),
            None,
            (0.040, 0.048),
            "round",
            colours=("red",),
        ),
        Kind(
            "mushroom",
            figures.mushroom,
            (0.036, 0.044),
            None,
            (0.036, 0.044),
            "round",
            colours=("red", "orange", "purple"),
        ),
        Kind("ring", figures.ring, (0.038, 0.044), None, (0.014, 0.016), "round"),
        Kind("marker", figures.marker, (0.078, 0.095), (0.022, 0.026), (0.022, 0.026), "roll"),
        Kind("battery", figures.battery, (0.054, 0.066), (0.024, 0.030), (0.024, 0.030), "roll"),
        Kind("candle", figures.candle, (0.028, 0.036), None, (0.056, 0.070), "round"),
        Kind("spool", figures.spool, (0.032, 0.040), None, (0.034, 0.044), "round", flat=True),
        Kind("bolt", figures.bolt, (0.038, 0.044), None, (0.044, 0.054), "round", share=0.68),
        Kind("nut", figures.nut, (0.038, 0.046), None, (0.022, 0.028), "y", share=0.87),
        Kind(
            "hammer",
            figures.hammer,
            (0.080, 0.095),
            (0.046, 0.052),
            (0.026, 0.030),
            "y",
            share=0.5,
            off=-0.25,
        ),
        Kind("brush", figures.brush, (0.064, 0.080), (0.026, 0.032), (0.030, 0.036), "y"),
        Kind("car", figures.car, (0.058, 0.072), (0.032, 0.038), (0.030, 0.038), "y"),
        Kind("house", figures.house, _UP, _UP, (0.044, 0.054)),
        Kind(
            "loaf",
            figures.loaf,
            (0.056, 0.070),
            (0.034, 0.040),
            (0.030, 0.036),
            "y",
            colours=("orange",),
        ),
        Kind("cupcake", figures.cupcake, (0.036, 0.044), None, (0.038, 0.046), "round"),
        Kind(
            "burger",
            figures.burger,
            (0.038, 0.044),
            None,
            (0.034, 0.042),
            "round",
            colours=("red", "orange"),
        ),
        Kind(
            "sponge",
            figures.sponge,
            (0.056, 0.070),
            (0.034, 0.042),
            (0.024, 0.030),
            "y",
            colours=("yellow", "orange", "blue", "purple"),
        ),
        Kind("book", figures.book, (0.056, 0.068), (0.036, 0.044), (0.022, 0.026), "y"),
        Kind("remote", figures.remote, (0.075, 0.090), (0.028, 0.034), (0.022, 0.026), "y"),
        Kind("camera", figures.camera, (0.050, 0.060), (0.034, 0.042), (0.036, 0.042), "y"),
        Kind("bell", figures.bell, (0.038, 0.044), None, (0.042, 0.050), "round", share=0.75),
        Kind(
            "dumbbell",
            figures.dumbbell,
            (0.064, 0.078),
            (0.032, 0.038),
            (0.032, 0.038),
            "roll",
            share=0.74,
        ),
        Kind("bone", figures.bone, (0.070, 0.085), (0.034, 0.042), (0.022, 0.026), "y", share=0.7),
        Kind("cross", figures.cross, (0.038, 0.044), None, (0.024, 0.030)),
        Kind("arch", figures.arch, (0.056, 0.068), (0.028, 0.034), (0.036, 0.044), "y"),
        Kind(
            "duck",
            figures.duck,
            (0.046, 0.056),
            (0.034, 0.040),
            (0.042, 0.050),
            "y",
            colours=("yellow", "blue"),
        ),
        Kind("snowman", figures.snowman, (0.036, 0.044), None, (0.056, 0.068), "round"),
        Kind("roll", figures.roll, (0.036, 0.044), None, (0.036, 0.046), "round", flat=True),
        Kind("soap", figures.soap, (0.050, 0.062), (0.032, 0.038), (0.024, 0.030), "y"),
        Kind("barrel", figures.barrel, (0.034, 0.042), None, (0.040, 0.050), "round", flat=True),
        Kind("vase", figures.vase, (0.036, 0.044), None, (0.050, 0.062), "round"),
        Kind("tower", figures.tower, (0.032, 0.040), None, (0.044, 0.054), "round", share=0.7),
        Kind("pawn", figures.pawn, (0.034, 0.042), None, (0.044, 0.054), "round", share=0.6),
        Kind("robot", figures.robot, (0.030, 0.038), (0.030, 0.038), (0.052, 0.062), "xy"),
    )
}

CONTAINERS: dict[str, Container] = {
    kind.name: kind
    for kind in (
        Container(
            "plate", "on", dishes.plate, (0.116, 0.140), None, (0.011, 0.014), 0.005, 0.75, True
        ),
        Container(
            "bowl", "in", dishes.bowl, (0.116, 0.130), None, (0.034, 0.042), 0.005, 0.68, True
        ),
        Container(
            "bin",
            "in",
            dishes.walled(0.004),
            (0.106, 0.124),
            None,
            (0.036, 0.046),
            0.004,
            0.9,
            False,
        ),
        Container(
            "tray",
            "on",
            dishes.walled(0.004),
            (0.120, 0.140),
            (0.130, 0.170),
            (0.010, 0.014),
            0.004,
            0.9,
            False,
        ),
        Container(
            "basket", "in", dishes.basket, (0.110, 0.126), None, (0.040, 0.050), 0.004, 0.88, False
        ),
        Container("mat", "on", dishes.mat, (0.110, 0.130), None, (0.004, 0.006), 0.005, 0.9, False),
        Container(
            "board", "on", dishes.board, (0.110, 0.130), None, (0.006, 0.010), 0.008, 0.8, True
        ),
    )
}


DRAWER = Container(
    "drawer",
    "in",
    figures.cube,
    x=(0.090, 0.100),
    y=(0.095, 0.110),
    z=(0.056, 0.062),
    floor=0.006,
    usable=0.9,
    round=False,
)
HANDLE = Kind("handle", figures.cube, (0.034, 0.034), (0.024, 0.024), (0.024, 0.024), "y", off=0.1)
HANDLE_OUT: Triple = (0.034, 0.024, 0.024)
"""Extents (m) of a drawer's handle; along x it stands out from the front."""
TRAVEL = 0.055
"""Metres that a drawer can be pulled out."""


def kind_of(name: str) -> Kind | Container:
    """The kind of this name; KeyError where there is none."""
    for kind in (DRAWER, HANDLE):
        if kind.name == name:
            return kind
    return MOVABLES[name] if name in MOVABLES else CONTAINERS[name]
