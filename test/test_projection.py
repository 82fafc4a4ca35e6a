"""From pixels into space and back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvla_ros.motion.se3 import Pose, rotvec_to_matrix
from internvla_ros.robots.embodiment import load_embodiment
from internvla_ros.sim.scene import sample_scene
from internvla_ros.sim.world import World
from internvla_ros.spatial.projection import Camera, ProjectionError, View, depths_at

ROBOT = load_embodiment("widowx_250s")
MATRIX = np.array([[610.0, 0.0, 318.0], [0.0, 608.0, 243.0], [0.0, 0.0, 1.0]])
LENSES = {
    "plumb_bob": [-0.21, 0.06, 0.0008, -0.0011, -0.004],
    "rational_polynomial": [0.42, -1.9, 0.0006, -0.0003, 1.2, 0.3, -1.7, 1.1],
}


def lens(model: str) -> Camera:
    return Camera.from_info(640, 480, MATRIX.reshape(-1), LENSES[model], model)


def front() -> View:
    """The WidowX's front camera: its optical frame stands in the base frame already."""
    spec = ROBOT.camera("front")
    camera = Camera(spec.width, spec.height, spec.intrinsics(), np.zeros(5))
    return View(camera, Pose(spec.position, spec.optical_rotation()))


@pytest.mark.parametrize("model", LENSES)
def test_points_land_where_opencv_draws_them(model: str) -> None:
    points = np.random.default_rng(1).uniform([-0.4, -0.3, 0.7], [0.4, 0.3, 1.5], (50, 3))
    expected, _ = cv2.projectPoints(
        points, np.zeros(3), np.zeros(3), MATRIX, np.array(LENSES[model])
    )
    np.testing.assert_allclose(lens(model).project(points), expected[:, 0], atol=1e-6)


@pytest.mark.parametrize("model", LENSES)
@given(st.floats(0.0, 640.0), st.floats(0.0, 480.0))
def test_a_ray_is_drawn_at_its_pixel(model: str, x: float, y: float) -> None:
    camera = lens(model)
    np.testing.assert_allclose(camera.project(camera.rays([[x, y]])), [[x, y]], atol=1e-3)


def test_a_known_place_lands_where_the_simulator_shows_it() -> None:
    """The object that is seen in a rendered picture lies within a pixel of its projection."""
    world = World(ROBOT)
    world.reset(sample_scene(np.random.default_rng(3), ROBOT))
    for spec in ROBOT.cameras:
        view = View(
            Camera(spec.width, spec.height, spec.intrinsics(), np.zeros(5)),
            world.camera_pose(spec.name),
        )
        places = np.array([world.tip_pose().position, [0.3, 0.1, 0.02], [0.2, -0.1, 0.05]])
        shown = world.project(places, spec.name, spec.width, spec.height)
        np.testing.assert_allclose(view.project(places), shown, atol=1e-6)
    world.close()


@given(
    st.lists(st.tuples(st.floats(40, 600), st.floats(60, 470)), min_size=2, max_size=12),
    st.floats(0.0, 0.1),
)
def test_a_trace_lifted_onto_the_table_returns_to_itself(
    trace: list[tuple[float, float]], height: float
) -> None:
    view = front()
    lifted = view.on_plane(trace, height)
    np.testing.assert_allclose(lifted[:, 2], height, atol=1e-9)
    np.testing.assert_allclose(view.project(lifted), trace, atol=1e-6)


@given(
    st.lists(st.floats(-3.0, 3.0), min_size=3, max_size=3),
    st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=3),
    st.floats(0.0, 640.0),
    st.floats(0.0, 480.0),
    st.floats(0.05, 5.0),
)
def test_a_trace_lifted_by_depth_returns_to_itself(
    turn: list[float], place: list[float], x: float, y: float, depth: float
) -> None:
    view = View(lens("plumb_bob"), Pose(np.array(place), rotvec_to_matrix(turn)))
    np.testing.assert_allclose(view.project(view.at_depth([[x, y]], [depth])), [[x, y]], atol=1e-3)
    direction = view.directions([[x, y]])[0]
    offset = view.at_depth([[x, y]], [depth])[0] - view.pose.position
    np.testing.assert_allclose(np.cross(direction, offset), 0.0, atol=1e-9)
    assert direction @ offset > 0.0


def test_what_is_behind_the_camera_has_no_place() -> None:
    view = front()
    assert np.isnan(view.project([[2.0, 0.0, 0.56]])).all()
    above = view.camera.project([[0.0, -0.9, 0.1]])  # far above the picture: its ray rises
    assert np.isnan(view.on_plane(above, 0.0)).all()


def test_a_picture_of_another_size_shows_the_same() -> None:
    points = [[0.1, -0.05, 0.9], [-0.2, 0.1, 1.2]]
    small = lens("plumb_bob").scaled(320, 240)
    np.testing.assert_allclose(2 * small.project(points), lens("plumb_bob").project(points))


def test_depth_is_the_median_of_what_is_known_near_a_pixel() -> None:
    picture = np.full((48, 64), 0.8)
    picture[10, 20] = 5.0
    picture[10, 21] = np.nan
    picture[30:, :] = 0.0
    found = depths_at(picture, [[20.5, 10.5], [64.0, 5.0], [10.0, 40.0], [70.0, 5.0]])
    np.testing.assert_array_equal(found, [0.8, 0.8, np.nan, np.nan])


@pytest.mark.parametrize(
    ("width", "k", "d", "model", "words"),
    [
        (640, MATRIX, [0.0] * 4, "equidistant", "'equidistant' is not supported; use plumb_bob"),
        (640, np.zeros(9), [], "plumb_bob", "is it calibrated"),
        (0, MATRIX, [], "plumb_bob", "size 0x480"),
        (640, MATRIX, [0.0] * 3, "plumb_bob", "3 distortion coefficients"),
        (640, [1.0] * 8, [], "plumb_bob", "8 numbers"),
        (640, np.full(9, np.nan), [], "", "finite"),
    ],
)
def test_what_is_no_camera_is_refused(
    width: int, k: list[float], d: list[float], model: str, words: str
) -> None:
    with pytest.raises(ProjectionError, match=words):
        Camera.from_info(width, 480, np.reshape(k, -1), d, model)
