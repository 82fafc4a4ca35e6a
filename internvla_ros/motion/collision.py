"""How close the arm is to itself, to its table and to what stands around it (pinocchio and coal).

Solids are the capsules and boxes of the robot description. Every distance is signed: below zero it
is the depth to which two solids overlap. A robot's own least distances come with it, so that most
callers only ask for the room that is left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import coal
import numpy as np
import pinocchio as pin
from numpy.typing import ArrayLike, NDArray

from internvla_ros.motion.reach import reach
from internvla_ros.motion.se3 import Pose
from internvla_ros.motion.shapes import Shape, solid_shapes
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import Embodiment, Tabletop

Array = NDArray[np.float64]

TABLE = "table"
FAR = 10.0
"""Metres: the distance to nothing at all."""


class CollisionError(ValueError):
    """The robot description lacks what was asked of it, or an obstacle is no solid."""


@dataclass(frozen=True, eq=False)
class Nearest:
    """The two solids with the least room between them.

    Args:
        distance: m between them, negative where they overlap.
        required: m that must stay between them.
        first, second: names of the links, or of an obstacle.
        point_first, point_second: [3] m, the points nearest to each other, in the base frame.
        normal: [3] unit vector from the first to the second.
    """

    distance: float
    required: float
    first: str
    second: str
    point_first: Array
    point_second: Array
    normal: Array

    @property
    def room(self) -> float:
        """Metres to spare before the two are too close."""
        return self.distance - self.required


class Pairs:
    """Pairs of solids that share a least distance; positions come from a `CollisionModel`."""

    def __init__(
        self,
        geometry: pin.GeometryModel,
        names: list[str],
        required: float,
        leverage: Array,
    ) -> None:
        self.required = required
        self.leverage = leverage
        """[p, n] the most that the distance of each pair changes per rad (or m) of each joint."""
        self._geometry = geometry
        self._data = geometry.createData()
        self._names = names

    def nearest(self, model: pin.Model, data: pin.Data) -> Nearest | None:
        """The closest pair, at the positions in `data`; None where there are no pairs."""
        if not len(self._geometry.collisionPairs):
            return None
        pin.updateGeometryPlacements(model, data, self._geometry, self._data)
        index = pin.computeDistances(self._geometry, self._data)
        pair, result = self._geometry.collisionPairs[index], self._data.distanceResults[index]
        return Nearest(
            distance=result.min_distance,
            required=self.required,
            first=self._names[pair.first],
            second=self._names[pair.second],
            point_first=result.getNearestPoint1(),
            point_second=result.getNearestPoint2(),
            normal=result.normal,
        )

    def room(self, model: pin.Model, data: pin.Data) -> float:
        """As `nearest`, only how many metres there are to spare."""
        if not len(self._geometry.collisionPairs):
            return FAR
        pin.updateGeometryPlacements(model, data, self._geometry, self._data)
        index = pin.computeDistances(self._geometry, self._data)
        return float(self._data.distanceResults[index].min_distance) - self.required

    def distances(self, model: pin.Model, data: pin.Data, chosen: Sequence[int]) -> list[float]:
        """Signed m between each of the pairs chosen."""
        geometry, placed, distance = self._geometry, self._data, pin.computeDistance
        pin.updateGeometryPlacements(model, data, geometry, placed)
        return [distance(geometry, placed, index).min_distance for index in chosen]

    def keep(
        self,
        model: pin.Model,
        data: pin.Data,
        chosen: Sequence[int],
        required: Sequence[float],
        spare: float,
    ) -> bool:
        """Whether each pair chosen is as far apart as required [p] of all, and `spare` m more."""
        geometry, placed, distance = self._geometry, self._data, pin.computeDistance
        pin.updateGeometryPlacements(model, data, geometry, placed)
        return all(
            distance(geometry, placed, i).min_distance >= required[i] + spare for i in chosen
        )

    @staticmethod
    def together(groups: Sequence[Pairs]) -> Pairs:
        """All pairs of some groups in one, in their order; its own least distance is zero.

        Solids of the same name are the same.
        """
        geometry, names = pin.GeometryModel(), []
        for group in groups:
            for solid, name in zip(group._geometry.geometryObjects, group._names, strict=True):
                if not geometry.existGeometryName(solid.name):
                    geometry.addGeometryObject(solid)
                    names.append(name)
        for group in groups:
            solids = group._geometry.geometryObjects
            for pair in group._geometry.collisionPairs:
                first, second = (
                    geometry.getGeometryId(solids[i].name) for i in (pair.first, pair.second)
                )
                geometry.addCollisionPair(pin.CollisionPair(first, second))
        return Pairs(geometry, names, 0.0, np.vstack([group.leverage for group in groups]))


class CollisionModel:
    """One robot, its table, and the distances between them.

    The fingers stand as `set_opening` last said, at first open. Holds scratch memory: use one
    instance a thread.

    Args:
        embodiment: of the robot, whose description is read too.
        table: whether the embodiment's table is there.

    Raises:
        CollisionError: the description lacks a joint of the embodiment.
    """

    def __init__(self, embodiment: Embodiment, *, table: bool = True) -> None:
        self._embodiment = embodiment
        xml = urdf(embodiment.name)
        moving = [*embodiment.joints, *embodiment.gripper.joints]
        full = pin.buildModelFromXML(xml)
        missing = [name for name in moving if not full.existJointName(name)]
        if missing:
            raise CollisionError(f"robot description '{full.name}' lacks joint {missing[0]!r}")
        still = [full.getJointId(name) for name in list(full.names)[1:] if name not in moving]
        self.model = pin.buildReducedModel(full, still, pin.neutral(full))
        self.data = self.model.createData()
        self._columns = np.array(
            [self.model.joints[self.model.getJointId(name)].idx_q for name in moving]
        )
        self._arm_columns = self._columns[: len(self.joints)]
        self._q = pin.neutral(self.model)
        self.shapes = solid_shapes(xml)
        frames = [self._frame(shape.link) for shape in self.shapes]
        self._joints_of = [int(frame.parentJoint) for frame in frames]
        self._in_joint = [
            frame.placement * pin.SE3(shape.pose.rotation, shape.pose.position)
            for frame, shape in zip(frames, self.shapes, strict=True)
        ]
        self._reaches: dict[int, Array] = {}
        self._fingers = self._links_of_fingers()
        self.revision = 0
        """Grows whenever the fingers are told to stand elsewhere."""
        self.set_opening(1.0)
        self._self = self._self_pairs()
        around = [_table(embodiment.tabletop)] if table else []
        self._table = self.against(around, ignored=embodiment.clearance.table_ignored)
        self._every = Pairs.together(self._groups)
        self._required: Array = np.concatenate(
            [np.full(len(pairs.leverage), pairs.required) for pairs in self._groups]
        )

        self._least: list[float] = self._required.tolist()

    @property
    def _groups(self) -> tuple[Pairs, ...]:
        """The robot's own pairs, and those with its table."""
        return (self._self, *self._table)

    @property
    def leverage(self) -> Array:
        """[p, n] the most that each distance changes per rad (or m) of each joint, see `rooms`."""
        return self._every.leverage

    @property
    def joints(self) -> tuple[str, ...]:
        """[n] names of the arm's joints, in the order of every joint vector."""
        return self._embodiment.joints

    def set_opening(self, opening: float) -> None:
        """From now on the gripper is this far open, 0..1."""
        gripper = self._embodiment.gripper
        first = gripper.position(opening)
        self.revision += 1
        self._q[self._columns[len(self.joints) :]] = [first * side for side in gripper.mirror]

    def place(self, q: ArrayLike) -> None:
        """Moves the arm to joint positions q [n]; the `Pairs` of this model look there."""
        self._q[self._arm_columns] = q
        pin.forwardKinematics(self.model, self.data, self._q)

    def nearest(self, q: ArrayLike) -> Nearest:
        """The two solids with the least room between them: of the arm, or of arm and table."""
        self.place(q)
        found = [self.nearest_of(pairs) for pairs in self._groups]
        return min((one for one in found if one is not None), key=lambda one: one.room)

    def room(self, q: ArrayLike) -> float:
        """Metres to spare at joint positions q [n] before anything is too close."""
        self.place(q)
        return min(self.room_of(pairs) for pairs in self._groups)

    def rooms(self, path: Array, chosen: Sequence[int]) -> Array:
        """[k, p] metres to spare at joint positions [k, n] between some of all pairs.

        The robot's own are counted first, then those with its table, as in `leverage`.
        """
        distances: list[float] = []
        for q in path:
            self.place(q)
            distances += self._every.distances(self.model, self.data, chosen)
        return np.array(distances).reshape(len(path), -1) - self._required[chosen]

    def keeps(self, q: Array, chosen: Sequence[int], least: float) -> bool:
        """Whether some of all pairs, see `rooms`, have so many metres to spare at positions [n]."""
        self.place(q)
        return self._every.keep(self.model, self.data, chosen, self._least, least)

    def gradient(self, q: ArrayLike, nearest: Nearest) -> Array:
        """[n] how the distance of a pair found at q changes with each joint (m a rad).

        What `nearest` names beside links of this robot is taken to stand still.
        """
        self.place(q)
        pin.computeJointJacobians(self.model, self.data)
        towards = self._approach(nearest.second, nearest.point_second, nearest.normal)
        away = self._approach(nearest.first, nearest.point_first, nearest.normal)
        return np.asarray(towards - away)[: len(self.joints)]

    def nearest_of(self, pairs: Pairs) -> Nearest | None:
        """The closest of some pairs where the arm was placed last; None where there are none."""
        return pairs.nearest(self.model, self.data)

    def room_of(self, pairs: Pairs) -> float:
        """Metres to spare between some pairs where the arm was placed last."""
        return pairs.room(self.model, self.data)

    def placed(self, q: ArrayLike) -> list[tuple[Shape, Pose]]:
        """Every solid of the robot, and where its middle is in the base frame at q [n]."""
        self.place(q)
        return self._placed(range(len(self.shapes)))

    def moving_solids(self) -> list[tuple[list[tuple[Shape, Pose]], float]]:
        """The arm's and the fingers' moving solids where they were placed last.

        With each of the two groups goes the least distance (m) it must keep from obstacles.
        """
        clearance = self._embodiment.clearance
        arm, fingers = self._moving(())
        return [
            (self._placed(chosen), required)
            for chosen, required in (
                (arm, clearance.obstacle_distance),
                (fingers, clearance.fingers_distance),
            )
            if chosen
        ]

    def _placed(self, chosen: Iterable[int]) -> list[tuple[Shape, Pose]]:
        placed = []
        for i in chosen:
            middle = self.data.oMi[self._joints_of[i]] * self._in_joint[i]
            placed.append((self.shapes[i], Pose(middle.translation, middle.rotation)))
        return placed

    def against(
        self, obstacles: Sequence[pin.GeometryObject], ignored: Iterable[str] = ()
    ) -> tuple[Pairs, Pairs]:
        """Pairs of the moving links but those ignored with obstacles: the arm's, the fingers'."""
        clearance = self._embodiment.clearance
        arm, fingers = self._moving(set(ignored))
        return (
            self._obstacle_pairs(arm, obstacles, clearance.obstacle_distance),
            self._obstacle_pairs(fingers, obstacles, clearance.fingers_distance),
        )

    def _moving(self, ignored: Collection[str]) -> tuple[list[int], list[int]]:
        """The solids of the arm and of the fingers that joints move, but those of some links."""
        moving = [
            i
            for i, (shape, joint) in enumerate(zip(self.shapes, self._joints_of, strict=True))
            if joint > 0 and shape.link not in ignored
        ]
        arm = [i for i in moving if self.shapes[i].link not in self._fingers]
        return arm, [i for i in moving if self.shapes[i].link in self._fingers]

    def _obstacle_pairs(
        self, chosen: list[int], obstacles: Sequence[pin.GeometryObject], required: float
    ) -> Pairs:
        geometry, names = self._geometry(chosen)
        for obstacle in obstacles:
            names.append(obstacle.name)
            geometry.addGeometryObject(obstacle)
        for first, second in product(range(len(chosen)), range(len(chosen), len(names))):
            geometry.addCollisionPair(pin.CollisionPair(first, second))
        return Pairs(geometry, names, required, self._leverage(geometry, chosen))

    def _self_pairs(self) -> Pairs:
        """All pairs but those of neighbours and those that the embodiment ignores."""
        every = list(range(len(self.shapes)))
        geometry, names = self._geometry(every)
        ignored = {frozenset(pair) for pair in self._embodiment.clearance.ignored}
        for first, second in combinations(range(len(names)), 2):
            if self._are_neighbours(first, second):
                continue
            if frozenset((names[first], names[second])) not in ignored:
                geometry.addCollisionPair(pin.CollisionPair(first, second))
        least = self._embodiment.clearance.self_distance
        return Pairs(geometry, names, least, self._leverage(geometry, every))

    def _leverage(self, geometry: pin.GeometryModel, chosen: list[int]) -> Array:
        """[p, n] how much the distance of each pair can change with each joint.

        `chosen` are the first of the geometry's solids; what follows them stands still. A joint
        that carries both solids of a pair moves them together.
        """
        reaches = {place: self._reach(i) for place, i in enumerate(chosen)}
        still = np.zeros(self.model.nv)
        rows = []
        for pair in geometry.collisionPairs:
            first, second = reaches.get(pair.first, still), reaches.get(pair.second, still)
            rows.append(np.where((first > 0) & (second > 0), 0.0, first + second))
        columns = self._columns[: len(self.joints)]
        return np.array(rows).reshape(-1, self.model.nv)[:, columns]

    def _reach(self, i: int) -> Array:
        """[nv] the most that any point of a solid moves per rad (or m) of each joint."""
        if i not in self._reaches:
            corners, radius = self.shapes[i].corners
            placed, joint = self._in_joint[i], self._joints_of[i]
            every = [reach(self.model, joint, placed.act(corner), radius) for corner in corners]
            self._reaches[i] = np.max(every, axis=0)
        return self._reaches[i]

    def _are_neighbours(self, first: int, second: int) -> bool:
        """Whether two solids hang on the same joint or one of theirs leads to the other's.

        The fingers, which are made to meet, count as neighbours of each other.
        """
        a, b = self._joints_of[first], self._joints_of[second]
        if {self.shapes[first].link, self.shapes[second].link} <= self._fingers:
            return True
        return a == b or self.model.parents[a] == b or self.model.parents[b] == a

    def _geometry(self, chosen: list[int]) -> tuple[pin.GeometryModel, list[str]]:
        """Some of the solids, and the names of their links."""
        geometry = pin.GeometryModel()
        for i in chosen:
            shape = self.shapes[i]
            solid = coal_solid(shape.half, shape.radius)
            geometry.addGeometryObject(
                pin.GeometryObject(
                    f"{shape.link} {i}", self._joints_of[i], self._in_joint[i], solid
                )
            )
        return geometry, [self.shapes[i].link for i in chosen]

    def _approach(self, name: str, point: Array, direction: Array) -> Array:
        """[nv] speed of a point of a link along a direction per joint velocity."""
        if not self.model.existFrame(name):
            return np.zeros(self.model.nv)
        joint = self._frame(name).parentJoint
        jacobian = pin.getJointJacobian(
            self.model, self.data, joint, pin.ReferenceFrame.LOCAL_WORLD_ALIGNED
        )
        arm = point - self.data.oMi[joint].translation
        columns = direction @ jacobian[:3] + np.cross(arm, direction) @ jacobian[3:]
        return np.asarray(columns[self._columns])

    def _frame(self, link: str) -> pin.Frame:
        return self.model.frames[self.model.getFrameId(link)]

    def _links_of_fingers(self) -> set[str]:
        """Links that a finger's joint moves."""
        joints = {self.model.getJointId(name) for name in self._embodiment.gripper.joints}
        return {
            shape.link
            for shape, joint in zip(self.shapes, self._joints_of, strict=True)
            if joint in joints
        }


def coal_solid(half: Array, radius: float) -> coal.ShapeBase:
    """A box of half extents [3], a ball, or a capsule along z, as coal has them."""
    if radius == 0.0:
        return coal.Box(*(2.0 * half))
    if half[2] == 0.0:
        return coal.Sphere(radius)
    return coal.Capsule(radius, 2.0 * half[2])


def obstacle(name: str, pose: Pose, solid: coal.CollisionGeometry) -> pin.GeometryObject:
    """Something that stands still at a pose of the base frame."""
    return pin.GeometryObject(name, 0, pin.SE3(pose.rotation, pose.position), solid)


def _table(tabletop: Tabletop) -> pin.GeometryObject:
    """The table as a block that reaches down to the floor."""
    deep = tabletop.height - tabletop.floor
    centre = np.array([*tabletop.centre, tabletop.height - deep / 2])
    half = np.array([*tabletop.size, deep]) / 2
    return obstacle(TABLE, Pose(centre, np.eye(3)), coal_solid(half, 0.0))
