"""Takes every topic of a graph in as it comes from the wire and hands it to a recording."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message, serialize_message
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image

from internvla_ros.nodes.converters import ConversionError, image_to_rgb
from internvla_ros.recording.definitions import DefinitionError, definition

_IMAGE = "sensor_msgs/msg/Image"
_COMPRESSED = "sensor_msgs/msg/CompressedImage"
_DEPTH = 50  # messages that may wait while the disk is slow

Write = Callable[[str, str, bytes, bool], None]
"""Called with topic, type, CDR and whether the topic is latched."""


class GraphRecorder:
    """Subscribes to what is published, with the publishers' own quality of service.

    Colour pictures are kept as JPEG under TOPIC/compressed, as image_transport names them.
    """

    def __init__(self, node: Node, write: Write, exclude: str, jpeg_quality: int) -> None:
        """
        Args:
            node: subscribes.
            write: takes each message.
            exclude: a regular expression; topics that it matches as a whole are passed over.
            jpeg_quality: 1..100.

        Raises:
            ValueError: `exclude` is no regular expression.
        """
        try:
            self._exclude = re.compile(exclude)
        except re.error as error:
            raise ValueError(f"exclude '{exclude}' is no regular expression: {error}") from error
        self._node, self._write = node, write
        self._quality = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality]
        self._subscriptions: dict[str, tuple[Subscription, Callable[[bytes], None]]] = {}
        self._refused: set[str] = set()
        self.on_message: Callable[[str, bytes], None] = lambda topic, data: None
        """Is told of each message, after it was written: topic and CDR."""

    def look(self) -> None:
        """Subscribe to topics that have appeared; to be called now and then."""
        topics = dict(self._node.get_topic_names_and_types())
        for topic, types in topics.items():
            if topic in self._subscriptions or topic in self._refused:
                continue
            if self._exclude.fullmatch(topic) or f"{topic}/compressed" in topics:
                continue
            publishers = self._node.get_publishers_info_by_topic(topic)
            if publishers:
                self._subscribe(topic, types[0], publishers)

    def drain(self) -> None:
        """Write what has arrived and was not looked at yet: for the end."""
        for subscription, take in self._subscriptions.values():
            with subscription.handle:
                while True:
                    taken = subscription.handle.take_message(subscription.msg_type, True)
                    if taken is None:
                        break
                    take(taken[0])

    def _subscribe(self, topic: str, typename: str, publishers: list[Any]) -> None:
        try:
            definition(typename)
            package, _, name = typename.split("/")
            kind = getattr(importlib.import_module(f"{package}.msg"), name)
        except (DefinitionError, ImportError, AttributeError, ValueError) as error:
            self._refused.add(topic)
            self._node.get_logger().warning(f"not recording {topic}: {error}")
            return
        profile = _profile(publishers)
        latched = profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
        take = partial(
            self._on_image if typename == _IMAGE else self._on_message, topic, typename, latched
        )
        subscription = self._node.create_subscription(kind, topic, take, profile, raw=True)
        self._subscriptions[topic] = (subscription, take)

    def _on_message(self, topic: str, typename: str, latched: bool, data: bytes) -> None:
        self._write(topic, typename, data, latched)
        self.on_message(topic, data)

    def _on_image(self, topic: str, typename: str, latched: bool, data: bytes) -> None:
        message = deserialize_message(data, Image)
        try:
            picture = image_to_rgb(message)
        except ConversionError:  # depth, or a form that is not known: kept as it is
            self._write(topic, typename, data, latched)
            return
        _, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), self._quality)
        small = CompressedImage(header=message.header, format="rgb8; jpeg compressed bgr8")
        small.data.frombytes(encoded.tobytes())
        self._write(f"{topic}/compressed", _COMPRESSED, serialize_message(small), latched)


def picture_of(data: bytes) -> NDArray[np.uint8]:
    """The picture uint8 [h, w, 3] RGB of a CompressedImage given as CDR.

    Raises:
        ConversionError: it cannot be decoded.
    """
    message = deserialize_message(data, CompressedImage)
    picture = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ConversionError(f"a picture of format '{message.format}' cannot be decoded")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _profile(publishers: list[Any]) -> QoSProfile:
    """What matches all publishers of a topic: reliable or latched only where all of them are."""
    offered = [publisher.qos_profile for publisher in publishers]
    reliable = all(each.reliability == ReliabilityPolicy.RELIABLE for each in offered)
    latched = all(each.durability == DurabilityPolicy.TRANSIENT_LOCAL for each in offered)
    return QoSProfile(
        depth=_DEPTH,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )
