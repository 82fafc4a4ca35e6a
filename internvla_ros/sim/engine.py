"""The data engine: scenes in, recorded episodes and annotated frames out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from internvla_ros.data.episode import Episode, Frame
from internvla_ros.motion.se3 import Pose, interpolate, matrix_to_rpy, rot6d, rpy_to_matrix
from internvla_ros.motion.servo import EmbeddedServo
from internvla_ros.robots.embodiment import Embodiment
from internvla_ros.sim.expert import Expert
from internvla_ros.sim.robot_world import RobotWorld
from internvla_ros.sim.scene import Scene, arm_kinematics
from internvla_ros.sim.world import World

_WIDTH = 320  # of recorded pictures, px
MAX_STEPS = 90  # of the policy, in one episode
_HIGH = 0.08  # m above the table at which a tip is clear of what lies on it
_NEAR_OBJECTS = 0.16  # m above the table up to which a tip counts as near an object
_REST_STEPS = 2  # recorded after the task is done, so that resting is learned too


class RolloutError(RuntimeError):
    """An attempt that is no example to learn from; the message says why."""


@dataclass(frozen=True)
class Noise:
    """Sparse pushes: with `chance` a step's target is moved by `least` to `most` metres.

    Recorded is what the expert wanted, so that the way back is learned.
    """

    chance: float = 0.05
    least: float = 0.01
    most: float = 0.03

    def push(self, rng: np.random.Generator, phase: str) -> NDArray[np.float64]:
        """[3] m, zero most of the time; none where a push would only break the grasp."""
        hit = rng.random() < self.chance
        direction = rng.normal(size=3)
        length = rng.uniform(self.least, self.most)
        if not hit or phase in ("descend", "close", "open"):
            return np.zeros(3)
        return np.asarray(direction * length / np.linalg.norm(direction))


PUSHES = Noise()
QUIET = Noise(chance=0.0)


def rollout(
    world: World, scene: Scene, rng: np.random.Generator, noise: Noise = PUSHES, seed: int = 0
) -> Episode:
    """The expert at work in a scene, pushed about by `noise`, seen at the policy's rate.

    Args:
        world: is reset to the scene.
        scene: the table and the task.
        rng: of the pushes.
        noise: how it is pushed.
        seed: recorded with the episode.

    Raises:
        RolloutError: the expert did not get it done.
    """
    embodiment = world.embodiment
    kinematics = arm_kinematics(embodiment)
    servo, expert = EmbeddedServo(embodiment, kinematics), Expert(embodiment)
    world.reset(scene)
    expert.reset(world)
    servo.start(scene.start, 0.0)
    commanded = kinematics.forward(scene.start)
    frames: list[Frame] = []
    actions: list[NDArray[np.float64]] = []
    resting = 0
    phase = ""
    while resting < _REST_STEPS:
        if len(frames) >= MAX_STEPS:
            raise RolloutError(f"not done after {MAX_STEPS} steps, in phase {phase}")
        frames.append(observe(world))
        wanted, gripper, phase, done = expert.act(world, commanded)
        resting = resting + 1 if done else 0
        actions.append(recorded_action(world, commanded, wanted, gripper))
        target = pushed(wanted, noise.push(rng, phase), embodiment.workspace)
        drive(world, servo, commanded, target, gripper)
        commanded = target
    if not world.success():
        raise RolloutError("the object did not stay where it was put")
    return _episode(frames, actions, 1.0 / embodiment.policy_rate, seed)


def snapshot(world: World, scene: Scene, rng: np.random.Generator) -> Frame:
    """A cheap annotated frame: the arm anywhere over the table, in a third of them holding."""
    embodiment = world.embodiment
    kinematics = arm_kinematics(embodiment)
    world.reset(scene)
    held = rng.random() < 1 / 3
    for _ in range(50):
        position = _snapshot_tip(world, scene, rng, held)
        tilt = rng.normal(scale=(0.03, 0.03, 0.08))
        target = Pose(position, rpy_to_matrix(tilt) @ embodiment.down)
        found = kinematics.inverse(target, embodiment.ready, posture=embodiment.posture)
        if found.converged:
            break
    else:
        raise RolloutError("found no reachable pose over the table")
    table = embodiment.tabletop
    any_opening = rng.random() < 0.15 and position[2] > table.height + _HIGH
    opening = float(rng.uniform(0, 1)) if any_opening else table.opening
    if held:
        size = scene.object(scene.task.pick).size
        opening = embodiment.gripper.opening_for(size)
    world.teleport(found.q, opening, scene.task.pick if held else None)
    return observe(world, holding=held)


def observe(world: World, holding: bool | None = None) -> Frame:
    """What there is to see and to know now; `holding` None: as felt by the fingers."""
    task = world.scene.task
    width, height = recorded_size(world.embodiment, "front")
    boxes = world.boxes("front", width, height)
    names = tuple(boxes)
    tip = world.tip_pose()
    points = [world.object_position(task.pick), world.object_position(task.place), tip.position]
    pick, place, tip_pixel = world.project(points, "front", width, height)
    return Frame(
        front=world.render("front", width, height),
        wrist=world.render("wrist", *recorded_size(world.embodiment, "wrist")),
        state=state_vector(tip, world.gripper_opening),
        boxes=np.stack([boxes[name] for name in names]),
        pick_point=pick,
        place_point=place,
        tip_pixel=tip_pixel,
        objects=names,
        instruction=task.instruction,
        pick=task.pick,
        place=task.place,
        relation=task.relation,
        holding=world.holding() == task.pick if holding is None else holding,
    )


def recorded_size(embodiment: Embodiment, camera: str) -> tuple[int, int]:
    """Width and height of a camera's recorded pictures: smaller ones of the same view."""
    spec = embodiment.camera(camera)
    return _WIDTH, 2 * round(_WIDTH * spec.height / spec.width / 2)


