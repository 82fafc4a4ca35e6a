"""Pairs the cameras' images by their stamps into CameraViews."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from internvla_ros.msg import CameraViews
from internvla_ros.nodes.converters import ENCODINGS, ConversionError, image_to_rgb, rgb_to_image
from internvla_ros.nodes.diagnostics import ERROR, OK, WARN, Diagnostics, Health
from internvla_ros.nodes.pacing import RateLimit, RateMeter
from internvla_ros.nodes.pairing import StampPairer
from internvla_ros.nodes.parameters import declare, setting
from internvla_ros.nodes.qos import NEWEST, SENSOR_IN
from internvla_ros.nodes.runner import run
from internvla_ros.nodes.stamps import seconds, time_message
from internvla_ros.robots.embodiment import CameraSpec, load_embodiment


@dataclass(frozen=True)
class CameraConfig:
    """Parameters of camera_node."""

    robot: str = setting("widowx_250s", "the robot's name, or the path of its YAML file")
    rate: float = setting(10.0, "Hz, views at most so often", minimum=0.1, maximum=200.0)
    tolerance: float = setting(
        0.02, "s, the largest difference of stamps within one set", minimum=0.0, maximum=1.0
    )


class CameraNode(Node):
    """<camera>/image_raw and <camera>/camera_info of all cameras in; camera_views out."""

    def __init__(self) -> None:
        super().__init__("camera")
        config = declare(self, CameraConfig)
        self._cameras = load_embodiment(config.robot).cameras
        streams = [f"{c.name}/{kind}" for c in self._cameras for kind in ("image", "info")]
        self._pairer: StampPairer[Image | CameraInfo] = StampPairer(streams, config.tolerance)
        self._limit = RateLimit(config.rate)
        self._meter = RateMeter(window=5.0)
        self._sequence = 0
        self._problem = ""
        self._out = self.create_publisher(CameraViews, "camera_views", NEWEST)
        for camera in self._cameras:
            on_image = partial(self._on_image, camera)
            on_info = partial(self._on_info, camera)
            self.create_subscription(Image, f"{camera.name}/image_raw", on_image, SENSOR_IN)
            self.create_subscription(CameraInfo, f"{camera.name}/camera_info", on_info, SENSOR_IN)
        self._diagnostics = Diagnostics(self, self._health)

    def _on_image(self, camera: CameraSpec, message: Image) -> None:
        self._problem = _fault(camera, message)
        if self._problem:
            self.get_logger().error(self._problem, throttle_duration_sec=5.0)
            return
        self._add(f"{camera.name}/image", message)

    def _on_info(self, camera: CameraSpec, message: CameraInfo) -> None:
        self._add(f"{camera.name}/info", message)

    def _add(self, stream: str, message: Image | CameraInfo) -> None:
        paired = self._pairer.add(stream, seconds(message.header.stamp), message)
        if paired is None:
            return
        stamp = min(seconds(each.header.stamp) for each in paired[0::2])
        if not self._limit.ready(stamp):
            return
        try:
            images = [_as_rgb8(image) for image in paired[0::2]]
        except ConversionError as error:
            self._problem = str(error)
            self.get_logger().error(self._problem, throttle_duration_sec=5.0)
            return
        self._sequence += 1
        views = CameraViews(
            sequence=self._sequence,
            names=[camera.name for camera in self._cameras],
            images=images,
            infos=paired[1::2],
        )
        views.header.stamp = time_message(stamp)
        self._out.publish(views)
        self._meter.tick(self._now())

    def _health(self) -> Health:
        now = self._now()
        rate = self._meter.rate(now)
        values = {"rate": f"{rate:.1f}", "views": str(self._sequence)}
        if self._problem:
            return Health(ERROR, self._problem, values)
        if rate > 0.0:
            return Health(OK, "publishing views", values)
        silent = ", ".join(self._pairer.missing(now)) or "none"
        return Health(WARN, f"no complete set of images; missing now: {silent}", values)

    def _now(self) -> float:
        return seconds(self.get_clock().now().to_msg())


def _fault(camera: CameraSpec, message: Image) -> str:
    """What is wrong with an image of a camera; empty when nothing is."""
    if message.encoding not in ENCODINGS:
        return (
            f"camera {camera.name}: encoding '{message.encoding}' is not supported; "
            f"publish one of {', '.join(ENCODINGS)}"
        )
    if (message.width, message.height) != (camera.width, camera.height):
        return (
            f"camera {camera.name}: the image is {message.width}x{message.height}, the robot's "
            f"description says {camera.width}x{camera.height}; change the camera's mode or the "
            "description"
        )
    return ""


def _as_rgb8(message: Image) -> Image:
    """The image itself when it is rgb8 already, else a converted copy."""
    if message.encoding == "rgb8":
        image_to_rgb(message)  # raises where sizes contradict each other; copies nothing
        return message
    return rgb_to_image(image_to_rgb(message), message.header)


def main() -> int:
    """Run camera_node."""
    return run(CameraNode)


if __name__ == "__main__":
    sys.exit(main())
