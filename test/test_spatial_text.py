"""Spatial answers as text: every form, round trips, and damage of every kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvla_ros.spatial.text import (
    format_boxes,
    format_points,
    format_trace,
    parse,
    rescale,
)
from internvla_ros.spatial.types import Box, Point, Trace

WIDTH, HEIGHT = 320, 240
US = st.integers(0, WIDTH)
VS = st.integers(0, HEIGHT)
LABELS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x1, x2 = sorted((draw(US), draw(US)))
    y1, y2 = sorted((draw(VS), draw(VS)))
    return Box(x1, y1, x2, y2, draw(LABELS))


POINTS = st.builds(Point, US, VS)
TRACES = st.lists(st.tuples(US, VS), min_size=2, max_size=12).map(
    lambda points: Trace(np.array(points, float))
)
ANSWERS = st.one_of(
    st.lists(boxes(), min_size=1, max_size=4).map(format_boxes),
    st.lists(POINTS, min_size=1, max_size=4).map(format_points),
    TRACES.map(format_trace),
)


@given(st.lists(boxes(), max_size=5))
def test_boxes_survive_writing_and_reading(items: list[Box]) -> None:
    answer = parse(format_boxes(items), WIDTH, HEIGHT)
    assert answer.boxes == tuple(items)
    assert not answer.problems and not answer.points and not answer.traces


@given(st.lists(POINTS, max_size=5))
def test_points_survive_writing_and_reading(items: list[Point]) -> None:
    answer = parse(format_points(items), WIDTH, HEIGHT)
    assert answer.points == tuple(items)
    assert not answer.problems and not answer.boxes


@given(TRACES)
def test_traces_survive_writing_and_reading(trace: Trace) -> None:
    answer = parse(format_trace(trace), WIDTH, HEIGHT)
    assert answer.traces == (trace,)
    assert not answer.problems and not answer.points


def test_written_forms_are_exact() -> None:
    box = Box(1.4, 2.5, 30, 40, "red cube")
    assert format_boxes([box, Box(0, 0, 1, 1, "blue bowl")]) == (
        '[{"bbox_2d": [1, 3, 30, 40], "label": "red cube"}, '
        '{"bbox_2d": [0, 0, 1, 1], "label": "blue bowl"}]'
    )
    assert format_points([Point(3, 4), Point(5.6, 7)]) == "[(3, 4), (6, 7)]"
    trace = Trace(np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert format_trace(trace) == '{"future_traj": [[1, 2], [3, 4]]}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '[{"bbox_2d": [1,2,30,40], "label": "cup"}]',
            [Box(1, 2, 30, 40, "cup")],
        ),
        (
            '```json\n[\n\t{"label": "cup", "bbox_2d": [1, 2, 30, 40], "score": 0.5}\n]\n```',
            [Box(1, 2, 30, 40, "cup")],
        ),
        (
            '{"response": "Sure.", "subtask": "Pick up the lion<box>[[104, 75, 146, 156]]</box>"}',
            [Box(104, 75, 146, 156, "lion")],
        ),
        (
            "<ref> women </ref> <box> [[67, 8, 90, 120], [100, 9, 130, 125]] </box>",
            [Box(67, 8, 90, 120, "women"), Box(100, 9, 130, 125, "women")],
        ),
        ("the box is [1, 2, 30, 40].", [Box(1, 2, 30, 40)]),
        ("[[1.5, 2.25, 30.0, 40]]", [Box(1.5, 2.25, 30, 40)]),
        ('{"bbox_2d": [[1, 2, 30, 40]]}', [Box(1, 2, 30, 40)]),
    ],
)
def test_boxes_of_every_form(text: str, expected: list[Box]) -> None:
    answer = parse(text, WIDTH, HEIGHT)
    assert list(answer.boxes) == expected
    assert answer.text == text
    assert not answer.problems


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[(10, 20), (30, 40)]", [Point(10, 20), Point(30, 40)]),
        ("[(10.5,20.0)]", [Point(10.5, 20)]),
        ("[[10, 20], [30, 40]]", [Point(10, 20), Point(30, 40)]),
        ('[{"point_2d": [10, 20], "label": "handle"}]', [Point(10, 20)]),
        ("Move to <point>[[10, 20]]</point>", [Point(10, 20, "Move to")]),
    ],
)
def test_points_of_every_form(text: str, expected: list[Point]) -> None:
    assert list(parse(text, WIDTH, HEIGHT).points) == expected


def test_trace_with_spaces_and_a_label() -> None:
    text = '{ "future_traj" : [ [1 , 2], [3, 4], [5, 6] ], "label": "gripper" }'
    answer = parse(text, WIDTH, HEIGHT)
    assert answer.traces == (Trace(np.array([[1.0, 2], [3, 4], [5, 6]]), "gripper"),)
    assert not answer.points and not answer.problems


def test_subtask_is_read_without_its_markup() -> None:
    text = '{"response": "ok", "subtask": "Pick up the lion<box>[[1, 2, 3, 4]]</box> now"}'
    assert parse(text, WIDTH, HEIGHT).subtask == "Pick up the lion now"


def test_several_kinds_in_one_text_keep_their_order() -> None:
    text = format_boxes([Box(1, 2, 3, 4, "a")]) + " " + format_points([Point(5, 6)])
    answer = parse(text + format_trace(Trace(np.eye(2))), WIDTH, HEIGHT)
    assert (len(answer.boxes), len(answer.points), len(answer.traces)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("text", "expected", "problem"),
    [
        ("[30, 40, 1, 2]", [Box(1, 2, 30, 40)], "corners swapped"),
        ("[-5, 2, 400, 40]", [Box(0, 2, 320, 40)], "reaching out of the image"),
        ("[330, 2, 400, 40]", [], "outside the image"),
        ('{"bbox_2d": [1, 2, 3], "label": "a"}', [], "3 numbers where 4 are needed"),
        ('{"bbox_2d": "none", "label": "a"}', [], '"bbox_2d" without complete numbers'),
        ('{"bbox_2d": [1, two, 3, 4], "label": "a"}', [], "unreadable list of numbers"),
        ("[1, 2, 1e999, 4]", [], "too large to be a pixel"),
        ("[" + "9" * 310 + ", 2, 3, 4]", [], "too large to be a pixel"),
        ('{"bbox_2d": [1, 2, 3, 4]', [], "cut off before its label"),
        ("[(500, 20)]", [], "a point outside the image"),
        ('{"future_traj": [[1, 2]]}', [], "single waypoint"),
    ],
)
def test_flaws_are_mended_or_left_out_and_named(
    text: str, expected: list[Box], problem: str
) -> None:
    answer = parse(text, WIDTH, HEIGHT)
    assert list(answer.boxes) == expected
    assert any(problem in words for words in answer.problems), answer.problems


def test_point_outside_is_moved_to_the_edge_so_that_order_is_kept() -> None:
    answer = parse("[(500, -3), (30, 40)]", WIDTH, HEIGHT)
    assert answer.points == (Point(320, 0), Point(30, 40))


@given(st.text())
def test_any_text_is_read_without_raising(text: str) -> None:
    assert parse(text, WIDTH, HEIGHT).text == text


# fmt: off
PIECES = st.sampled_from([
    '"bbox_2d":', '"label": "', '"future_traj"', "<box>", "</box>", "<ref>", "[", "]", "(", ")",
    "{", "}", ",", "1", "-7", "2.5", "9e99", '"', "\\", " ", "the cup", ":", "[1,2]",
])
# fmt: on


@given(st.lists(PIECES, max_size=40).map("".join))
def test_any_mixture_of_markup_stays_inside_the_image(text: str) -> None:
    answer = parse(text, WIDTH, HEIGHT)
    for box in answer.boxes:
        assert 0 <= box.x1 <= box.x2 <= WIDTH and 0 <= box.y1 <= box.y2 <= HEIGHT
    for point in answer.points:
        assert 0 <= point.x <= WIDTH and 0 <= point.y <= HEIGHT
    for trace in answer.traces:
        assert (trace.points >= 0).all() and (trace.points <= [WIDTH, HEIGHT]).all()


@given(ANSWERS, st.data())
def test_truncation_keeps_the_complete_items(text: str, data: st.DataObject) -> None:
    whole = parse(text, WIDTH, HEIGHT)
    cut = data.draw(st.integers(0, len(text) - 1))
    part = parse(text[:cut], WIDTH, HEIGHT)
    assert part.boxes == whole.boxes[: len(part.boxes)]
    assert part.points == whole.points[: len(part.points)]
    for trace in part.traces:
        np.testing.assert_array_equal(trace.points, whole.traces[0].points[: len(trace.points)])
    if cut > 0:
        assert part.problems


@given(st.lists(boxes(), min_size=1, max_size=4), st.data())
def test_truncation_loses_no_complete_box(items: list[Box], data: st.DataObject) -> None:
    complete = data.draw(st.integers(0, len(items)))
    end = len(format_boxes(items[:complete]).removesuffix("]"))
    text = format_boxes(items)
    cut = data.draw(st.integers(end, len(text)))
    assert parse(text[:cut], WIDTH, HEIGHT).boxes[:complete] == tuple(items[:complete])


def test_truncated_items_by_number() -> None:
    text = format_boxes([Box(1, 2, 3, 4, "a"), Box(5, 6, 7, 8, "b")])
    assert len(parse(text[: text.index("5")], WIDTH, HEIGHT).boxes) == 1
    text = format_trace(Trace(np.arange(20.0).reshape(10, 2)))
    (trace,) = parse(text[: text.index("[12")], WIDTH, HEIGHT).traces
    assert len(trace.points) == 6


@pytest.mark.parametrize("piece", ["[", "[1,", "<ref>", '"label": "', "{", "[ 1 ", '"a":', "\\"])
def test_long_hostile_texts_are_read_to_the_end(piece: str) -> None:
    assert not parse(piece * 20_000, WIDTH, HEIGHT).boxes


def test_rescale_touches_coordinates_alone() -> None:
    text = (
        'Box 3 of 4: [{"bbox_2d": [10, 20, 30, 40], "label": "cup 2"}], (1.5, 3), [7], '
        '{"future_traj": [[4, 6], [8, 10]]} in [x1,y1,x2,y2] format.'
    )
    assert rescale(text, 2, 0.5) == (
        'Box 3 of 4: [{"bbox_2d": [20, 10, 60, 20], "label": "cup 2"}], (3.00, 2), [7], '
        '{"future_traj": [[8, 3], [16, 5]]} in [x1,y1,x2,y2] format.'
    )


@given(ANSWERS)
def test_rescaling_up_and_down_again_changes_nothing(text: str) -> None:
    assert rescale(rescale(text, 3, 4), 1 / 3, 1 / 4) == text


def test_overlap_of_boxes() -> None:
    box = Box(0, 0, 10, 10)
    assert box.iou(box) == 1.0
    assert box.iou(Box(5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert box.iou(Box(20, 20, 30, 30)) == 0.0


def test_trace_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[N >= 2, 2\], not \[1, 2\]"):
        Trace(np.zeros((1, 2)))
