"""Roll-outs drawn: pictures and true answers of where things are, under any look.

Boxes are those of what is seen (from a segmentation); points are where the step's object is taken
and where it goes; the tip's pixels give the traces.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from internvla_ros.data.episode import Episode, Frame
from internvla_ros.motion.se3 import Pose, rpy_to_matrix
from internvla_ros.sim.engine import RolloutError, recorded_size, state_vector
from internvla_ros.sim.grasps import GraspPlanner
from internvla_ros.sim.looks import Look
from internvla_ros.sim.rollouts import Rollout
from internvla_ros.sim.scene import arm_kinematics
from internvla_ros.sim.task_scene import TaskScene
from internvla_ros.sim.task_world import TaskWorld

Array = NDArray[np.float64]

CAMERAS = ("front", "wrist")
_SHORTEST = 3  # frames of a step that is an episode
_HIGH = 0.09  # m above the table at which a tip is clear of most of what stands on it
_NEAR_THINGS = 0.17  # m above the table up to which a tip counts as near a thing
_TRIES = 50


def draw(world: TaskWorld, rollout: Rollout, look: Look, ids: list[int]) -> list[Episode]:
    """An episode of each step of a roll-out as it looks under `look`.

    Args:
        world: is taken for it.
        rollout: what happened.
        look: how it looks.
        ids: a number for each step's episode, recorded as its seed.

    Raises:
        RolloutError: a step's object or destination is not to be seen when it begins.
    """
    scene = replace(rollout.scene, look=look)
    world.dress(scene)
    seen = [_see(world, positions) for positions in rollout.positions]
    pixels = _pixels(world, rollout)
    period = 1.0 / world.embodiment.policy_rate
    episodes = []
    for index in range(len(scene.steps)):
        rows = np.flatnonzero(rollout.steps == index)
        if len(rows) < _SHORTEST:
            raise RolloutError(f"{scene.family}: a step was done without doing anything")
        episode = _episode(world, scene, index, rollout, rows, seen, pixels, period, ids[index])
        _check_seen(episode, scene.family)
        episodes.append(episode)
    return episodes


def _see(world: TaskWorld, positions: Array) -> tuple[dict[str, NDArray[np.uint8]], Array]:
    """The pictures of a moment, and the boxes [N, 4] of what the front one shows."""
    world.place(positions)
    sizes = {camera: recorded_size(world.embodiment, camera) for camera in CAMERAS}
    pictures = {camera: world.render(camera, *size) for camera, size in sizes.items()}
    boxes = world.seen_boxes("front", *sizes["front"])
    return pictures, np.stack([boxes[name] for name in world.names])


def _pixels(world: TaskWorld, rollout: Rollout) -> Array:
    """[T, 3, 2] where the front picture shows the points of a roll-out."""
    size = recorded_size(world.embodiment, "front")
    flat = world.project(rollout.points.reshape(-1, 3), "front", *size)
    return flat.reshape(len(rollout), 3, 2)


def _episode(
    world: TaskWorld,
    scene: TaskScene,
    index: int,
    rollout: Rollout,
    rows: NDArray[np.int64],
    seen: list[tuple[dict[str, NDArray[np.uint8]], Array]],
    pixels: Array,
    period: float,
    number: int,
) -> Episode:
    step = scene.steps[index]
    alone = len(scene.steps) == 1
    return Episode(
        images={camera: np.stack([seen[row][0][camera] for row in rows]) for camera in CAMERAS},
        state=rollout.states[rows],
        action=rollout.actions[rows],
        boxes=np.stack([seen[row][1] for row in rows]),
        pick_point=pixels[rows, 0],
        place_point=pixels[rows, 1],
        tip_pixel=pixels[rows, 2],
        timestamps=np.arange(len(rows)) * period,
        instruction=scene.instruction if alone else step.instruction,
        pick=step.pick,
        place=step.place[0],
        relation=step.relation,
        objects=world.names,
        seed=number,
        success=True,
    )


def _check_seen(episode: Episode, family: str) -> None:
    """Raises RolloutError where the first picture does not show what the step is about."""
    for role, name in (("to be taken", episode.pick), ("to put it to", episode.place)):
        if np.isnan(episode.boxes[0, episode.objects.index(name)]).any():
            raise RolloutError(f"{family}: what is {role} is hidden when the step begins")
    height, width = episode.images["front"].shape[1:3]
    inside = (episode.place_point[0] > 0) & (episode.place_point[0] < (width, height))
    if not inside.all():
        raise RolloutError(f"{family}: the place is outside the picture")


class Photographer:
    """Single annotated frames: a scene, and the arm anywhere over it."""

    def __init__(self, world: TaskWorld) -> None:
        self._world = world
        self._kinematics = arm_kinematics(world.embodiment)
        self._grasps = GraspPlanner(world.embodiment)

    def shoot(self, scene: TaskScene, rng: np.random.Generator) -> Frame:
        """A frame about the scene's first step, in a third of them with its object in the hand.

        Raises:
            RolloutError: no pose was found, or what the step is about cannot be seen.
        """
        world, embodiment = self._world, self._world.embodiment
        world.reset(scene)
        step = scene.steps[0]
        held = not step.slides and rng.random() < 1 / 3
        for _ in range(_TRIES):
            yaw = float(rng.uniform(-0.8, 0.8))
            position = self._tip(scene, rng, held)
            turn = rpy_to_matrix(rng.normal(scale=(0.03, 0.03, 0.0)))
            target = Pose(position, turn @ self._grasps.tip_rotation(yaw))
            found = self._kinematics.inverse(target, embodiment.ready, posture=embodiment.posture)
            if found.converged:
                break
        else:
            raise RolloutError("found no reachable pose over the table")
        opening = embodiment.tabletop.opening
        if held:
            opening = embodiment.gripper.opening_for(min(scene.thing(step.pick).size[:2]))
        world.teleport(found.q, opening, step.pick if held else None)
        return self._frame(scene, held)

    def _tip(self, scene: TaskScene, rng: np.random.Generator, held: bool) -> Array:
        """A tip position [3]: over some object half of the time, never inside anything."""
        table = self._world.embodiment.tabletop
        lower, upper = np.transpose([table.x, table.y, (_HIGH, table.start_height[1])])
        spot = rng.uniform(lower, upper)
        if rng.random() < 0.5:
            step = scene.steps[0]
            name = step.place[0] if held else step.pick
            if not held and rng.random() < 0.5:
                name = scene.things[int(rng.integers(len(scene.things)))].name
            body = self._world.state()[name]
            around = rng.normal(scale=0.012, size=2)
            low = body.top - table.height + 0.03
            high = max(low + 0.01, _NEAR_THINGS)
            spot = np.array([*(body.position[:2] + around), rng.uniform(low, high)])
        spot[2] += table.height
        return np.asarray(spot)

    def _frame(self, scene: TaskScene, held: bool) -> Frame:
        world, step, task = self._world, scene.steps[0], scene.task
        pictures, boxes = _see(world, world.positions)
        tip = world.tip_pose()
        points = np.concatenate([world.task_points(), tip.position[None]])
        size = recorded_size(world.embodiment, "front")
        pick, place, tip_pixel = world.project(points, "front", *size)
        names = world.names
        if np.isnan(boxes[[names.index(step.pick), names.index(step.place[0])]]).any():
            raise RolloutError("what the step is about is hidden")
        return Frame(
            front=pictures["front"],
            wrist=pictures["wrist"],
            state=state_vector(tip, world.gripper_opening),
            boxes=boxes,
            pick_point=pick,
            place_point=place,
            tip_pixel=tip_pixel,
            objects=names,
            instruction=task.instruction if len(scene.steps) == 1 else step.instruction,
            pick=step.pick,
            place=step.place[0],
            relation=step.relation,
            holding=held,
        )
