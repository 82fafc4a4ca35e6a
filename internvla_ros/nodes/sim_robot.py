"""A simulated robot behind the interface of a real one: trajectories in, joint states out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from internvla_ros.motion.trajectory import Point, TrajectoryFollower
from internvla_ros.robots.embodiment import Embodiment
from internvla_ros.sim.scene import Scene, sample_scene, scene_for_instruction
from internvla_ros.sim.world import World

_EPOCH = 1.0  # s; a stamp of 0 means "no time" in ROS
Points = Sequence[Point]


class SimRobot:
    """A world, its clock, and the two trajectories that move its joints."""

    def __init__(self, embodiment: Embodiment, seed: int) -> None:
        """`seed`: of the first scene."""
        self.world = World(embodiment)
        self._embodiment = embodiment
        self._gripper = TrajectoryFollower(
            embodiment.gripper.joints[:1], np.array([embodiment.gripper.open])
        )
        self._arm = TrajectoryFollower(embodiment.joints, embodiment.ready)
        self._origin = _EPOCH
        self._not_before = 0.0
        self.reset(seed, "")

    @property
    def time(self) -> float:
        """s, never set back by a new scene."""
        return self._origin + self.world.time

    def reset(self, seed: int, instruction: str) -> Scene:
        """Lay a new scene, drawn from `seed`, for the instruction if there is one.

        Raises:
            SceneError: no scene fits the instruction.
        """
        rng = np.random.default_rng(seed)
        scene = (
            scene_for_instruction(rng, self._embodiment, instruction)
            if instruction
            else sample_scene(rng, self._embodiment)
        )
        now = self.time
        self.world.reset(scene)
        self._origin = now - self.world.time
        self._not_before = now
        self._arm.reset(scene.start)
        self._gripper.reset(np.array([self._embodiment.gripper.open]))
        return scene

    def follow_arm(self, stamp: float, names: Sequence[str], points: Points) -> None:
        """Follow a trajectory of the arm's joints (rad); TrajectoryError when it cannot be."""
        self._follow(self._arm, stamp, names, points)

    def follow_gripper(self, stamp: float, names: Sequence[str], points: Points) -> None:
        """Follow a trajectory of the first finger (m); TrajectoryError when it cannot be."""
        self._follow(self._gripper, stamp, names, points)

    def advance(self, step: float) -> None:
        """Let `step` s pass."""
        target = self.time + step
        positions, _ = self._arm.sample(target)
        finger, _ = self._gripper.sample(target)
        self.world.command(positions, self._embodiment.gripper.opening(float(finger[0])))
        self.world.step(step)

    def _follow(
        self, follower: TrajectoryFollower, stamp: float, names: Sequence[str], points: Points
    ) -> None:
        if 0.0 < stamp < self._not_before:
            return  # meant for the scene before this one
        follower.follow(self.time, stamp, names, points)
