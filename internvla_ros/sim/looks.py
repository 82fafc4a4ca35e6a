"""How a scene looks: light, table, cameras, colours and patterns, from plain to anything goes.

The same roll-out can be drawn again with another look: nothing here changes the physics.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from internvla_ros.robots.embodiment import CameraSpec, Embodiment
from internvla_ros.sim.parts import Triple
from internvla_ros.sim.scene import COLOURS

LEVELS = ("off", "low", "full")
PLAIN = "plain"
PATTERNS = ("checker", "speckle", "edges", "gradient")
SURFACES = ("wood", "cloth", "checker", "speckle")

_TABLES: tuple[Triple, ...] = (
    (0.86, 0.80, 0.70),
    (0.82, 0.83, 0.84),
    (0.90, 0.88, 0.84),
    (0.74, 0.66, 0.55),
)
_DOWNWARDS: Triple = (-0.2, -0.15, -0.97)


@dataclass(frozen=True)
class Paint:
    """The colour (0..1) of an object and a pattern on it."""

    rgb: Triple
    pattern: str = PLAIN


@dataclass(frozen=True)
class Look:
    """All that only cameras tell apart.

    Attributes:
        table, floor: paints of both.
        light: brightness of the main light, 1 as usual.
        ambient: brightness of the shadows.
        direction: of the main light, towards the table.
        paints: of the objects, by name.
        cameras: where they are, and how far they see.
        seed: of the patterns.
    """

    table: Paint
    floor: Paint
    light: float
    ambient: float
    direction: Triple
    paints: Mapping[str, Paint]
    cameras: tuple[CameraSpec, ...]
    seed: int


def sample_look(
    rng: np.random.Generator,
    embodiment: Embodiment,
    objects: Iterable[tuple[str, str]],
    level: str,
) -> Look:
    """A look for objects of these names and colours.

    Raises:
        ValueError: the level is not one of `LEVELS`.
    """
    if level not in LEVELS:
        raise ValueError(f"randomisation is one of {', '.join(LEVELS)}, not {level!r}")
    sampler = {"off": _plain, "low": _mild, "full": _wild}[level]
    return sampler(rng, embodiment, dict(objects))


def _plain(rng: np.random.Generator, embodiment: Embodiment, objects: Mapping[str, str]) -> Look:
    return Look(
        table=Paint(_TABLES[0]),
        floor=Paint((0.65, 0.65, 0.66)),
        light=1.0,
        ambient=0.40,
        direction=_DOWNWARDS,
        paints={name: Paint(COLOURS[colour]) for name, colour in objects.items()},
        cameras=embodiment.cameras,
        seed=0,
    )


def _mild(rng: np.random.Generator, embodiment: Embodiment, objects: Mapping[str, str]) -> Look:
    table = np.array(_TABLES[int(rng.integers(len(_TABLES)))]) + rng.uniform(-0.06, 0.04)
    pattern = str(rng.choice(SURFACES)) if rng.random() < 0.25 else PLAIN
    grey = rng.uniform(0.55, 0.75)
    return Look(
        table=Paint(_rgb(table + rng.uniform(-0.015, 0.015, 3)), pattern),
        floor=Paint(_rgb(grey + rng.uniform(-0.03, 0.03, 3))),
        light=float(rng.uniform(0.85, 1.1)),
        ambient=0.40,
        direction=_direction(rng, 0.5),
        paints={name: Paint(_shade(rng, colour, 0.05)) for name, colour in objects.items()},
        cameras=_shaken(rng, embodiment.cameras, 0.004, 0.003, 0.3),
        seed=int(rng.integers(2**31)),
    )


def _wild(rng: np.random.Generator, embodiment: Embodiment, objects: Mapping[str, str]) -> Look:
    hue, saturation = rng.random(), rng.uniform(0.0, 0.35)
    table = np.array(colorsys.hsv_to_rgb(hue, saturation, rng.uniform(0.45, 0.95)))
    floor = np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.3), rng.uniform(0.3, 0.9)))
    paints = {}
    for name, colour in objects.items():
        pattern = str(rng.choice(PATTERNS)) if rng.random() < 0.4 else PLAIN
        paints[name] = Paint(_shade(rng, colour, 0.08), pattern)
    return Look(
        table=Paint(_rgb(table), str(rng.choice(SURFACES)) if rng.random() < 0.6 else PLAIN),
        floor=Paint(_rgb(floor), str(rng.choice(SURFACES)) if rng.random() < 0.4 else PLAIN),
        light=float(rng.uniform(0.6, 1.3)),
        ambient=float(rng.uniform(0.28, 0.50)),
        direction=_direction(rng, 0.9),
        paints=paints,
        cameras=_shaken(rng, embodiment.cameras, 0.020, 0.015, 1.5),
        seed=int(rng.integers(2**31)),
    )


def _shaken(
    rng: np.random.Generator,
    cameras: tuple[CameraSpec, ...],
    shift: float,
    aim: float,
    zoom: float,
) -> tuple[CameraSpec, ...]:
    """Cameras moved by up to `shift` m, aimed up to `aim` m off, `zoom` degrees wider or not.

    Those on the gripper move a fifth as far: they look from nearer by.
    """
    result = []
    for camera in cameras:
        scale = 0.2 if np.linalg.norm(camera.look_at - camera.position) < 0.3 else 1.0
        result.append(
            replace(
                camera,
                position=camera.position + scale * shift * rng.uniform(-1, 1, 3),
                look_at=camera.look_at + scale * aim * rng.uniform(-1, 1, 3),
                fovy=camera.fovy + zoom * float(rng.uniform(-1, 1)),
            )
        )
    return tuple(result)


def _shade(rng: np.random.Generator, colour: str, spread: float) -> Triple:
    return _rgb(np.array(COLOURS[colour]) + rng.uniform(-spread, spread, 3))


def _direction(rng: np.random.Generator, lean: float) -> Triple:
    way = np.array([rng.uniform(-lean, 0.6 * lean), rng.uniform(-lean, lean), -1.0])
    x, y, z = way / np.linalg.norm(way)
    return float(x), float(y), float(z)


def _rgb(values: np.typing.NDArray[np.float64]) -> Triple:
    red, green, blue = (float(value) for value in np.clip(values, 0.0, 1.0))
    return red, green, blue
