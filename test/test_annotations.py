"""Predictions as messages of vision_msgs and foxglove_msgs, against their written field lists.

The lists stand in test/definitions; where the packages are installed, the real classes are used.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("internvla_ros.msg")

from internvla_ros.msg import Box, ImagePoint, SpatialPrediction, Trace

from internvla_ros.nodes.annotations import detections, image_annotations, messages_of

DEFINITIONS = Path(__file__).parent / "definitions"
ZEROS: dict[str, Any] = {"string": "", "float64": 0.0, "uint8": 0}


def messages(package: str) -> Any:
    """The messages of a package: the real ones, or classes made from the field lists."""
    real = messages_of(package)
    if real is not None:
        return real
    made = SimpleNamespace()
    for path in (DEFINITIONS / package / "msg").glob("*.msg"):
        setattr(made, path.stem, _class(path, made))
    return made


def _class(path: Path, siblings: SimpleNamespace) -> type:
    """A class with exactly the fields and constants of a definition."""
    lines = [line.split() for line in path.read_text().splitlines()]
    constants = dict(words[1].split("=") for words in lines if "=" in words[1])
    fields = {words[1]: words[0] for words in lines if "=" not in words[1]}

    def init(self: Any, **values: Any) -> None:
        for name, kind in fields.items():
            setattr(self, name, values.pop(name) if name in values else _zero(kind, siblings))
        assert not values, f"{path.stem} has no field {', '.join(values)}"

    members = {name: int(value) for name, value in constants.items()}
    return type(path.stem, (), {"__slots__": tuple(fields), "__init__": init, **members})


def _zero(kind: str, siblings: SimpleNamespace) -> Any:
    if kind.endswith("[]"):
        return []
    if kind in ZEROS:
        return ZEROS[kind]
    package, name = kind.split("/")
    if hasattr(siblings, name):
        return getattr(siblings, name)()
    return getattr(importlib.import_module(f"{package}.msg"), name)()


@pytest.fixture
def prediction() -> SpatialPrediction:
    message = SpatialPrediction(camera="front", width=640, height=480)
    message.header.frame_id = "front_optical_frame"
    message.header.stamp.sec = 7
    message.boxes = [
        Box(label="red cube", x_min=10.0, y_min=20.0, x_max=30.0, y_max=60.0, score=0.5),
        Box(label="", x_min=100.0, y_min=20.0, x_max=300.0, y_max=60.0, score=1.0),
    ]
    message.points = [ImagePoint(x=20.0, y=40.0), ImagePoint(x=200.0, y=40.0)]
    message.traces = [Trace(x=[20.0, 100.0, 200.0], y=[40.0, 10.0, 40.0])]
    return message


def test_boxes_become_detections(prediction: SpatialPrediction) -> None:
    found = detections(prediction, messages("vision_msgs"))
    assert found.header.frame_id == "front_optical_frame"
    first, second = found.detections
    assert (first.bbox.center.position.x, first.bbox.center.position.y) == (20.0, 40.0)
    assert (first.bbox.size_x, first.bbox.size_y) == (20.0, 40.0)
    (result,) = first.results
    assert (result.hypothesis.class_id, result.hypothesis.score) == ("red cube", 0.5)
    assert (second.bbox.size_x, second.results[0].hypothesis.score) == (200.0, 1.0)


def test_a_prediction_becomes_image_annotations(prediction: SpatialPrediction) -> None:
    kinds = messages("foxglove_msgs")
    found = image_annotations(prediction, kinds)
    first, second, trace = found.points
    line = kinds.PointsAnnotation
    assert (first.type, second.type, trace.type) == (line.LINE_LOOP,) * 2 + (line.LINE_STRIP,)
    assert [(p.x, p.y) for p in first.points] == [(10, 20), (30, 20), (30, 60), (10, 60)]
    assert [(p.x, p.y) for p in trace.points] == [(20, 40), (100, 10), (200, 40)]
    assert first.timestamp.sec == 7
    assert [(c.position.x, c.position.y) for c in found.circles] == [(20, 40), (200, 40)]
    (text,) = found.texts
    assert (text.text, text.position.x) == ("red cube 0.50", 10.0)
    assert 0.0 <= text.background_color.r <= 1.0 and text.text_color.a == 1.0


def test_a_package_that_is_not_there() -> None:
    assert messages_of("no_such_package_msgs") is None
