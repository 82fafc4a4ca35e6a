"""Distances between a robot's solids, its table and obstacles, against independent ways."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from internvla_ros.motion.collision import TABLE, CollisionModel
from internvla_ros.motion.se3 import Pose
from internvla_ros.motion.shapes import Shape, ShapeError, solid_shapes
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import Embodiment, known_embodiments, load_embodiment

Array = NDArray[np.float64]
ROBOTS = {name: load_embodiment(name) for name in known_embodiments()}
FR3 = ROBOTS["franka_fr3"]
each_robot = pytest.mark.parametrize("robot", ROBOTS.values(), ids=lambda robot: robot.name)


def samples(robot: Embodiment, count: int, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return rng.uniform(robot.position_lower, robot.position_upper, (count, len(robot.joints)))


def surface(shape: Shape, pose: Pose, rng: np.random.Generator, count: int) -> Array:
    """[count, 3] points on a solid's surface or, for a box, within it."""
    if shape.is_box:
        local = rng.uniform(-1, 1, (count, 3)) * shape.half
        face = rng.integers(3, size=count)
        local[np.arange(count), face] = np.sign(local[np.arange(count), face]) * shape.half[face]
    else:
        out = rng.normal(size=(count, 3))
        out *= shape.radius / np.linalg.norm(out, axis=1, keepdims=True)
        local = out + rng.uniform(-1, 1, (count, 1)) * shape.half
    return local @ pose.rotation.T + pose.position


@each_robot
def test_the_arm_is_free_where_it_rests_and_not_where_it_folds(robot: Embodiment) -> None:
    model = CollisionModel(robot)
    assert model.room(robot.ready) > 0
    rooms = [model.room(q) for q in samples(robot, 200)]
    assert 0.2 < np.mean(np.array(rooms) > 0) < 0.95


@each_robot
def test_room_is_that_of_the_nearest(robot: Embodiment) -> None:
    model = CollisionModel(robot)
    for q in samples(robot, 30):
        nearest = model.nearest(q)
        assert model.room(q) == pytest.approx(nearest.room, abs=1e-5)
        assert np.linalg.norm(nearest.normal) == pytest.approx(1.0, abs=1e-6)
        gap = nearest.point_second - nearest.point_first
        assert gap @ nearest.normal == pytest.approx(nearest.distance, abs=1e-4)


@each_robot
def test_no_two_points_are_nearer_than_the_nearest(robot: Embodiment) -> None:
    """Points drawn from the surfaces of all compared solids bound the distance from above."""
    model, rng = CollisionModel(robot, table=False), np.random.default_rng(1)
    ignored = {frozenset(pair) for pair in robot.clearance.ignored}
    neighbours = neighbouring_links(robot)
    for q in samples(robot, 5):
        nearest = model.nearest(q)
        if nearest.distance < 0:
            continue
        placed = [(shape, surface(shape, pose, rng, 60)) for shape, pose in model.placed(q)]
        for i, (one, near) in enumerate(placed):
            for other, far in placed[i + 1 :]:
                pair = frozenset((one.link, other.link))
                if pair in ignored or pair in neighbours or one.link == other.link:
                    continue
                gaps = np.linalg.norm(near[:, None] - far[None], axis=2)
                assert gaps.min() >= nearest.distance - 1e-6, pair


def neighbouring_links(robot: Embodiment) -> set[frozenset[str]]:
    """Pairs that the model never compares, found by moving one joint at a time."""
    model = CollisionModel(robot, table=False)
    links = list(dict.fromkeys(shape.link for shape in model.shapes))
    rng = np.random.default_rng(0)
    joints = [*robot.joints]
    moved_by: dict[str, set[str]] = {}
    base = dict(zip(links, poses(model, robot.ready), strict=True))
    for i, name in enumerate(joints):
        q = robot.ready.copy()
        q[i] += 0.1 if q[i] + 0.1 < robot.position_upper[i] else -0.1
        for link, pose in zip(links, poses(model, q), strict=True):
            if np.abs(pose - base[link]).max() > 1e-9:
                moved_by.setdefault(link, set()).add(name)
    model.set_opening(float(rng.uniform(0.2, 0.8)))
    for link, pose in zip(links, poses(model, robot.ready), strict=True):
        if np.abs(pose - base[link]).max() > 1e-9:
            moved_by.setdefault(link, set()).add(f"finger of {link}")
    found = set()
    for i, one in enumerate(links):
        for other in links[i + 1 :]:
            apart = moved_by.get(one, set()) ^ moved_by.get(other, set())
            if len(apart) <= 1 or all(name.startswith("finger") for name in apart):
                found.add(frozenset((one, other)))
    return found


