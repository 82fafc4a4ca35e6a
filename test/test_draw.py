"""Drawing: what is drawn shows where it belongs, and any answer can be drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from internvla_ros.spatial.draw import AMBER, CYAN, MAGENTA, annotate, bar, blend, marks
from internvla_ros.spatial.types import Box, Point, SpatialAnswer, Trace

WIDTH, HEIGHT = 160, 120


def grey() -> NDArray[np.uint8]:
    return np.full((HEIGHT, WIDTH, 3), 90, np.uint8)


def near(image: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.abs(image.astype(int) - colour).max(axis=2) < 30


def extent(mask: NDArray[np.bool_]) -> list[int]:
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_box_is_drawn_at_its_pixels_and_the_picture_is_left_alone() -> None:
    image = grey()
    drawn = annotate(image, boxes=[Box(40, 30, 100, 90)])
    np.testing.assert_allclose(extent(near(drawn, AMBER)), [40, 30, 100, 90], atol=1)
    np.testing.assert_array_equal(image, grey())
    np.testing.assert_array_equal(drawn[:20, :20], image[:20, :20])


def test_grasp_and_place_are_marked_apart() -> None:
    drawn = annotate(grey(), points=[Point(40, 60), Point(120, 60)])
    left, right = near(drawn, AMBER), near(drawn, CYAN)
    assert left[:, :80].any() and not left[:, 80:].any()
    assert right[:, 80:].any() and not right[:, :80].any()
    assert (drawn[58:62, 38:42] > 200).any()


def test_trace_runs_from_white_to_magenta() -> None:
    points = np.linspace([20.0, 60.0], [140.0, 60.0], 10)
    drawn = annotate(grey(), traces=[Trace(points)])
    assert near(drawn, (255, 255, 255))[55:65, :40].any()
    assert near(drawn, MAGENTA)[55:65, 125:].any()
    np.testing.assert_array_equal(drawn[:40], grey()[:40])


def test_caption_covers_the_bottom_alone() -> None:
    drawn = annotate(grey(), caption="put the red cube in the bowl", status="5 Hz")
    assert drawn[-4:].mean() < 60
    np.testing.assert_array_equal(drawn[:60], grey()[:60])


@pytest.mark.parametrize(
    "caption",
    ["x" * 10_000, "word " * 2_000, " ", "\n\n", "ü 中文 {}"],
    ids=["one long word", "many words", "blank", "line ends", "other scripts"],
)
def test_any_caption_fits(caption: str) -> None:
    drawn = annotate(grey(), caption=caption)
    np.testing.assert_array_equal(drawn[:60], grey()[:60])


COORDINATES = st.floats(-500, 500)
PAIRS = st.tuples(COORDINATES, COORDINATES).map(sorted)
BOXES = st.builds(
    lambda us, vs, label: Box(us[0], vs[0], us[1], vs[1], label), PAIRS, PAIRS, st.text(max_size=20)
)
POINTS = st.builds(Point, COORDINATES, COORDINATES)
TRACES = st.lists(st.tuples(COORDINATES, COORDINATES), min_size=2, max_size=10).map(
    lambda points: Trace(np.array(points))
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(BOXES, max_size=3),
    st.lists(POINTS, max_size=3),
    st.lists(TRACES, max_size=2),
)
def test_any_answer_can_be_drawn(
    boxes: list[Box], points: list[Point], traces: list[Trace]
) -> None:
    answer = SpatialAnswer(tuple(boxes), tuple(points), tuple(traces))
    assert annotate(grey(), answer).shape == (HEIGHT, WIDTH, 3)


def test_degenerate_boxes_and_traces_are_drawn() -> None:
    still = Trace(np.full((10, 2), 50.0))
    assert annotate(grey(), boxes=[Box(5, 5, 5, 5, "dot")], traces=[still]).any()


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))]
)
def test_other_pictures_are_refused(image: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="must be uint8"):
        annotate(image)


def test_a_patch_laid_over_pictures_is_the_drawing_itself() -> None:
    """What is drawn once and blended often equals drawing anew, on any picture."""
    answer = SpatialAnswer((Box(30, 40, 60, 70, "cube", 0.9),), (Point(45, 55),))
    patches = [*marks((WIDTH, HEIGHT), answer), *bar((WIDTH, HEIGHT), "a task", "6 Hz")]
    for seed in range(3):
        image = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        expected = annotate(image, answer, caption="a task", status="6 Hz")
        np.testing.assert_array_equal(blend(image, *patches), expected)


def test_an_old_trace_fades() -> None:
    answer = SpatialAnswer(traces=(Trace(np.linspace([20.0, 60.0], [140.0, 60.0], 10)),))
    contrast = [
        np.abs(blend(grey(), *marks((WIDTH, HEIGHT), answer, strength)).astype(int) - 90).sum()
        for strength in (1.0, 0.6, 0.2)
    ]
    assert contrast[0] > contrast[1] > contrast[2] > 0


def test_what_lies_outside_of_the_picture_makes_no_patch() -> None:
    assert marks((WIDTH, HEIGHT), SpatialAnswer(points=(Point(900.0, 20.0),))) == []
