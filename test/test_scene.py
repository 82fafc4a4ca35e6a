"""Scenes as data: drawing them, and building them for an instruction."""

from __future__ import annotations

import contextlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from internvla_ros.robots.embodiment import load_embodiment
from internvla_ros.sim.scene import (
    COLOURS,
    LARGEST,
    MOVABLES,
    RECEPTACLES,
    SMALLEST,
    TEMPLATES,
    Scene,
    SceneError,
    arm_kinematics,
    sample_scene,
    scene_for_instruction,
)

ROBOT = load_embodiment("widowx_250s")
TABLE = ROBOT.tabletop
KINEMATICS = arm_kinematics(ROBOT)


def draw(seed: int) -> Scene:
    return sample_scene(np.random.default_rng(seed), ROBOT)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_scenes_are_laid_out_clear(seed: int) -> None:
    scene = draw(seed)
    movables = [spec for spec in scene.objects if spec.role == "movable"]
    receptacles = [spec for spec in scene.objects if spec.role == "receptacle"]
    assert 2 <= len(movables) <= 3 and len(receptacles) == 2
    assert len({spec.name for spec in scene.objects}) == len(scene.objects)
    for spec in scene.objects:
        assert (
            ROBOT.tabletop.x[0] <= spec.x <= ROBOT.tabletop.x[1]
            and ROBOT.tabletop.y[0] <= spec.y <= ROBOT.tabletop.y[1]
        )
        assert spec.name == f"{spec.colour} {spec.kind}" and spec.colour in COLOURS
    for spec in movables:
        assert spec.kind in MOVABLES and SMALLEST <= spec.size <= LARGEST
    for one, other in itertools.combinations(scene.objects, 2):
        reach = sum(o.size if o.role == "receptacle" else 0.7 * o.size for o in (one, other))
        assert np.hypot(one.x - other.x, one.y - other.y) > reach


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_tasks_and_starts_make_sense(seed: int) -> None:
    scene = draw(seed)
    task = scene.task
    place = scene.object(task.place)
    assert scene.object(task.pick).role == "movable" and place.role == "receptacle"
    assert task.relation == RECEPTACLES[place.kind].relation
    assert task.pick in task.instruction and task.place in task.instruction
    tip = KINEMATICS.forward(scene.start)
    assert (
        ROBOT.tabletop.start_height[0] - 1e-3
        < tip.position[2]
        < ROBOT.tabletop.start_height[1] + 1e-3
    )
    assert tip.rotation[2, 0] < -0.99  # pointing down
    assert (scene.start >= ROBOT.position_lower).all()
    assert (scene.start <= ROBOT.position_upper).all()


def test_a_seed_gives_one_scene() -> None:
    assert draw(7).objects == draw(7).objects
    np.testing.assert_array_equal(draw(7).start, draw(7).start)
    assert draw(7).objects != draw(8).objects


def test_start_at_ready() -> None:
    scene = sample_scene(np.random.default_rng(0), ROBOT, start="ready")
    np.testing.assert_array_equal(scene.start, ROBOT.ready)
    with pytest.raises(SceneError, match="'anywhere' or 'ready'"):
        sample_scene(np.random.default_rng(0), ROBOT, start="home")


def test_everything_is_drawn_sometimes() -> None:
    scenes = [draw(seed) for seed in range(150)]
    objects = [spec for scene in scenes for spec in scene.objects]
    assert {spec.kind for spec in objects} == {*MOVABLES, *RECEPTACLES}
    assert {spec.colour for spec in objects} == set(COLOURS)
    assert {scene.task.relation for scene in scenes} == {"on", "in"}


@pytest.mark.parametrize("relation", ["on", "in"])
def test_every_template_can_be_asked_for(relation: str) -> None:
    kinds = [kind for kind, shape in RECEPTACLES.items() if shape.relation == relation]
    for template, kind in itertools.product(TEMPLATES[relation], kinds):
        text = template.format(pick="red cube", place=f"blue {kind}")
        scene = scene_for_instruction(np.random.default_rng(1), ROBOT, text)
        assert (scene.task.pick, scene.task.place) == ("red cube", f"blue {kind}")
        assert (scene.task.relation, scene.task.instruction) == (relation, text)


def test_words_of_another_kind_are_understood() -> None:
    text = "  Put the GREEN block   onto the purple dish, please "
    task = scene_for_instruction(np.random.default_rng(1), ROBOT, text).task
    assert (task.pick, task.place) == ("green cube", "purple plate")
    assert task.instruction == "Put the GREEN block onto the purple dish, please"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_without_a_colour_the_thing_is_the_only_one_of_its_kind(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = scene_for_instruction(rng, ROBOT, "put the ball in the bowl")
    assert [spec.kind for spec in scene.objects].count("ball") == 1
    assert [spec.kind for spec in scene.objects].count("bowl") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("   \n", "empty"),
        ("make me a coffee", "do not understand"),
        ("put the red cube in the blue plate", "things go on a plate"),
        ("put the red cube on the blue bin", "things go in a bin"),
        ("put the red bowl in the blue cube", "do not understand"),
        ("put the red cube and the blue ball on the red plate", "do not understand"),
        ("put the red cube on the plate " * 400, "characters"),
        ("поставь кубик на тарелку", "do not understand"),
    ],
)
def test_what_cannot_be_done_is_told_with_the_vocabulary(text: str, message: str) -> None:
    with pytest.raises(SceneError, match=message) as told:
        scene_for_instruction(np.random.default_rng(0), ROBOT, text)
    assert "plate, bowl or bin" in str(told.value)
    assert len(str(told.value)) < 800


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_no_text_breaks_it(text: str) -> None:
    with contextlib.suppress(SceneError):
        scene_for_instruction(np.random.default_rng(0), ROBOT, text)


def test_unknown_object() -> None:
    with pytest.raises(SceneError, match="no 'pink pig'"):
        draw(0).object("pink pig")
