"""The shapes of things to grasp, each drawn into half extents a, b, c (m) along x, y, z."""

from __future__ import annotations

import itertools

import numpy as np

from internvla_ros.sim.parts import OWN, Part, ball, box, drum, lathe, polygon, prism, rod

Parts = tuple[Part, ...]

_LYING = (0.0, np.pi / 2, 0.0)  # turns a drum so that it lies along x
_ACROSS = (np.pi / 2, 0.0, 0.0)  # along y


def cube(a: float, b: float, c: float) -> Parts:
    return (box((a, b, c)),)


def cylinder(a: float, b: float, c: float) -> Parts:
    return (drum(a, c),)


def sphere(a: float, b: float, c: float) -> Parts:
    return (ball((a, b, c)),)


def brick(a: float, b: float, c: float) -> Parts:
    stud = 0.16 * c
    body = box((a, b, c - stud), (0, 0, -stud))
    return (
        body,
        *(
            drum(0.28 * b, stud, (x * a, y * b, c - stud), solid=False)
            for x in (-0.75, -0.25, 0.25, 0.75)
            for y in (-0.5, 0.5)
        ),
    )


def domino(a: float, b: float, c: float) -> Parts:
    top = c * 0.99
    dots = [(-0.72, -0.5), (-0.28, 0.5), (0.28, -0.5), (0.28, 0.5), (0.72, -0.5), (0.72, 0.5)]
    return (
        box((a, b, c)),
        box((0.03 * a, 0.9 * b, 0.03 * c), (0, 0, top), "white", solid=False),
        *(drum(0.11 * a, 0.03 * c, (x * a, y * b, top), "white", solid=False) for x, y in dots),
    )


def die(a: float, b: float, c: float) -> Parts:
    spot = 0.19 * a
    top = [(-0.5, -0.5), (0.5, 0.5), (0.0, 0.0), (-0.5, 0.5), (0.5, -0.5)]
    side = [(-0.45, -0.45), (0.45, 0.45)]
    return (
        box((a, b, c)),
        *(drum(spot, 0.02 * c, (x * a, y * b, c), "white", solid=False) for x, y in top),
        *(
            drum(spot, 0.02 * c, (s * a, y * b, z * c), "white", _LYING, solid=False)
            for y, z in side
            for s in (-1, 1)
        ),
        *(
            drum(spot, 0.02 * c, (x * a, s * b, 0), "white", _ACROSS, solid=False)
            for x in (-0.45, 0.0, 0.45)
            for s in (-1, 1)
        ),
    )


def wedge(a: float, b: float, c: float) -> Parts:
    # A right triangle seen from the side, extruded across.
    outline = [(-0.33, -1.0), (0.67, -1.0), (-0.33, 1.0)]
    vertices = np.array(
        [(2 * a * (x - 0.17), y, c * z) for y in (-b, b) for x, z in outline], dtype=np.float64
    )
    triangles = [(0, 1, 2), (3, 5, 4), (0, 3, 4), (0, 4, 1), (1, 4, 5), (1, 5, 2), (2, 5, 3)]
    triangles += [(2, 3, 0)]
    return (Part("mesh", (0.0, 0.0, 0.0), mesh=(vertices, np.array(triangles, dtype=np.int32))),)


def pyramid(a: float, b: float, c: float) -> Parts:
    return (prism([(a, -b), (a, b), (-a, b), (-a, -b)], c, top=0.35),)


def cone(a: float, b: float, c: float) -> Parts:
    return (lathe([(0, c), (0.18 * a, c), (a, -0.85 * c), (a, -c), (0, -c)]),)


def hexagon(a: float, b: float, c: float) -> Parts:
    return (prism(polygon(6, a), c),)


def puck(a: float, b: float, c: float) -> Parts:
    return (drum(a, c), drum(0.8 * a, 0.02 * c, (0, 0, c), "white", solid=False))


def can(a: float, b: float, c: float) -> Parts:
    return (
        drum(a, 0.92 * c),
        drum(0.93 * a, c, paint="grey"),
        drum(0.8 * a, 0.02 * c, (0, 0, c), "grey", solid=False),
        box((0.3 * a, 0.12 * a, 0.03 * c), (0.2 * a, 0, c), "hollow", solid=False),
    )


