"""What is particular to a robot: joints, frames, limits, rates and conventions.

The numbers live in `config/robots/NAME.yaml`, one file a robot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from internvla_ros.resources import resource

ROTATIONS = ("rpy", "rotvec")
ANCHORS = ("target", "measured")
FRAMES = ("base",)
ENSEMBLES = ("latest", "temporal", "adaptive")


class EmbodimentError(ValueError):
    """A robot is unknown, or its configuration is wrong."""


@dataclass(frozen=True)
class Gripper:
    """A parallel gripper: `closed` and `open` are positions of its first joint (m).

    The other joints mirror the first one. `velocity` is that of a joint (m/s).
    """

    joints: tuple[str, ...]
    closed: float
    open: float
    velocity: float

    def opening(self, position: float) -> float:
        """The opening, 0 closed .. 1 open (clipped), at a position of the first joint (m)."""
        fraction = (position - self.closed) / (self.open - self.closed)
        return float(min(max(fraction, 0.0), 1.0))

    def position(self, opening: float) -> float:
        """The first joint's position (m) for an opening 0 closed .. 1 open (clipped)."""
        return self.closed + min(max(float(opening), 0.0), 1.0) * (self.open - self.closed)


@dataclass(frozen=True)
class ActionConvention:
    """What the seven numbers of an action mean for this robot.

    Attributes:
        delta_frame: "base": translation and rotation deltas along the axes of the base frame.
        rotation: "rpy" (R' = Rz(yaw) Ry(pitch) Rx(roll) R) or "rotvec".
        anchor: what a chunk's deltas add to: the commanded ("target") or the "measured" pose.
        gripper_threshold: gripper numbers above it mean open.
    """

    delta_frame: str
    rotation: str
    anchor: str
    gripper_threshold: float


@dataclass(frozen=True)
class Ensemble:
    """How overlapping chunks are blended, and over how many of them."""

    name: str
    horizon: int


@dataclass(frozen=True)
class CameraSpec:
    """A camera fixed to a link.

    Attributes:
        name: the camera's name, which is its topic namespace too.
        frame: the link it is fixed to.
        width, height: picture size in pixels.
        fovy: vertical field of view in degrees.
        position, look_at: [3] m, in `frame`: the optical centre and a point on the optical axis.
    """

    name: str
    frame: str
    width: int
    height: int
    fovy: float
    position: NDArray[np.float64]
    look_at: NDArray[np.float64]

    @property
    def optical_frame(self) -> str:
        """The name of the optical frame (x right, y down, z forward)."""
        return f"{self.name}_optical_frame"

    def optical_rotation(self) -> NDArray[np.float64]:
        """[3, 3] columns: x right, y down, z forward, in `frame`; the picture's up is `frame`'s z.

        Where the view runs along z, or the camera rides on a gripper whose x axis is its pointing
        direction, the picture's up is the direction nearest to z that is square to the view.
        """
        forward = self.look_at - self.position
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, (0.0, 0.0, 1.0))
        right = right / np.linalg.norm(right)
        return np.stack([right, np.cross(forward, right), forward], axis=1)

    def intrinsics(
        self, width: int | None = None, height: int | None = None
    ) -> NDArray[np.float64]:
        """K [3, 3] of the picture at the given size (by default its own), square pixels."""
        width, height = width or self.width, height or self.height
        focal = 0.5 * height / np.tan(np.radians(self.fovy) / 2)
        return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])


@dataclass(frozen=True)
class Embodiment:
    """One robot: n arm joints, a gripper, cameras, rates and conventions.

    Vectors are [n] over `joints`, in rad, rad/s, rad/s^2, rad/s^3. `ready` is the resting pose.
    `workspace` holds the lower [3] and upper [3] corner (m, base frame) of where the tip may move.
    Rates are in Hz. `unnorm_key` names this robot's statistics in a checkpoint.
    """

    name: str
    joints: tuple[str, ...]
    position_lower: NDArray[np.float64]
    position_upper: NDArray[np.float64]
    velocity: NDArray[np.float64]
    acceleration: NDArray[np.float64]
    jerk: NDArray[np.float64]
    ready: NDArray[np.float64]
    base_frame: str
    tip_frame: str
    gripper: Gripper
    control_rate: float
    policy_rate: float
    chunk_size: int
    action: ActionConvention
    ensemble: Ensemble
    workspace: tuple[NDArray[np.float64], NDArray[np.float64]]
    cameras: tuple[CameraSpec, ...]
    unnorm_key: str

    def camera(self, name: str) -> CameraSpec:
        """The camera called `name`; EmbodimentError where there is none."""
        for camera in self.cameras:
            if camera.name == name:
                return camera
        known = ", ".join(camera.name for camera in self.cameras)
        raise EmbodimentError(f"robot {self.name} has no camera {name!r}; it has {known}")


def known_embodiments() -> list[str]:
    """The names of the robots that ship with the package."""
    return sorted(path.stem for path in resource("config/robots").glob("*.yaml"))


