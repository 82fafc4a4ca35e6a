"""What is particular to a robot: joints, frames, limits, rates and conventions.

The numbers live in `config/robots/NAME.yaml`, one file a robot.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from internvla_ros.resources import resource
from internvla_ros.robots.document import EmbodimentError, Section

ROTATIONS = ("rpy", "rotvec")
ANCHORS = ("target", "measured")
FRAMES = ("base", "tip")
ENSEMBLES = ("latest", "temporal", "adaptive", "rtc", "open-loop")
GRIPPER_MODES = ("absolute", "relative")

_DOWN = {
    # Columns: the tip's axes in the base frame when it points straight down, fingers along y.
    "x": ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0)),
    "z": ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)),
}


@dataclass(frozen=True)
class Gripper:
    """Two fingers that close on each other.

    `closed` and `open` are positions of the first joint (m, or rad where fingers turn); either may
    be the larger one. Joint i stands at `mirror[i]` times that position.

    Attributes:
        joints: of the fingers; the first one is commanded.
        closed, open: positions of the first joint.
        velocity: the largest of a joint (m/s or rad/s).
        mirror: what each joint's position is to the first one's.
        width: m between the pads, closed and open.
        reach: m that the fingers reach beyond the tip.
        effort: the largest force (N) or torque (Nm) of a joint.
        stiffness, damping: of a joint's servo in simulation (N/m, Ns/m or Nm/rad, Nms/rad).
    """

    joints: tuple[str, ...]
    closed: float
    open: float
    velocity: float
    mirror: tuple[float, ...]
    width: tuple[float, float]
    reach: float
    effort: float
    stiffness: float
    damping: float

    def opening(self, position: float) -> float:
        """The opening, 0 closed .. 1 open (clipped), at a position of the first joint."""
        fraction = (position - self.closed) / (self.open - self.closed)
        return float(min(max(fraction, 0.0), 1.0))

    def position(self, opening: float) -> float:
        """The first joint's position for an opening 0 closed .. 1 open (clipped)."""
        return self.closed + min(max(float(opening), 0.0), 1.0) * (self.open - self.closed)

    def opening_for(self, width: float) -> float:
        """The opening 0..1 (clipped) at which the pads stand `width` (m) apart.

        Exact for fingers that slide; for fingers that turn, the nearest straight line.
        """
        fraction = (width - self.width[0]) / (self.width[1] - self.width[0])
        return float(min(max(fraction, 0.0), 1.0))


@dataclass(frozen=True)
class ActionConvention:
    """What the seven numbers of an action mean for this robot.

    Attributes:
        delta_frame: "base": translation and rotation deltas along the axes of the base frame;
            "tip": along those of the tip.
        rotation: "rpy" (R' = Rz(yaw) Ry(pitch) Rx(roll) R) or "rotvec".
        anchor: what a chunk's deltas add to: the commanded ("target") or the "measured" pose.
        gripper_threshold: gripper numbers beyond it mean open; in relative mode, changes beyond
            it (either way) start opening or closing.
        translation_scale, rotation_scale: metres and radians that a unit of an action stands for.
        gripper_mode: "absolute": the number says how open; "relative": its change says which way.
        gripper_sign: 1 where larger numbers are more open, -1 where they are more closed.
        gripper_latch: steps that an opening or closing, once begun, is kept up.
    """

    delta_frame: str
    rotation: str
    anchor: str
    gripper_threshold: float
    translation_scale: float = 1.0
    rotation_scale: float = 1.0
    gripper_mode: str = "absolute"
    gripper_sign: int = 1
    gripper_latch: int = 0


@dataclass(frozen=True)
class Ensemble:
    """How overlapping chunks are blended, and over how many of them."""

    name: str
    horizon: int


@dataclass(frozen=True)
class TipLimits:
    """The tip's own bounds: m/s and m/s^2 along a line, rad/s and rad/s^2 turning.

    Speeds bound every setpoint. Accelerations bound how the tip is led after its targets: a stop
    is as short as the joints' own limits make it, and jerk is limited joint by joint.
    """

    speed: float
    acceleration: float
    turn: float
    turn_acceleration: float


