"""Every robot in the simulator: its world agrees with its kinematics, and the expert does tasks."""

from __future__ import annotations

import numpy as np
import pytest

from internvla_ros.motion import se3
from internvla_ros.robots.embodiment import known_embodiments, load_embodiment
from internvla_ros.sim.engine import QUIET, rollout, snapshot
from internvla_ros.sim.scene import arm_kinematics, sample_scene
from internvla_ros.sim.world import World


@pytest.fixture(scope="module", params=known_embodiments())
def world(request: pytest.FixtureRequest) -> World:
    return World(load_embodiment(request.param))


def test_the_tip_is_where_kinematics_says(world: World) -> None:
    robot, rng = world.embodiment, np.random.default_rng(3)
    kinematics = arm_kinematics(robot)
    for q in rng.uniform(robot.position_lower, robot.position_upper, (20, len(robot.joints))):
        world.teleport(q, 1.0)
        metres, radians = se3.distance(world.tip_pose(), kinematics.forward(q))
        assert metres < 1e-5 and radians < 1e-5


def test_the_gripper_opens_and_closes_as_stated(world: World) -> None:
    robot = world.embodiment
    world.reset(sample_scene(np.random.default_rng(0), robot))
    for target in (0.0, 1.0):
        world.command(world.joint_positions, target)
        world.step(1.5)
        assert world.gripper_opening == pytest.approx(target, abs=0.05)
        first, *others = world.finger_positions
        for position, mirror in zip(others, robot.gripper.mirror[1:], strict=True):
            assert position == pytest.approx(first * mirror, abs=0.02 * abs(first) + 1e-3)


def test_things_lie_on_the_table_and_the_front_camera_sees_them(world: World) -> None:
    robot = world.embodiment
    scene = sample_scene(np.random.default_rng(5), robot)
    world.reset(scene)
    world.step(0.5)
    boxes = world.boxes("front", 320, 240)
    for spec in scene.objects:
        height = world.object_position(spec.name)[2] - robot.tabletop.height
        assert height == pytest.approx(spec.size / 2 if spec.role == "movable" else 0.005, abs=2e-3)
        assert np.isfinite(boxes[spec.name]).all()
    assert world.render("front", 160, 120).std() > 5


def test_the_expert_puts_things_where_they_belong(world: World) -> None:
    for seed in (11, 12):
        rng = np.random.default_rng(seed)
        episode = rollout(world, sample_scene(rng, world.embodiment), rng, QUIET)
        assert episode.success and len(episode.action) < 60


def test_snapshots_hold_the_object_between_the_fingers(world: World) -> None:
    rng, robot = np.random.default_rng(0), world.embodiment
    held = 0
    for _ in range(14):
        scene = sample_scene(rng, robot)
        held += snapshot(world, scene, rng).holding
        lower, upper = robot.position_lower, robot.position_upper
        assert ((world.joint_positions >= lower) & (world.joint_positions <= upper)).all()
    assert held


def test_time_adds_up_at_any_control_rate(world: World) -> None:
    world.reset(sample_scene(np.random.default_rng(1), world.embodiment))
    for _ in range(60):
        world.step(1 / 60)
    assert world.time == pytest.approx(1.0, abs=world.model.opt.timestep)
