"""Messages as arrays and dataclasses, and back. Nothing here copies more often than it must."""

from __future__ import annotations

import array
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from internvla_ros.control.chunk import Chunk
from internvla_ros.motion.se3 import Pose
from internvla_ros.msg import (
    ActionChunk,
    Box,
    ImagePoint,
    SpatialPrediction,
    Tensor,
    Trace,
)
from internvla_ros.nodes.stamps import seconds, time_message
from internvla_ros.spatial.types import Box as SpatialBox
from internvla_ros.spatial.types import Point, SpatialAnswer
from internvla_ros.spatial.types import Trace as SpatialTrace


class ConversionError(ValueError):
    """A message whose fields contradict each other or that has a form that is not known."""


@dataclass(frozen=True)
class Encoding:
    """How an image encoding lays out a pixel: channels, bytes a channel, and where R, G, B are."""

    channels: int
    width: int
    rgb: tuple[int, int, int]


ENCODINGS = {
    "rgb8": Encoding(3, 1, (0, 1, 2)),
    "bgr8": Encoding(3, 1, (2, 1, 0)),
    "rgba8": Encoding(4, 1, (0, 1, 2)),
    "bgra8": Encoding(4, 1, (2, 1, 0)),
    "mono8": Encoding(1, 1, (0, 0, 0)),
    "rgb16": Encoding(3, 2, (0, 1, 2)),
    "bgr16": Encoding(3, 2, (2, 1, 0)),
    "mono16": Encoding(1, 2, (0, 0, 0)),
}

