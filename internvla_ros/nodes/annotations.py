"""Predictions as the messages of other tools: vision_msgs and foxglove_msgs, where installed."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from internvla_ros.msg import SpatialPrediction
from internvla_ros.spatial.draw import INK, MAGENTA, PALETTE, Colour

_LINE = 2.0  # px
_DOT = 14.0  # px
_LETTERS = 14.0  # px


def messages_of(package: str) -> ModuleType | None:
    """The module of a package's messages; None where it is not installed."""
    try:
        return importlib.import_module(f"{package}.msg")
    except ImportError:
        return None


def detections(message: SpatialPrediction, vision_msgs: Any) -> Any:
    """A prediction's boxes as vision_msgs/Detection2DArray, centres and sizes in px.

    Args:
        vision_msgs: the module vision_msgs.msg.
    """
    found = vision_msgs.Detection2DArray(header=message.header)
    for box in message.boxes:
        detection = vision_msgs.Detection2D(header=message.header)
        detection.bbox.center.position.x = (box.x_min + box.x_max) / 2
        detection.bbox.center.position.y = (box.y_min + box.y_max) / 2
        detection.bbox.size_x = box.x_max - box.x_min
        detection.bbox.size_y = box.y_max - box.y_min
        hypothesis = vision_msgs.ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id = box.label
        hypothesis.hypothesis.score = box.score
        detection.results = [hypothesis]
        found.detections.append(detection)
    return found


def image_annotations(message: SpatialPrediction, foxglove_msgs: Any) -> Any:
    """A prediction as foxglove_msgs/ImageAnnotations over the image that it is about, in px.

    Args:
        foxglove_msgs: the module foxglove_msgs.msg.
    """
    make = _Foxglove(foxglove_msgs, message.header.stamp)
    found = foxglove_msgs.ImageAnnotations()
    for index, box in enumerate(message.boxes):
        colour = PALETTE[index % len(PALETTE)]
        x1, y1, x2, y2 = box.x_min, box.y_min, box.x_max, box.y_max
        corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
        found.points.append(make.line(corners, colour, closed=True))
        if box.label:
            words = box.label if box.score >= 1 else f"{box.label} {box.score:.2f}"
            found.texts.append(make.text((x1, y1), words, colour))
    for index, point in enumerate(message.points):
        found.circles.append(make.dot((point.x, point.y), PALETTE[index % len(PALETTE)]))
    for trace in message.traces:
        places = list(zip(trace.x, trace.y, strict=False))
        found.points.append(make.line(places, MAGENTA, closed=False))
    return found


class _Foxglove:
    """Makes annotations of one stamp."""

    def __init__(self, messages: Any, stamp: Any) -> None:
        self._messages, self._stamp = messages, stamp

    def line(self, places: list[tuple[float, float]], colour: Colour, *, closed: bool) -> Any:
        kind = self._messages.PointsAnnotation
        return kind(
            timestamp=self._stamp,
            type=kind.LINE_LOOP if closed else kind.LINE_STRIP,
            points=[self._point(place) for place in places],
            outline_color=self._colour(colour),
            thickness=_LINE,
        )

    def dot(self, place: tuple[float, float], colour: Colour) -> Any:
        return self._messages.CircleAnnotation(
            timestamp=self._stamp,
            position=self._point(place),
            diameter=_DOT,
            thickness=_LINE,
            outline_color=self._colour(colour),
            fill_color=self._colour(colour, 0.3),
        )

    def text(self, place: tuple[float, float], words: str, colour: Colour) -> Any:
        return self._messages.TextAnnotation(
            timestamp=self._stamp,
            position=self._point(place),
            text=words,
            font_size=_LETTERS,
            text_color=self._colour(INK),
            background_color=self._colour(colour),
        )

    def _point(self, place: tuple[float, float]) -> Any:
        return self._messages.Point2(x=float(place[0]), y=float(place[1]))

    def _colour(self, colour: Colour, opacity: float = 1.0) -> Any:
        red, green, blue = (value / 255 for value in colour)
        return self._messages.Color(r=red, g=green, b=blue, a=opacity)
