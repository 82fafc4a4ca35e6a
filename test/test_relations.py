"""Relations between objects, on states made up for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvla_ros.motion.se3 import rpy_to_matrix
from internvla_ros.sim.kinds import MOVABLES
from internvla_ros.sim.relations import RELATIONS, Relation
from internvla_ros.sim.state import Body, State, gap, standing

RIGHT = np.array([0.0, 1.0])
CUBE = (0.04, 0.04, 0.04)
PLACES = st.tuples(st.floats(0.2, 0.4), st.floats(-0.2, 0.2))


def state(*bodies: Body, **drawers: float) -> State:
    return State({body.name: body for body in bodies}, 0.0, RIGHT, drawers)


def cube(name: str, x: float, y: float, z: float = 0.0) -> Body:
    return standing(name, "cube", CUBE, x, y, 0.0, z)


def holds(name: str, where: State, *objects: str) -> bool:
    return Relation(name, objects).holds(where)


def test_on_and_in_a_container() -> None:
    plate = standing("plate", "plate", (0.13, 0.13, 0.012), 0.3, 0.0, 0.0, 0.0)
    bowl = standing("bowl", "bowl", (0.12, 0.12, 0.038), 0.3, 0.15, 0.0, 0.0)
    assert holds("on", state(plate, cube("a", 0.31, 0.01, 0.005)), "a", "plate")
    assert not holds("on", state(plate, cube("a", 0.36, 0.0, 0.005)), "a", "plate")
    assert not holds("on", state(plate, cube("a", 0.3, 0.0, 0.08)), "a", "plate")  # held above
    assert holds("in", state(bowl, cube("a", 0.3, 0.15, 0.01)), "a", "bowl")
    assert not holds("in", state(bowl, cube("a", 0.3, 0.15, 0.045)), "a", "bowl")


def test_stacks_stand_on_each_other() -> None:
    low, high, top = cube("a", 0.3, 0, 0), cube("b", 0.305, 0, 0.04), cube("c", 0.3, 0, 0.08)
    assert holds("stacked", state(low, high, top), "a", "b", "c")
    assert not holds("stacked", state(low, high, top), "b", "a")
    assert not holds("stacked", state(low, cube("b", 0.33, 0, 0.04)), "a", "b")
    assert not holds("stacked", state(low, cube("b", 0.3, 0, 0.06)), "a", "b")


@given(one=PLACES, other=PLACES)
def test_next_to_is_mutual_and_never_overlapping(
    one: tuple[float, float], other: tuple[float, float]
) -> None:
    a, b = cube("a", *one), cube("b", *other)
    where = state(a, b)
    assert holds("next_to", where, "a", "b") == holds("next_to", where, "b", "a")
    assert gap(a, b) == pytest.approx(gap(b, a))
    if holds("next_to", where, "a", "b"):
        assert 0.0 < gap(a, b) < 0.065


@given(one=PLACES, other=PLACES)
def test_left_is_the_other_way_round_of_right(
    one: tuple[float, float], other: tuple[float, float]
) -> None:
    where = state(cube("a", *one), cube("b", *other))
    assert holds("left_of", where, "a", "b") == holds("right_of", where, "b", "a")
    assert not (holds("left_of", where, "a", "b") and holds("right_of", where, "a", "b"))


def test_sides_are_those_of_the_picture() -> None:
    where = state(cube("a", 0.3, -0.05), cube("b", 0.3, 0.05))
    assert holds("left_of", where, "a", "b") and holds("right_of", where, "b", "a")
    assert holds("left_of", replace(where, right=-RIGHT), "b", "a")
    assert not holds("left_of", state(cube("a", 0.22, -0.02), cube("b", 0.3, 0.02)), "a", "b")


@given(turn=st.floats(-3.1, 3.1), x=st.floats(0.2, 0.4), y=st.floats(-0.1, 0.1))
def test_rows_and_middles_do_not_depend_on_where_they_are(turn: float, x: float, y: float) -> None:
    way = np.array([np.cos(turn), np.sin(turn)])
    middle = np.array([x, y])
    spots = [middle + shift * 0.085 * way for shift in (-1, 0, 1)]
    bodies = [cube(name, *spot) for name, spot in zip("abc", spots, strict=True)]
    where = state(*bodies)
    assert holds("aligned", where, "a", "b", "c") and holds("aligned", where, "c", "a", "b")
    assert holds("between", where, "b", "a", "c") and not holds("between", where, "a", "b", "c")
    across = np.array([-way[1], way[0]])
    moved = state(bodies[0], cube("b", *(middle + 0.06 * across)), bodies[2])
    assert not holds("aligned", moved, "a", "b", "c") and not holds("between", moved, "b", "a", "c")


def test_a_lifted_thing_lies_next_to_nothing() -> None:
    where = state(cube("a", 0.3, 0.0, 0.05), cube("b", 0.3, 0.07))
    assert not holds("next_to", where, "a", "b") and not holds("aligned", where, "a", "b")


def test_drawers() -> None:
    assert holds("open", state(drawer=0.05), "drawer") and holds(
        "closed", state(drawer=0.005), "drawer"
    )
    between = state(drawer=0.03)
    assert not holds("open", between, "drawer") and not holds("closed", between, "drawer")


def test_unknown_names_are_told() -> None:
    with pytest.raises(KeyError):
        holds("under", state(cube("a", 0.3, 0)), "a")
    with pytest.raises(KeyError):
        holds("on", state(cube("a", 0.3, 0)), "a", "b")
    assert str(Relation("on", ("a", "b"))) == "on(a, b)" and len(RELATIONS) == 10


@given(
    turn=st.tuples(*[st.floats(-3, 3)] * 3),
    name=st.sampled_from([kind.name for kind in MOVABLES.values()]),
)
def test_extents_hold_the_body_however_it_lies(turn: tuple[float, float, float], name: str) -> None:
    kind = MOVABLES[name]
    size = kind.sample(np.random.default_rng(0))
    body = Body(name, kind, size, np.zeros(3), rpy_to_matrix(turn))
    half = np.array(size) / 2
    assert (body.extent >= min(half) - 1e-9).all()
    assert (body.extent <= np.linalg.norm(half) + 1e-9).all()
    assert body.top - body.bottom == pytest.approx(2 * body.extent[2])
