"""Whole answers, written in every form and read back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvla_ros import spatial
from internvla_ros.spatial.forms import Form
from internvla_ros.spatial.types import Box, Point, SpatialAnswer, Trace

WIDTH, HEIGHT = 640, 480
US, VS = st.integers(0, WIDTH), st.integers(0, HEIGHT)
WORDS = st.from_regex(r"[a-z]+( [a-z]+){0,2}", fullmatch=True)
BOXES = st.builds(
    lambda x, y, label: Box(min(x), min(y), max(x), max(y), label),
    st.tuples(US, US),
    st.tuples(VS, VS),
    WORDS,
)
TRACES = st.lists(st.tuples(US, VS), min_size=2, max_size=10).map(
    lambda points: Trace(np.array(points, float))
)
ANSWERS = st.builds(
    SpatialAnswer,
    boxes=st.lists(BOXES, max_size=3).map(tuple),
    points=st.lists(st.builds(Point, US, VS), max_size=3).map(tuple),
    traces=st.lists(TRACES, max_size=1).map(tuple),
)


@given(ANSWERS, st.sampled_from(["json", "tagged"]))
def test_answers_survive_writing_and_reading(answer: SpatialAnswer, form: Form) -> None:
    text = spatial.format(answer, form)
    assert spatial.parse(text, WIDTH, HEIGHT) == replace(answer, text=text)


@given(ANSWERS, WORDS)
def test_subtasks_survive_with_their_boxes(answer: SpatialAnswer, subtask: str) -> None:
    stated = replace(answer, subtask=subtask)
    text = spatial.format(stated, "subtask")
    read = spatial.parse(text, WIDTH, HEIGHT)
    assert (read.boxes, read.points, read.traces) == (answer.boxes, answer.points, answer.traces)
    assert read.subtask.startswith(subtask)
    assert not read.problems


def test_what_a_form_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="can't stand between tags"):
        spatial.format(SpatialAnswer(boxes=(Box(0, 0, 1, 1, "a<b"),)), "tagged")
    with pytest.raises(ValueError, match="no form 'xml'"):
        spatial.format(SpatialAnswer(), "xml")  # type: ignore[arg-type]