def bottle(a: float, b: float, c: float) -> Parts:
    profile = [(0, 0.85), (0.4, 0.85), (0.42, 0.45), (1, 0.1), (1, -1), (0, -1)]
    return (
        lathe([(a * r, c * z) for r, z in profile]),
        drum(0.46 * a, 0.12 * c, (0, 0, 0.88 * c), "white"),
        drum(1.01 * a, 0.25 * c, (0, 0, -0.45 * c), "white", solid=False),
    )


def jar(a: float, b: float, c: float) -> Parts:
    return (
        drum(0.95 * a, 0.75 * c, (0, 0, -0.25 * c)),
        drum(a, 0.25 * c, (0, 0, 0.75 * c), "wood"),
    )


def mug(a: float, b: float, c: float) -> Parts:
    radius, middle = b, b - a  # the handle is at +x
    ear = 2 * (a - b)
    return (
        drum(radius, c, (middle, 0, 0)),
        drum(0.84 * radius, 0.02 * c, (middle, 0, c), "hollow", solid=False),
        *_handle(middle + 0.9 * radius, middle + radius + 0.82 * ear, 0.62 * c, 0.09 * c + 0.0015),
    )


def _handle(x0: float, x1: float, z: float, radius: float) -> Parts:
    corners = [(x0, 0.0, z), (x1 - radius, 0.0, 0.75 * z), (x1 - radius, 0.0, -0.75 * z)]
    corners.append((x0, 0.0, -z))
    return tuple(rod(p, q, radius) for p, q in itertools.pairwise(corners))


def cup(a: float, b: float, c: float) -> Parts:
    return (
        lathe([(0, c), (a, c), (0.78 * a, -c), (0, -c)]),
        drum(0.88 * a, 0.015 * c, (0, 0, c), "hollow", solid=False),
    )


def egg(a: float, b: float, c: float) -> Parts:
    angles = np.linspace(np.pi / 2, -np.pi / 2, 11)
    profile = [
        (float(max(0.0, a * np.cos(t)) * (1 - 0.14 * np.sin(t))) / 1.02, float(c * np.sin(t)))
        for t in angles
    ]
    profile[0], profile[-1] = (0.0, c), (0.0, -c)
    return (lathe(profile),)


def lemon(a: float, b: float, c: float) -> Parts:
    return (
        ball((0.86 * a, b, c)),
        ball((0.16 * a, 0.28 * b, 0.28 * c), (0.84 * a, 0, 0)),
        ball((0.16 * a, 0.28 * b, 0.28 * c), (-0.84 * a, 0, 0)),
    )


def apple(a: float, b: float, c: float) -> Parts:
    return (
        ball((a, b, 0.86 * c), (0, 0, -0.14 * c)),
        rod((0, 0, 0.6 * c), (0.1 * a, 0, 0.95 * c), 0.07 * a, "wood", solid=False),
        ball((0.3 * a, 0.14 * a, 0.05 * c), (0.36 * a, 0, 0.86 * c), "leaf", solid=False),
    )


def pear(a: float, b: float, c: float) -> Parts:
    return (
        ball((a, b, 0.6 * c), (0, 0, -0.4 * c)),
        ball((0.6 * a, 0.6 * b, 0.5 * c), (0, 0, 0.3 * c)),
        rod((0, 0, 0.7 * c), (0.1 * a, 0, 0.95 * c), 0.08 * a, "wood", solid=False),
    )


def tomato(a: float, b: float, c: float) -> Parts:
    leaves = (0.0, 1.26, 2.51, 3.77, 5.03)
    return (
        ball((a, b, 0.93 * c), (0, 0, -0.07 * c)),
        *(
            rod(
                (0, 0, 0.84 * c),
                (0.42 * a * np.cos(t), 0.42 * a * np.sin(t), 0.78 * c),
                0.08 * a,
                "leaf",
                solid=False,
            )
            for t in leaves
        ),
        rod((0, 0, 0.8 * c), (0, 0, 0.95 * c), 0.07 * a, "leaf", solid=False),
    )


