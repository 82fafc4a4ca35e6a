"""Boxes, points and traces written as text, and read from it.

Written forms, in whole pixels of the image that the model sees:

    boxes   [{"bbox_2d": [12, 30, 48, 66], "label": "red cube"}, ...]
    points  [(30, 48), (90, 51)]
    trace   {"future_traj": [[30, 48], [35, 40], ...]}

Read besides: `<ref>red cube</ref><box>[[12, 30, 48, 66]]</box>`, boxes inside sentences such as
`{"subtask": "Pick up the lion<box>[[...]]</box>"}`, bare `[x1, y1, x2, y2]`, `"point_2d"`, and any
of them in code fences. Reading works on what is there: a damaged or cut-off answer yields the items
that are complete.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from internvla_ros.spatial.types import Box, Point, SpatialAnswer, Trace

BOX_KEYS = frozenset({"bbox_2d", "bbox", "box_2d", "box"})
POINT_KEYS = frozenset({"point_2d", "point", "points"})
TRACE_KEYS = frozenset({"future_traj", "trajectory", "trace"})

_NUMBER = r"[+-]?\d++(?:\.\d*+)?(?:[eE][+-]?\d++)?"
_STRING = r'"((?:[^"\\]++|\\.)*+)"'
_TOKEN = re.compile(
    rf"""
    "label"\s*+:\s*+{_STRING}
    | (?P<torn>"label"\s*+:\s*+"(?:[^"\\]++|\\.)*+\\?\Z)
    | "(?:score|confidence)"\s*+:\s*+(?P<score>{_NUMBER})
    | "(?P<key>\w++)"\s*+:
    | <ref>(?P<ref>[^<]*+)</ref>
    | <(?P<tag>/?(?:box|point))>
    | (?P<brace>[{{}}])
    | (?P<group>[\[(]\s*+{_NUMBER}(?:\s*+,\s*+{_NUMBER})*+\s*+[\])])
    | (?P<broken>[\[(]\s*+[+-]?\d)
    | (?P<bracket>[\[\]])
    """,
    re.VERBOSE | re.DOTALL,
)
_GROUP = re.compile(rf"[\[(]\s*+{_NUMBER}(?:\s*+,\s*+{_NUMBER})*+\s*+[\])]")
_VALUE = re.compile(_NUMBER)
_SUBTASK = re.compile(rf'"subtask"\s*+:\s*+{_STRING}', re.DOTALL)
_MARKUP = re.compile(r"</?ref>|<(box|point)>[^<]*+(?:</\1>)?")
_NOUN = re.compile(r"(?:.*\b)?(?:the|an?)\s+(.+)$", re.IGNORECASE | re.DOTALL)


def pixel(value: float) -> int:
    """The whole number that a coordinate is written as: the nearest one, halves upwards."""
    return math.floor(value + 0.5)


def format_box(box: Box) -> str:
    """`[x1, y1, x2, y2]`."""
    return f"[{pixel(box.x1)}, {pixel(box.y1)}, {pixel(box.x2)}, {pixel(box.y2)}]"


def format_boxes(boxes: Sequence[Box]) -> str:
    """`[{"bbox_2d": [x1, y1, x2, y2], "label": "red cube"}, ...]`."""
    items = (
        f'{{"bbox_2d": {format_box(box)}, "label": {json.dumps(box.label, ensure_ascii=False)}}}'
        for box in boxes
    )
    return f"[{', '.join(items)}]"


def format_points(points: Sequence[Point]) -> str:
    """`[(x, y), ...]`."""
    return f"[{', '.join(f'({pixel(point.x)}, {pixel(point.y)})' for point in points)}]"


def format_trace(trace: Trace) -> str:
    """`{"future_traj": [[x, y], ...]}`."""
    waypoints = ", ".join(f"[{pixel(x)}, {pixel(y)}]" for x, y in trace.points)
    return f'{{"future_traj": [{waypoints}]}}'


def rescale(text: str, sx: float, sy: float) -> str:
    """Scale every coordinate in a text: `[x, y]`, `(x, y)` and `[x1, y1, x2, y2]`.

    Whole numbers stay whole; everything else in the text stays as it is.
    """

    def replace(match: re.Match[str]) -> str:
        group = match.group()
        count = len(_VALUE.findall(group))
        if count not in (2, 4):
            return group
        scales = iter([sx, sy] * (count // 2))
        return _VALUE.sub(lambda value: _scaled_number(value.group(), next(scales)), group)

    return _GROUP.sub(replace, text)


def _scaled_number(text: str, scale: float) -> str:
    value = float(text) * scale
    if not math.isfinite(value):
        return text
    return str(pixel(value)) if text.lstrip("+-").isdigit() else f"{value:.2f}"


def parse(text: str, width: float, height: float) -> SpatialAnswer:
    """Read every box, point and trace of a text; never raises on any text.

    Args:
        text: what a model answered.
        width, height: of the image whose pixels the coordinates are. Boxes are clipped to it
            (those wholly outside are left out), points and waypoints are moved to its edge; both
            are listed in `problems`.

    Returns:
        The complete items in the order of the text, and what was wrong with the rest.
    """
    return _Reader(text, width, height).read()


@dataclass
class _Object:
    """One `{...}` while it is being read (the text as a whole counts as one)."""

    key: str = ""
    label: str | None = None
    score: float = 1.0
    boxes: list[tuple[int, list[float]]] = field(default_factory=list)
    waypoints: list[list[float]] = field(default_factory=list)
    unfilled: bool = False
    closed: bool = False


class _Reader:
    """One pass over a text, from token to token."""

    def __init__(self, text: str, width: float, height: float) -> None:
        self.text = text
        self.width = width
        self.height = height
        self.boxes: list[tuple[int, Box]] = []
        self.points: list[Point] = []
        self.traces: list[Trace] = []
        self.problems: list[str] = []
        self.stack = [_Object()]
        self.tag = ""
        self.tag_label = ""
        self.open_brackets = 0

    def read(self) -> SpatialAnswer:
        end = 0
        for match in _TOKEN.finditer(self.text):
            self._token(match, self.text[end : match.start()])
            end = match.end()
        if len(self.stack) > 1 or self.open_brackets > 0 or self.tag:
            self._problem("the text is cut off")
        self.stack[0].closed = True
        while self.stack:
            self._finish(self.stack.pop())
        return SpatialAnswer(
            boxes=tuple(box for _, box in sorted(self.boxes, key=lambda item: item[0])),
            points=tuple(self.points),
            traces=tuple(self.traces),
            text=self.text,
            problems=tuple(dict.fromkeys(self.problems)),
            subtask=_subtask(self.text),
        )

    def _token(self, match: re.Match[str], before: str) -> None:
        """Take in one token; `before` is the prose between it and the one before."""
        current = self.stack[-1]
        if match[1] is not None:
            self._label(current, _unescaped(match[1]))
        elif match["torn"] is not None:
            self._problem("the text is cut off inside a label")
        elif match["score"] is not None:
            current.score = min(max(float(match["score"]), 0.0), 1.0)
        elif match["key"] is not None:
            self._key(current, match["key"])
        elif match["ref"] is not None:
            self.tag_label = match["ref"].strip()
        elif match["tag"] is not None:
            self._tag(match["tag"], before)
        elif match["brace"] is not None:
            self._brace(match["brace"])
        elif match["group"] is not None:
            self._group(current, match.start(), match["group"])
        elif match["broken"] is not None:
            excerpt = self.text[match.start() : match.start() + 30]
            self._problem(f"an unfinished or unreadable list of numbers: {excerpt!r}")
        else:
            self.open_brackets += 1 if match["bracket"] == "[" else -1

    def _label(self, current: _Object, label: str) -> None:
        current.label = label
        self._flush(current)

    def _key(self, current: _Object, key: str) -> None:
        self._complain_if_unfilled(current)
        current.key = key
        current.unfilled = key in BOX_KEYS | POINT_KEYS | TRACE_KEYS

    def _tag(self, tag: str, before: str) -> None:
        if tag.startswith("/"):
            self.tag = self.tag_label = ""
            return
        self.tag = tag
        if not self.tag_label:
            prose = re.sub(r"[\"\s]+", " ", before).strip()
            noun = _NOUN.match(prose)
            self.tag_label = noun[1] if noun else prose

    def _brace(self, brace: str) -> None:
        if brace == "{":
            self.stack.append(_Object())
        elif len(self.stack) > 1:
            self.stack[-1].closed = True
            self._finish(self.stack.pop())

    def _group(self, current: _Object, position: int, group: str) -> None:
        """Take in `[x, y]`, `(x, y)` or `[x1, y1, x2, y2]`."""
        numbers = [float(number) for number in _VALUE.findall(group)]
        current.unfilled = False
        wanted = self._wanted_count(current)
        if not all(math.isfinite(number) for number in numbers):
            self._problem(f"a number too large to be a pixel: {group[:30]!r}")
        elif len(numbers) not in wanted:
            self._problem(f"{len(numbers)} numbers where {_or(wanted)} are needed: {group[:40]!r}")
        elif self.tag:
            self._emit_tagged(position, numbers)
        elif current.key in TRACE_KEYS:
            current.waypoints.append(numbers)
        elif len(numbers) == 4:
            current.boxes.append((position, numbers))
            if current.label is not None:
                self._flush(current)
        else:
            self._emit_point(numbers, current.label or "")

    def _wanted_count(self, current: _Object) -> tuple[int, ...]:
        if self.tag:
            return (4,) if self.tag == "box" else (2,)
        if current.key in BOX_KEYS:
            return (4,)
        if current.key in POINT_KEYS | TRACE_KEYS:
            return (2,)
        return (2, 4)

    def _emit_tagged(self, position: int, numbers: list[float]) -> None:
        if self.tag == "box":
            self._emit_box(position, numbers, self.tag_label, 1.0)
        else:
            self._emit_point(numbers, self.tag_label)

    def _finish(self, finished: _Object) -> None:
        """An object ended, by its brace or by the end of the text."""
        self._complain_if_unfilled(finished)
        if finished.closed:
            finished.label = finished.label or ""
            self._flush(finished)
        elif finished.boxes:
            self._problem("the last box is cut off before its label")
        if len(finished.waypoints) == 1:
            self._problem("a trace of a single waypoint")
        elif finished.waypoints:
            points = np.array([self._inside(x, y) for x, y in finished.waypoints])
            self.traces.append(Trace(points, finished.label or ""))

    def _flush(self, current: _Object) -> None:
        """Give the boxes read so far their object's label."""
        for position, numbers in current.boxes:
            self._emit_box(position, numbers, current.label or "", current.score)
        current.boxes.clear()

    def _emit_box(self, position: int, numbers: list[float], label: str, score: float) -> None:
        x1, x2 = sorted((numbers[0], numbers[2]))
        y1, y2 = sorted((numbers[1], numbers[3]))
        if [x1, y1, x2, y2] != numbers:
            self._problem(f"a box with its corners swapped: {_short(numbers)}")
        if x2 < 0 or y2 < 0 or x1 > self.width or y1 > self.height:
            self._problem(f"a box outside the image: {_short(numbers)}")
            return
        left, top = max(x1, 0.0), max(y1, 0.0)
        right, bottom = min(x2, float(self.width)), min(y2, float(self.height))
        if (left, top, right, bottom) != (x1, y1, x2, y2):
            self._problem(f"a box reaching out of the image: {_short(numbers)}")
        self.boxes.append((position, Box(left, top, right, bottom, label, score)))

    def _emit_point(self, numbers: list[float], label: str) -> None:
        self.points.append(Point(*self._inside(numbers[0], numbers[1]), label))

    def _inside(self, x: float, y: float) -> tuple[float, float]:
        """The nearest place in the image."""
        moved = min(max(x, 0.0), float(self.width)), min(max(y, 0.0), float(self.height))
        if moved != (x, y):
            self._problem(f"a point outside the image: {_short([x, y])}")
        return moved

    def _complain_if_unfilled(self, current: _Object) -> None:
        if current.unfilled:
            self._problem(f'"{current.key}" without complete numbers')
            current.unfilled = False

    def _problem(self, words: str) -> None:
        self.problems.append(words)


def _subtask(text: str) -> str:
    """The value of "subtask" without the boxes and points in it."""
    match = _SUBTASK.search(text)
    if match is None:
        return ""
    return " ".join(_MARKUP.sub(" ", _unescaped(match[1])).split())


def _unescaped(body: str) -> str:
    """The value of a JSON string's inside; unreadable escapes stay as written."""
    try:
        value = str(json.loads(f'"{body}"', strict=False))
    except json.JSONDecodeError:
        value = body
    return value.encode("utf-8", "replace").decode("utf-8")


def _or(counts: tuple[int, ...]) -> str:
    return " or ".join(str(count) for count in counts)


def _short(numbers: Sequence[float]) -> str:
    return f"[{', '.join(f'{number:g}' for number in numbers)}]"
