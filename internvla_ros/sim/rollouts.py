"""The expert at work, recorded as states: physics once, to be drawn as often as one likes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.motion.se3 import Pose
from internvla_ros.motion.servo import EmbeddedServo
from internvla_ros.sim.engine import (
    PUSHES,
    Noise,
    RolloutError,
    drive,
    pushed,
    recorded_action,
    state_vector,
)
from internvla_ros.sim.scene import arm_kinematics
from internvla_ros.sim.task_expert import TaskExpert
from internvla_ros.sim.task_scene import TaskScene
from internvla_ros.sim.task_world import TaskWorld

Array = NDArray[np.float64]

STEP_FRAMES = 70
"""Frames that one step of a task may take, at most."""
_REST_FRAMES = 2  # recorded after the task is done, so that resting is learned too
_NUDGE = (0.015, 0.040)  # m that a thing is moved aside
_FAR = 0.08  # m from the tip at which a thing may be moved aside without hitting the hand
_MISS = (0.018, 0.030)  # m that the tip is led astray


@dataclass(frozen=True)
class Mishaps:
    """What goes wrong on purpose, so that the way back is recorded.

    Attributes:
        chance: that a step meets with one.
        kinds: of them: the thing is dropped on its way, or moved aside before it is taken, or the
            hand is led past it and closes on nothing.
    """

    chance: float = 0.0
    kinds: tuple[str, ...] = ("drop", "nudge", "miss")


NO_MISHAPS = Mishaps()


@dataclass(frozen=True, eq=False)
class Rollout:
    """T moments of an episode, without pictures.

    Attributes:
        scene: as it began.
        positions: [T, nq] of everything in the world.
        states: [T, 10] proprioception; actions: [T, 7], as in `Episode`.
        points: [T, 3, 3] m, base frame: where the step's thing is taken, where it goes, the tip.
        steps: [T] the index of the step at work.
        phases: T names of the expert's phases.
        mishaps: how many there were.
    """

    scene: TaskScene
    positions: Array
    states: Array
    actions: Array
    points: Array
    steps: NDArray[np.int64]
    phases: tuple[str, ...]
    mishaps: int

    def __len__(self) -> int:
        return len(self.actions)


@dataclass
class _Tape:
    """What is recorded as it happens."""

    positions: list[Array] = field(default_factory=list)
    states: list[Array] = field(default_factory=list)
    actions: list[Array] = field(default_factory=list)
    points: list[Array] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)
    mishaps: int = 0


class Performer:
    """Lets the expert work in one robot's world. Use one instance a thread."""

    def __init__(self, world: TaskWorld) -> None:
        self.world = world
        self._embodiment = world.embodiment
        self._kinematics: Kinematics = arm_kinematics(world.embodiment)
        self._expert = TaskExpert(world.embodiment)

    def perform(
        self,
        scene: TaskScene,
        rng: np.random.Generator,
        noise: Noise = PUSHES,
        mishaps: Mishaps = NO_MISHAPS,
    ) -> Rollout:
        """The expert at work in a scene, pushed about by `noise`.

        Raises:
            RolloutError: it did not get the task done.
        """
        world, expert = self.world, self._expert
        world.reset(scene)
        expert.reset(world)
        servo = EmbeddedServo(self._embodiment, self._kinematics)
        servo.start(scene.start, 0.0)
        commanded = self._kinematics.forward(scene.start)
        trouble = _Trouble(rng, mishaps, len(scene.steps))
        tape, resting = _Tape(), 0
        while resting < _REST_FRAMES:
            if len(tape.actions) >= STEP_FRAMES * len(scene.steps):
                raise RolloutError(f"{scene.family}: not done in time, in phase {expert.phase}")
            if expert.trouble:
                raise RolloutError(f"{scene.family}: {expert.trouble}")
            self._see(tape)
            wanted, gripper, phase, done = expert.act(world, commanded)
            resting = resting + 1 if done else 0
            self._note(tape, commanded, wanted, gripper, phase)
            target = pushed(wanted, noise.push(rng, phase), self._embodiment.workspace)
            target, opening = trouble.meet(world, scene, expert, target, gripper)
            drive(world, servo, commanded, target, opening)
            commanded = target
        tape.mishaps = trouble.met
        if not world.success():
            raise RolloutError(f"{scene.family}: did not stay done")
        return _rollout(scene, tape)

    def _see(self, tape: _Tape) -> None:
        tape.positions.append(self.world.positions)
        tape.states.append(state_vector(self.world.tip_pose(), self.world.gripper_opening))

    def _note(self, tape: _Tape, commanded: Pose, wanted: Pose, gripper: float, phase: str) -> None:
        take, goes = self._expert.points(self.world)
        tape.points.append(np.stack([take, goes, self.world.tip_pose().position]))
        tape.actions.append(recorded_action(self.world, commanded, wanted, gripper))
        tape.steps.append(self._expert.step)
        tape.phases.append(phase)


class _Trouble:
    """The mishaps of one episode, each at its moment."""

    def __init__(self, rng: np.random.Generator, mishaps: Mishaps, steps: int) -> None:
        self._rng = rng
        self._due: dict[int, str] = {}
        for step in range(steps):
            if rng.random() < mishaps.chance:
                self._due[step] = mishaps.kinds[int(rng.integers(len(mishaps.kinds)))]
        self._astray = np.zeros(3)
        self.met = 0

    def meet(
        self, world: TaskWorld, scene: TaskScene, expert: TaskExpert, target: Pose, gripper: float
    ) -> tuple[Pose, float]:
        """What the arm is really told, in place of what the expert wants."""
        due, phase = self._due.get(expert.step), expert.phase
        if due == "drop" and phase == "carry" and not scene.steps[expert.step].slides:
            self._happened(expert.step)
            return target, world.embodiment.tabletop.opening
        far = float(np.linalg.norm(expert.points(world)[0] - target.position)) > _FAR
        if due == "nudge" and phase == "approach" and far and not scene.steps[expert.step].slides:
            way = self._rng.uniform(*_NUDGE) * _direction(self._rng)
            world.shift(scene.steps[expert.step].pick, way)
            self._happened(expert.step)
        if due == "miss" and phase == "descend":
            self._astray = np.append(self._rng.uniform(*_MISS) * _direction(self._rng), 0.0)
            self._happened(expert.step)
        if phase not in ("descend", "close"):
            self._astray = np.zeros(3)
        return Pose(target.position + self._astray, target.rotation), gripper

    def _happened(self, step: int) -> None:
        del self._due[step]
        self.met += 1


def _direction(rng: np.random.Generator) -> Array:
    """[2] any direction over the table."""
    angle = rng.uniform(-np.pi, np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def _rollout(scene: TaskScene, tape: _Tape) -> Rollout:
    return Rollout(
        scene=scene,
        positions=np.stack(tape.positions),
        states=np.stack(tape.states),
        actions=np.stack(tape.actions),
        points=np.stack(tape.points),
        steps=np.array(tape.steps, dtype=np.int64),
        phases=tuple(tape.phases),
        mishaps=tape.mishaps,
    )
