"""Scenes of all families: what they hold, what they ask for, and how they say it."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from internvla_ros.robots.embodiment import load_embodiment
from internvla_ros.sim.families import FAMILIES
from internvla_ros.sim.looks import LEVELS, PLAIN, sample_look
from internvla_ros.sim.sampling import Sampler
from internvla_ros.sim.scene import SceneError
from internvla_ros.sim.splits import SPLITS, UNSEEN_KINDS, UNSEEN_PAIRS, load_split
from internvla_ros.sim.state import gap
from internvla_ros.sim.task_scene import TaskScene, first_state
from internvla_ros.sim.wordings import (
    WORDINGS,
    in_a_row,
    lexicon,
    listed,
    referring_forms,
)

ROBOT = load_embodiment("widowx_250s")
RIGHT = np.array([0.0, 1.0])


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    return Sampler(ROBOT)


def scene(sampler: Sampler, split: str, family: str, seed: int, checked: bool = False) -> TaskScene:
    rng = np.random.default_rng(seed)
    return sampler.sample(rng, load_split(split), [family], checked=checked)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_scene_asks_for_what_is_not_yet_so_among_things_apart(
    sampler: Sampler, family: str
) -> None:
    split = "long_horizon" if family == "sequence" else "seen"
    laid = scene(sampler, split, family, 4, checked=True)
    state = laid.first_state(ROBOT, RIGHT)
    bodies = [state[thing.name] for thing in laid.things]
    for number, body in enumerate(bodies):
        assert all(gap(body, other) > 0.011 for other in bodies[:number])
    names = {*state.bodies}
    for step in laid.steps:
        assert {step.pick, *step.place} <= names and step.instruction
        assert not step.goal.holds(state)
    assert laid.goals and not all(goal.holds(state) for goal in laid.goals)
    assert laid.task.instruction == laid.instruction and "{" not in laid.instruction


@pytest.mark.parametrize("split", SPLITS)
def test_splits_hold_what_they_say(sampler: Sampler, split: str) -> None:
    for seed in range(6):
        family = SPLITS[split].families[seed % len(SPLITS[split].families)]
        laid = scene(sampler, split, family, seed)
        picks = {step.pick for step in laid.steps}
        for thing in laid.things:
            unseen = thing.kind in UNSEEN_KINDS
            pair = (thing.colour, thing.kind) in UNSEEN_PAIRS
            if thing.name in picks:
                assert unseen == (split == "unseen_objects") and pair == (split == "unseen_pairs")
            else:
                assert not unseen and not pair
        part = picks | {name for step in laid.steps for name in step.place}
        if split == "clutter":
            assert len([thing for thing in laid.things if thing.name not in part]) >= 6
        if split == "long_horizon":
            assert 3 <= len(laid.steps) <= 5


def test_one_seed_gives_one_scene(sampler: Sampler) -> None:
    one, other = (scene(sampler, "seen", "put", 7, checked=True) for _ in range(2))
    assert replace(one, start=other.start, look=other.look) == other
    assert one.start.tobytes() == other.start.tobytes() and one.look.paints == other.look.paints


def test_no_phrase_means_two_things(sampler: Sampler) -> None:
    for seed in range(25):
        family = ("put", "sort", "clear", "next_to")[seed % 4]
        laid = scene(sampler, "seen", family, seed)
        state = first_state(laid.things, 0.0, RIGHT)
        forms = {
            thing.name: set(referring_forms(thing.name, list(laid.things), state))
            for thing in laid.things
        }
        for name, own in forms.items():
            assert name in own
            for other, others in forms.items():
                assert name == other or not own & others, (own, others)


def test_instructions_are_made_of_known_words(sampler: Sampler) -> None:
    words = set(lexicon())
    for seed in range(40):
        family = list(FAMILIES)[seed % len(FAMILIES)]
        split = "long_horizon" if family == "sequence" else "seen"
        laid = scene(sampler, split, family, seed)
        for text in (laid.instruction, *(step.instruction for step in laid.steps)):
            assert set(re.findall("[A-Za-z]+", text)) <= words, text
    assert len(words) < 250 and not {"{", "kind"} & words


def test_every_relation_and_family_has_wordings_enough() -> None:
    assert all(len(set(texts)) == len(texts) >= 3 for texts in WORDINGS.values())
    assert len(WORDINGS["on"]) >= 10 and len(WORDINGS["in"]) >= 10
    assert listed(["a", "b", "c"]) == "a, the b and the c" and listed(["a"]) == "a"
    assert in_a_row(["x", "y", "z"]) == "first x, then y, and finally z"


def test_unknown_names_are_told(sampler: Sampler) -> None:
    with pytest.raises(SceneError, match="unknown family 'dance'; there are put"):
        sampler.sample(np.random.default_rng(0), load_split("seen"), ["dance"])
    with pytest.raises(SceneError, match="unknown split 'train'; there are seen"):
        load_split("train")
    with pytest.raises(SceneError, match="no 'x'; it has"):
        scene(sampler, "seen", "put", 0).thing("x")


def test_levels_of_randomisation() -> None:
    objects = [("red cube", "red"), ("blue bowl", "blue")]
    looks = {
        level: [sample_look(np.random.default_rng(s), ROBOT, objects, level) for s in range(12)]
        for level in LEVELS
    }
    assert len({look.table for look in looks["off"]}) == 1
    assert all(look.cameras == ROBOT.cameras for look in looks["off"])
    shift = {
        level: max(
            float(np.abs(look.cameras[0].position - ROBOT.cameras[0].position).max())
            for look in looks[level]
        )
        for level in LEVELS
    }
    assert 0.0 == shift["off"] < shift["low"] < 0.005 < shift["full"] < 0.021
    patterns = {paint.pattern for look in looks["full"] for paint in look.paints.values()}
    assert len(patterns) > 2 and PLAIN in patterns
    with pytest.raises(ValueError, match="one of off, low, full"):
        sample_look(np.random.default_rng(0), ROBOT, objects, "wild")
