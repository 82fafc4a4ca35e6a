"""The shapes of things to put others on or in: drawn as they look, felt as boards.

Each is drawn into half extents a, b, c (m) along x, y, z.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from internvla_ros.sim.parts import Part, box, drum, hidden, lathe

Parts = tuple[Part, ...]

_WALLS = 16  # boards of a round wall


def _round_wall(a: float, c: float, inner: float, floor: float) -> Parts:
    """Boards that lean from the edge of a round floor out to the rim, felt and not seen."""
    thick = 0.004
    along = np.array([a - inner, 2 * c - floor])
    length = float(np.hypot(*along))
    lean = float(np.arctan2(along[1], along[0]))
    out, normal = np.array([np.cos(lean), np.sin(lean)]), np.array([np.sin(lean), -np.cos(lean)])
    radius, height = np.array([inner, floor - c]) + out * length / 2 + normal * thick / 2
    half = (length / 2, float(a * np.tan(np.pi / _WALLS)), thick / 2)
    boards = []
    for yaw in np.arange(_WALLS) * 2 * np.pi / _WALLS:
        at = (float(radius * np.cos(yaw)), float(radius * np.sin(yaw)), float(height))
        boards.append(hidden(box(half, at, turn=(0.0, -lean, float(yaw)))))
    return (hidden(drum(inner + 0.001, floor / 2, (0, 0, floor / 2 - c))), *boards)


def plate(a: float, b: float, c: float) -> Parts:
    inner, floor = 0.76 * a, 0.005 - c
    profile = [(0, floor), (inner, floor), (a, c), (a + 0.002, c - 0.002), (inner, -c), (0, -c)]
    return (lathe(profile, solid=False), *_round_wall(a, c, inner, 0.005))


def bowl(a: float, b: float, c: float) -> Parts:
    inner, floor = 0.65 * a, 0.005 - c
    profile = [(0, floor), (0.9 * inner, floor), (inner, floor + 0.003), (a, c)]
    profile += [(a + 0.003, c), (1.1 * inner, -c), (0, -c)]
    return (lathe(profile, solid=False), *_round_wall(a, c, inner, 0.005))


def walled(wall: float) -> Callable[[float, float, float], Parts]:
    """A box without a lid, its walls `wall` thick."""

    def shape(a: float, b: float, c: float) -> Parts:
        half = wall / 2
        return (
            box((a, b, 0.002), (0, 0, 0.002 - c)),
            box((half, b, c), (a - half, 0, 0)),
            box((half, b, c), (half - a, 0, 0)),
            box((a, half, c), (0, b - half, 0)),
            box((a, half, c), (0, half - b, 0)),
        )

    return shape


def basket(a: float, b: float, c: float) -> Parts:
    walls = tuple(hidden(part) for part in walled(0.005)(a, b, c))
    count = 7
    slats = []
    for i in range(count):
        s = -1 + 2 * i / (count - 1)
        for side in (-1, 1):
            slats.append(box((0.004, 0.002, c), (s * (a - 0.004), side * (b - 0.003), 0)))
            slats.append(box((0.002, 0.004, c), (side * (a - 0.003), s * (b - 0.004), 0)))
    rim = []
    for side in (-1, 1):
        rim.append(box((a, 0.003, 0.004), (0, side * (b - 0.003), c - 0.004)))
        rim.append(box((0.003, b, 0.004), (side * (a - 0.003), 0, c - 0.004)))
    seen = [Part(p.shape, p.size, p.at, p.turn, p.paint, solid=False) for p in (*slats, *rim)]
    return (*walls, box((a, b, 0.002), (0, 0, 0.002 - c), "wood", solid=False), *seen)


def mat(a: float, b: float, c: float) -> Parts:
    return (
        box((a, b, c)),
        box((0.86 * a, 0.86 * b, 0.05 * c), (0, 0, c), "white", solid=False),
        box((0.80 * a, 0.80 * b, 0.07 * c), (0, 0, c), solid=False),
    )


def board(a: float, b: float, c: float) -> Parts:
    return (
        drum(a, c),
        drum(0.9 * a, 0.04 * c, (0, 0, c), "white", solid=False),
        drum(0.6 * a, 0.06 * c, (0, 0, c), solid=False),
        drum(0.3 * a, 0.08 * c, (0, 0, c), "white", solid=False),
    )
