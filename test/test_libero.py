"""The released LIBERO client's conventions, one by one, and the messages to LIBERO's processes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from internvla_ros.evaluate.libero.conventions import (
    CAMERAS,
    ENSEMBLE_HORIZON,
    IMAGE_SIZE,
    SEED,
    SETTLE_STEPS,
    SUITES,
    TRIALS,
    controller_input,
    gripper_command,
    gripper_opening,
    settle_action,
    turned,
    turned_pixels,
)
from internvla_ros.evaluate.libero.framing import (
    FrameError,
    decode,
    encode,
    read_frame,
    write_frame,
)
from internvla_ros.evaluate.libero.trial import Trial, proprioception

Array = NDArray[np.float64]


def test_a_picture_is_turned_by_half_a_turn() -> None:
    rendered = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    picture = turned(rendered)
    assert picture.flags.c_contiguous
    assert (picture == np.rot90(rendered, 2)).all()
    assert (turned(picture) == rendered).all()


@given(st.integers(0, 7), st.integers(0, 7))
def test_pixels_follow_what_they_mark(row: int, column: int) -> None:
    upright = np.zeros((8, 8, 3), np.uint8)
    upright[row, column] = 255
    picture = turned(np.ascontiguousarray(upright[::-1]))  # rendered pictures are upside down
    u, v = turned_pixels([column + 0.5, row + 0.5], size=8)
    assert picture[int(v), int(u)].tolist() == [255] * 3


def test_the_gripper_is_thresholded_and_reversed() -> None:
    assert gripper_command([0.0, 0.5, 0.51, 1.0]).tolist() == [1.0, 1.0, -1.0, -1.0]
    assert gripper_opening([1.0, -1.0, 0.3]).tolist() == [0.0, 1.0, 0.0]


@given(hnp.arrays(np.float64, (3, 7), elements=st.floats(-2.0, 2.0)))
def test_motions_are_passed_on_as_they_are(actions: Array) -> None:
    before = actions.copy()
    sent = controller_input(actions)
    assert (sent[:, :6] == actions[:, :6]).all()
    assert (sent[:, 6] == 1.0 - 2.0 * (actions[:, 6] > 0.5)).all()
    assert (actions == before).all()


def test_objects_settle_under_an_open_gripper() -> None:
    assert SETTLE_STEPS == 10
    assert settle_action().tolist() == [0, 0, 0, 0, 0, 0, -1]


def test_step_limits_and_the_rest_of_the_protocol() -> None:
    limits = {name: suite.max_steps for name, suite in SUITES.items()}
    assert limits == {"spatial": 220, "object": 280, "goal": 300, "10": 520, "90": 400}
    assert [SUITES[name].tasks for name in ("spatial", "object", "goal", "10")] == [10] * 4
    assert (IMAGE_SIZE, SEED, TRIALS, ENSEMBLE_HORIZON) == (256, 7, 50, 3)
    assert CAMERAS == ("agentview", "robot0_eye_in_hand")


def chunk(value: float, opening: float = 1.0) -> Array:
    return np.tile([value, 0.0, 0.0, 0.0, 0.0, 0.0, opening], (8, 1))


def begun(method: str) -> Trial:
    trial = Trial(0, 0, method, ENSEMBLE_HORIZON)
    trial.observe({"success": False, "steps": 0})
    return trial


def test_three_chunks_are_blended_and_older_ones_forgotten() -> None:
    trial = begun("adaptive")
    for step, value in enumerate((1.0, 0.2, 0.3, 0.4)):
        actions = trial.execute(chunk(value), 1)
        trial.advanced(actions, {"success": False, "steps": step + 1})
    newest, older = chunk(0.4)[0], [chunk(value)[0] for value in (0.2, 0.3)]
    cosines = [a @ newest / np.linalg.norm(a) / np.linalg.norm(newest) for a in [*older, newest]]
    weights = np.exp(0.1 * np.array(cosines))
    assert actions[0, 0] == pytest.approx(weights @ [0.2, 0.3, 0.4] / weights.sum())
    assert actions.shape == (1, 7)


def test_without_blending_the_newest_chunk_counts() -> None:
    trial = begun("latest")
    trial.advanced(trial.execute(chunk(1.0), 3), {"success": False, "steps": 3})
    assert (trial.execute(chunk(0.5), 4) == chunk(0.5)[:4]).all()
    assert trial.steps == 3


def test_steps_after_success_do_not_count() -> None:
    trial = begun("latest")
    trial.advanced(trial.execute(chunk(1.0), 8), {"success": True, "steps": 5})
    assert trial.success and trial.steps == 5


def test_proprioception_is_from_the_base() -> None:
    state = {"tip": np.array([0.1, 0.2, 1.0]), "rotation": np.eye(3), "opening": 0.5}
    found = proprioception(np.array([-0.6, 0.0, 0.9]), state)
    assert np.allclose(found, [0.7, 0.2, 0.1, 1, 0, 0, 0, 1, 0, 0.5])


numbers = st.one_of(st.integers(-(2**40), 2**40), st.floats(allow_nan=False), st.booleans())
arrays = hnp.arrays(
    st.sampled_from([np.uint8, np.float64, np.float32, np.int64, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    elements=st.integers(0, 1),
)


@given(st.dictionaries(st.text(max_size=5), st.one_of(numbers, arrays, st.lists(arrays))))
def test_messages_arrive_as_they_were_sent(message: dict[str, object]) -> None:
    stream = io.BytesIO()
    write_frame(stream, message)
    stream.seek(0)
    received = read_frame(stream)
    assert received is not None and read_frame(stream) is None
    assert list(received) == list(message)
    for sent, found in zip(message.values(), received.values(), strict=True):
        np.testing.assert_equal(found, sent)
        assert getattr(found, "dtype", None) == getattr(sent, "dtype", None)


@given(st.binary(max_size=64))
def test_anything_else_is_refused(content: bytes) -> None:
    try:
        message = decode(content)
    except FrameError:
        return
    assert isinstance(message, dict)


def test_what_ends_within_a_message_is_an_error() -> None:
    whole = io.BytesIO()
    write_frame(whole, {"a": 1})
    for length in (3, 9):
        with pytest.raises(FrameError, match="ended within"):
            read_frame(io.BytesIO(whole.getvalue()[:length]))


@pytest.mark.parametrize("value", [object(), np.array([object()]), np.zeros(2, complex)])
def test_objects_cannot_be_sent(value: object) -> None:
    with pytest.raises(FrameError, match="cannot send"):
        encode({"a": value})
