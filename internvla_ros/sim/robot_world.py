"""A simulated robot: its physics, its cameras, and how it is commanded."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from typing import Any

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from internvla_ros.motion.se3 import Pose
from internvla_ros.robots.embodiment import CameraSpec, Embodiment


class RobotWorld(ABC):
    """One robot in some MuJoCo model, which `_load` sets.

    Holds, from the first picture on, a GL context: use it in one thread. All positions are in the
    robot's base frame.
    """

    model: mujoco.MjModel
    data: mujoco.MjData

    def __init__(self, embodiment: Embodiment) -> None:
        self.embodiment = embodiment
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}
        weakref.finalize(self, _free, self._renderers)
        self._look_through(embodiment.cameras)

    @property
    @abstractmethod
    def scene(self) -> Any:
        """What was laid out last."""

    @abstractmethod
    def reset(self, scene: Any) -> None:
        """Lays out a scene, puts the arm to its start with an open gripper, and sets time to 0."""

    @abstractmethod
    def holding(self) -> str | None:
        """The object that both fingers touch, if any."""

    @abstractmethod
    def success(self) -> bool:
        """Whether what the scene asks for is done, and the gripper has let go."""

    @abstractmethod
    def task_points(self) -> NDArray[np.float64]:
        """[2, 3] m: the object to take now, and where it goes."""

    def progress(self) -> dict[str, Any]:
        """What there is to report of a task in several steps, by name."""
        return {}

    @property
    def steps(self) -> int:
        """How many steps the task has."""
        return 1

    def _look_through(self, cameras: tuple[CameraSpec, ...]) -> None:
        """Says where the cameras of the model are."""
        self._cameras = {camera.name: camera for camera in cameras}
        self._optics = {camera.name: camera.optical_rotation() for camera in cameras}

    def _load(self, model: mujoco.MjModel) -> None:
        """Takes up a model of this robot, at time 0."""
        self.close()
        self.model, self.data = model, mujoco.MjData(model)
        embodiment = self.embodiment
        self._arm_q = self._addresses(embodiment.joints, model.jnt_qposadr)
        self._arm_v = self._addresses(embodiment.joints, model.jnt_dofadr)
        self._arm_u = np.array([model.actuator(name).id for name in embodiment.joints])
        fingers = embodiment.gripper.joints
        self._finger_q = self._addresses(fingers, model.jnt_qposadr)
        self._finger_u = np.array([model.actuator(name).id for name in fingers])
        self._finger_sides = np.array(embodiment.gripper.mirror)
        self._finger_of = self._bodies_of_fingers(fingers)
        self._tip = model.body(embodiment.tip_frame).id
        self._due = 0.0

    def _bodies_of_fingers(self, joints: tuple[str, ...]) -> dict[int, int]:
        """For each body that a finger's joint moves, the finger's own body."""
        moved = [int(self.model.jnt_bodyid[self.model.joint(name).id]) for name in joints]
        of = {body: body for body in moved}
        for body in range(self.model.nbody):
            parent = int(self.model.body_parentid[body])
            if parent in of and body not in of:
                of[body] = of[parent]
        return of

    def _addresses(self, names: tuple[str, ...], table: NDArray[np.int32]) -> NDArray[np.int64]:
        return np.array([table[self.model.joint(name).id] for name in names], dtype=np.int64)

    def _rest(self, q: ArrayLike, opening: float) -> None:
        """The arm at rest at q [n], commanded to stay there."""
        self.data.qpos[self._arm_q] = q
        self.data.qvel[:] = 0.0
        finger = self.embodiment.gripper.position(opening)
        self.data.qpos[self._finger_q] = finger * self._finger_sides
        self.command(np.asarray(q, dtype=np.float64), opening)
        mujoco.mj_forward(self.model, self.data)

    def command(self, q: ArrayLike, gripper: float) -> None:
        """Sets the servos' targets: joint positions q [n] (rad), gripper 0 closed .. 1 open."""
        self.data.ctrl[self._arm_u] = q
        finger = self.embodiment.gripper.position(gripper)
        self.data.ctrl[self._finger_u] = finger * self._finger_sides

    def step(self, seconds: float) -> None:
        """Lets that much time pass, to the nearest step of the physics; rests add up."""
        self._due += seconds
        steps = max(1, round((self._due - self.data.time) / self.model.opt.timestep))
        mujoco.mj_step(self.model, self.data, nstep=steps)

    @property
    def time(self) -> float:
        """Seconds since the reset."""
        return float(self.data.time)

    @property
    def joint_positions(self) -> NDArray[np.float64]:
        """[n] rad."""
        return np.array(self.data.qpos[self._arm_q])

    @property
    def joint_velocities(self) -> NDArray[np.float64]:
        """[n] rad/s."""
        return np.array(self.data.qvel[self._arm_v])

    @property
    def finger_positions(self) -> NDArray[np.float64]:
        """Positions (m) of the gripper's joints, in the embodiment's order."""
        return np.array(self.data.qpos[self._finger_q])

    @property
    def gripper_opening(self) -> float:
        """Measured, 0 closed .. 1 open."""
        return self.embodiment.gripper.opening(
            float(np.mean(self.finger_positions / self._finger_sides))
        )

    def tip_pose(self) -> Pose:
        """Where the tip is, measured."""
        return Pose(
            np.array(self.data.xpos[self._tip]), np.array(self.data.xmat[self._tip]).reshape(3, 3)
        )

    def render(self, camera: str, width: int, height: int) -> NDArray[np.uint8]:
        """uint8 [height, width, 3], RGB, as the camera sees the scene now."""
        self._camera(camera)
        renderer = self._renderer(width, height)
        renderer.update_scene(self.data, camera)
        return renderer.render()

    def _renderer(self, width: int, height: int) -> mujoco.Renderer:
        """The one for pictures of this size, without shadows and reflections."""
        renderer = self._renderers.get((width, height))
        if renderer is None:
            renderer = mujoco.Renderer(self.model, height, width)
            for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
                renderer.scene.flags[flag] = False
            self._renderers[(width, height)] = renderer
        return renderer

    def _camera(self, name: str) -> CameraSpec:
        """The camera called `name`; EmbodimentError where there is none."""
        return self._cameras[self.embodiment.camera(name).name]

    def close(self) -> None:
        """Frees the renderers; the next picture makes new ones."""
        _free(self._renderers)

    def intrinsics(self, camera: str, width: int, height: int) -> NDArray[np.float64]:
        """K [3, 3] of a camera's pictures at this size."""
        return self._camera(camera).intrinsics(width, height)

    def camera_pose(self, camera: str) -> Pose:
        """The optical frame (x right, y down, z forward) in the base frame."""
        spec = self._camera(camera)
        body = self.model.body(spec.frame).id
        rotation = np.array(self.data.xmat[body]).reshape(3, 3)
        position = np.array(self.data.xpos[body])
        return Pose(position + rotation @ spec.position, rotation @ self._optics[camera])

    def project(
        self, points: ArrayLike, camera: str, width: int, height: int
    ) -> NDArray[np.float64]:
        """[N, 2] pixels of points [N, 3] of the base frame; NaN for those behind the camera."""
        pose = self.camera_pose(camera)
        local = (np.asarray(points, dtype=np.float64) - pose.position) @ pose.rotation
        depth = np.where(local[:, 2] > 1e-6, local[:, 2], np.nan)
        flat = local @ self.intrinsics(camera, width, height).T
        return np.asarray(flat[:, :2] / depth[:, None])


def _free(renderers: dict[tuple[int, int], mujoco.Renderer]) -> None:
    for renderer in renderers.values():
        renderer.close()
    renderers.clear()
