"""What stands around a robot: boxes, balls and sets of points, added and removed by name.

Points, as a depth camera or an octomap gives them, are hashed into cubes (voxels); the arm keeps
its distance from every cube that holds a point.
"""

from __future__ import annotations

import coal
import numpy as np
from numpy.typing import ArrayLike, NDArray

from internvla_ros.motion.collision import (
    TABLE,
    CollisionError,
    CollisionModel,
    Nearest,
    Pairs,
    coal_solid,
    obstacle,
)
from internvla_ros.motion.se3 import Pose
from internvla_ros.motion.voxels import VoxelCloud, voxels

Array = NDArray[np.float64]

MOST_VOXELS = 200_000


class PlanningScene:
    """A robot among obstacles.

    Poses are in the robot's base frame. Links that cannot move are not compared with obstacles.
    Holds scratch memory: use one instance a thread.

    Args:
        robot: with its table, if there is one.
    """

    def __init__(self, robot: CollisionModel) -> None:
        self.robot = robot
        self._obstacles: dict[str, tuple[Pairs, Pairs] | VoxelCloud] = {}

    @property
    def names(self) -> list[str]:
        """Of all obstacles, in the order in which they came."""
        return list(self._obstacles)

    def add_box(self, name: str, pose: Pose, size: ArrayLike) -> None:
        """A box of extents [3] (m) about a pose; replaces what had this name."""
        extents = np.asarray(size, dtype=np.float64)
        if extents.shape != (3,) or not (np.isfinite(extents) & (extents > 0)).all():
            raise CollisionError(f"obstacle {name!r}: a box needs three positive extents (m)")
        self._add(name, pose, coal_solid(extents / 2, 0.0))

    def add_sphere(self, name: str, centre: ArrayLike, radius: float) -> None:
        """A ball about a point [3] (m); replaces what had this name."""
        if not (np.isfinite(radius) and radius > 0):
            raise CollisionError(f"obstacle {name!r}: a ball needs a positive radius (m)")
        middle = np.asarray(centre, dtype=np.float64)
        self._add(name, Pose(middle, np.eye(3)), coal_solid(np.zeros(3), float(radius)))

    def add_points(self, name: str, points: ArrayLike, voxel: float) -> int:
        """Points [N, 3] (m) as cubes of edge `voxel` (m); replaces what had this name.

        Points that are not finite, as depth pictures have them, are left out.

        Returns:
            How many cubes they fill. With none there is no obstacle.
        """
        cloud = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        if not (np.isfinite(voxel) and voxel > 0):
            raise CollisionError(f"obstacle {name!r}: voxels need a positive size (m)")
        cubes = voxels(cloud[np.isfinite(cloud).all(axis=1)], voxel)
        if len(cubes) > MOST_VOXELS:
            raise CollisionError(
                f"obstacle {name!r} fills {len(cubes)} voxels, more than {MOST_VOXELS}: "
                "use larger voxels or cut the points to the workspace"
            )
        self._check_name(name)
        self._obstacles.pop(name, None)
        if len(cubes):
            self._obstacles[name] = VoxelCloud(cubes, voxel)
        return len(cubes)

    def remove(self, name: str) -> None:
        """Takes an obstacle away; CollisionError where there is none of this name."""
        if name not in self._obstacles:
            known = ", ".join(self._obstacles) or "nothing"
            raise CollisionError(f"the scene has no obstacle {name!r}; it has {known}")
        del self._obstacles[name]

    def clear(self) -> None:
        """Takes all obstacles away; robot and table stay."""
        self._obstacles.clear()

    def nearest(self, q: ArrayLike) -> Nearest:
        """The two solids with the least room between them at joint positions q [n]."""
        best = self.robot.nearest(q)
        for name, one in self._obstacles.items():
            for nearest in self._nearest_to(name, one, best.room):
                best = min(best, nearest, key=lambda pair: pair.room)
        return best

    def room(self, q: ArrayLike) -> float:
        """Metres to spare at joint positions q [n] before anything is too close."""
        least = self.robot.room(q)
        for name, one in self._obstacles.items():
            if isinstance(one, VoxelCloud):
                rooms = [nearest.room for nearest in self._in_cloud(name, one, least)]
            else:
                rooms = [self.robot.room_of(pairs) for pairs in one]
            least = min([least, *rooms])
        return least

    def _nearest_to(
        self, name: str, one: tuple[Pairs, Pairs] | VoxelCloud, room: float
    ) -> list[Nearest]:
        """The arm's and the fingers' nearest to an obstacle, if there may be less room there."""
        if isinstance(one, VoxelCloud):
            return self._in_cloud(name, one, room)
        found = [self.robot.nearest_of(pairs) for pairs in one]
        return [nearest for nearest in found if nearest is not None]

    def _in_cloud(self, name: str, cloud: VoxelCloud, room: float) -> list[Nearest]:
        """As `_nearest_to`, for points."""
        result = []
        for solids, required in self.robot.moving_solids():
            found = cloud.nearest(solids, room + required)
            if found is None:
                continue
            result.append(
                Nearest(
                    distance=found.distance,
                    required=required,
                    first=solids[found.solid][0].link,
                    second=name,
                    point_first=found.on_solid,
                    point_second=found.on_voxel,
                    normal=found.normal,
                )
            )
        return result

    def _add(self, name: str, pose: Pose, solid: coal.CollisionGeometry) -> None:
        self._check_name(name)
        if not pose.is_valid():
            raise CollisionError(f"obstacle {name!r}: its pose is not finite and rigid")
        self._obstacles[name] = self.robot.against([obstacle(name, pose, solid)])

    def _check_name(self, name: str) -> None:
        if name == TABLE or self.robot.model.existFrame(name):
            raise CollisionError(f"obstacle {name!r}: this name is the robot's or its table's")
