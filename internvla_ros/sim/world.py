"""A simulated robot at a table: physics, cameras, and what is true about the scene."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from internvla_ros.robots.embodiment import Embodiment
from internvla_ros.sim.mjcf import (
    KEY_LIGHT,
    MOVABLE_SHAPES,
    PARKED,
    build_model,
    movable_body,
    movable_geom,
    receptacle_body,
)
from internvla_ros.sim.robot_world import RobotWorld
from internvla_ros.sim.scene import (
    MAX_MOVABLES,
    MAX_RECEPTACLES,
    RECEPTACLES,
    SMALLEST,
    ObjectSpec,
    Scene,
)

_DENSITY = 700.0  # kg/m^3, wood
_AT_REST = 0.05  # m/s: an object slower than this lies still
_OPEN = 0.6  # share of the opening for going about things from which the gripper counts as open
_RESTING = 0.020  # m that an object's centre may be above where it would lie flat
_SETTLE = 0.1  # s of physics after a reset
_ROUND_POINTS = 24


class WorldError(ValueError):
    """The world was asked for something it does not have."""


@dataclass(frozen=True)
class _Placed:
    """Where an object of the scene lives in the model: its body and the geoms that are shown."""

    spec: ObjectSpec
    body: int
    geoms: tuple[int, ...]


class World(RobotWorld):
    """One robot at one table, reset to any scene without compiling again.

    Holds a MuJoCo model and, from the first picture on, a GL context: use it in one thread.
    All positions are in the robot's base frame. Before the first `reset` the table is empty.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        super().__init__(embodiment)
        self._objects: dict[str, _Placed] = {}
        self._scene: Scene | None = None
        self._load(build_model(embodiment))
        self._rest(embodiment.ready, embodiment.tabletop.opening)

    @property
    def scene(self) -> Scene:
        """The scene of the last reset."""
        if self._scene is None:
            raise WorldError("the world holds no scene yet; call reset(scene) first")
        return self._scene

    def reset(self, scene: Scene) -> None:
        """Lays out a scene, puts the arm to its start with an open gripper, and sets time to 0."""
        mujoco.mj_resetData(self.model, self.data)
        self._due = 0.0
        self._objects = {}
        self._scene = scene
        self._hide_all()
        counts = {"movable": 0, "receptacle": 0}
        for spec in scene.objects:
            slot = counts[spec.role]
            counts[spec.role] += 1
            place = self._place_movable if spec.role == "movable" else self._place_receptacle
            self._objects[spec.name] = place(slot, spec)
        self._dress(scene)
        mujoco.mj_setConst(self.model, self.data)
        mujoco.mj_resetData(self.model, self.data)
        for placed in self._objects.values():
            self._set_pose(placed)
        self._rest(scene.start, self.embodiment.tabletop.opening)
        self.step(_SETTLE)
        self.data.time = self._due = 0.0

    def _hide_all(self) -> None:
        for slot in range(MAX_MOVABLES):
            for kind in MOVABLE_SHAPES:
                self._show(self.model.geom(movable_geom(slot, kind)).id, None)
            body = self.model.body(movable_body(slot))
            address = self.model.jnt_qposadr[body.jntadr[0]]
            self.model.qpos0[address : address + 7] = (0, 0.2 * slot, PARKED, 1, 0, 0, 0)
            self._weigh(body.id, "cube", SMALLEST)
            self.model.body_gravcomp[body.id] = 1.0
        for slot in range(MAX_RECEPTACLES):
            for kind in RECEPTACLES:
                for geom in self._geoms(receptacle_body(slot, kind)):
                    self.model.geom_rgba[geom, 3] = 0.0

    def _weigh(self, body: int, kind: str, size: float) -> None:
        volume, inertia = _solid(kind, size)
        self.model.body_mass[body] = volume * _DENSITY
        self.model.body_inertia[body] = volume * _DENSITY * inertia

    def _show(self, geom: int, rgb: tuple[float, float, float] | None) -> None:
        """A movable's geom is seen and felt, or neither."""
        self.model.geom_rgba[geom] = (*rgb, 1.0) if rgb is not None else (0, 0, 0, 0)
        self.model.geom_contype[geom] = 2 if rgb is not None else 0
        self.model.geom_conaffinity[geom] = 3 if rgb is not None else 0

    def _geoms(self, body: str) -> range:
        here = self.model.body(body)
        return range(int(here.geomadr[0]), int(here.geomadr[0]) + int(here.geomnum[0]))

    def _place_movable(self, slot: int, spec: ObjectSpec) -> _Placed:
        if slot >= MAX_MOVABLES:
            raise WorldError(f"a scene holds at most {MAX_MOVABLES} movables")
        geom = self.model.geom(movable_geom(slot, spec.kind)).id
        body = self.model.body(movable_body(slot)).id
        self._show(geom, spec.rgb)
        half = spec.size / 2
        self.model.geom_size[geom] = half
        self._weigh(body, spec.kind, spec.size)
        self.model.body_gravcomp[body] = 0.0
        address = self._free_joint(body)
        turn = (np.cos(spec.yaw / 2), 0, 0, np.sin(spec.yaw / 2))
        top = self.embodiment.tabletop.height
        self.model.qpos0[address : address + 7] = (spec.x, spec.y, top + (half + 0.0005), *turn)
        return _Placed(spec, body, (geom,))

    def _place_receptacle(self, slot: int, spec: ObjectSpec) -> _Placed:
        if slot >= MAX_RECEPTACLES:
            raise WorldError(f"a scene holds at most {MAX_RECEPTACLES} receptacles")
        name = receptacle_body(slot, spec.kind)
        geoms = tuple(self._geoms(name))
        for geom in geoms:
            self.model.geom_rgba[geom] = (*spec.rgb, 1.0)
        return _Placed(spec, self.model.body(name).id, geoms)

    def _set_pose(self, placed: _Placed) -> None:
        """Receptacles have no joint: their pose is data, set after the data's reset."""
        spec = placed.spec
        if spec.role == "receptacle":
            mocap = self.model.body_mocapid[placed.body]
            self.data.mocap_pos[mocap] = (spec.x, spec.y, self.embodiment.tabletop.height)
            self.data.mocap_quat[mocap] = (np.cos(spec.yaw / 2), 0, 0, np.sin(spec.yaw / 2))

    def _dress(self, scene: Scene) -> None:
        """Colours of table and floor, and the light."""
        look = scene.look
        self.model.geom("table").rgba = (*look.table, 1.0)
        self.model.geom("floor").rgba = (*look.floor, 1.0)
        key, fill = self.model.light("key"), self.model.light("fill")
        key.diffuse = (KEY_LIGHT * look.light,) * 3
        key.dir = look.direction
        fill.dir = (-look.direction[0], -look.direction[1], look.direction[2])

    def _free_joint(self, body: int) -> int:
        return int(self.model.jnt_qposadr[self.model.body_jntadr[body]])

    def teleport(self, q: ArrayLike, opening: float, held: str | None = None) -> None:
        """Puts the arm at q [n] without physics; `held` is put between its fingers."""
        self._rest(q, opening)
        if held is None:
            return
        tip = self.tip_pose()
        address = self._free_joint(self._placed(held).body)
        yaw = np.arctan2(tip.rotation[1, 1], tip.rotation[0, 1]) - np.pi / 2
        self.data.qpos[address : address + 3] = tip.position
        self.data.qpos[address + 3 : address + 7] = (np.cos(yaw / 2), 0, 0, np.sin(yaw / 2))
        mujoco.mj_forward(self.model, self.data)

    def object_position(self, name: str) -> NDArray[np.float64]:
        """Centre [3] of a movable; the middle of a receptacle's inner floor."""
        placed = self._placed(name)
        position = np.array(self.data.xpos[placed.body])
        if placed.spec.role == "receptacle":
            position[2] += RECEPTACLES[placed.spec.kind].floor
        return position

    def task_points(self) -> NDArray[np.float64]:
        """[2, 3] the middles of the object to take and of its receptacle."""
        task = self.scene.task
        return np.stack([self.object_position(name) for name in (task.pick, task.place)])

    def holding(self) -> str | None:
        """The movable that both fingers touch, if any."""
        for name, placed in self._objects.items():
            if placed.spec.role == "movable" and len(self._touching(placed)) > 1:
                return name
        return None

    def _touching(self, placed: _Placed) -> set[int]:
        """The fingers (their bodies) that touch an object."""
        fingers: set[int] = set()
        bodies = self.model.geom_bodyid[self.data.contact.geom] if self.data.ncon else ()
        for first, second in bodies:
            if placed.body in (first, second):
                touching = {int(first), int(second)} & self._finger_of.keys()
                fingers.update(self._finger_of[body] for body in touching)
        return fingers

    def success(self) -> bool:
        """The object lies still on or in its receptacle and the open gripper has left it."""
        task = self.scene.task
        pick = self._placed(task.pick)
        speed = np.linalg.norm(self.data.cvel[pick.body, 3:])
        return bool(
            self.placed(task.pick, task.place)
            and speed < _AT_REST
            and self.gripper_opening > _OPEN * self.embodiment.tabletop.opening
            and not self._touching(pick)
        )

    def placed(self, movable: str, receptacle: str) -> bool:
        """Whether a movable is within a receptacle's usable radius, at the height of resting."""
        thing, place = self._placed(movable), self._placed(receptacle)
        shape = RECEPTACLES[place.spec.kind]
        offset = self.object_position(movable) - self.object_position(receptacle)
        height = offset[2] - thing.spec.size / 2
        return bool(np.hypot(offset[0], offset[1]) <= shape.usable and -0.005 < height < _RESTING)

    def boxes(self, camera: str, width: int, height: int) -> dict[str, NDArray[np.float64]]:
        """For each object the box x1 y1 x2 y2 (pixels) about its whole shape, clipped.

        What hides an object does not matter; one outside the picture has a box of NaN.
        """
        limit = np.array([width, height], dtype=np.float64)
        return {
            name: _clipped_box(self.project(self._outline(placed), camera, width, height), limit)
            for name, placed in self._objects.items()
        }

    def _outline(self, placed: _Placed) -> NDArray[np.float64]:
        """[N, 3] points whose hull is the object's, in the base frame."""
        rotation = np.array(self.data.xmat[placed.body]).reshape(3, 3)
        points = _shape_points(placed.spec)
        return np.asarray(points @ rotation.T + self.data.xpos[placed.body])

    def _placed(self, name: str) -> _Placed:
        if name not in self._objects:
            known = ", ".join(self._objects) or "nothing"
            raise WorldError(f"the scene has no {name!r}; it has {known}")
        return self._objects[name]


