"""A simulated robot at a table with any task: what is where, and whether it is done."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from internvla_ros.robots.embodiment import Embodiment
from internvla_ros.sim.kinds import DRAWER, HANDLE, HANDLE_OUT, kind_of
from internvla_ros.sim.mjcf import bare_spec
from internvla_ros.sim.robot_world import RobotWorld
from internvla_ros.sim.state import Body, State
from internvla_ros.sim.targets import free, spots
from internvla_ros.sim.task_mjcf import build_task_model, drawer_joint
from internvla_ros.sim.task_scene import TaskScene, handle_name
from internvla_ros.sim.world import WorldError

_AT_REST = 0.05  # m/s: a thing slower than this lies still
_OPEN = 0.6  # share of the opening for going about things from which the gripper counts as open
_SETTLE = 0.15  # s of physics after a reset
_FAINT = 6  # pixels of a thing that must be seen, at least


class TaskWorld(RobotWorld):
    """One robot at one table; every scene brings a model of its own.

    Holds a MuJoCo model and, from the first picture on, a GL context: use it in one thread.
    All positions are in the robot's base frame. Before the first `reset` the table is empty.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        super().__init__(embodiment)
        self._scene: TaskScene | None = None
        self._load(bare_spec(embodiment).compile())
        self._rest(embodiment.ready, embodiment.tabletop.opening)

    @property
    def scene(self) -> TaskScene:
        """The scene of the last reset."""
        if self._scene is None:
            raise WorldError("the world holds no scene yet; call reset(scene) first")
        return self._scene

    def reset(self, scene: TaskScene) -> None:
        """Lays out a scene, puts the arm to its start with an open gripper, and sets time to 0."""
        self.dress(scene)
        for thing in scene.things:
            if thing.kind == DRAWER.name:
                self.data.joint(drawer_joint(thing.name)).qpos[0] = thing.out
        self._rest(scene.start, self.embodiment.tabletop.opening)
        self.step(_SETTLE)
        self.data.time = self._due = 0.0

    def dress(self, scene: TaskScene) -> None:
        """Takes up a scene's model and look; where things and arm are, `place` says."""
        self._scene = scene
        self._look_through(scene.look.cameras)
        self._load(build_task_model(self.embodiment, scene))
        self._ids = {thing.name: self.model.body(thing.name).id for thing in scene.things}
        self._drawers = [thing.name for thing in scene.things if thing.kind == DRAWER.name]
        self._handles = {
            handle_name(name): self.model.geom(handle_name(name)).id for name in self._drawers
        }
        self._touchable = {body: name for name, body in self._ids.items()}
        for name in self._drawers:
            self._touchable[self.model.body(f"{name} tray").id] = handle_name(name)
        mujoco.mj_forward(self.model, self.data)

    @property
    def positions(self) -> NDArray[np.float64]:
        """[nq] of everything; `place` takes it back."""
        return np.array(self.data.qpos)

    def place(self, positions: ArrayLike) -> None:
        """Puts everything to [nq] positions without physics."""
        self.data.qpos[:] = positions
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)

    def shift(self, name: str, way: ArrayLike) -> None:
        """Moves a thing [2] m over the table, if nothing is there."""
        state = self.state()
        body = self._body(state, name)
        place = body.position + np.append(np.asarray(way, dtype=np.float64), 0.0)
        if free(place, body, state, ()) > 0.0:
            joint = self.model.body(name).jntadr[0]
            address = int(self.model.jnt_qposadr[joint])
            self.data.qpos[address : address + 2] += way
            mujoco.mj_forward(self.model, self.data)

    def teleport(self, q: ArrayLike, opening: float, held: str | None = None) -> None:
        """Puts the arm at q [n] without physics; `held` is put between its fingers."""
        self._rest(q, opening)
        if held is None:
            return
        tip = self.tip_pose()
        address = int(self.model.jnt_qposadr[self.model.body(held).jntadr[0]])
        yaw = np.arctan2(tip.rotation[1, 1], tip.rotation[0, 1]) - np.pi / 2
        self.data.qpos[address : address + 3] = tip.position
        self.data.qpos[address + 3 : address + 7] = (np.cos(yaw / 2), 0, 0, np.sin(yaw / 2))
        mujoco.mj_forward(self.model, self.data)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all objects, handles last."""
        return (*self._ids, *self._handles)

    def state(self) -> State:
        """Where everything is."""
        bodies = {}
        for thing in self.scene.things:
            index = self._ids[thing.name]
            rotation = np.array(self.data.xmat[index]).reshape(3, 3)
            kind, at = kind_of(thing.kind), np.array(self.data.xpos[index])
            bodies[thing.name] = Body(thing.name, kind, thing.size, at, rotation)
        for name, geom in self._handles.items():
            rotation = np.array(self.data.geom_xmat[geom]).reshape(3, 3)
            at = np.array(self.data.geom_xpos[geom])
            bodies[name] = Body(name, HANDLE, HANDLE_OUT, at, rotation)
        drawers = {
            name: float(self.data.joint(drawer_joint(name)).qpos[0]) for name in self._drawers
        }
        return State(bodies, self.embodiment.tabletop.height, self.right(), drawers)

    def right(self) -> NDArray[np.float64]:
        """[2] the direction over the table that runs to the right in the front picture."""
        across = self.camera_pose("front").rotation[:2, 0]
        return np.asarray(across / np.linalg.norm(across))

    def object_position(self, name: str) -> NDArray[np.float64]:
        """[3] the middle of a thing; of a container, that of its floor."""
        body = self._body(self.state(), name)
        if body.is_container:
            return np.array([*body.position[:2], body.floor])
        return body.position

    @property
    def current(self) -> int:
        """The index of the first step that is not done; that of the last if all are."""
        state = self.state()
        for index, step in enumerate(self.scene.steps):
            if not step.goal.holds(state):
                return index
        return len(self.scene.steps) - 1

    @property
    def steps(self) -> int:
        """How many steps the task has."""
        return len(self.scene.steps)

    def progress(self) -> dict[str, Any]:
        """The family, and how many of the task's steps are done."""
        state = self.state()
        done = sum(step.goal.holds(state) for step in self.scene.steps)
        return {"family": self.scene.family, "steps": self.steps, "steps_done": done}

    def task_points(self) -> NDArray[np.float64]:
        """[2, 3] what the current step takes, and where it goes."""
        step = self.scene.steps[self.current]
        state = self.state()
        goes = spots(step, state, self.embodiment.tabletop.spacing)[0]
        return np.stack([self.object_position(step.pick), goes])

    def holding(self) -> str | None:
        """The thing that both fingers touch, if any."""
        fingers: dict[str, set[int]] = {}
        for name, finger in self._touches():
            fingers.setdefault(name, set()).add(finger)
        for name, touching in fingers.items():
            if len(touching) > 1:
                return name
        return None

    def touched(self) -> set[str]:
        """All that any finger touches."""
        return {name for name, _ in self._touches()}

    def _touches(self) -> list[tuple[str, int]]:
        """Things and the fingers (their bodies) that touch them."""
        if not self.data.ncon:
            return []
        found = []
        for pair in self.model.geom_bodyid[self.data.contact.geom].tolist():
            for thing, finger in (pair, pair[::-1]):
                if thing in self._touchable and finger in self._finger_of:
                    found.append((self._touchable[thing], self._finger_of[finger]))
        return found

    def success(self) -> bool:
        """All goals hold, what they speak of lies still, and the open gripper has left it."""
        state = self.state()
        goals = self.scene.goals
        if not all(goal.holds(state) for goal in goals):
            return False
        names = {name for goal in goals for name in goal.objects}
        opening = _OPEN * self.embodiment.tabletop.opening
        return (
            self.gripper_opening > opening
            and not self.touched()
            and all(self.speed(name) < _AT_REST for name in names)
        )

    def speed(self, name: str) -> float:
        """m/s of a thing; a handle's counts as its drawer's."""
        if name in self._handles or name in self._drawers:
            drawer = name.removesuffix(" handle")
            return abs(float(self.data.joint(drawer_joint(drawer)).qvel[0]))
        return float(np.linalg.norm(self.data.cvel[self._ids[name], 3:]))

    def seen_boxes(self, camera: str, width: int, height: int) -> dict[str, NDArray[np.float64]]:
        """For each object the box x1 y1 x2 y2 (pixels) about what is seen of it.

        Something hidden or outside the picture has a box of NaN.
        """
        mask = self.segment(camera, width, height)
        boxes = {}
        for index, name in enumerate(self.names):
            rows, columns = np.nonzero(mask == index)
            if len(rows) < _FAINT:
                boxes[name] = np.full(4, np.nan)
                continue
            lower = (columns.min(), rows.min())
            boxes[name] = np.array([*lower, columns.max() + 1, rows.max() + 1], dtype=np.float64)
        return boxes

    def segment(self, camera: str, width: int, height: int) -> NDArray[np.int64]:
        """[height, width] the index among `names` of what is seen, -1 where nothing is."""
        renderer = self._renderer(width, height)
        renderer.enable_segmentation_rendering()
        renderer.update_scene(self.data, self._camera(camera).name)
        geoms = renderer.render()[..., 0]
        renderer.disable_segmentation_rendering()
        return self._labels()[geoms]

    def _labels(self) -> NDArray[np.int64]:
        """[ngeom + 1] the index among `names` of each geom's object; the last is of nothing."""
        index = {name: i for i, name in enumerate(self.names)}
        of_body = {self._ids[name]: index[name] for name in self._ids}
        for name in self._drawers:
            of_body[self.model.body(f"{name} tray").id] = index[name]
        labels = [of_body.get(int(body), -1) for body in self.model.geom_bodyid]
        for name, geom in self._handles.items():
            labels[geom] = index[name]
        return np.array([*labels, -1])

    def _body(self, state: State, name: str) -> Body:
        if name not in state.bodies:
            known = ", ".join(state.bodies) or "nothing"
            raise WorldError(f"the scene has no {name!r}; it has {known}")
        return state[name]