def banana(a: float, b: float, c: float) -> Parts:
    # An arc in the plane of the table, thick in the middle.
    angles = np.linspace(-0.8, 0.8, 7)
    radius, thick = 1.25 * a, c
    points = [
        (float(radius * np.sin(t)), float(radius * (1 - np.cos(t)) - 0.45 * b)) for t in angles
    ]
    widths = [0.55, 0.85, 1.0, 1.0, 0.85, 0.55]
    arcs = [
        rod((x0, y0, 0), (x1, y1, 0), thick * w)
        for (x0, y0), (x1, y1), w in zip(points, points[1:], widths, strict=False)
    ]
    ends = [ball((0.3 * c, 0.3 * c, 0.3 * c), (*p, 0), "wood", solid=False) for p in points[::6]]
    return (*arcs, *ends)


def carrot(a: float, b: float, c: float) -> Parts:
    profile = [(0, 0.62), (0.8, 0.6), (1, 0.45), (0.45, -0.9), (0.2, -1), (0, -1)]
    cone = lathe([(b * r, a * z) for r, z in profile])
    lying = Part("mesh", cone.size, (0, 0, 0), _LYING, mesh=cone.mesh)
    tops = [
        rod((0.6 * a, 0, 0), (0.95 * a, y * b, 0.2 * c), 0.14 * b, "leaf", solid=False)
        for y in (-0.5, 0.0, 0.5)
    ]
    return (lying, *tops)


def strawberry(a: float, b: float, c: float) -> Parts:
    profile = [(0, 0.75), (0.7, 0.75), (1, 0.4), (0.85, -0.1), (0.5, -0.8), (0.38, -1), (0, -1)]
    return (
        lathe([(a * r, c * z) for r, z in profile]),
        *(
            rod(
                (0, 0, 0.8 * c),
                (0.75 * a * np.cos(t), 0.75 * a * np.sin(t), 0.74 * c),
                0.14 * a,
                "leaf",
                solid=False,
            )
            for t in (0.0, 1.05, 2.09, 3.14, 4.19, 5.24)
        ),
    )


def mushroom(a: float, b: float, c: float) -> Parts:
    profile = [(0, 1), (0.5, 0.9), (0.85, 0.55), (1, 0.1), (0.95, 0.0), (0, 0)]
    return (
        lathe([(a * r, c * z) for r, z in profile]),
        drum(0.55 * a, 0.5 * c, (0, 0, -0.5 * c), "cream"),
    )


def ring(a: float, b: float, c: float) -> Parts:
    count, radius = 12, a - c
    at = [
        (float(radius * np.cos(t)), float(radius * np.sin(t)), 0.0)
        for t in np.arange(count + 1) * 2 * np.pi / count
    ]
    return tuple(rod(p, q, c) for p, q in itertools.pairwise(at))


def marker(a: float, b: float, c: float) -> Parts:
    return (
        drum(b, 0.5 * a, (-0.3 * a, 0, 0), "white", _LYING),
        drum(b, 0.3 * a, (0.5 * a, 0, 0), OWN, _LYING),
        drum(0.7 * b, 0.1 * a, (0.9 * a, 0, 0), OWN, _LYING),
        drum(b, 0.1 * a, (-0.9 * a, 0, 0), OWN, _LYING),
    )


def battery(a: float, b: float, c: float) -> Parts:
    return (
        drum(b, 0.6 * a, (-0.35 * a, 0, 0), OWN, _LYING),
        drum(b, 0.3 * a, (0.55 * a, 0, 0), "black", _LYING),
        drum(0.35 * b, 0.075 * a, (0.92 * a, 0, 0), "grey", _LYING),
    )


def candle(a: float, b: float, c: float) -> Parts:
    return (
        drum(a, 0.85 * c, (0, 0, -0.15 * c)),
        rod((0, 0, 0.68 * c), (0, 0, 0.8 * c), 0.06 * a, "black", solid=False),
        ball((0.16 * a, 0.16 * a, 0.15 * c), (0, 0, 0.85 * c), "cream", solid=False),
    )