def load_embodiment(name: str | Path) -> Embodiment:
    """Reads a robot's configuration by its name or by the path of a YAML file.

    Raises:
        EmbodimentError: the robot is unknown, or its file is wrong (with file and line).
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        known = known_embodiments()
        if str(name) not in known:
            raise EmbodimentError(f"unknown robot {str(name)!r}; known robots: {', '.join(known)}")
        path = resource(f"config/robots/{name}.yaml")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise EmbodimentError(f"cannot read the robot file {path}: {error.strerror}") from error
    return _embodiment(_Section.parse(path, text))


@dataclass(frozen=True)
class _Section:
    """A mapping of a YAML file that remembers where each of its keys stands."""

    path: Path
    line: int
    values: Mapping[str, yaml.Node]

    @staticmethod
    def parse(path: Path, text: str) -> _Section:
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark is not None else 1
            problem = getattr(error, "problem", None) or "not YAML"
            raise EmbodimentError(f"{path}:{line}: {problem}") from error
        return _Section.of(path, 1, node)

    @staticmethod
    def of(path: Path, line: int, node: yaml.Node | None) -> _Section:
        if not isinstance(node, yaml.MappingNode):
            raise EmbodimentError(f"{path}:{line}: expected a mapping of keys to values")
        return _Section(path, line, {str(key.value): value for key, value in node.value})

    def error(self, key: str, problem: str) -> EmbodimentError:
        node = self.values.get(key)
        line = node.start_mark.line + 1 if node is not None else self.line
        return EmbodimentError(f"{self.path}:{line}: {key}: {problem}")

    def node(self, key: str) -> yaml.Node:
        if key not in self.values:
            raise self.error(key, "is missing")
        return self.values[key]

    def section(self, key: str) -> _Section:
        node = self.node(key)
        return _Section.of(self.path, node.start_mark.line + 1, node)

    def value(self, key: str) -> Any:
        loader = yaml.SafeLoader("")
        try:
            return loader.construct_object(self.node(key), deep=True)
        except yaml.YAMLError as error:
            raise self.error(key, "cannot be read") from error
        finally:
            loader.dispose()

    def text(self, key: str, choices: tuple[str, ...] = ()) -> str:
        value = self.value(key)
        if not isinstance(value, str) or not value:
            raise self.error(key, f"expected a text, found {value!r}")
        if choices and value not in choices:
            raise self.error(key, f"expected one of {', '.join(choices)}, found {value!r}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.value(key)
        if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
            raise self.error(key, f"expected a list of names, found {value!r}")
        return tuple(value)

    def number(self, key: str, positive: bool = True) -> float:
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(key, f"expected a number, found {value!r}")
        if not np.isfinite(value) or (positive and value <= 0):
            raise self.error(key, f"expected a {'positive' if positive else 'finite'} number")
        return float(value)

    def whole(self, key: str) -> int:
        value = self.number(key)
        if value != int(value):
            raise self.error(key, f"expected a whole number, found {value!r}")
        return int(value)

    def vector(self, key: str, size: int, positive: bool = False) -> NDArray[np.float64]:
        value = self.value(key)
        try:
            array = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            array = np.empty(0)
        if array.shape != (size,) or not np.isfinite(array).all():
            raise self.error(key, f"expected {size} finite numbers, found {value!r}")
        if positive and (array <= 0).any():
            raise self.error(key, "expected positive numbers")
        array.setflags(write=False)
        return array


def _embodiment(top: _Section) -> Embodiment:
    joints = top.section("joints")
    names = joints.texts("names")
    n = len(names)
    lower, upper = joints.vector("position_lower", n), joints.vector("position_upper", n)
    if (lower >= upper).any():
        raise joints.error("position_upper", "must be above position_lower for every joint")
    ready = joints.vector("ready", n)
    if (ready < lower).any() or (ready > upper).any():
        raise joints.error("ready", "lies outside the position limits")
    ensemble = top.section("ensemble")
    return Embodiment(
        name=top.text("name"),
        joints=names,
        position_lower=lower,
        position_upper=upper,
        velocity=joints.vector("velocity", n, positive=True),
        acceleration=joints.vector("acceleration", n, positive=True),
        jerk=joints.vector("jerk", n, positive=True),
        ready=ready,
        base_frame=top.text("base_frame"),
        tip_frame=top.text("tip_frame"),
        gripper=_gripper(top.section("gripper")),
        control_rate=top.number("control_rate"),
        policy_rate=top.number("policy_rate"),
        chunk_size=top.whole("chunk_size"),
        action=_action(top.section("action")),
        ensemble=Ensemble(ensemble.text("name", ENSEMBLES), ensemble.whole("horizon")),
        workspace=_workspace(top.section("workspace")),
        cameras=_cameras(top.section("cameras")),
        unnorm_key=top.text("unnorm_key"),
    )


def _gripper(section: _Section) -> Gripper:
    gripper = Gripper(
        joints=section.texts("joints"),
        closed=section.number("closed", positive=False),
        open=section.number("open", positive=False),
        velocity=section.number("velocity"),
    )
    if gripper.open <= gripper.closed:
        raise section.error("open", "must be above closed")
    return gripper


def _action(section: _Section) -> ActionConvention:
    return ActionConvention(
        delta_frame=section.text("delta_frame", FRAMES),
        rotation=section.text("rotation", ROTATIONS),
        anchor=section.text("anchor", ANCHORS),
        gripper_threshold=section.number("gripper_threshold"),
    )


def _workspace(section: _Section) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    lower, upper = section.vector("lower", 3), section.vector("upper", 3)
    if (lower >= upper).any():
        raise section.error("upper", "must be above lower along every axis")
    return lower, upper


def _cameras(section: _Section) -> tuple[CameraSpec, ...]:
    cameras = []
    for name in section.values:
        camera = section.section(name)
        fovy = camera.number("fovy")
        if fovy >= 180:
            raise camera.error("fovy", "must be below 180 degrees")
        position, look_at = camera.vector("position", 3), camera.vector("look_at", 3)
        if np.linalg.norm(np.cross(look_at - position, (0.0, 0.0, 1.0))) < 1e-6:
            raise camera.error("look_at", "must not lie straight above or below position")
        cameras.append(
            CameraSpec(
                name=name,
                frame=camera.text("frame"),
                width=camera.whole("width"),
                height=camera.whole("height"),
                fovy=fovy,
                position=position,
                look_at=look_at,
            )
        )
    return tuple(cameras)
