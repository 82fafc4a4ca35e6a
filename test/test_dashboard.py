"""The dashboard's parts without a browser: memory, plots, words, shapes, places in space."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("viser")

from internvla_ros.dashboard import words
from internvla_ros.dashboard.charts import CHARTS, NAMES, SPAN, Rates, Series
from internvla_ros.dashboard.journal import Journal, Outcome
from internvla_ros.dashboard.lift import lift_points, lift_trace
from internvla_ros.dashboard.page import _scales
from internvla_ros.dashboard.scene import segments
from internvla_ros.dashboard.shapes import ShapeError, looks
from internvla_ros.motion.se3 import Pose
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import known_embodiments, load_embodiment
from internvla_ros.spatial.projection import Camera, View
from internvla_ros.spatial.types import Point, Trace


def outcome(instruction: str, *, success: bool = False, stopped: bool = False) -> Outcome:
    return Outcome("12:00:00", instruction, success, stopped, "why", 3.0)


def test_the_journal_follows_an_instruction() -> None:
    journal = Journal()
    journal.begin("put a on b")
    for subtask, elapsed in (("find a", 0.5), ("find a", 1.0), ("grasp a", 2.0)):
        journal.progress(subtask, elapsed)
    assert (journal.subtasks, journal.elapsed) == (["find a", "grasp a"], 2.0)
    journal.idle()
    journal.end(outcome("put a on b", success=True))
    journal.begin("put b on c")
    assert journal.subtasks == []
    journal.idle()
    journal.end(outcome("put b on c"))
    journal.end(outcome("put b on c", stopped=True))
    assert (journal.done, journal.failed, len(journal.outcomes)) == (1, 1, 3)
    assert journal.outcomes[0].stopped


def test_what_is_paused_waits_until_something_begins() -> None:
    journal = Journal()
    journal.begin("put a on b")
    journal.pause()
    journal.idle()
    assert (journal.instruction, journal.paused) == ("", "put a on b")
    journal.begin("put a on b")
    assert journal.paused == ""


@given(st.lists(st.sampled_from("abcdefghijklmnopqrst"), max_size=60))
def test_the_history_has_each_instruction_once_the_newest_first(given_: list[str]) -> None:
    journal = Journal()
    for each in given_:
        journal.remember(each)
    newest_first = list(dict.fromkeys(reversed(given_)))
    assert journal.history == newest_first[:12]


def test_a_stretch_keeps_its_worst_and_what_is_unknown_is_a_gap() -> None:
    series = Series(NAMES)
    for value in (0.1, 0.3, 0.2, float("nan")):
        series.note("planner", value)
    series.sample(0.0)
    series.sample(0.5)
    times, planner, actor, *_ = series.columns(CHARTS[0])
    assert times.tolist() == [-0.5, 0.0]
    assert planner[0] == pytest.approx(300.0) and np.isnan(planner[1])
    assert np.isnan(actor).all()


def test_a_plot_looks_back_a_minute() -> None:
    series = Series(NAMES)
    for second in range(200):
        series.note("error", second)
        series.sample(float(second))
    times, error = series.columns(CHARTS[1])
    assert times[0] == -SPAN and times[-1] == 0.0
    assert error[-1] == 199e3


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=20))
def test_every_value_fits_into_its_plot(values: list[float]) -> None:
    for chart in CHARTS:
        columns = (np.zeros(len(values)), *[np.array(values)] * len(chart.curves))
        low, top = _scales(chart, columns)["y"]["range"]
        assert low == 0.0 and top >= max([chart.least, *values])
        assert top <= 10.0 * max([chart.least, *values])


def test_rates_of_counters() -> None:
    rates = Rates()
    assert rates.of("late", 5, 0.0) == 0.0
    assert rates.of("late", 7, 0.5) == pytest.approx(4.0)
    assert rates.of("late", 0, 1.0) == 0.0  # the node was started again
    assert rates.of("late", 1, 1.5) == pytest.approx(2.0)


@given(st.text())
def test_no_text_from_outside_becomes_markup(text: str) -> None:
    evil = f"<script>{text}</script><img src=x onerror=alert(1)>\"'&"
    journal = Journal()
    journal.begin(evil)
    journal.progress(evil, 1.0)
    journal.end(Outcome("12:00:00", evil, False, False, evil, 1.0))
    for html in (
        words.status("fault", evil, journal),
        words.note(evil),
        words.subtasks(journal.subtasks, True),
        words.planner(evil, 0.1),
        words.outcomes(journal),
        words.interventions({evil: 2}),
    ):
        assert "<script" not in html and "<img" not in html
        assert "&lt;script&gt;" in html


@pytest.mark.parametrize("state", words.STATES)
def test_the_status_names_state_and_instruction(state: str) -> None:
    journal = Journal()
    journal.begin("put a on b")
    html = words.status(state, "", journal)
    assert f'data-state="{state}"' in html and "put a on b" in html


def test_only_what_happened_is_told_of_safety() -> None:
    html = words.interventions({"late cycle": 3, "plan stale": 0})
    assert "late cycle" in html and "plan stale" not in html
    assert "has not had to step in" in words.interventions({"plan stale": 0})


@pytest.mark.parametrize("name", known_embodiments())
def test_every_robot_that_ships_can_be_drawn(name: str) -> None:
    found = looks(urdf(load_embodiment(name).name))
    assert not found.meshes
    assert sum(len(shapes) for shapes in found.shapes.values()) > 5
    for shape in (each for shapes in found.shapes.values() for each in shapes):
        assert all(size > 0.0 for size in shape.size)
        assert all(0 <= part <= 255 for part in shape.colour) and 0.0 <= shape.opacity <= 1.0


URDF = """<robot name="r">
  <material name="red"><color rgba="1 0 0 0.5"/></material>
  <link name="a">
    <visual><origin xyz="0 0 1" rpy="0 0 1.5708"/><geometry><box size="1 2 3"/></geometry>
      <material name="red"/></visual>
    <visual><geometry><cylinder radius="0.1" length="0.2"/></geometry>
      <material name="own"><color rgba="0 0 1 1"/></material></visual>
    <visual><geometry><sphere radius="0.3"/></geometry></visual>
    <visual><geometry><mesh filename="package://x/y.stl"/></geometry></visual>
  </link>