_DTYPES: dict[str, np.dtype[Any]] = {
    "float16": np.dtype("<f2"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
    "uint8": np.dtype("u1"),
    "bool": np.dtype("?"),
}


def image_to_rgb(message: Image) -> NDArray[np.uint8]:
    """The picture of an Image message as uint8 [h, w, 3], RGB.

    16-bit images keep their upper byte. The result of an rgb8 image without row padding is a
    read-only view of the message.

    Raises:
        ConversionError: the encoding is unknown, or step, height and data do not fit together.
    """
    layout = ENCODINGS.get(message.encoding)
    if layout is None:
        raise ConversionError(
            f"image encoding '{message.encoding}' is not supported; "
            f"publish one of {', '.join(ENCODINGS)}"
        )
    height, width, step = int(message.height), int(message.width), int(message.step)
    row = width * layout.channels * layout.width
    if height == 0 or width == 0 or step < row or len(message.data) < step * height:
        raise ConversionError(
            f"image {width}x{height} {message.encoding}: step {step} and {len(message.data)} bytes "
            f"do not hold {height} rows of {row} bytes"
        )
    flat = np.frombuffer(message.data, dtype=np.uint8, count=step * height)
    pixels = flat.reshape(height, step)[:, :row].reshape(height, width, layout.channels, -1)
    most_significant = 0 if message.is_bigendian else layout.width - 1
    channels = pixels[..., most_significant]
    if layout.rgb == (0, 1, 2) and layout.channels == 3:
        return channels if layout.width == 1 else np.ascontiguousarray(channels)
    return np.ascontiguousarray(channels[..., list(layout.rgb)])


def rgb_to_image(picture: NDArray[np.uint8], header: Header) -> Image:
    """An rgb8 Image message of a picture uint8 [h, w, 3].

    Raises:
        ConversionError: the picture has another shape or type.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ConversionError(
            f"picture must be uint8 [h, w, 3], got {picture.dtype} {list(picture.shape)}"
        )
    height, width, _ = picture.shape
    message = Image(header=header, height=height, width=width, encoding="rgb8", step=3 * width)
    message.is_bigendian = 0
    message.data = _byte_array(picture)
    return message


def camera_info(
    intrinsics: NDArray[np.float64], width: int, height: int, header: Header
) -> CameraInfo:
    """CameraInfo of a pinhole camera without distortion.

    Args:
        intrinsics: [3, 3], px.
        width, height: px.
        header: stamp and optical frame of the image.
    """
    k = np.asarray(intrinsics, dtype=np.float64)
    info = CameraInfo(header=header, width=width, height=height, distortion_model="plumb_bob")
    info.k = k.reshape(-1)
    info.r = np.eye(3).reshape(-1)
    info.p = np.hstack([k, np.zeros((3, 1))]).reshape(-1)
    info.d = [0.0] * 5
    return info


def array_to_tensor(values: NDArray[np.generic]) -> Tensor:
    """A Tensor message of an array.

    Raises:
        ConversionError: the dtype has no name in Tensor.msg.
    """
    name = values.dtype.name
    if name not in _DTYPES:
        raise ConversionError(f"tensor dtype {name} is not supported; use {', '.join(_DTYPES)}")
    little = np.ascontiguousarray(values, dtype=_DTYPES[name])
    return Tensor(dtype=name, shape=list(values.shape), data=_byte_array(little))


def tensor_to_array(message: Tensor) -> NDArray[np.generic]:
    """The array of a Tensor message, as a view of it where the machine is little-endian.

    Raises:
        ConversionError: the dtype is unknown or the data do not fill the shape.
    """
    dtype = _DTYPES.get(message.dtype)
    if dtype is None:
        raise ConversionError(
            f"tensor dtype '{message.dtype}' is not supported; use {', '.join(_DTYPES)}"
        )
    shape = tuple(int(size) for size in message.shape)
    wanted = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if len(message.data) != wanted:
        raise ConversionError(
            f"tensor {message.dtype} {list(shape)} needs {wanted} bytes, got {len(message.data)}"
        )
    values = np.frombuffer(message.data, dtype=dtype).reshape(shape)
    return values if sys.byteorder == "little" else values.astype(dtype.newbyteorder("="))


def answer_to_prediction(answer: SpatialAnswer) -> SpatialPrediction:
    """Boxes, points, traces and text of an answer; the caller fills in what they refer to."""
    return SpatialPrediction(
        boxes=[
            Box(
                label=box.label,
                x_min=float(box.x1),
                y_min=float(box.y1),
                x_max=float(box.x2),
                y_max=float(box.y2),
                score=float(box.score),
            )
            for box in answer.boxes
        ],
        points=[
            ImagePoint(label=point.label, x=float(point.x), y=float(point.y), score=1.0)
            for point in answer.points
        ],
        traces=[
            Trace(
                label=trace.label,
                x=np.asarray(trace.points, dtype=np.float32).reshape(-1, 2)[:, 0],
                y=np.asarray(trace.points, dtype=np.float32).reshape(-1, 2)[:, 1],
            )
            for trace in answer.traces
        ],
        text=answer.text,
    )


def prediction_to_answer(message: SpatialPrediction) -> SpatialAnswer:
    """Boxes, points, traces (those of two points or more) and text of a message."""
    return SpatialAnswer(
        boxes=tuple(
            SpatialBox(b.x_min, b.y_min, b.x_max, b.y_max, b.label, b.score) for b in message.boxes
        ),
        points=tuple(Point(p.x, p.y, p.label) for p in message.points),
        traces=tuple(
            SpatialTrace(np.stack([t.x, t.y], axis=1).astype(np.float64), t.label)
            for t in message.traces
            if len(t.x) == len(t.y) >= 2
        ),
        text=message.text,
    )


def chunk_to_message(chunk: Chunk, *, frame: str, delta_frame: str, rotation: str) -> ActionChunk:
    """An ActionChunk message of a chunk in SI units; the caller fills in what it was made from."""
    message = ActionChunk(
        sequence=chunk.sequence,
        dt=float(chunk.dt),
        horizon=len(chunk.actions),
        action_dim=chunk.actions.shape[1],
        delta_frame=delta_frame,
        rotation=rotation,
    )
    message.header.stamp = time_message(chunk.stamp)
    message.header.frame_id = frame
    message.actions = array.array("f", chunk.actions.astype(np.float32).tobytes())
    return message


def message_to_chunk(message: ActionChunk) -> Chunk:
    """The chunk of an ActionChunk message.

    Raises:
        ConversionError: the sizes contradict each other, dt is not positive, or numbers are not
            finite.
    """
    horizon, width = int(message.horizon), int(message.action_dim)
    if horizon < 1 or width != 7 or len(message.actions) != horizon * width:
        raise ConversionError(
            f"action chunk {message.sequence}: {len(message.actions)} numbers are not "
            f"{horizon} steps of {width}; 7 a step are needed"
        )
    actions = np.asarray(message.actions, dtype=np.float64).reshape(horizon, width)
    if not np.isfinite(actions).all() or not (np.isfinite(message.dt) and message.dt > 0.0):
        raise ConversionError(f"action chunk {message.sequence}: dt or an action is not finite")
    return Chunk(
        stamp=seconds(message.header.stamp),
        dt=round(float(message.dt), 6),  # the message has it in single precision
        actions=actions,
        sequence=int(message.sequence),
    )


def pose_message(pose: Pose, header: Header) -> PoseStamped:
    """A PoseStamped message of a pose."""
    message = PoseStamped(header=header)
    at, turn = message.pose.position, message.pose.orientation
    at.x, at.y, at.z = (float(v) for v in pose.position)
    turn.x, turn.y, turn.z, turn.w = (float(v) for v in pose.quaternion())
    return message


def _byte_array(values: NDArray[np.generic]) -> array.array[int]:
    """The bytes of an array in the type that rclpy takes without looking at each of them."""
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return data
