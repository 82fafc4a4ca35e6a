"""The 3-D view: the robot as it stands, its table, cameras and workspace, and what it means to do.

Metres, in the robot's base frame, whose z = 0 is the table.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np
import viser
from numpy.typing import ArrayLike, NDArray

from internvla_ros.dashboard.shapes import Colour, Shape, looks
from internvla_ros.motion.link_tree import LinkTree
from internvla_ros.motion.se3 import Pose
from internvla_ros.robots.embodiment import CameraSpec, Embodiment
from internvla_ros.spatial.draw import AMBER, CYAN, MAGENTA

Array = NDArray[np.float64]

OPENED, CLOSED = AMBER, CYAN
"""Colours of the chunk's path where the gripper is to be open and where it is to be closed."""

_TABLE: Colour = (128, 124, 116)
_GRID: Colour = (96, 93, 87)
_WORKSPACE: Colour = (110, 150, 200)
_LENS: Colour = (90, 100, 115)
_TRAIL: Colour = (130, 200, 120)
_BORDER = 0.14  # m of table around workspace and base
_THICK = 0.02  # m, the table
_TRAIL_STEP = 0.003  # m that the tip moves before its way is prolonged
_TRAIL_LENGTH = 150
_STILL = 1e-4  # rad or m; a joint that moved less is not drawn anew
_DARKEST = 38  # of 255; shapes blacker than this would hide each other
_FOV = np.radians(38.0)

_EDGES = np.array(
    [(0, 1), (2, 3), (4, 5), (6, 7), (0, 2), (1, 3), (4, 6), (5, 7), (0, 4), (1, 5), (2, 6), (3, 7)]
)


class Scene:
    """Draws into a viser server's scene; every browser sees the same."""

    def __init__(self, server: viser.ViserServer, robot: Embodiment, urdf: str) -> None:
        """
        Args:
            server: whose scene is filled.
            robot: workspace and cameras.
            urdf: what the robot looks like, as XML.

        Raises:
            KinematicsError: the URDF is no tree of links.
            ShapeError: its shapes cannot be read.
        """
        self._api = server.scene
        self._tree = LinkTree(urdf)
        self._drawn = self._tree.placements({})
        paths = self._paths()
        self._frames = [
            self._api.add_frame(
                paths[link.name], show_axes=False, wxyz=wxyz(pose), position=pose.position
            )
            for link, pose in zip(self._tree.links, self._drawn, strict=True)
        ]
        found = looks(urdf)
        self.meshes = found.meshes
        """Links that are not drawn, because their shapes are meshes."""
        for link_name, shapes in found.shapes.items():
            for index, shape in enumerate(shapes):
                _draw_shape(self._api, f"{paths[link_name]}/shape_{index}", shape)
        self._draw_cameras(robot.cameras, paths)
        self._draw_table(robot)
        self._workspace = self._line("/workspace", _box_edges(*robot.workspace), _WORKSPACE, 1.2)
        self._trail = self._line("/trail", np.zeros((0, 2, 3)), _TRAIL, 2.0)
        self._way: deque[Array] = deque(maxlen=_TRAIL_LENGTH)
        self._targets = [
            self._api.add_icosphere(f"/target_{index}", 0.009, colour, visible=False)
            for index, colour in enumerate((AMBER, CYAN))
        ]
        _light(self._api)
        _frame(server, robot)

    def joints(self, positions: Mapping[str, float]) -> None:
        """Move the robot to joint positions by name (rad, or m for slides)."""
        placements = self._tree.placements(positions)
        for index, (frame, pose) in enumerate(zip(self._frames, placements, strict=True)):
            drawn = self._drawn[index]
            if np.abs(pose.rotation - drawn.rotation).max() > _STILL:
                frame.wxyz = wxyz(pose)
                self._drawn[index] = pose
            if np.abs(pose.position - drawn.position).max() > _STILL:
                frame.position = pose.position
                self._drawn[index] = pose

    def tip(self, position: ArrayLike) -> None:
        """Prolong the way that the tip has taken to a position [3]."""
        here = np.asarray(position, dtype=np.float64)
        if self._way and np.linalg.norm(here - self._way[-1]) < _TRAIL_STEP:
            return
        self._way.append(here)
        self._trail.points = segments(np.array(self._way))
        self._trail.visible = len(self._way) > 1

    def forget(self) -> None:
        """Begin a new way: an instruction has begun."""
        self._way.clear()
        self._trail.visible = False
        self.chunk(np.zeros((0, 3)), np.zeros(0))
        self.trace(np.zeros((0, 3)))
        self.targets(np.zeros((0, 3)))

    def chunk(self, points: ArrayLike, grippers: ArrayLike) -> None:
        """Show the path of the chunk in execution.

        Args:
            points: [T + 1, 3] where the tip will be after each step, from where it starts.
            grippers: [T] opening wanted in each step, 0 closed .. 1 open.
        """
        lines = segments(np.asarray(points, dtype=np.float64))
        opened = np.asarray(grippers, dtype=np.float64)[: len(lines)] > 0.5
        colours = np.where(opened[:, None], OPENED, CLOSED).astype(np.uint8)
        self._line("/chunk", lines, np.repeat(colours[:, None], 2, axis=1), 5.0)

    def trace(self, points: ArrayLike) -> None:
        """Show the way [N, 3] that the planner expects, fading towards its end."""
        lines = segments(np.asarray(points, dtype=np.float64))
        share = np.linspace(0.0, 1.0, len(lines) + 1)
        fade = (1 - share)[:, None] * (255, 255, 255) + share[:, None] * MAGENTA
        self._line("/trace", lines, segments(fade).astype(np.uint8), 4.0)

    def targets(self, points: ArrayLike) -> None:
        """Show where to grasp and where to place, [N, 3]; what is not given or NaN is hidden."""
        wanted = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        for index, ball in enumerate(self._targets):
            known = index < len(wanted) and bool(np.isfinite(wanted[index]).all())
            ball.visible = known
            if known:
                ball.position = wanted[index]

    def workspace_colour(self, colour: Colour | None) -> None:
        """Tint the workspace box; None: its own colour."""
        self._workspace.colors = np.array(colour or _WORKSPACE, np.uint8)

    def _line(
        self, name: str, points: ArrayLike, colour: Colour | NDArray[np.uint8], width: float
    ) -> viser.LineSegmentsHandle:
        """A line [N, 2, 3] of `width` px in place of the last one of that name; hidden if empty.

        Browsers take over new points of a line that is there already, but not new colours.
        """
        points = np.asarray(points, np.float32)
        return self._api.add_line_segments(
            name,
            points,
            colour,
            thickness=width,
            thickness_units="screen",
            visible=len(points) > 0,
        )

    def _draw_table(self, robot: Embodiment) -> None:
        lower, upper = robot.workspace
        low = np.minimum(lower[:2], 0.0) - _BORDER
        high = np.maximum(upper[:2], 0.0) + _BORDER
        size, middle = high - low, 0.5 * (low + high)
        self._api.add_box(
            "/table",
            _TABLE,
            (size[0], size[1], _THICK),
            position=(middle[0], middle[1], -0.5 * _THICK - 0.001),
            cast_shadow=False,
        )
        self._line("/table/grid", _grid(size, 0.1, 0.5 * _THICK + 0.001), _GRID, 1.0)

    def _paths(self) -> dict[str, str]:
        """Link -> its place in a tree of frames: "/base_link/shoulder_link/...", as viser names."""
        paths: dict[str, str] = {}
        for link in self._tree.links:
            carrier = paths.setdefault(link.parent, f"/{link.parent}")
            paths[link.name] = f"{carrier}/{link.name}"
        return paths

    def _draw_cameras(self, cameras: tuple[CameraSpec, ...], paths: Mapping[str, str]) -> None:
        for camera in cameras:
            if camera.frame not in paths:
                continue
            pose = Pose(camera.position, camera.optical_rotation())
            self._api.add_camera_frustum(
                f"{paths[camera.frame]}/{camera.name}",
                float(np.radians(camera.fovy)),
                camera.width / camera.height,
                scale=0.03,
                thickness=1.5,
                thickness_units="screen",
                color=_LENS,
                wxyz=wxyz(pose),
                position=pose.position,
                cast_shadow=False,
            )