@dataclass(frozen=True)
class VelocityCurve:
    """How joints must slow down towards the ends of their ranges; vectors are [n].

    Upwards a joint may move at sqrt(gain (upper - q)) - offset (rad/s), downwards at
    sqrt(gain (q - lower)) - offset, never below zero.
    """

    gain: NDArray[np.float64]
    offset: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]

    def limits(self, q: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The lowest and highest velocity [n] that the curve allows at q [n]."""
        up = np.sqrt(np.maximum(self.gain * (self.upper - q), 0.0)) - self.offset
        down = np.sqrt(np.maximum(self.gain * (q - self.lower), 0.0)) - self.offset
        return -np.maximum(down, 0.0), np.maximum(up, 0.0)


@dataclass(frozen=True)
class Clearance:
    """What the arm keeps away from.

    Attributes:
        self_distance: least distance (m) between parts of the arm.
        obstacle_distance: least distance (m) between the arm and the table or an obstacle.
        fingers_distance: the same for the gripper's fingers, which must reach for things.
        ignored: pairs of links that never meet or always touch; neighbours need not be named.
        table_ignored: links that stand on the table.
    """

    self_distance: float
    obstacle_distance: float
    fingers_distance: float
    ignored: tuple[tuple[str, str], ...]
    table_ignored: tuple[str, ...]


@dataclass(frozen=True)
class Tabletop:
    """The table in front of a robot, in its base frame (m).

    Attributes:
        height: of the top.
        floor: height of the floor.
        centre, size: x and y of the top's middle, and its extent along them.
        x, y: where the centres of objects lie.
        start_height: of the tip above the top, when a task begins.
        spacing: least distance between the middles of things to grasp.
        grasp: height of the tip above the top when it grasps.
        opening: how far the gripper opens (0..1) to go about a thing.
        tilt: how far (rad) a tip that reaches down is turned about the base's y axis.
    """

    height: float
    floor: float
    centre: tuple[float, float]
    size: tuple[float, float]
    x: tuple[float, float]
    y: tuple[float, float]
    start_height: tuple[float, float]
    spacing: float
    grasp: float
    opening: float
    tilt: float


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

    Vectors are [n] over `joints`, in rad, rad/s, rad/s^2, rad/s^3, `torque` in Nm. `ready` is the
    resting pose. `workspace` holds the lower [3] and upper [3] corner (m, base frame) of where the
    tip may move. Rates are in Hz. `unnorm_key` names this robot's statistics in a checkpoint.
    `tip_axis` is the axis of the tip frame ("x" or "z") that points out of the gripper; the fingers
    open along its y axis. `stiffness` (Nm/rad) is that of the joints' servos in simulation.
    """

    name: str
    joints: tuple[str, ...]
    position_lower: NDArray[np.float64]
    position_upper: NDArray[np.float64]
    velocity: NDArray[np.float64]
    acceleration: NDArray[np.float64]
    jerk: NDArray[np.float64]
    torque: NDArray[np.float64]
    stiffness: NDArray[np.float64]
    velocity_curve: VelocityCurve | None
    ready: NDArray[np.float64]
    base_frame: str
    tip_frame: str
    tip_axis: str
    gripper: Gripper
    control_rate: float
    policy_rate: float
    chunk_size: int
    action: ActionConvention
    ensemble: Ensemble
    workspace: tuple[NDArray[np.float64], NDArray[np.float64]]
    tip_limits: TipLimits
    clearance: Clearance
    tabletop: Tabletop
    cameras: tuple[CameraSpec, ...]
    unnorm_key: str

    @property
    def down(self) -> NDArray[np.float64]:
        """[3, 3] rotation of a tip that reaches for the table, fingers opening along base y.

        It points straight down where the wrist can, else it leans as the table-top says.
        """
        straight = np.array(_DOWN[self.tip_axis])
        tilt = self.tabletop.tilt
        cos, sin = np.cos(tilt), np.sin(tilt)
        return np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]]) @ straight

    @property
    def posture(self) -> NDArray[np.float64] | None:
        """[n] what inverse kinematics prefers where the arm has freedom left; None: it has none."""
        return self.ready if len(self.joints) > 6 else None

    def velocity_limits(self, q: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The lowest and highest velocity [n] (rad/s) that joints at q [n] may have."""
        if self.velocity_curve is None:
            return -self.velocity, self.velocity
        slowest, fastest = self.velocity_curve.limits(np.asarray(q, dtype=np.float64))
        return np.maximum(slowest, -self.velocity), np.minimum(fastest, self.velocity)

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


def robot_choices() -> str:
    """What a command's `--robot` may be, for its help."""
    return f"{', '.join(known_embodiments())}, or the path of a YAML file"


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
    except UnicodeDecodeError as error:
        raise EmbodimentError(f"{path}:1: is not UTF-8 text") from error
    except OSError as error:
        raise EmbodimentError(f"cannot read the robot file {path}: {error.strerror}") from error
    top = Section.parse(path, text)
    embodiment = _embodiment(top)
    top.end()
    return embodiment


def _embodiment(top: Section) -> Embodiment:
    joints = top.section("joints")
    names = joints.names("names")
    n = len(names)
    lower, upper = joints.vector("position_lower", n), joints.vector("position_upper", n)
    if (lower >= upper).any():
        raise joints.error("position_upper", "must be above position_lower for every joint")
    ready = joints.vector("ready", n)
    if (ready < lower).any() or (ready > upper).any():
        raise joints.error("ready", "lies outside the position limits")
    return Embodiment(
        name=top.text("name"),
        joints=names,
        position_lower=lower,
        position_upper=upper,
        velocity=joints.vector("velocity", n, positive=True),
        acceleration=joints.vector("acceleration", n, positive=True),
        jerk=joints.vector("jerk", n, positive=True),
        torque=joints.vector("torque", n, positive=True),
        stiffness=joints.vector("stiffness", n, positive=True),
        velocity_curve=_velocity_curve(joints, n),
        ready=ready,
        base_frame=top.text("base_frame"),
        tip_frame=top.text("tip_frame"),
        tip_axis=top.text("tip_axis", tuple(_DOWN)),
        gripper=_gripper(top.section("gripper")),
        control_rate=top.number("control_rate"),
        policy_rate=top.number("policy_rate"),
        chunk_size=top.whole("chunk_size"),
        action=_action(top.section("action")),
        ensemble=_ensemble(top.section("ensemble")),
        workspace=_workspace(top.section("workspace")),
        tip_limits=_tip_limits(top.section("tip_limits")),
        clearance=_clearance(top.section("clearance")),
        tabletop=_tabletop(top.section("tabletop")),
        cameras=_cameras(top.section("cameras")),
        unnorm_key=top.text("unnorm_key"),
    )


def _velocity_curve(joints: Section, n: int) -> VelocityCurve | None:
    if "velocity_near_limits" not in joints.values:
        return None
    section = joints.section("velocity_near_limits")
    curve = VelocityCurve(
        gain=section.vector("gain", n, positive=True),
        offset=section.vector("offset", n, positive=True),
        lower=section.vector("lower", n),
        upper=section.vector("upper", n),
    )
    if (curve.lower >= curve.upper).any():
        raise section.error("upper", "must be above lower for every joint")
    return curve


def _gripper(section: Section) -> Gripper:
    joints = section.names("joints")
    mirror = section.vector("mirror", len(joints))
    if mirror[0] != 1.0:
        raise section.error("mirror", "must begin with 1, the first joint itself")
    gripper = Gripper(
        joints=joints,
        closed=section.number("closed", positive=False),
        open=section.number("open", positive=False),
        velocity=section.number("velocity"),
        mirror=tuple(float(v) for v in mirror),
        width=section.interval("width"),
        reach=section.number("reach", positive=False),
        effort=section.number("effort"),
        stiffness=section.number("stiffness"),
        damping=section.number("damping"),
    )
    if gripper.open == gripper.closed:
        raise section.error("open", "must differ from closed")
    return gripper


def _action(section: Section) -> ActionConvention:
    sign = section.whole("gripper_sign", least=-1)
    if sign == 0 or sign > 1:
        raise section.error("gripper_sign", f"expected 1 or -1, found {sign}")
    return ActionConvention(
        delta_frame=section.text("delta_frame", FRAMES),
        rotation=section.text("rotation", ROTATIONS),
        anchor=section.text("anchor", ANCHORS),
        gripper_threshold=section.number("gripper_threshold", positive=False),
        translation_scale=section.number("translation_scale"),
        rotation_scale=section.number("rotation_scale"),
        gripper_mode=section.text("gripper_mode", GRIPPER_MODES),
        gripper_sign=sign,
        gripper_latch=section.whole("gripper_latch", least=0),
    )


def _ensemble(section: Section) -> Ensemble:
    return Ensemble(section.text("name", ENSEMBLES), section.whole("horizon"))


def _workspace(section: Section) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    lower, upper = section.vector("lower", 3), section.vector("upper", 3)
    if (lower >= upper).any():
        raise section.error("upper", "must be above lower along every axis")
    return lower, upper


def _tip_limits(section: Section) -> TipLimits:
    return TipLimits(**{name: section.number(name) for name in TipLimits.__dataclass_fields__})


def _clearance(section: Section) -> Clearance:
    return Clearance(
        self_distance=section.number("self_distance"),
        obstacle_distance=section.number("obstacle_distance"),
        fingers_distance=section.number("fingers_distance"),
        ignored=section.pairs("ignored"),
        table_ignored=section.names("table_ignored"),
    )


def _tabletop(section: Section) -> Tabletop:
    centre, size = section.vector("centre", 2), section.vector("size", 2, positive=True)
    tabletop = Tabletop(
        height=section.number("height", positive=False),
        floor=section.number("floor", positive=False),
        centre=(float(centre[0]), float(centre[1])),
        size=(float(size[0]), float(size[1])),
        x=section.interval("x"),
        y=section.interval("y"),
        start_height=section.interval("start_height"),
        spacing=section.number("spacing"),
        grasp=section.number("grasp"),
        opening=section.fraction("opening"),
        tilt=section.number("tilt", positive=False),
    )
    if tabletop.floor >= tabletop.height:
        raise section.error("floor", "must be below the height of the table")
    for key, (low, high), middle, extent in zip(
        ("x", "y"), (tabletop.x, tabletop.y), tabletop.centre, tabletop.size, strict=True
    ):
        if low < middle - extent / 2 or high > middle + extent / 2:
            raise section.error(key, "reaches beyond the table's edge")
    return tabletop


def _cameras(section: Section) -> tuple[CameraSpec, ...]:
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
