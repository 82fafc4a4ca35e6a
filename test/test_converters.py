"""Messages to arrays and back, and what is said of messages that make no sense."""

from __future__ import annotations

import array
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rclpy")
pytest.importorskip("internvla_ros.msg")

from integration.small_release import write_release
from internvla_ros.msg import Plan, Tensor
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from internvla_ros.control.chunk import Chunk
from internvla_ros.model.actor import Actor
from internvla_ros.model.plan import plan_from_arrays, plan_to_arrays
from internvla_ros.model.planner import Planner
from internvla_ros.motion.se3 import Pose
from internvla_ros.nodes.converters import (
    ENCODINGS,
    ConversionError,
    answer_to_prediction,
    array_to_tensor,
    camera_info,
    chunk_to_message,
    image_to_rgb,
    message_to_chunk,
    pose_message,
    prediction_to_answer,
    rgb_to_image,
    tensor_to_array,
)
from internvla_ros.nodes.policy import PolicyError, statistics_for
from internvla_ros.nodes.stamps import duration_message, seconds, time_message
from internvla_ros.spatial.types import Box, Point, SpatialAnswer, Trace

PICTURE = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def encoded(encoding: str, *, big: bool = False, padding: int = 0) -> Image:
    """PICTURE as a camera driver would send it, with that many spare bytes a row."""
    layout = ENCODINGS[encoding]
    height, width, _ = PICTURE.shape
    channels = np.full((height, width, layout.channels), 255, np.uint8)
    if layout.channels == 1:
        channels[..., 0] = PICTURE[..., 0]
    else:
        channels[..., list(layout.rgb)] = PICTURE
    if layout.width == 2:
        wide = (channels.astype(np.uint16) << 8) | 0x34
        channels = wide.astype(">u2" if big else "<u2").view(np.uint8)
    rows = channels.reshape(height, -1)
    rows = np.concatenate([rows, np.full((height, padding), 99, np.uint8)], axis=1)
    message = Image(height=height, width=width, encoding=encoding, is_bigendian=int(big))
    message.step = rows.shape[1]
    message.data = array.array("B", rows.tobytes())
    return message


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 3])
def test_every_encoding_gives_the_same_picture(encoding: str, big: bool, padding: int) -> None:
    wanted = PICTURE[..., [0, 0, 0]] if encoding.startswith("mono") else PICTURE
    assert np.array_equal(image_to_rgb(encoded(encoding, big=big, padding=padding)), wanted)


def test_rgb_to_image_and_back() -> None:
    message = rgb_to_image(PICTURE, Header(frame_id="front_optical_frame"))
    assert (message.encoding, message.step) == ("rgb8", 21)
    assert isinstance(message.data, array.array)
    assert np.array_equal(image_to_rgb(message), PICTURE)
    assert np.array_equal(image_to_rgb(rgb_to_image(PICTURE[:, ::-1], Header())), PICTURE[:, ::-1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoding": "bayer_rggb8"}, "encoding 'bayer_rggb8' is not supported"),
        ({"step": 20}, "step 20"),
        ({"height": 6}, "do not hold 6 rows"),
        ({"width": 0}, "image 0x5"),
        ({"data": array.array("B", [1, 2])}, "2 bytes"),
    ],
)
def test_an_image_that_makes_no_sense(change: dict[str, object], words: str) -> None:
    message = encoded("rgb8")
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(ConversionError, match=words):
        image_to_rgb(message)


def test_a_picture_that_is_none() -> None:
    with pytest.raises(ConversionError, match="uint8"):
        rgb_to_image(PICTURE.astype(np.float32), Header())  # type: ignore[arg-type]


@given(
    st.sampled_from(["float16", "float32", "float64", "int32", "int64", "uint8", "bool"]),
    st.lists(st.integers(0, 4), max_size=4),
    st.integers(0, 2**32 - 1),
)
def test_tensors_survive(dtype: str, shape: list[int], seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 2, shape).astype(dtype)
    back = tensor_to_array(array_to_tensor(values))
    assert back.dtype == values.dtype
    assert back.shape == tuple(shape)
    assert np.array_equal(back, values)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Tensor(dtype="float33", shape=[1], data=b"\0" * 4), "dtype 'float33'"),
        (Tensor(dtype="float32", shape=[2, 2], data=b"\0" * 12), "needs 16 bytes, got 12"),
    ],
)
def test_a_tensor_that_makes_no_sense(message: Tensor, words: str) -> None:
    with pytest.raises(ConversionError, match=words):
        tensor_to_array(message)


def test_a_dtype_without_a_name() -> None:
    with pytest.raises(ConversionError, match="complex64"):
        array_to_tensor(np.zeros(2, np.complex64))


