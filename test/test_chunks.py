"""Chunks past an episode's end hold pose and gripper; pauses begin none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from internvla_ros.data.chunks import DELTAS, ActionLayout, PauseFilter, chunks

LAYOUTS = st.sampled_from(
    [
        DELTAS,
        ActionLayout(absolute=True),
        ActionLayout(size=7, gripper=()),
        ActionLayout(size=7, gripper=(2, 5)),
    ]
)
EPISODES = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 12), st.just(7)), elements=st.floats(-3, 3, width=32)
)


@given(EPISODES, LAYOUTS, st.integers(1, 20), st.data())
def test_recorded_steps_are_kept_and_the_rest_hold(
    actions: np.ndarray, layout: ActionLayout, length: int, data: st.DataObject
) -> None:
    rows = data.draw(st.lists(st.integers(0, len(actions) - 1), min_size=1, max_size=4))
    got, recorded = chunks(actions, rows, length, layout)
    assert got.shape == (len(rows), length, 7) and got.dtype == actions.dtype
    for row, chunk, known in zip(rows, got, recorded, strict=True):
        count = min(length, len(actions) - row)
        assert known.tolist() == [True] * count + [False] * (length - count)
        np.testing.assert_array_equal(chunk[:count], actions[row : row + count])
        for held in chunk[count:]:
            if layout.absolute:
                np.testing.assert_array_equal(held, actions[-1])
            else:
                np.testing.assert_array_equal(held[layout.motion], 0)
                np.testing.assert_array_equal(held[~layout.motion], actions[-1, ~layout.motion])


@given(EPISODES, LAYOUTS, st.integers(1, 20))
def test_what_is_held_moves_nothing(actions: np.ndarray, layout: ActionLayout, length: int) -> None:
    """Carried out after the episode, the padding changes neither pose nor gripper."""
    (chunk,), recorded = chunks(actions, [len(actions) - 1], length, layout)
    steps = layout.steps(chunk)[1:]
    np.testing.assert_array_equal(steps, 0)
    assert recorded.sum() == 1


def test_an_open_gripper_stays_open() -> None:
    actions = np.ones((3, 7), np.float32)
    (chunk,), _ = chunks(actions, [2], 4)
    np.testing.assert_array_equal(chunk[:, 6], 1)
    np.testing.assert_array_equal(chunk[1:, :6], 0)


def test_wrong_rows_and_layouts_are_refused() -> None:
    with pytest.raises(IndexError, match="frames 0 to 3 of an episode of 3"):
        chunks(np.zeros((3, 7)), [0, 3], 2)
    with pytest.raises(ValueError, match="at least one action, not 0"):
        chunks(np.zeros((3, 7)), [0], 0)
    with pytest.raises(ValueError, match=r"\[T, 7\], not \[3, 6\]"):
        DELTAS.steps(np.zeros((3, 6)))
    with pytest.raises(ValueError, match="not within 6"):
        ActionLayout(size=6)


def test_pauses_are_frames_without_motion_or_gripper() -> None:
    actions = np.zeros((6, 7))
    actions[1, 0] = 6e-4
    actions[2, 4] = 0.01
    actions[3:, 6] = 1.0
    actions[4, 1] = 4e-4
    assert PauseFilter().pauses(actions).tolist() == [True, False, False, False, True, True]
    by_translation = PauseFilter(rotation=np.inf).pauses(actions)
    assert by_translation.tolist() == [True, False, True, False, True, True]
    assert not PauseFilter(translation=-1).pauses(actions).any()


@given(EPISODES)
def test_absolute_poses_pause_where_their_deltas_do(actions: np.ndarray) -> None:
    poses = np.cumsum(actions.astype(float), axis=0)
    deltas = np.diff(poses, axis=0, prepend=poses[:1])
    deltas[:, 6] = poses[:, 6]
    wanted = PauseFilter(0.1, 0.1).pauses(deltas)
    got = PauseFilter(0.1, 0.1).pauses(poses, ActionLayout(absolute=True))
    np.testing.assert_array_equal(got, wanted)
