"""A whole answer as text, in each of the forms that InternVLA-M1 was trained to write."""

from __future__ import annotations

import json
from typing import Literal

from internvla_ros.spatial.text import format_box, format_boxes, format_points, format_trace
from internvla_ros.spatial.types import Box, SpatialAnswer

Form = Literal["json", "tagged", "subtask"]
"""How boxes are written: as Qwen2.5-VL's JSON, between <ref> and <box>, or inside the sentence of
`{"response": ..., "subtask": ...}`. Points and traces have one form each."""


def format(answer: SpatialAnswer, form: Form = "json") -> str:
    """The text of an answer, in whole pixels; `parse` reads it back.

    Raises:
        ValueError: an unknown form, or a label that the tagged forms can't hold.
    """
    if form not in ("json", "tagged", "subtask"):
        raise ValueError(f"no form '{form}'; there are json, tagged and subtask")
    parts = []
    if form == "subtask":
        parts.append(_subtask(answer))
    elif answer.boxes:
        tagged = "".join(
            f"<ref>{_plain(b)}</ref><box>[{format_box(b)}]</box>" for b in answer.boxes
        )
        parts.append(tagged if form == "tagged" else format_boxes(answer.boxes))
    if answer.points:
        parts.append(format_points(answer.points))
    parts += [format_trace(trace) for trace in answer.traces]
    return "\n".join(parts)


def _subtask(answer: SpatialAnswer) -> str:
    boxes = "".join(f" <ref>{_plain(b)}</ref><box>[{format_box(b)}]</box>" for b in answer.boxes)
    sentence = {"response": "", "subtask": f"{answer.subtask}{boxes}"}
    return json.dumps(sentence, ensure_ascii=False)


def _plain(box: Box) -> str:
    if any(character in box.label for character in '<>"\\'):
        raise ValueError(f"the label {box.label!r} can't stand between tags; use form 'json'")
    return box.label