def spool(a: float, b: float, c: float) -> Parts:
    return (
        drum(a, 0.15 * c, (0, 0, 0.85 * c), "wood"),
        drum(0.82 * a, 0.72 * c),
        drum(a, 0.15 * c, (0, 0, -0.85 * c), "wood"),
        drum(0.25 * a, 0.02 * c, (0, 0, c), "hollow", solid=False),
    )


def bolt(a: float, b: float, c: float) -> Parts:
    thread = [drum(0.68 * a, 0.05 * c, (0, 0, z * c), "grey") for z in np.arange(-0.2, 1.0, 0.28)]
    return (
        prism(polygon(6, a), 0.35 * c, (0, 0, -0.65 * c)),
        drum(0.6 * a, 0.65 * c, (0, 0, 0.35 * c), "grey"),
        *thread,
    )


def nut(a: float, b: float, c: float) -> Parts:
    return (
        prism(polygon(6, a), c),
        drum(0.5 * a, 0.02 * c, (0, 0, c), "hollow", solid=False),
    )


def hammer(a: float, b: float, c: float) -> Parts:
    return (
        box((0.8 * a, 0.5 * b, 0.85 * c), (-0.2 * a, 0, -0.15 * c), "wood"),
        box((0.3 * a, b, c), (0.7 * a, 0, 0)),
    )


def brush(a: float, b: float, c: float) -> Parts:
    bristles = [
        box((0.06 * a, 0.8 * b, 0.42 * c), (x * a, 0, -0.58 * c), "cream")
        for x in np.arange(-0.9, 0.95, 0.2)
    ]
    return (box((a, b, 0.5 * c), (0, 0, 0.5 * c)), *bristles)


def car(a: float, b: float, c: float) -> Parts:
    wheel = 0.42 * c
    return (
        box((a, b * 0.9, 0.36 * c), (0, 0, -0.22 * c)),
        box((0.5 * a, 0.8 * b, 0.4 * c), (-0.1 * a, 0, 0.5 * c)),
        box((0.52 * a, 0.7 * b, 0.22 * c), (-0.1 * a, 0, 0.5 * c), "black", solid=False),
        *(
            drum(wheel, 0.1 * b, (x * a, y * 0.9 * b, -c + wheel), "black", _ACROSS)
            for x in (-0.58, 0.58)
            for y in (-1, 1)
        ),
    )


def house(a: float, b: float, c: float) -> Parts:
    roof = [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)]
    outline = [(a * x, 0.9 * c * (z - 0.33)) for x, z in roof]
    return (
        box((0.9 * a, 0.9 * b, 0.55 * c), (0, 0, -0.45 * c), "cream"),
        prism(outline, b, (0, 0, 0.4 * c), turn=_ACROSS),
        box((0.22 * a, 0.02 * b, 0.35 * c), (0, 0.9 * b, -0.6 * c), "wood", solid=False),
        box((0.02 * a, 0.22 * b, 0.35 * c), (0.9 * a, 0, -0.6 * c), "wood", solid=False),
    )


def loaf(a: float, b: float, c: float) -> Parts:
    return (
        box((0.95 * a, 0.95 * b, 0.5 * c), (0, 0, -0.5 * c), "wood"),
        ball((a, b, 0.8 * c), (0, 0, 0.2 * c), "wood"),
        *(
            box((0.05 * a, 0.5 * b, 0.06 * c), (x * a, 0, 0.93 * c), "cream", (0, 0, 0.5), False)
            for x in (-0.45, 0.0, 0.45)
        ),
    )


def cupcake(a: float, b: float, c: float) -> Parts:
    return (
        lathe([(0, 0), (0.92 * a, 0), (0.7 * a, -c), (0, -c)], "wood"),
        ball((a, b, 0.55 * c), (0, 0, 0.25 * c)),
        ball((0.2 * a, 0.2 * a, 0.15 * c), (0, 0, 0.85 * c), "white", solid=False),
    )


def burger(a: float, b: float, c: float) -> Parts:
    return (
        drum(0.95 * a, 0.25 * c, (0, 0, -0.75 * c), "wood"),
        drum(a, 0.12 * c, (0, 0, -0.38 * c), "leaf"),
        drum(0.93 * a, 0.18 * c, (0, 0, -0.1 * c)),
        lathe(
            [(0, c), (0.5 * a, 0.9 * c), (0.85 * a, 0.55 * c), (0.95 * a, 0.08 * c), (0, 0.08 * c)],
            "wood",
        ),
    )


