"""What may be true of a scene: relations between objects, evaluated on their state.

Distances are metres. They are as loose as words are: what is "next to" something is a hand's width
away at most, what is "in line" may be out of it by half its own width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from internvla_ros.sim.kinds import Container
from internvla_ros.sim.state import Body, State, gap

NEXT = 0.065  # gap of things that are next to each other
ASIDE = 0.110  # gap of things of which one is to the left of the other
OPEN, CLOSED = 0.040, 0.012  # m that a drawer is out at least, at most
_LYING = 0.012  # a thing's bottom above the table, at most, when it lies on it
_PROUD = 0.030  # a thing's bottom above the floor of what it lies on, at most
_MEETS = 0.010  # between a thing's bottom and the top of what it stands on
_LEANS = 0.60  # of the half width of what a thing stands on that its middle may be off
_OUT_OF_LINE = 0.020
_IN_LINE = 0.130  # between the middles of neighbours in a row


@dataclass(frozen=True)
class Relation:
    """A relation's name and the names of the objects that it is about, in order."""

    name: str
    objects: tuple[str, ...]

    def holds(self, state: State) -> bool:
        """Whether it is true; KeyError for an unknown object or relation."""
        return RELATIONS[self.name](state, self.objects)

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self.objects)})"


def _on(state: State, names: tuple[str, ...]) -> bool:
    thing, base = state[names[0]], state[names[1]]
    if base.is_container:
        return _within(thing, base) and thing.bottom - base.floor < _PROUD
    offset = np.hypot(*(thing.position - base.position)[:2])
    level = abs(thing.bottom - base.top) < _MEETS
    return bool(level and offset < _LEANS * min(base.extent[:2].min(), thing.extent[:2].min()))


def _in(state: State, names: tuple[str, ...]) -> bool:
    thing, base = state[names[0]], state[names[1]]
    return _within(thing, base) and thing.bottom < base.top


def _within(thing: Body, base: Body) -> bool:
    """Whether a thing's middle is above the part of a container that counts.

    Nothing is below a container; the bottom of what leans in it is only known to be above a bound.
    """
    x, y = np.abs(base.own(thing.position)[:2]) / (0.5 * np.array(base.size[:2]))
    assert isinstance(base.kind, Container)
    usable = base.kind.usable
    return bool(np.hypot(x, y) <= usable if base.kind.round else max(x, y) <= usable)


def _lies(state: State, thing: Body) -> bool:
    return thing.bottom - state.table < _LYING


def _next_to(state: State, names: tuple[str, ...]) -> bool:
    one, other = state[names[0]], state[names[1]]
    return _lies(state, one) and 0.0 < gap(one, other) < NEXT


def _left_of(state: State, names: tuple[str, ...]) -> bool:
    return _aside(state, names, -1.0)


def _right_of(state: State, names: tuple[str, ...]) -> bool:
    return _aside(state, names, 1.0)


def _aside(state: State, names: tuple[str, ...], sign: float) -> bool:
    one, other = state[names[0]], state[names[1]]
    shift = (one.position - other.position)[:2]
    along = sign * float(shift @ state.right)
    across = abs(float(shift @ (-state.right[1], state.right[0])))
    return _lies(state, one) and along > 1.3 * across and 0.0 < gap(one, other) < ASIDE


def _between(state: State, names: tuple[str, ...]) -> bool:
    thing, first, last = (state[name].position[:2] for name in names)
    way = last - first
    length = float(np.linalg.norm(way))
    share = float((thing - first) @ way) / length**2
    off = abs(float((thing - first) @ (-way[1], way[0]))) / length
    return _lies(state, state[names[0]]) and 0.3 < share < 0.7 and off < _OUT_OF_LINE + 0.010


def _aligned(state: State, names: tuple[str, ...]) -> bool:
    """All lie in one row, neighbours not far apart and none on another."""
    bodies = [state[name] for name in names]
    places = np.array([body.position[:2] for body in bodies])
    middle = places - places.mean(axis=0)
    along = np.linalg.svd(middle)[2][0]
    off = np.abs(middle @ (-along[1], along[0])).max()
    steps = np.diff(np.sort(middle @ along))
    near = (steps < _IN_LINE).all() and (steps > 0.03).all()
    return bool(off < _OUT_OF_LINE and near and all(_lies(state, body) for body in bodies))


def _stacked(state: State, names: tuple[str, ...]) -> bool:
    """Each stands on the one named before it."""
    return all(_on(state, (upper, lower)) for lower, upper in pairwise(names))


def _opened(state: State, names: tuple[str, ...]) -> bool:
    return state.drawers[names[0]] > OPEN


def _closed(state: State, names: tuple[str, ...]) -> bool:
    return state.drawers[names[0]] < CLOSED


RELATIONS: dict[str, Callable[[State, tuple[str, ...]], bool]] = {
    "on": _on,
    "in": _in,
    "next_to": _next_to,
    "left_of": _left_of,
    "right_of": _right_of,
    "between": _between,
    "aligned": _aligned,
    "stacked": _stacked,
    "open": _opened,
    "closed": _closed,
}