def _solid(kind: str, size: float) -> tuple[float, NDArray[np.float64]]:
    """Volume (m^3) of a movable, and its principal inertia for a unit mass (m^2)."""
    radius = size / 2
    if kind == "cube":
        return size**3, np.full(3, size**2 / 6)
    if kind == "cylinder":
        across = (3 * radius**2 + size**2) / 12
        return np.pi * radius**2 * size, np.array([across, across, radius**2 / 2])
    return 4 / 3 * np.pi * radius**3, np.full(3, 0.4 * radius**2)


def _shape_points(spec: ObjectSpec) -> NDArray[np.float64]:
    """[N, 3] points whose hull is an object's, in its own frame."""
    half = spec.size / 2
    if spec.kind == "cube":
        return half * np.array(np.meshgrid((-1, 1), (-1, 1), (-1, 1))).reshape(3, -1).T
    if spec.kind == "cylinder":
        return np.concatenate([_ring(half, -half), _ring(half, half)])
    if spec.kind == "ball":
        levels = np.linspace(-1, 1, 13) * half
        return np.concatenate([_ring(float(np.sqrt(half**2 - z**2)), float(z)) for z in levels])
    shape = RECEPTACLES[spec.kind]
    if spec.kind == "bin":
        corners = np.array(np.meshgrid((-1, 1), (-1, 1), (0, 1))).reshape(3, -1).T
        return corners * (shape.outer, shape.outer, shape.rim)
    return np.concatenate([_ring(shape.inner, 0.0), _ring(shape.outer, shape.rim)])


def _ring(radius: float, height: float) -> NDArray[np.float64]:
    angles = np.arange(_ROUND_POINTS) * 2 * np.pi / _ROUND_POINTS
    return np.column_stack(
        [radius * np.cos(angles), radius * np.sin(angles), np.full(_ROUND_POINTS, height)]
    )


def _clipped_box(pixels: NDArray[np.float64], limit: NDArray[np.float64]) -> NDArray[np.float64]:
    lower, upper = np.clip(pixels.min(axis=0), 0, limit), np.clip(pixels.max(axis=0), 0, limit)
    if not np.all(upper - lower > 0.5):
        return np.full(4, np.nan)
    return np.concatenate([lower, upper])
