"""The world as a scripted expert foresees it: an arm that does as told, a grasp that holds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from internvla_ros.motion.se3 import Pose
from internvla_ros.sim.world import World

_WITHIN = 0.020  # m between tip and object at which closing fingers grasp it


class Foreseen:
    """What a world becomes step by step, as far as an expert asks about it.

    Everything that it does not foresee is the world's own, as it is.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._pick = world.scene.task.pick
        self._tip = world.tip_pose()
        self.gripper_opening = world.gripper_opening
        self._thing = world.object_position(self._pick)
        self._held = world.holding() == self._pick
        self._released = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    def go_on(self, tip: Pose, opening: float) -> None:
        """A step later: the tip is there, and the gripper has done as told."""
        moved = tip.position - self._tip.position
        self._tip = tip
        if opening > 0.0:
            self._released |= self._held
            self._held, self.gripper_opening = False, opening
            return
        if self._held:
            self._thing = self._thing + moved
        near = float(np.linalg.norm(self._thing - tip.position)) < _WITHIN
        self._held = self._held or near
        size = self._world.scene.object(self._pick).size
        gripper = self._world.embodiment.gripper
        self.gripper_opening = gripper.opening_for(size) if self._held else 0.0

    def tip_pose(self) -> Pose:
        """Where the tip will be."""
        return self._tip

    def holding(self) -> str | None:
        """The movable that will be between the fingers."""
        return self._pick if self._held else None

    def object_position(self, name: str) -> NDArray[np.float64]:
        """Where an object will be: the one to move goes with the fingers."""
        return self._thing if name == self._pick else self._world.object_position(name)

    def placed(self, movable: str, receptacle: str) -> bool:
        """Whether the object will have been let go, which happens at its receptacle alone."""
        return self._released or self._world.placed(movable, receptacle)