def test_answers_survive() -> None:
    answer = SpatialAnswer(
        boxes=(Box(1.5, 2, 3, 4, "red cube"), Box(5, 6, 7, 8, "blue plate", 0.5)),
        points=(Point(2, 3, "a"), Point(6.5, 7)),
        traces=(Trace(np.array([[1.0, 2.0], [3.0, 4.5]]), "tip"),),
        text="words",
    )
    assert prediction_to_answer(answer_to_prediction(answer)) == answer


def chunk(**change: object) -> Chunk:
    values = {"stamp": 12.25, "dt": 0.2, "actions": np.ones((4, 7)) * 0.5, "sequence": 9}
    return Chunk(**{**values, **change})  # type: ignore[arg-type]


def test_chunks_survive() -> None:
    message = chunk_to_message(chunk(), frame="base_link", delta_frame="base", rotation="rpy")
    assert (message.horizon, message.action_dim, message.header.frame_id) == (4, 7, "base_link")
    back = message_to_chunk(message)
    assert (back.stamp, back.dt, back.sequence) == (12.25, 0.2, 9)
    assert np.array_equal(back.actions, chunk().actions)


@pytest.mark.parametrize(
    ("name", "value"),
    [("horizon", 3), ("action_dim", 6), ("dt", 0.0), ("dt", float("nan")), ("actions", [1.0])],
)
def test_a_chunk_that_makes_no_sense(name: str, value: object) -> None:
    message = chunk_to_message(chunk(), frame="base_link", delta_frame="base", rotation="rpy")
    setattr(message, name, value)
    with pytest.raises(ConversionError, match="action chunk 9"):
        message_to_chunk(message)


def test_a_chunk_that_is_not_finite() -> None:
    actions = np.full((2, 7), np.nan)
    message = chunk_to_message(
        chunk(actions=actions), frame="base_link", delta_frame="base", rotation="rpy"
    )
    with pytest.raises(ConversionError, match="not finite"):
        message_to_chunk(message)


@given(st.floats(0.0, 4e9))
def test_stamps_survive(value: float) -> None:
    assert seconds(time_message(value)) == pytest.approx(value, abs=1e-6)
    assert 0 <= duration_message(value % 1000).nanosec < 1_000_000_000


def test_poses_and_intrinsics() -> None:
    pose = Pose.from_rpy([0.1, 0.2, 0.3], [0.0, 0.0, np.pi / 2])
    message = pose_message(pose, Header(frame_id="base_link"))
    turn = message.pose.orientation
    assert (message.pose.position.x, message.header.frame_id) == (0.1, "base_link")
    assert [turn.x, turn.y, turn.z, turn.w] == pytest.approx([0, 0, 0.5**0.5, 0.5**0.5])
    info = camera_info(np.array([[5.0, 0, 3.5], [0, 5, 2.5], [0, 0, 1]]), 7, 5, Header())
    assert list(info.k) == [5, 0, 3.5, 0, 5, 2.5, 0, 0, 1]
    assert list(info.p) == [5, 0, 3.5, 0, 0, 5, 2.5, 0, 0, 0, 1, 0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_plan_through_its_message_gives_the_same_actions(dtype: str, tmp_path: Path) -> None:
    """Planner and actor apart, in the released layout, with a serialised Plan in between."""
    run = write_release(tmp_path / "run")
    kind = getattr(torch, dtype)
    planner, actor = (
        Planner.from_pretrained(run, dtype=kind),
        Actor.from_pretrained(run, dtype=kind),
    )
    images = [[np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)]]
    plan = planner.plan(images, ["pick up the cup"])
    hidden, mask = plan_to_arrays(plan)
    sent = Plan(
        instruction="pick up the cup",
        hidden_states=array_to_tensor(hidden),
        attention_mask=array_to_tensor(mask),
    )
    received = deserialize_message(serialize_message(sent), Plan)
    arrived = plan_from_arrays(
        tensor_to_array(received.hidden_states).astype(np.float32),
        tensor_to_array(received.attention_mask).astype(np.bool_),
        received.instruction,
    )
    np.testing.assert_array_equal(
        actor.act(images, plan, unnorm_key="with_mask"),
        actor.act(images, arrived, unnorm_key="with_mask"),
    )


def test_statistics_are_the_robots_or_the_only_ones() -> None:
    assert statistics_for(["a", "b"], "", "b") == "b"
    assert statistics_for(["a", "b"], "a", "b") == "a"
    assert statistics_for(["a"], "", "b") is None
    with pytest.raises(PolicyError, match="'unnorm_key' is 'c'; the policy has a, b"):
        statistics_for(["a", "b"], "c", "b")
    with pytest.raises(PolicyError, match=r"none of them the robot's \(c\)"):
        statistics_for(["a", "b"], "", "c")
