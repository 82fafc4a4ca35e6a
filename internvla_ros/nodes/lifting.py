"""Predictions lifted from pixels into the base frame, by a table plane or by depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image

from internvla_ros.nodes.converters import ConversionError
from internvla_ros.nodes.markers import Lifted
from internvla_ros.spatial.projection import Camera, View, depths_at
from internvla_ros.spatial.types import SpatialAnswer

Array = NDArray[np.float64]

# Encoding of a depth image: its type, and m of one unit.
_DEPTHS = {"16UC1": ("u2", 0.001), "mono16": ("u2", 0.001), "32FC1": ("f4", 1.0)}


@dataclass(frozen=True, eq=False)
class Surface:
    """What pixels are taken to show: the plane z = height (m), or a depth picture [h, w] (m)."""

    height: float
    depth: Array | None = None

    def places(self, view: View, pixels: Array) -> Array:
        """[N, 3] (m, base frame) what pixels [N, 2] show; NaN for what is not known.

        Where the depth picture has a hole, the plane stands in.
        """
        places = view.on_plane(pixels, self.height)
        if self.depth is None:
            return places
        scale = np.array(self.depth.shape[::-1]) / (view.camera.width, view.camera.height)
        depths = depths_at(self.depth, pixels * scale)
        known = np.isfinite(depths)
        places[known] = view.at_depth(pixels[known], depths[known])
        return places


def lift(answer: SpatialAnswer, view: View, surface: Surface) -> Lifted:
    """An answer in space; its pixels are those of the view's camera.

    Points follow the surface. Boxes and traces are laid onto its plane: the sides of a box and the
    way of the gripper are seen in front of what a depth picture knows.
    """
    points = np.array([(point.x, point.y) for point in answer.points]).reshape(-1, 2)
    corners = [
        np.array([(box.x1, box.y1), (box.x2, box.y1), (box.x2, box.y2), (box.x1, box.y2)])
        for box in answer.boxes
    ]
    return Lifted(
        eye=view.pose.position,
        points=surface.places(view, points),
        directions=view.directions(points),
        traces=tuple(view.on_plane(trace.points, surface.height) for trace in answer.traces),
        boxes=tuple(view.on_plane(each, surface.height) for each in corners),
    )


def camera_of(info: CameraInfo, width: int, height: int) -> Camera:
    """The camera of a CameraInfo message, for its picture at another size.

    Raises:
        ProjectionError: the message describes no camera, or one that is not supported.
    """
    camera = Camera.from_info(
        int(info.width), int(info.height), info.k, info.d, info.distortion_model
    )
    return camera.scaled(width, height)


def depth_in_metres(message: Image) -> Array:
    """A depth Image (16UC1 in mm or 32FC1 in m) as [h, w] m; zero where nothing is known.

    Raises:
        ConversionError: the encoding is another one, or the sizes contradict each other.
    """
    known = _DEPTHS.get(message.encoding)
    if known is None:
        raise ConversionError(
            f"depth encoding '{message.encoding}' is not supported; use {', '.join(_DEPTHS)}"
        )
    dtype = np.dtype(known[0]).newbyteorder(">" if message.is_bigendian else "<")
    height, width, step = int(message.height), int(message.width), int(message.step)
    if step < width * dtype.itemsize or len(message.data) < step * height or not height * width:
        raise ConversionError(
            f"depth image {width}x{height}: step {step} and {len(message.data)} bytes do not fit"
        )
    rows = np.frombuffer(message.data, dtype=np.uint8, count=step * height).reshape(height, step)
    values = np.ascontiguousarray(rows[:, : width * dtype.itemsize]).view(dtype)
    return values.astype(np.float64) * known[1]
