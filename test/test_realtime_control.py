"""What is left of the chunk in execution."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from internvla_ros.control.chunk import Chunk
from internvla_ros.control.realtime import Commitments, frozen_steps, remaining

DT = 0.2


def chunk(steps: int = 8) -> Chunk:
    actions = np.zeros((steps, 7))
    actions[:, 0] = np.arange(steps)
    actions[:, 6] = np.arange(steps) % 2
    return Chunk(0.0, DT, actions, 1)


@given(st.integers(0, 8))
def test_whole_steps_are_dropped(past: int) -> None:
    left = remaining(chunk(), past * DT)
    np.testing.assert_array_equal(left, chunk().actions[past:])


@given(st.floats(0.0, 20.0))
def test_the_same_motion_is_left_whatever_is_past(past: float) -> None:
    """Where the chunk's own path and the rest's are both known they agree."""
    left = remaining(chunk(), past)
    assert len(left) <= 8 and np.isfinite(left).all()
    assert set(left[:, 6]) <= {0.0, 1.0}
    edges = np.arange(9) * DT
    reached = np.concatenate([[0.0], np.cumsum(chunk().actions[:, 0])])
    for i, end in enumerate(np.cumsum(left[:, 0]), start=1):
        whole = np.interp(past + i * DT, edges, reached) - np.interp(past, edges, reached)
        np.testing.assert_allclose(end, whole, atol=1e-4)


@given(st.floats(0.0, 2.0), st.integers(0, 16))
def test_frozen_steps_cover_the_delay(delay: float, known: int) -> None:
    frozen = frozen_steps(delay, DT, known)
    assert 0 <= frozen <= known
    assert frozen == known or delay - 1e-5 <= frozen * DT < delay + DT


def test_nothing_is_frozen_without_delay() -> None:
    assert frozen_steps(0.0, DT, 16) == 0
    assert frozen_steps(DT, DT, 16) == 1
    assert frozen_steps(DT + 1e-3, DT, 16) == 2


def test_a_sender_knows_what_is_left_at_its_next_observation() -> None:
    memory = Commitments()
    assert memory.at(1.0) is None
    memory.sent(chunk())
    assert memory.at(1.0) is None
    memory.executed(sequence=1, progress=DT, at=5.0, speed=1.0, delay=0.3)
    found = memory.at(5.0 + DT)
    assert found is not None
    left, frozen = found
    np.testing.assert_array_equal(left, chunk().actions[2:])
    assert frozen == 2
    memory.executed(sequence=1, progress=DT, at=5.0, speed=0.0, delay=-1.0)
    found = memory.at(9.0)
    assert found is not None and len(found[0]) == 7 and found[1] == 0
    assert memory.at(9.0 + 100.0) is not None  # it stands still
    memory.executed(sequence=2, progress=0.0, at=5.0, speed=1.0, delay=0.1)
    assert memory.at(5.0) is None  # somebody else's chunk
    memory.executed(sequence=1, progress=8 * DT, at=5.0, speed=1.0, delay=0.1)
    assert memory.at(5.0) is None  # nothing is left
    memory.forget()
    memory.executed(sequence=1, progress=0.0, at=5.0, speed=1.0, delay=0.1)
    assert memory.at(5.0) is None