def state_vector(tip: Pose, opening: float) -> NDArray[np.float64]:
    """Proprioception [10]: tip x y z (m), two columns of its rotation, opening 0..1."""
    return np.concatenate([tip.position, rot6d(tip.rotation), [opening]])


def recorded_action(
    world: RobotWorld, commanded: Pose, wanted: Pose, gripper: float
) -> NDArray[np.float64]:
    """The action [7] that leads to the pose wanted next, from where the robot's deltas add to."""
    measured = world.embodiment.action.anchor == "measured"
    return action_between(world.tip_pose() if measured else commanded, wanted, gripper)


def action_between(start: Pose, end: Pose, gripper: float) -> NDArray[np.float64]:
    """The action [7] that leads from one pose to another (base frame, rpy).

    Its gripper number is 0 for closed and 1 for open, however far (`gripper`, 0..1) that is.
    """
    turn = matrix_to_rpy(end.rotation @ start.rotation.T)
    return np.concatenate([end.position - start.position, turn, [float(gripper > 0.0)]])


def pushed(
    pose: Pose,
    push: NDArray[np.float64],
    workspace: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> Pose:
    """A pose moved by a push [3] (m), kept within the workspace."""
    if not push.any():
        return pose
    return Pose(np.clip(pose.position + push, *workspace), pose.rotation)


def drive(world: RobotWorld, servo: EmbeddedServo, start: Pose, end: Pose, gripper: float) -> None:
    """One policy period: the commanded pose glides from start to end at the control rate."""
    embodiment = world.embodiment
    ticks = round(embodiment.control_rate / embodiment.policy_rate)
    for tick in range(1, ticks + 1):
        pose = interpolate(start, end, tick / ticks)
        command = servo.setpoint(pose, world.time + 1.0 / embodiment.control_rate)
        world.command(command.positions, gripper)
        world.step(1.0 / embodiment.control_rate)


def _episode(
    frames: list[Frame], actions: list[NDArray[np.float64]], period: float, seed: int
) -> Episode:
    first = frames[0]
    return Episode(
        images={
            "front": np.stack([frame.front for frame in frames]),
            "wrist": np.stack([frame.wrist for frame in frames]),
        },
        state=np.stack([frame.state for frame in frames]),
        action=np.stack(actions),
        boxes=np.stack([frame.boxes for frame in frames]),
        pick_point=np.stack([frame.pick_point for frame in frames]),
        place_point=np.stack([frame.place_point for frame in frames]),
        tip_pixel=np.stack([frame.tip_pixel for frame in frames]),
        timestamps=np.arange(len(frames)) * period,
        instruction=first.instruction,
        pick=first.pick,
        place=first.place,
        relation=first.relation,
        objects=first.objects,
        seed=seed,
        success=True,
    )


def _snapshot_tip(
    world: World, scene: Scene, rng: np.random.Generator, held: bool
) -> NDArray[np.float64]:
    """A tip position [3]: over some object half of the time, never inside anything."""
    table = world.embodiment.tabletop
    lower, upper = np.transpose([table.x, table.y, (_HIGH, table.start_height[1])])
    spot = rng.uniform(lower, upper)
    if rng.random() < 0.5:
        target = scene.objects[int(rng.integers(len(scene.objects)))]
        if held or rng.random() < 0.5:
            target = scene.object(scene.task.place if held else scene.task.pick)
        around = rng.normal(scale=0.012, size=2)
        floor = table.grasp - 0.002 if target.name == scene.task.pick and not held else _HIGH
        height = rng.uniform(floor, _NEAR_OBJECTS)
        spot = np.array([target.x + around[0], target.y + around[1], height])
    spot[2] += table.height
    return np.asarray(spot)
