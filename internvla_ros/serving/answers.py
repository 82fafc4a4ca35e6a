"""Spatial answers as maps of plain values and arrays, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from internvla_ros.spatial.types import Box, Point, SpatialAnswer, Trace


class AnswerError(ValueError):
    """A map that is no spatial answer."""


def answer_to_map(answer: SpatialAnswer) -> dict[str, Any]:
    """Boxes are float64 [N, 5] (x1, y1, x2, y2, score), points [N, 2], traces [N, 2] each."""
    corners = [(b.x1, b.y1, b.x2, b.y2, b.score) for b in answer.boxes]
    return {
        "boxes": np.array(corners, np.float64).reshape(-1, 5),
        "box_labels": [b.label for b in answer.boxes],
        "points": np.array([(p.x, p.y) for p in answer.points], np.float64).reshape(-1, 2),
        "point_labels": [p.label for p in answer.points],
        "traces": [trace.points for trace in answer.traces],
        "trace_labels": [trace.label for trace in answer.traces],
        "text": answer.text,
        "problems": list(answer.problems),
        "subtask": answer.subtask,
    }


def answer_from_map(content: Any) -> SpatialAnswer:
    """The answer in a map that `answer_to_map` made.

    Raises:
        AnswerError: it is none.
    """
    try:
        rows = zip(content["boxes"].tolist(), content["box_labels"], strict=True)
        points = zip(content["points"].tolist(), content["point_labels"], strict=True)
        traces = zip(content["traces"], content["trace_labels"], strict=True)
        return SpatialAnswer(
            boxes=tuple(Box(x1, y1, x2, y2, name, s) for (x1, y1, x2, y2, s), name in rows),
            points=tuple(Point(x, y, label) for (x, y), label in points),
            traces=tuple(Trace(np.array(path), label) for path, label in traces),
            text=content["text"],
            problems=tuple(content["problems"]),
            subtask=content["subtask"],
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise AnswerError(f"the server's spatial answer cannot be read: {error!r}") from error