def poses(model: CollisionModel, q: Array) -> list[Array]:
    """The first solid's pose of each link, flat."""
    first: dict[str, Array] = {}
    for shape, pose in model.placed(q):
        first.setdefault(shape.link, pose.matrix().ravel())
    return list(first.values())


@each_robot
def test_links_that_are_ignored_do_not_meet(robot: Embodiment) -> None:
    """But for those of the Franka whose capsules meet though the arm itself does not."""
    by_design = [{"link5", "link7"}, {"hand", "link5"}]
    nothing = replace(robot, clearance=replace(robot.clearance, ignored=()))
    model = CollisionModel(nothing, table=False)
    ignored = {frozenset(pair) for pair in robot.clearance.ignored}
    for q in samples(robot, 200, seed=3):
        nearest = model.nearest(q)
        short = {name.split("_", 1)[-1] for name in (nearest.first, nearest.second)}
        if frozenset((nearest.first, nearest.second)) in ignored and short not in by_design:
            assert nearest.distance > 0.02, (nearest.first, nearest.second)


@pytest.mark.parametrize("name", ["franka_fr3", "google_robot", "widowx_250s"])
def test_gradient_matches_finite_differences(name: str) -> None:
    robot = ROBOTS[name]
    model, checked = CollisionModel(robot), 0
    for q in samples(robot, 60, seed=2):
        nearest = model.nearest(q)
        step = 1e-6 * np.eye(len(q))
        around = [(model.nearest(q + d), model.nearest(q - d)) for d in step]
        same = all(
            {(n.first, n.second) for n in pair} == {(nearest.first, nearest.second)}
            for pair in around
        )
        slope = np.array([(up.distance - down.distance) / 2e-6 for up, down in around])
        if not same or not 0.002 < nearest.distance < 0.3:
            continue
        found = model.gradient(q, nearest)
        if np.abs(found - slope).max() < 1e-3:
            checked += 1
    assert checked >= 15


def test_lower_and_lower_the_table_comes_near() -> None:
    model = CollisionModel(FR3)
    q, last = FR3.ready.copy(), np.inf
    while q[1] < 1.0:
        nearest = model.nearest(q)
        if nearest.second == TABLE:
            assert nearest.distance <= last + 1e-9 or last < 0
            last = nearest.distance
        q[1] += 0.05
    assert last < 0.02
    assert CollisionModel(FR3, table=False).room(q) > model.room(q) < 0.02


def test_the_fingers_stand_as_they_were_last_set() -> None:
    model = CollisionModel(FR3)
    wide = [pose.position for shape, pose in model.placed(FR3.ready) if "finger" in shape.link]
    model.set_opening(0.0)
    shut = [pose.position for shape, pose in model.placed(FR3.ready) if "finger" in shape.link]
    assert np.ptp(wide, axis=0)[1] == pytest.approx(np.ptp(shut, axis=0)[1] + 0.08, abs=1e-6)


@given(st.floats(0.0, 1.0))
@settings(max_examples=20, deadline=None)
def test_a_jump_in_position_never_changes_the_room_by_more_than_it_moves(share: float) -> None:
    """The distance is 1-Lipschitz in how far any part moves; 1.3 m is the arm's whole reach."""
    model = CollisionModel(FR3)
    a, b = samples(FR3, 2, seed=5)
    near = a + 0.02 * share * (b - a) / np.linalg.norm(b - a)
    assert abs(model.room(near) - model.room(a)) <= 2 * 1.3 * np.abs(near - a).sum() + 1e-6


def test_capsules_are_read_from_cylinders_between_balls() -> None:
    shapes = [shape for shape in solid_shapes(urdf("franka_fr3")) if shape.link == "fr3_link2"]
    assert len(shapes) == 2 and not any(shape.is_box for shape in shapes)
    assert {round(shape.radius, 4) for shape in shapes} == {0.078, 0.061}


@pytest.mark.parametrize(
    ("solid", "message"),
    [
        ('<mesh filename="a.stl"/>', "not mesh"),
        ('<cylinder radius="0.1" length="0.2"/>', "ball of its radius at both ends"),
        ("", "not nothing"),
    ],
)
def test_other_solids_are_refused(solid: str, message: str) -> None:
    link = f'<link name="a"><collision><geometry>{solid}</geometry></collision></link>'
    with pytest.raises(ShapeError, match=message):
        solid_shapes(f'<robot name="r">{link}</robot>')
    with pytest.raises(ShapeError, match="robot description"):
        solid_shapes("<robot")