def wxyz(pose: Pose) -> Array:
    """A pose's rotation as a quaternion in viser's order."""
    x, y, z, w = pose.quaternion()
    return np.array([w, x, y, z])


def segments(points: Array) -> NDArray[np.float32]:
    """[N - 1, 2, 3] from each point [N, 3] to the next, without those that are not finite."""
    if len(points) < 2:
        return np.zeros((0, 2, 3), np.float32)
    pairs = np.stack([points[:-1], points[1:]], axis=1)
    return pairs[np.isfinite(pairs).all(axis=(1, 2))].astype(np.float32)


def _draw_shape(api: viser.SceneApi, name: str, shape: Shape) -> None:
    look = {
        "color": tuple(round(_DARKEST + (1 - _DARKEST / 255) * part) for part in shape.colour),
        "opacity": None if shape.opacity >= 1.0 else shape.opacity,
        "wxyz": wxyz(shape.pose),
        "position": shape.pose.position,
    }
    if shape.kind == "box":
        api.add_box(name, dimensions=shape.size, **look)  # type: ignore[arg-type]
    elif shape.kind == "cylinder":
        radius, length = shape.size
        api.add_cylinder(name, radius, length, radial_segments=24, **look)  # type: ignore[arg-type]
    else:
        api.add_icosphere(name, shape.size[0], subdivisions=3, **look)  # type: ignore[arg-type]


def _box_edges(lower: Array, upper: Array) -> Array:
    """[12, 2, 3] the edges of a box between two corners."""
    picks = np.array([[(i >> 2) & 1, (i >> 1) & 1, i & 1] for i in range(8)])
    return np.where(picks == 1, upper, lower)[_EDGES]


def _grid(size: Array, pitch: float, height: float) -> Array:
    """[N, 2, 3] lines `pitch` m apart over a rectangle of `size` about the origin."""
    half = 0.5 * size
    lines = []
    for axis in (0, 1):
        for at in np.arange(pitch * np.ceil(-half[axis] / pitch), half[axis], pitch):
            ends = np.zeros((2, 3))
            ends[:, axis] = at
            ends[:, 1 - axis] = (-half[1 - axis], half[1 - axis])
            ends[:, 2] = height
            lines.append(ends)
    return np.array(lines)


def _light(api: viser.SceneApi) -> None:
    """One lamp above and behind the watcher, and light from all sides."""
    api.configure_default_lights(enabled=False)
    api.add_light_hemisphere(
        "/sky", sky_color=(255, 255, 255), ground_color=(150, 145, 140), intensity=2.6
    )
    api.add_light_directional(
        "/sun", color=(255, 250, 240), intensity=2.0, position=(1.0, 0.9, 1.6), cast_shadow=True
    )


def _frame(server: viser.ViserServer, robot: Embodiment) -> None:
    """Let a new browser look at robot and workspace from the front and above."""
    lower, upper = robot.workspace
    middle = 0.5 * (np.minimum(lower, 0.0) + upper)
    reach = float(np.linalg.norm(upper - np.minimum(lower, 0.0)))
    camera = server.initial_camera
    camera.fov = float(_FOV)
    camera.look_at = middle
    camera.position = middle + 2.05 * reach * np.array([0.70, 0.56, 0.44])
