"""Where a step's object may go: places that make the step's relation true."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from internvla_ros.sim.kinds import DRAWER, TRAVEL, Container
from internvla_ros.sim.relations import ASIDE, NEXT
from internvla_ros.sim.state import Body, State, disc_gap
from internvla_ros.sim.task_scene import Step

Array = NDArray[np.float64]

_ROOM = 0.030  # m between two things, for the fingers beside them
_CROWDED = 0.26  # share of a container's extent that things lie off its middle, if there are more
_FAN = (0.0, 0.35, -0.35, 0.7, -0.7)  # rad off the direction that is asked for


def spots(step: Step, state: State, spacing: float) -> Array:
    """[K, 3] places (m, base frame) for the step's object to stand on, the best first.

    Args:
        step: that asks.
        state: of the scene.
        spacing: metres between the middles of two things that leave room for the gripper.
    """
    finder = {
        "on": _on_top,
        "in": _on_top,
        "stacked": _on_top,
        "next_to": _around,
        "left_of": _aside,
        "right_of": _aside,
        "between": _between,
        "aligned": _in_line,
        "open": _drawer,
        "closed": _drawer,
    }[step.relation]
    return finder(step, state, spacing)


def _on_top(step: Step, state: State, spacing: float) -> Array:
    base = state[step.place[0]]
    middle = np.array([*base.position[:2], base.floor])
    if not isinstance(base.kind, Container):
        return middle[None]
    inside = [
        body
        for body in state.bodies.values()
        if body.name not in (step.pick, base.name)
        and not body.is_container
        and np.abs(base.own(body.position)[:2]).max() < max(base.size[:2]) / 2
        and body.bottom < base.top + 0.02
    ]
    if not inside:
        return middle[None]
    offsets = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)]
    shifts = _CROWDED * np.array([(x * base.size[0], y * base.size[1], 0.0) for x, y in offsets])
    if base.kind.round:
        shifts[np.abs(shifts[:, :2]).min(axis=1) > 0] *= 0.7
    places = middle + shifts @ base.rotation.T
    room = [min(_gap_at(place, state[step.pick], body) for body in inside) for place in places]
    # Whatever has room is as good; the nearest to the middle is safest.
    order = sorted(
        range(len(places)),
        key=lambda i: (-min(room[i], 0.004), float(np.linalg.norm(shifts[i])) - 0.01 * room[i]),
    )
    return places[order]


def _gap_at(place: Array, thing: Body, other: Body) -> float:
    return float(np.linalg.norm(place[:2] - other.position[:2])) - _radius(thing) - _radius(other)


def _around(step: Step, state: State, spacing: float) -> Array:
    base, thing = state[step.place[0]], state[step.pick]
    if step.heading is not None:
        headings = step.heading + np.array(_FAN)
    else:
        towards = thing.position[:2] - base.position[:2]
        first = np.arctan2(towards[1], towards[0])
        turns = np.arange(16) * 2 * np.pi / 16
        headings = first + np.where(turns > np.pi, turns - 2 * np.pi, turns)
        headings = headings[np.argsort(np.abs(headings - first), kind="stable")]
    return _places(base, thing, headings, spacing, state.table, NEXT)


def _aside(step: Step, state: State, spacing: float) -> Array:
    base, thing = state[step.place[0]], state[step.pick]
    sign = 1.0 if step.relation == "right_of" else -1.0
    first = np.arctan2(sign * state.right[1], sign * state.right[0])
    headings = first + np.array([turn for turn in _FAN if abs(turn) < 0.5])
    return _places(base, thing, headings, spacing, state.table, ASIDE)


def _places(
    base: Body, thing: Body, headings: Array, spacing: float, table: float, most: float
) -> Array:
    """Places about a body in these directions, as near as the gripper allows."""
    result = []
    for heading in headings:
        way = np.array([np.cos(heading), np.sin(heading)])
        reach = _reach(base, way)
        apart = max(spacing, reach + _radius(thing) + _ROOM)
        apart = min(apart, reach + _radius(thing) + 0.8 * most)
        result.append([*(base.position[:2] + apart * way), table])
    return np.array(result)


def _between(step: Step, state: State, spacing: float) -> Array:
    first, last = (state[name].position[:2] for name in step.place[:2])
    way = last - first
    return np.array([[*(first + share * way), state.table] for share in (0.5, 0.45, 0.55)])


def _in_line(step: Step, state: State, spacing: float) -> Array:
    """Beyond either end of the row that the others make."""
    thing = state[step.pick]
    middles = np.array([state[name].position[:2] for name in step.place])
    if len(middles) == 1:
        return _around(step, state, spacing)
    way = middles[-1] - middles[0]
    way = way / np.linalg.norm(way)
    order = np.argsort(middles @ way)
    ends = [(state[step.place[order[-1]]], way), (state[step.place[order[0]]], -way)]
    result = []
    for body, out in ends:
        apart = max(spacing, _reach(body, out) + _radius(thing) + _ROOM)
        result.append([*(body.position[:2] + apart * out), state.table])
    return np.array(result)


def _drawer(step: Step, state: State, spacing: float) -> Array:
    """Where the handle is when the drawer is open, or closed."""
    name = step.place[0]
    handle, drawer = state[step.pick], state[name]
    assert drawer.kind is DRAWER
    way = (TRAVEL if step.relation == "open" else 0.0) - state.drawers[name]
    return (handle.position + way * drawer.rotation[:, 0])[None]


def _radius(body: Body) -> float:
    """Half of how wide a thing is in the direction in which it is least so."""
    return float(body.discs[0, 2])


def _reach(body: Body, way: Array) -> float:
    """How far a body reaches from its middle in a direction [2]."""
    discs = body.discs
    return float(((discs[:, :2] - body.position[:2]) @ way + discs[:, 2]).max())


def free(place: Array, thing: Body, state: State, ignored: tuple[str, ...]) -> float:
    """The room (m) about a thing if it stood at a place [3], to all but the ignored."""
    shifted = thing.discs.copy()
    shifted[:, :2] += place[:2] - thing.position[:2]
    gaps = [
        disc_gap(shifted, body.discs)
        for body in state.bodies.values()
        if body.name not in (thing.name, *ignored)
    ]
    return min(gaps, default=np.inf)