</robot>"""


def test_shapes_of_a_description() -> None:
    found = looks(URDF)
    box, rod, ball = found.shapes["a"]
    assert (box.kind, box.size, box.colour, box.opacity) == ("box", (1, 2, 3), (255, 0, 0), 0.5)
    assert box.pose.position.tolist() == [0, 0, 1]
    assert box.pose.rotation[:, 0] == pytest.approx([0, 1, 0], abs=1e-4)
    assert (rod.kind, rod.size, rod.colour) == ("cylinder", (0.1, 0.2), (0, 0, 255))
    assert (ball.kind, ball.size) == ("sphere", (0.3,))
    assert found.meshes == ("a",)


@pytest.mark.parametrize(
    "text",
    [
        "not xml",
        URDF.replace('size="1 2 3"', 'size="1 2"'),
        URDF.replace('size="1 2 3"', ""),
        URDF.replace('rgba="1 0 0 0.5"', 'rgba="1 0"'),
        URDF.replace('xyz="0 0 1"', 'xyz="0 nan 1"'),
    ],
)
def test_a_description_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ShapeError, match="shapes cannot be read"):
        looks(text)


def test_segments_leave_out_what_is_nowhere() -> None:
    points = np.array([[0, 0, 0], [1, 0, 0], [np.nan, 0, 0], [2, 0, 0], [3, 0, 0]])
    assert segments(points).tolist() == [[[0, 0, 0], [1, 0, 0]], [[2, 0, 0], [3, 0, 0]]]
    assert segments(points[:1]).shape == (0, 2, 3)


VIEW = View(
    Camera(640, 480, np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]]), np.zeros(0)),
    Pose.from_rpy([0.3, 0.0, 1.0], [np.pi, 0.0, 0.0]),
)
PIXELS = st.tuples(st.floats(1, 639), st.floats(1, 479))


@given(st.lists(PIXELS, min_size=1, max_size=5), st.floats(0.0, 0.5))
def test_lifted_points_are_seen_where_they_were(
    pixels: list[tuple[float, float]], height: float
) -> None:
    places = lift_points(VIEW, tuple(Point(*pixel) for pixel in pixels), height)
    assert places[:, 2] == pytest.approx(height)
    assert VIEW.project(places) == pytest.approx(np.array(pixels), abs=1e-6)


@given(st.lists(PIXELS, min_size=2, max_size=8), st.floats(0.0, 0.5), st.floats(0.0, 0.5))
def test_a_lifted_trace_is_seen_where_it_was(
    pixels: list[tuple[float, float]], start: float, end: float
) -> None:
    places = lift_trace(VIEW, Trace(np.array(pixels)), start, end)
    assert VIEW.project(places) == pytest.approx(np.array(pixels), abs=1e-6)
    assert places[0, 2] == pytest.approx(start)
    heights = places[:, 2]
    falling = np.diff(heights) * np.sign(end - start)
    assert (falling >= -1e-9).all()
    assert min(start, end) - 1e-9 <= heights.min() and heights.max() <= max(start, end) + 1e-9
