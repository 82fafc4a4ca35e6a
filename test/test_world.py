"""The simulated world: pictures, projections, grasping by friction, and the success check."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from internvla_ros.motion.se3 import Pose
from internvla_ros.robots.embodiment import EmbodimentError, load_embodiment
from internvla_ros.sim.scene import (
    LARGEST,
    SMALLEST,
    ObjectSpec,
    Scene,
    arm_kinematics,
    sample_scene,
)
from internvla_ros.sim.world import World, WorldError

ROBOT = load_embodiment("widowx_250s")
KINEMATICS = arm_kinematics(ROBOT)
WIDTH, HEIGHT = 320, 240


@pytest.fixture(scope="module")
def world() -> World:
    return World(ROBOT)


def scene(seed: int = 0) -> Scene:
    return sample_scene(np.random.default_rng(seed), ROBOT)


def thing(kind: str, size: float, x: float = 0.3, y: float = 0.0) -> ObjectSpec:
    return ObjectSpec(f"red {kind}", "red", kind, "movable", size, x, y, 0.0, (0.8, 0.1, 0.1))


def with_objects(*objects: ObjectSpec) -> Scene:
    """A scene of these objects; its task speaks of the first and the last."""
    base = scene()
    task = replace(base.task, pick=objects[0].name, place=objects[-1].name)
    return replace(base, objects=objects, task=task, start=np.array(ROBOT.ready))


def joints_at(x: float, y: float, z: float) -> NDArray[np.float64]:
    found = KINEMATICS.inverse(Pose(np.array([x, y, z]), ROBOT.down), ROBOT.ready)
    assert found.converged
    return found.q


def move(world: World, goal: NDArray[np.float64], gripper: float, seconds: float) -> None:
    """A straight motion in the joints."""
    start, ticks = world.joint_positions, round(seconds * 50)
    for tick in range(1, ticks + 1):
        world.command(start + (goal - start) * tick / ticks, gripper)
        world.step(0.02)


def test_an_empty_world_has_no_scene() -> None:
    with pytest.raises(WorldError, match="call reset"):
        _ = World(ROBOT).scene


def test_reset_lays_the_scene_out(world: World) -> None:
    for seed in range(10):
        layout = scene(seed)
        world.reset(layout)
        assert world.time == 0.0
        np.testing.assert_allclose(world.joint_positions, layout.start, atol=0.01)
        assert world.gripper_opening > 0.98 and world.holding() is None
        assert not world.success()
        for spec in layout.objects:
            position = world.object_position(spec.name)
            np.testing.assert_allclose(position[:2], (spec.x, spec.y), atol=0.004)
            if spec.role == "movable":
                assert position[2] == pytest.approx(spec.size / 2, abs=0.002)


def test_the_tip_agrees_with_the_kinematics(world: World) -> None:
    world.reset(scene(3))
    expected = KINEMATICS.forward(world.joint_positions)
    np.testing.assert_allclose(world.tip_pose().matrix(), expected.matrix(), atol=1e-9)


def test_the_arm_holds_and_follows(world: World) -> None:
    world.reset(with_objects(thing("cube", 0.03, y=0.15)))
    world.step(1.0)
    np.testing.assert_allclose(world.joint_positions, ROBOT.ready, atol=2e-3)
    goal = joints_at(0.35, -0.1, 0.15)
    move(world, goal, 0.0, 1.0)
    world.step(0.3)
    np.testing.assert_allclose(world.tip_pose().position, (0.35, -0.1, 0.15), atol=2e-3)
    assert world.gripper_opening < 0.02
    assert np.abs(world.joint_velocities).max() < 0.05
    left, right = world.finger_positions
    assert left == pytest.approx(-right, abs=1e-3)


def test_reset_forgets_what_was_before(world: World) -> None:
    def run() -> tuple[bytes, bytes]:
        world.reset(scene(5))
        move(world, joints_at(0.3, 0.1, 0.1), 0.0, 0.2)
        state = world.joint_positions.tobytes()
        return state, world.render("front", WIDTH, HEIGHT).tobytes()

    first = run()
    world.reset(scene(6))
    move(world, joints_at(0.25, 0.0, 0.02), 1.0, 0.4)
    assert run() == first


@pytest.mark.parametrize("camera", ["front", "wrist"])
def test_a_ball_appears_where_it_is_projected(world: World, camera: str) -> None:
    ball = replace(thing("ball", 0.04, x=0.30, y=0.03), rgb=(1.0, 0.0, 1.0))
    world.reset(with_objects(ball))
    world.step(0.2)
    picture = world.render(camera, WIDTH, HEIGHT).astype(int)
    assert picture.shape == (HEIGHT, WIDTH, 3)
    is_ball = (picture[..., 0] > 2 * picture[..., 1] + 20) & (picture[..., 2] > 60)
    rows, columns = np.nonzero(is_ball)
    assert len(rows) > 50
    box = world.boxes(camera, WIDTH, HEIGHT)["red ball"]
    seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    np.testing.assert_allclose(box, seen, atol=1.6)
    (centre,) = world.project([world.object_position("red ball")], camera, WIDTH, HEIGHT)
    np.testing.assert_allclose(centre, (seen[:2] + seen[2:]) / 2, atol=2.0)


@pytest.mark.parametrize("kind", ["plate", "bowl", "bin"])
def test_boxes_of_receptacles_fit_their_pictures(world: World, kind: str) -> None:
    place = ObjectSpec(
        f"green {kind}", "green", kind, "receptacle", 0.07, 0.32, 0.05, 0.2, (0.0, 0.9, 0.0)
    )
    world.reset(with_objects(thing("cube", 0.03, y=-0.15), place))
    picture = world.render("front", WIDTH, HEIGHT).astype(int)
    is_green = picture[..., 1] > 2 * np.maximum(picture[..., 0], picture[..., 2]) + 20
    rows, columns = np.nonzero(is_green)
    seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    np.testing.assert_allclose(world.boxes("front", WIDTH, HEIGHT)[place.name], seen, atol=3.0)


def test_the_workspace_fills_the_front_picture(world: World) -> None:
    corners = [(x, y, 0.0) for x in (0.2, 0.4) for y in (-0.18, 0.18)]
    pixels = world.project(corners, "front", 640, 480)
    assert (pixels > 0).all() and (pixels < (640, 480)).all()
    assert np.ptp(pixels[:, 0]) > 0.6 * 640
    high = world.project([(x, y, 0.2) for x, y, _ in corners], "front", 640, 480)
    assert (high > 0).all() and (high < (640, 480)).all()


def test_pixels_do_not_depend_on_the_size_but_for_scale(world: World) -> None:
    world.reset(scene(1))
    points = [(0.3, 0.1, 0.02), (0.22, -0.1, 0.1)]
    small = world.project(points, "front", 320, 240)
    np.testing.assert_allclose(2 * small, world.project(points, "front", 640, 480))


def test_what_is_behind_a_camera_has_no_pixel_and_no_box(world: World) -> None:
    behind = world.camera_pose("front").position + np.array([1.0, 0.0, 0.5])
    assert np.isnan(world.project([behind], "front", WIDTH, HEIGHT)).all()
    world.reset(with_objects(thing("cube", 0.03, x=0.2, y=0.41)))
    assert np.isnan(world.boxes("front", WIDTH, HEIGHT)["red cube"]).all()


@pytest.mark.parametrize("kind", ["cube", "cylinder", "ball"])
@pytest.mark.parametrize("size", [SMALLEST, LARGEST])
def test_a_grasp_holds_by_friction(world: World, kind: str, size: float) -> None:
    world.reset(with_objects(thing(kind, size)))
    move(world, joints_at(0.3, 0.0, 0.06), 1.0, 0.5)
    move(world, joints_at(0.3, 0.0, 0.022), 1.0, 0.4)
    name = f"red {kind}"
    move(world, joints_at(0.3, 0.0, 0.022), 0.0, 0.4)
    assert world.holding() == name
    grip = world.object_position(name) - world.tip_pose().position
    move(world, joints_at(0.3, 0.0, 0.15), 0.0, 0.4)
    for y in (0.15, -0.15, 0.0):  # swung about
        move(world, joints_at(0.32, y, 0.15), 0.0, 0.6)
    slip = world.object_position(name) - world.tip_pose().position - grip
    assert world.holding() == name and np.linalg.norm(slip) < 0.004
    move(world, joints_at(0.32, 0.0, 0.15), 1.0, 0.4)
    assert world.holding() is None


def test_success_needs_rest_place_and_an_open_empty_gripper(world: World) -> None:
    place = ObjectSpec(
        "blue plate", "blue", "plate", "receptacle", 0.066, 0.3, 0.0, 0.0, (0.1, 0.2, 0.8)
    )
    world.reset(with_objects(thing("cube", 0.03, y=0.15), place))
    away, over = joints_at(0.25, -0.15, 0.15), joints_at(0.3, 0.0, 0.022)
    world.teleport(joints_at(0.3, 0.0, 0.022), 0.3, held="red cube")
    move(world, over, 0.0, 0.2)
    assert world.holding() == "red cube" and not world.success()  # held
    move(world, over, 1.0, 0.4)
    move(world, joints_at(0.3, 0.0, 0.15), 1.0, 0.4)
    move(world, away, 1.0, 0.5)
    assert world.placed("red cube", "blue plate") and world.success()
    move(world, away, 0.0, 0.4)
    assert not world.success()  # the gripper is closed
    world.teleport(away, 1.0, held="red cube")
    assert not world.placed("red cube", "blue plate") and not world.success()


def test_a_held_object_is_where_it_is_put(world: World) -> None:
    world.reset(with_objects(thing("cube", 0.036)))
    world.teleport(joints_at(0.3, 0.1, 0.12), 0.4, held="red cube")
    np.testing.assert_allclose(
        world.object_position("red cube"), world.tip_pose().position, atol=1e-9
    )


def test_what_does_not_exist_is_told(world: World) -> None:
    world.reset(scene(0))
    with pytest.raises(WorldError, match="no 'pink pig'; it has"):
        world.object_position("pink pig")
    with pytest.raises(EmbodimentError, match="no camera 'rear'"):
        world.render("rear", WIDTH, HEIGHT)
    crowd = [replace(thing("cube", 0.03, y=0.05 * i), name=f"cube {i}") for i in range(4)]
    with pytest.raises(WorldError, match="at most 3 movables"):
        world.reset(with_objects(*crowd))
    world.reset(scene(0))