def sponge(a: float, b: float, c: float) -> Parts:
    return (
        box((a, b, 0.65 * c), (0, 0, -0.35 * c)),
        box((a, b, 0.35 * c), (0, 0, 0.65 * c), "leaf"),
    )


def book(a: float, b: float, c: float) -> Parts:
    return (
        box((0.97 * a, 0.97 * b, 0.8 * c), (0.02 * a, 0, 0), "white"),
        box((a, b, 0.12 * c), (0, 0, 0.88 * c)),
        box((a, b, 0.12 * c), (0, 0, -0.88 * c)),
        box((0.05 * a, b, c), (-0.95 * a, 0, 0)),
    )


def remote(a: float, b: float, c: float) -> Parts:
    keys = [(x, y) for x in (-0.6, -0.25, 0.1) for y in (-0.5, 0.0, 0.5)]
    return (
        box((a, b, c)),
        *(
            drum(0.15 * b, 0.04 * c, (x * a, y * b, 0.99 * c), "black", solid=False)
            for x, y in keys
        ),
        drum(0.4 * b, 0.04 * c, (0.6 * a, 0, 0.99 * c), "black", solid=False),
    )


def camera(a: float, b: float, c: float) -> Parts:
    return (
        box((a, 0.7 * b, 0.85 * c), (0, -0.3 * b, -0.15 * c)),
        drum(0.55 * c, 0.3 * b, (0, 0.7 * b, -0.15 * c), "black", _ACROSS),
        drum(0.3 * c, 0.31 * b, (0, 0.7 * b, -0.15 * c), "grey", _ACROSS, solid=False),
        box((0.25 * a, 0.3 * b, 0.15 * c), (-0.55 * a, -0.3 * b, 0.85 * c), "black", solid=False),
    )


def bell(a: float, b: float, c: float) -> Parts:
    profile = [(0, 0.7), (0.4, 0.6), (0.62, 0.2), (0.72, -0.5), (1, -0.9), (1, -1), (0, -1)]
    return (
        lathe([(a * r, c * z) for r, z in profile]),
        ball((0.2 * a, 0.2 * a, 0.16 * c), (0, 0, 0.82 * c), "wood"),
    )


def dumbbell(a: float, b: float, c: float) -> Parts:
    return (
        drum(0.74 * b, 0.7 * a, paint="grey", turn=_LYING),
        drum(b, 0.2 * a, (0.8 * a, 0, 0), OWN, _LYING),
        drum(b, 0.2 * a, (-0.8 * a, 0, 0), OWN, _LYING),
    )


def bone(a: float, b: float, c: float) -> Parts:
    knob = 0.55 * b
    return (
        rod((-0.65 * a, 0, 0), (0.65 * a, 0, 0), 0.75 * c),
        *(
            ball((knob, knob, c), (x * (a - knob), y * (b - knob), 0))
            for x in (-1, 1)
            for y in (-1, 1)
        ),
    )


def cross(a: float, b: float, c: float) -> Parts:
    return (box((a, 0.36 * b, c)), box((0.36 * a, b, c)))


def arch(a: float, b: float, c: float) -> Parts:
    return (
        box((a, b, 0.4 * c), (0, 0, 0.6 * c)),
        box((0.28 * a, b, 0.6 * c), (-0.72 * a, 0, -0.4 * c)),
        box((0.28 * a, b, 0.6 * c), (0.72 * a, 0, -0.4 * c)),
    )


def duck(a: float, b: float, c: float) -> Parts:
    return (
        ball((0.85 * a, b, 0.55 * c), (-0.15 * a, 0, -0.45 * c)),
        ball((0.42 * a, 0.6 * b, 0.42 * c), (0.3 * a, 0, 0.5 * c)),
        box((0.16 * a, 0.28 * b, 0.09 * c), (0.8 * a, 0, 0.42 * c), "wood", solid=False),
        *(
            ball((0.06 * a, 0.08 * b, 0.08 * c), (0.58 * a, y * b, 0.68 * c), "black", solid=False)
            for y in (-0.36, 0.36)
        ),
        rod((-0.75 * a, 0, -0.35 * c), (-0.92 * a, 0, 0.0), 0.14 * a, solid=False),
    )


