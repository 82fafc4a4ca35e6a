"""Obstacles about a robot: boxes, balls and points, and the room that they leave."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from internvla_ros.motion.collision import CollisionError, CollisionModel
from internvla_ros.motion.planning_scene import PlanningScene
from internvla_ros.motion.se3 import Pose, exp
from internvla_ros.motion.shapes import Shape
from internvla_ros.motion.voxels import VoxelCloud, voxels
from internvla_ros.robots.embodiment import load_embodiment

Array = NDArray[np.float64]
ROBOT = load_embodiment("franka_fr3")
TIP = np.array([0.307, 0.0, 0.487])  # at the ready pose


@pytest.fixture
def scene() -> PlanningScene:
    return PlanningScene(CollisionModel(ROBOT))


def test_without_obstacles_only_the_robot_counts(scene: PlanningScene) -> None:
    assert scene.room(ROBOT.ready) == scene.robot.room(ROBOT.ready)
    assert scene.names == []


def test_a_ball_below_the_tip_is_as_far_as_it_is(scene: PlanningScene) -> None:
    """The fingers end 8.8 mm beyond the tip."""
    scene.add_sphere("ball", TIP - np.array([0, 0, 0.10]), 0.03)
    nearest = scene.nearest(ROBOT.ready)
    assert nearest.second == "ball" and "finger" in nearest.first
    assert nearest.required == ROBOT.clearance.fingers_distance
    sideways = np.hypot(0.04, 0.10 - 0.0088)  # open fingers stand 40 mm from the middle
    assert nearest.distance == pytest.approx(sideways - 0.03, abs=1e-3)
    assert scene.room(ROBOT.ready) == pytest.approx(nearest.room)


def test_a_box_through_the_arm_leaves_no_room_until_it_is_removed(scene: PlanningScene) -> None:
    free = scene.room(ROBOT.ready)
    scene.add_box("wall", Pose(np.array([0.2, 0.0, 0.5]), np.eye(3)), [0.02, 1.0, 1.0])
    assert scene.room(ROBOT.ready) < 0
    assert scene.nearest(ROBOT.ready).second == "wall"
    scene.remove("wall")
    assert scene.room(ROBOT.ready) == free and scene.names == []


def test_a_name_stands_for_one_obstacle(scene: PlanningScene) -> None:
    scene.add_sphere("thing", TIP, 0.05)
    assert scene.room(ROBOT.ready) < 0
    scene.add_sphere("thing", TIP + np.array([2, 0, 0]), 0.05)
    assert scene.names == ["thing"] and scene.room(ROBOT.ready) > 0
    assert scene.add_points("thing", [TIP], 0.02) == 1
    assert scene.room(ROBOT.ready) < 0.02
    assert scene.add_points("thing", np.full((3, 3), np.nan), 0.02) == 0
    assert scene.names == []
    scene.add_sphere("thing", TIP, 0.05)
    scene.clear()
    assert scene.names == []


def test_points_fill_the_shape_they_were_drawn_from(scene: PlanningScene) -> None:
    """A box as a solid and as its points are equally far, to the size of a voxel."""
    rng, middle = np.random.default_rng(0), np.array([0.5, 0.1, 0.2])
    points = middle + rng.uniform(-0.05, 0.05, (30_000, 3))
    solid = PlanningScene(CollisionModel(ROBOT, table=False))
    solid.add_box("box", Pose(middle, np.eye(3)), [0.1, 0.1, 0.1])
    cloud = PlanningScene(CollisionModel(ROBOT, table=False))
    assert cloud.add_points("box", points, 0.01) >= 1000
    compared = 0
    for q in rng.uniform(ROBOT.position_lower, ROBOT.position_upper, (40, 7)):
        there, here = solid.nearest(q), cloud.nearest(q)
        if there.second == here.second == "box" and there.distance > 0:
            compared += 1
            assert there.distance - 0.012 <= here.distance <= there.distance + 0.002
    assert compared >= 3


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_the_nearest_voxel_is_the_nearest_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = float(rng.uniform(0.01, 0.06))
    centres = voxels(rng.uniform(-0.5, 0.5, (int(rng.integers(1, 300)), 3)), size)
    pose = exp(rng.uniform(-1, 1, 6))
    box = Shape("box", Pose.identity(), rng.uniform(0.01, 0.2, 3), 0.0)
    half = np.array([0.0, 0.0, rng.uniform(0, 0.2)])
    rod = Shape("rod", Pose.identity(), half, float(rng.uniform(0.01, 0.1)))
    solids = [(box, pose), (rod, exp(rng.uniform(-1, 1, 6)))]
    found = VoxelCloud(centres, size).nearest(solids)
    assert found is not None
    everywhere = [by_hand(centre, *solid) for solid in solids for centre in centres]
    assert found.distance == pytest.approx(min(everywhere) - size * np.sqrt(3) / 2, abs=1e-9)
    assert np.linalg.norm(found.normal) == pytest.approx(1.0)
    assert VoxelCloud(centres, size).nearest(solids, found.distance) is None


def by_hand(point: Array, shape: Shape, pose: Pose) -> float:
    """Signed distance of a point from one solid."""
    local = pose.rotation.T @ (point - pose.position)
    if shape.is_box:
        beyond = np.abs(local) - shape.half
        inside = min(float(beyond.max()), 0.0)
        return float(np.linalg.norm(np.maximum(beyond, 0))) + inside
    along = np.clip(local[2], -shape.half[2], shape.half[2])
    return float(np.linalg.norm(local - np.array([0, 0, along]))) - shape.radius


def test_voxels_hold_every_point_once() -> None:
    rng = np.random.default_rng(1)
    points = rng.uniform(-1, 1, (2000, 3))
    cubes = voxels(points, 0.1)
    assert len(cubes) == len({tuple(np.round(c, 6)) for c in cubes}) <= 8000
    gaps = np.abs(points[:, None] - cubes[None]).max(axis=2).min(axis=1)
    assert gaps.max() <= 0.05 + 1e-9


def test_obstacles_that_are_none_are_refused(scene: PlanningScene) -> None:
    with pytest.raises(CollisionError, match="three positive extents"):
        scene.add_box("a", Pose.identity(), [0.1, -0.1, 0.1])
    with pytest.raises(CollisionError, match="positive radius"):
        scene.add_sphere("a", [0, 0, 0], float("nan"))
    with pytest.raises(CollisionError, match="not finite and rigid"):
        scene.add_sphere("a", [np.nan, 0, 0], 0.1)
    with pytest.raises(CollisionError, match="positive size"):
        scene.add_points("a", [[0, 0, 0]], 0.0)
    with pytest.raises(CollisionError, match="use larger voxels"):
        scene.add_points("a", np.random.default_rng(0).uniform(-9, 9, (250_000, 3)), 0.001)
    with pytest.raises(CollisionError, match="the robot's or its table's"):
        scene.add_sphere("table", [0, 0, 0], 0.1)
    with pytest.raises(CollisionError, match="the robot's or its table's"):
        scene.add_points("fr3_link3", [[0, 0, 0]], 0.1)
    with pytest.raises(CollisionError, match="no obstacle 'b'; it has nothing"):
        scene.remove("b")
