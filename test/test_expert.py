"""The scripted expert: it does the tasks, and recovers when something goes wrong."""

from __future__ import annotations

import numpy as np
import pytest

from internvla_ros.motion.servo import EmbeddedServo
from internvla_ros.robots.embodiment import load_embodiment
from internvla_ros.sim.engine import MAX_STEPS, drive
from internvla_ros.sim.expert import PHASES, Expert
from internvla_ros.sim.scene import Scene, arm_kinematics, sample_scene, scene_for_instruction
from internvla_ros.sim.world import World

ROBOT = load_embodiment("widowx_250s")


@pytest.fixture(scope="module")
def world() -> World:
    return World(ROBOT)


def run(world: World, scene: Scene, knock_at: int | None = None) -> tuple[list[str], bool]:
    """The phases of an attempt, and whether it succeeded; at a step the object is thrown aside."""
    kinematics = arm_kinematics(ROBOT)
    servo, expert = EmbeddedServo(ROBOT, kinematics), Expert(ROBOT)
    world.reset(scene)
    expert.reset(world)
    servo.start(scene.start, 0.0)
    commanded = kinematics.forward(scene.start)
    phases: list[str] = []
    while len(phases) < MAX_STEPS:
        if len(phases) == knock_at:
            throw_aside(world, scene)
        target, gripper, phase, done = expert.act(world, commanded)
        phases.append(phase)
        if done:
            return phases, world.success()
        shift = np.linalg.norm(target.position - commanded.position)
        assert shift <= 0.3 / ROBOT.policy_rate and gripper in (0.0, 1.0)
        drive(world, servo, commanded, target, gripper)
        commanded = target
    return phases, False


def throw_aside(world: World, scene: Scene) -> None:
    """Puts the object to pick to a free place of the table's edge."""
    spots = [(x, y) for x in (0.21, 0.39) for y in (-0.17, 0.17)]
    others = np.array([(o.x, o.y) for o in scene.objects if o.name != scene.task.pick])
    x, y = max(spots, key=lambda spot: np.hypot(*(others - spot).T).min())
    body = world.model.body(f"movable_{slot_of(scene)}")
    address = world.model.jnt_qposadr[body.jntadr[0]]
    world.data.qpos[address : address + 3] = (x, y, 0.022)
    world.data.qpos[address + 3 : address + 7] = (1, 0, 0, 0)


def slot_of(scene: Scene) -> int:
    movables = [spec.name for spec in scene.objects if spec.role == "movable"]
    return movables.index(scene.task.pick)


@pytest.mark.parametrize("kind", ["cube", "cylinder", "ball"])
@pytest.mark.parametrize("place", ["on the blue plate", "in the blue bowl", "in the blue bin"])
def test_every_kind_of_task(world: World, kind: str, place: str) -> None:
    scene = scene_for_instruction(np.random.default_rng(3), ROBOT, f"put the red {kind} {place}")
    phases, success = run(world, scene)
    assert success, phases
    assert list(dict.fromkeys(phases)) == [phase for phase in PHASES if phase in phases]
    assert {"approach", "close", "carry", "open", "retreat"} <= set(phases)
    assert len(phases) < 40


@pytest.mark.parametrize("knock_at", [3, 8, 11])
def test_it_starts_over_when_the_object_is_gone(world: World, knock_at: int) -> None:
    scene = sample_scene(np.random.default_rng(12), ROBOT)
    phases, success = run(world, scene, knock_at)
    assert success, phases
    assert "approach" in phases[knock_at:]
