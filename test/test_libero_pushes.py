"""Pushes of LIBERO's expert: where they may come, how strong they are, and what is kept of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_libero_expert import BASKET, CAN, Toy

from internvla_ros.evaluate.libero.policies import ExpertPolicy
from internvla_ros.evaluate.libero.pushes import DESCENT, LONGEST, MOST, ROOMY, Pushes
from internvla_ros.evaluate.libero.trial import Trial

ACTION = np.array([0.5, 0.0, 0.0, 0.1, 0.2, 0.3, 1.0])


@given(st.floats(0.0, 1.0), st.integers(0, 2**32 - 1))
def test_only_the_way_is_pushed_and_only_where_there_is_room(chance: float, seed: int) -> None:
    pusher = Pushes(chance, seed).for_trial(3, 7)
    for phase in ("hover", "descend", "close", "lift", "carry", "lower", "open") * 9:
        done = pusher.disturbed(ACTION, phase)
        assert np.array_equal(done[3:6], ACTION[3:6]) and np.abs(done).max() <= MOST
        if phase != DESCENT:
            assert done[6] == ACTION[6]
        if phase not in (*ROOMY, DESCENT):
            assert np.array_equal(done, ACTION)


@given(st.integers(0, 2**32 - 1))
def test_on_the_way_down_the_hand_closes_and_rises(seed: int) -> None:
    done = Pushes(1.0, seed).for_trial(0, 0).disturbed(ACTION, DESCENT)
    assert done[2] > 0.0 and not done[:2].any() and done[6] == 0.0


@given(st.integers(0, 2**32 - 1))
def test_pushes_are_as_frequent_as_asked_and_end(seed: int) -> None:
    never, always = (Pushes(chance, seed).for_trial(0, 0) for chance in (0.0, 1.0))
    steps = [always.disturbed(ACTION, "hover") for _ in range(4 * LONGEST)]
    assert not any(np.array_equal(step, ACTION) for step in steps)
    assert len({tuple(step) for step in steps}) >= 4, "no push lasts longer than it may"
    assert all(np.array_equal(never.disturbed(ACTION, "hover"), ACTION) for _ in range(99))


def attempt(pushes: Pushes | None, number: int) -> tuple[Trial, Toy]:
    """A trial in the toy world, until the thing lies over its target."""
    toy, trial = Toy("in", CAN, BASKET, 0.0), Trial(0, number, "latest", 1)
    policy = ExpertPolicy(pushes)
    trial.observe(toy.facts() | toy.state() | {"instruction": "", "success": False, "steps": 0})
    for step in range(1, 400):
        (chunk,) = policy.decide([trial])
        toy.step(chunk[0])
        state: dict[str, Any] = toy.state() | {"success": False, "steps": step}
        trial.advanced(chunk, state)
        if toy.over_target() < 0.02 and not toy.held:
            break
    return trial, toy


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_the_expert_gets_it_done_and_does_it_again(number: int) -> None:
    trial, toy = attempt(Pushes(0.1), number)
    assert toy.over_target() < 0.02
    assert len(trial.wanted) == len(trial.executed)
    again, _ = attempt(Pushes(0.1), number)
    np.testing.assert_array_equal(trial.executed, again.executed)


def test_most_of_what_is_executed_is_what_was_wanted() -> None:
    """One trial in some hundred is pushed for most of its steps, so that twenty are counted."""
    trials = [attempt(Pushes(0.1), number)[0] for number in range(20)]
    differ = [
        not np.array_equal(wanted, executed)
        for trial in trials
        for wanted, executed in zip(trial.wanted, trial.executed, strict=True)
    ]
    assert 0.2 < np.mean(differ) < 0.35


def test_without_pushes_it_does_what_it_wants() -> None:
    trial, _ = attempt(None, 0)
    np.testing.assert_array_equal(trial.wanted, trial.executed)
    pushed, _ = attempt(Pushes(0.3), 0)
    assert not np.array_equal(pushed.wanted, pushed.executed)
