"""One scene being worked on: a simulated arm moved by chunks, with nothing of ROS in between.

The path is that of the nodes: pictures and proprioception go out at the policy's rate, a chunk
comes back later, `ChunkExecutor` and `EmbeddedServo` turn it into joint commands at the control
rate.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from internvla_ros.control.chunk import Chunk
from internvla_ros.control.executor import ChunkExecutor
from internvla_ros.control.realtime import frozen_steps, remaining
from internvla_ros.motion.clearance import Clearance
from internvla_ros.motion.collision import CollisionModel
from internvla_ros.motion.se3 import Pose, distance, rot6d
from internvla_ros.motion.servo import EmbeddedServo
from internvla_ros.robots.embodiment import Embodiment
from internvla_ros.sim.robot_world import RobotWorld
from internvla_ros.sim.scene import Scene, arm_kinematics
from internvla_ros.sim.task_scene import TaskScene
from internvla_ros.spatial.types import SpatialAnswer

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Delivery:
    """How chunks reach the arm.

    Args:
        delay: simulated seconds from an observation to the arrival of its chunk.
        blend, horizon: how overlapping chunks are blended (see `control.ensemble`).
        timeout: seconds after an observation for which its chunk is followed.
    """

    delay: float = 0.1
    blend: str = "adaptive"
    horizon: int = 4
    timeout: float = 1.0


@dataclass(frozen=True)
class Decision:
    """What a policy says to one observation: actions [T, 7], and where it sees things."""

    actions: Array
    answer: SpatialAnswer | None = None


@dataclass
class Outcome:
    """What became of a scene.

    Attributes:
        success: the task was done in time.
        seconds: simulated time until then, or until it was given up.
        held: names of the objects that were grasped, in order.
        refused: chunks that the executor refused.
        limited: share of control cycles in which the servo could not do as told.
        jerk: m/s^3, root mean square of the tip's as commanded.
        path_error: m, root mean square between the path of the chunks and the simulated tip.
        point_errors: distance in pixels between predicted and true points, pick and place, one
            pair an observation with an answer.
    """

    success: bool = False
    seconds: float = 0.0
    held: list[str] = field(default_factory=list)
    refused: int = 0
    limited: float = 0.0
    jerk: float = 0.0
    path_error: float = 0.0
    point_errors: list[tuple[float, float]] = field(default_factory=list)


class SceneRun:
    """A world, its scene, and the arm's controllers.

    Args:
        world: is kept and reset for every scene.
        delivery: how chunks reach the arm.
    """

    def __init__(self, world: RobotWorld, delivery: Delivery) -> None:
        self.world = world
        self.embodiment: Embodiment = world.embodiment
        self._delivery = delivery
        self._kinematics = arm_kinematics(self.embodiment)
        self._servo = EmbeddedServo(
            self.embodiment, self._kinematics, Clearance(CollisionModel(self.embodiment))
        )
        self._executor = ChunkExecutor(
            self.embodiment.action,
            delivery.blend,
            delivery.horizon,
            delivery.timeout,
            step_speed=self.embodiment.tip_limits.speed,
            step_turn=self.embodiment.tip_limits.turn,
            opening=self.embodiment.tabletop.opening,
        )
        self._pending: deque[tuple[float, Chunk]] = deque()
        self.memory: dict[str, Any] = {}
        """The policy's own, emptied at every start."""
        self.index = -1

    def start(self, index: int, scene: Scene | TaskScene) -> None:
        """Lay out a scene and be ready for chunks."""
        self.index, self.scene = index, scene
        self.outcome = Outcome()
        self.memory = {}
        self._pending.clear()
        self._cycles, self._limited, self._sequence = 0, 0, 0
        self._sent: dict[int, Chunk] = {}
        self._tips: list[Array] = []
        self._errors: list[float] = []
        self.world.reset(scene)
        command = self._servo.start(scene.start, self.world.time)
        self.commanded: Pose = command.tip
        self._executor.reset(command.tip, self.world.gripper_opening)
        self._executor.record(self.world.time, command.tip, self.world.tip_pose())

    @property
    def instruction(self) -> str:
        """What is to be done."""
        return self.scene.task.instruction

    def state(self) -> Array:
        """Proprioception [10]: tip x y z (m), two columns of its rotation, opening 0..1."""
        tip = self.world.tip_pose()
        return np.array([*tip.position, *rot6d(tip.rotation), self.world.gripper_opening])

    def picture(self, camera: str) -> NDArray[np.uint8]:
        """What a camera sees, at the size that the robot publishes."""
        spec = self.embodiment.camera(camera)
        return self.world.render(camera, spec.width, spec.height)

    def true_points(self, camera: str) -> Array:
        """Pixels [2, 2] of the object to move and of its destination."""
        spec = self.embodiment.camera(camera)
        return self.world.project(self.world.task_points(), camera, spec.width, spec.height)

    def commitment(self) -> tuple[Array, int] | None:
        """What a chunk observed now has to go on from, for real-time chunking; else None.

        The actions [K, 7] that are left of the chunk in execution, K >= 1, and how many of them
        will be executed before the new one arrives.
        """
        progress = self._executor.progress(self.world.time)
        if self._delivery.blend != "rtc" or progress is None:
            return None
        chunk = self._sent[progress[0]]
        left = remaining(chunk, progress[1])
        return (
            (left, frozen_steps(self._delivery.delay, chunk.dt, len(left))) if len(left) else None
        )

    def advance(self, decision: Decision, dt: float, seconds: float) -> None:
        """Send a chunk on its way and let the arm go on for some seconds.

        Args:
            decision: made from what is to be observed now.
            dt: seconds a step of its actions.
            seconds: time to pass until the next observation.
        """
        now = self.world.time
        self._sequence += 1
        chunk = Chunk(now, dt, decision.actions, self._sequence)
        self._sent[chunk.sequence] = chunk
        self._pending.append((now + self._delivery.delay, chunk))
        period = 1.0 / self.embodiment.control_rate
        for _ in range(round(seconds * self.embodiment.control_rate)):
            self._cycle(self.world.time + period, period)
        self._judge()

    def _cycle(self, now: float, period: float) -> None:
        """One control period that ends at `now`."""
        while self._pending and self._pending[0][0] <= now:
            verdict = self._executor.add(self._pending.popleft()[1], now)
            self.outcome.refused += not verdict.accepted
        setpoint = self._executor.setpoint(now)
        command = self._servo.setpoint(setpoint.pose, now)
        self.world.command(command.positions, setpoint.gripper)
        self.world.step(period)
        self.commanded = self._executor.followed(setpoint, command.tip, command.limits, now)
        measured = self.world.tip_pose()
        self._executor.record(now, self.commanded, measured)
        self._tips.append(command.tip.position)
        self._errors.append(distance(setpoint.pose, measured)[0])
        self._cycles += 1
        self._limited += command.limited

    def _judge(self) -> None:
        held = self.world.holding()
        if held is not None and held not in self.outcome.held:
            self.outcome.held.append(held)
        self.outcome.success = self.world.success()
        self.outcome.seconds = self.world.time
        self.outcome.limited = self._limited / self._cycles
        jerks = np.diff(self._tips, n=3, axis=0) * self.embodiment.control_rate**3
        self.outcome.jerk = _root_mean_square(np.linalg.norm(jerks, axis=1))
        self.outcome.path_error = _root_mean_square(np.array(self._errors))


def _root_mean_square(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2))) if len(values) else 0.0