def snowman(a: float, b: float, c: float) -> Parts:
    return (
        ball((a, b, 0.6 * c), (0, 0, -0.4 * c), "white"),
        ball((0.7 * a, 0.7 * b, 0.45 * c), (0, 0, 0.35 * c), "white"),
        drum(0.6 * a, 0.04 * c, (0, 0, 0.62 * c), solid=False),
        drum(0.38 * a, 0.19 * c, (0, 0, 0.81 * c)),
    )


def roll(a: float, b: float, c: float) -> Parts:
    return (
        drum(a, c),
        drum(0.45 * a, 0.015 * c, (0, 0, c), "hollow", solid=False),
        drum(0.55 * a, 0.01 * c, (0, 0, c), "wood", solid=False),
    )


def soap(a: float, b: float, c: float) -> Parts:
    outline = [(a, -0.5 * b), (a, 0.5 * b), (0.75 * a, b), (-0.75 * a, b)]
    outline += [(-x, -y) for x, y in outline]
    return (
        prism(outline, 0.5 * c, (0, 0, -0.5 * c)),
        prism(outline, 0.5 * c, (0, 0, 0.5 * c), top=0.85),
        box((0.45 * a, 0.3 * b, 0.03 * c), (0, 0, c), "white", solid=False),
    )


def barrel(a: float, b: float, c: float) -> Parts:
    profile = [(0, 1), (0.78, 1), (0.94, 0.5), (1, 0), (0.94, -0.5), (0.78, -1), (0, -1)]
    return (
        lathe([(a * r, c * z) for r, z in profile]),
        drum(0.965 * a, 0.06 * c, (0, 0, 0.52 * c), "grey", solid=False),
        drum(0.965 * a, 0.06 * c, (0, 0, -0.52 * c), "grey", solid=False),
    )


def vase(a: float, b: float, c: float) -> Parts:
    profile = [(0, 1), (0.62, 1), (0.4, 0.65), (0.6, 0.3), (1, -0.25), (0.7, -1), (0, -1)]
    return (
        lathe([(a * r, c * z) for r, z in profile]),
        drum(0.48 * a, 0.015 * c, (0, 0, c), "hollow", solid=False),
    )


def tower(a: float, b: float, c: float) -> Parts:
    # A chess rook.
    teeth = [
        box((0.2 * a, 0.2 * a, 0.12 * c), (0.7 * a * np.cos(t), 0.7 * a * np.sin(t), 0.88 * c))
        for t in np.arange(6) * np.pi / 3
    ]
    profile = [(0, 0.78), (0.9, 0.78), (0.9, 0.55), (0.62, 0.4), (0.72, -0.6), (1, -0.8)]
    return (lathe([(a * r, c * z) for r, z in [*profile, (1, -1), (0, -1)]]), *teeth)


def pawn(a: float, b: float, c: float) -> Parts:
    profile = [(0, 0.3), (0.4, 0.28), (0.5, -0.4), (1, -0.75), (1, -1), (0, -1)]
    return (
        lathe([(a * r, c * z) for r, z in profile]),
        ball((0.62 * a, 0.62 * a, 0.42 * c), (0, 0, 0.58 * c)),
    )


def robot(a: float, b: float, c: float) -> Parts:
    return (
        box((a, b, 0.5 * c), (0, 0, -0.5 * c)),
        box((0.7 * a, 0.7 * b, 0.34 * c), (0, 0, 0.36 * c), "grey"),
        drum(0.07 * a, 0.15 * c, (0, 0, 0.85 * c), "black", solid=False),
        *(
            ball((0.1 * a, 0.14 * b, 0.1 * c), (0.7 * a, y * b, 0.42 * c), "black", solid=False)
            for y in (-0.35, 0.35)
        ),
        *(box((0.55 * a, 0.06 * b, 0.12 * c), (0, y * b, -0.35 * c), "grey") for y in (-1, 1)),
    )
