"""The MuJoCo model: the robot from its URDF, a table, cameras, and slots for every object.

The model is compiled once. A movable slot holds a cube, a cylinder and a ball of which a scene
shows one; a receptacle slot is three bodies (plate, bowl, bin) of which all but one are parked.
"""

from __future__ import annotations

from itertools import pairwise

import mujoco
import numpy as np
from numpy.typing import NDArray

from internvla_ros.motion.se3 import matrix_to_quaternion
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import CameraSpec, Embodiment, Tabletop
from internvla_ros.sim.scene import LARGEST, MAX_MOVABLES, MAX_RECEPTACLES, RECEPTACLES

TIMESTEP = 0.002
KEY_LIGHT = 0.50  # brightness of the main light
PARKED = -5.0  # height (m) of bodies that a scene does not use
LARGEST_PICTURE = (1280, 960)
_BOARD = 0.02  # half the thickness of the table's board, m

_SHOWN, _HIDDEN = 1, 3  # groups of geoms; the renderer draws those below 3
# contype, conaffinity: the arm touches objects and table, never itself.
_ARM, _THINGS = (1, 2), (2, 3)
_FRICTION = (1.2, 0.02, 0.002)  # sliding, torsional (m), rolling (m)
_GRIP = (1.6, 0.03, 0.002)  # of the finger pads
_GEOM = mujoco.mjtGeom
MOVABLE_SHAPES = {
    "cube": _GEOM.mjGEOM_BOX,
    "cylinder": _GEOM.mjGEOM_CYLINDER,
    "ball": _GEOM.mjGEOM_SPHERE,
}
_ROUND = 40  # facets of what is turned
_WALLS = 16  # boxes of a round wall

# How contacts give way: time constant (s, twice the time step) and damping ratio. Light objects
# under a firm grip sink into softer contacts and creep.
_CONTACT = (0.004, 1.0)

_ARMATURE = 0.05  # kg m^2 (or kg) that a motor adds to its joint


def build_model(embodiment: Embodiment) -> mujoco.MjModel:
    """Compiles the world of one robot."""
    spec = bare_spec(embodiment)
    for camera in embodiment.cameras:
        add_camera(spec, camera)
    _turned_meshes(spec)
    for slot in range(MAX_MOVABLES):
        _movable(spec, slot)
    for slot in range(MAX_RECEPTACLES):
        for kind in RECEPTACLES:
            _receptacle(spec, slot, kind)
    return spec.compile()


def bare_spec(embodiment: Embodiment) -> mujoco.MjSpec:
    """A robot that can be driven at its table, with lights, and nothing else."""
    spec = _robot_spec(embodiment)
    spec.option.timestep = TIMESTEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10.0
    _drive(spec, embodiment)
    _surroundings(spec, embodiment.tabletop)
    return spec


def movable_body(slot: int) -> str:
    return f"movable_{slot}"


def movable_geom(slot: int, kind: str) -> str:
    return f"movable_{slot}_{kind}"


def receptacle_body(slot: int, kind: str) -> str:
    return f"receptacle_{slot}_{kind}"


def _robot_spec(embodiment: Embodiment) -> mujoco.MjSpec:
    """The robot as MuJoCo reads it from the URDF, held up against gravity."""
    options = '<mujoco><compiler fusestatic="false" discardvisual="false"/></mujoco>'
    head, tag, body = urdf(embodiment.name).partition("<link")
    spec = mujoco.MjSpec.from_string(head + options + tag + body)
    for body_spec in spec.bodies[1:]:
        body_spec.gravcomp = 1.0
    for geom in spec.geoms:
        is_visual = geom.contype == 0
        geom.group = _SHOWN if is_visual else _HIDDEN
        if not is_visual:
            felt(geom, _ARM)
    base = spec.body(embodiment.base_frame)
    for geom in base.geoms:
        geom.contype = geom.conaffinity = 0  # it stands on the table
    for coupling in spec.equalities:  # of the fingers
        coupling.solref[:2] = _CONTACT
    return spec


def _drive(spec: mujoco.MjSpec, embodiment: Embodiment) -> None:
    """Position servos: critically damped joints, fingers of limited force."""
    gripper = embodiment.gripper
    for name, stiffness in zip(embodiment.joints, embodiment.stiffness, strict=True):
        joint = spec.joint(name)
        joint.armature = _ARMATURE
        actuator = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.set_to_position(kp=stiffness, dampratio=1.0)
    for name in gripper.joints:
        joint = spec.joint(name)
        joint.armature = _ARMATURE
        actuator = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.set_to_position(kp=gripper.stiffness, kv=gripper.damping)
        actuator.forcerange = (-gripper.effort, gripper.effort)
        actuator.forcelimited = True
        _grips(joint.parent)


def _grips(body: mujoco.MjsBody) -> None:
    """A finger and what is fixed to it hold things fast."""
    for geom in body.geoms:
        if geom.contype:
            geom.friction, geom.priority = _GRIP, 1
    for part in body.bodies:
        _grips(part)


def _surroundings(spec: mujoco.MjSpec, tabletop: Tabletop) -> None:
    """Table, floor, lights, and a renderer without shadows and multisampling."""
    world = spec.worldbody
    table = world.add_geom(
        name="table",
        type=_GEOM.mjGEOM_BOX,
        size=(tabletop.size[0] / 2, tabletop.size[1] / 2, _BOARD),
        pos=(*tabletop.centre, tabletop.height - _BOARD),
    )
    felt(table)
    floor = world.add_geom(
        name="floor", type=_GEOM.mjGEOM_PLANE, size=(4, 4, 0.1), pos=(0, 0, tabletop.floor)
    )
    floor.contype = floor.conaffinity = 0
    for name, share in (("key", KEY_LIGHT), ("fill", 0.12)):
        light = world.add_light(name=name, pos=(0.3, 0, 2))
        light.type = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
        light.castshadow = False
        light.diffuse = (share,) * 3
        light.specular = (0.15,) * 3
    spec.visual.headlight.active = 1
    spec.visual.headlight.ambient = (0.40,) * 3
    spec.visual.headlight.diffuse = (0.06,) * 3
    spec.visual.headlight.specular = (0.0,) * 3
    spec.visual.quality.shadowsize = 0
    spec.visual.quality.offsamples = 0
    spec.visual.global_.offwidth, spec.visual.global_.offheight = LARGEST_PICTURE
    spec.visual.map.znear, spec.visual.map.zfar = 0.01, 20.0
    spec.stat.extent, spec.stat.center = 1.0, (0.3, 0.0, 0.0)


def add_camera(spec: mujoco.MjSpec, camera: CameraSpec) -> None:
    """Fixes a camera to its link.

    MuJoCo's cameras look along -z with y up; optical frames along z with y down.
    """
    rotation = camera.optical_rotation() @ np.diag([1.0, -1.0, -1.0])
    spec.body(camera.frame).add_camera(
        name=camera.name,
        pos=camera.position,
        quat=_quaternion(rotation),
        fovy=camera.fovy,
    )


def _movable(spec: mujoco.MjSpec, slot: int) -> None:
    body = spec.worldbody.add_body(name=movable_body(slot), pos=(0, 0, PARKED))
    body.add_freejoint()
    half = LARGEST / 2
    for kind, shape in MOVABLE_SHAPES.items():
        geom = body.add_geom(
            name=movable_geom(slot, kind), type=shape, size=(half, half, half), mass=0.01
        )
        felt(geom)


def _receptacle(spec: mujoco.MjSpec, slot: int, kind: str) -> None:
    """A body without freedom (mocap) whose pose a scene sets; seen as meshes, felt as boxes."""
    body = spec.worldbody.add_body(name=receptacle_body(slot, kind), mocap=True, pos=(0, 0, PARKED))
    shape = RECEPTACLES[kind]
    if kind == "bin":
        _bin(body)
        return
    seen = body.add_geom(type=_GEOM.mjGEOM_MESH, meshname=kind)
    seen.contype = seen.conaffinity = 0
    bottom = body.add_geom(
        type=_GEOM.mjGEOM_CYLINDER,
        size=(shape.inner + 0.001, shape.floor / 2, 0),
        pos=(0, 0, shape.floor / 2),
    )
    felt(bottom)
    bottom.group = _HIDDEN
    for angle in np.arange(_WALLS) * 2 * np.pi / _WALLS:
        _wall(body, shape.inner, shape.outer, shape.floor, shape.rim, float(angle))


def _wall(
    body: mujoco.MjsBody, inner: float, outer: float, floor: float, rim: float, angle: float
) -> None:
    """One board of a round wall that leans from the floor's edge out to the rim."""
    thickness = 0.004
    along = np.array([outer - inner, rim - floor])
    length = float(np.hypot(*along))
    lean = float(np.arctan2(along[1], along[0]))
    out = np.array([np.cos(lean), np.sin(lean)])
    normal = np.array([np.sin(lean), -np.cos(lean)])  # outwards and down
    middle = np.array([inner, floor]) + out * length / 2 + normal * thickness / 2
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    board = np.array([[out[0], 0, -out[1]], [0, 1, 0], [out[1], 0, out[0]]])
    geom = body.add_geom(
        type=_GEOM.mjGEOM_BOX,
        size=(length / 2, outer * np.tan(np.pi / _WALLS), thickness / 2),
        pos=turn @ np.array([middle[0], 0, middle[1]]),
        quat=_quaternion(turn @ board),
    )
    felt(geom)
    geom.group = _HIDDEN


def _bin(body: mujoco.MjsBody) -> None:
    shape = RECEPTACLES["bin"]
    half, thick = shape.outer, (shape.outer - shape.inner) / 2
    height = shape.rim / 2
    middle = half - thick
    parts = (
        ((0, 0, shape.floor / 2), (half, half, shape.floor / 2)),
        ((middle, 0, height), (thick, half, height)),
        ((-middle, 0, height), (thick, half, height)),
        ((0, middle, height), (half, thick, height)),
        ((0, -middle, height), (half, thick, height)),
    )
    for position, size in parts:
        felt(body.add_geom(type=_GEOM.mjGEOM_BOX, pos=position, size=size))


def felt(geom: mujoco.MjsGeom, masks: tuple[int, int] = _THINGS) -> None:
    """Makes a shape collide, with friction against sliding, turning and rolling."""
    geom.contype, geom.conaffinity = masks
    geom.condim, geom.friction = 6, _FRICTION
    geom.solref[:2] = _CONTACT


def _turned_meshes(spec: mujoco.MjSpec) -> None:
    """Plate and bowl as surfaces of revolution."""
    plate, bowl = RECEPTACLES["plate"], RECEPTACLES["bowl"]
    _turned(
        spec,
        "plate",
        [
            (0.0, plate.floor),
            (plate.inner, plate.floor),
            (plate.outer, plate.rim),
            (plate.outer + 0.002, plate.rim - 0.002),
            (plate.inner, 0.0),
            (0.0, 0.0),
        ],
    )
    _turned(
        spec,
        "bowl",
        [
            (0.0, bowl.floor),
            (bowl.inner - 0.006, bowl.floor),
            (bowl.inner, bowl.floor + 0.003),
            (bowl.outer, bowl.rim),
            (bowl.outer + 0.003, bowl.rim),
            (bowl.inner + 0.004, 0.0),
            (0.0, 0.0),
        ],
    )


def _turned(spec: mujoco.MjSpec, name: str, profile: list[tuple[float, float]]) -> None:
    """A mesh from a profile of (radius, height), from the top middle outwards and back below."""
    angles = np.arange(_ROUND) * 2 * np.pi / _ROUND
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    vertices: list[NDArray[np.float64]] = []
    normals: list[NDArray[np.float64]] = []
    faces: list[NDArray[np.int64]] = []
    for (r0, z0), (r1, z1) in pairwise(profile):
        normal = np.array([z0 - z1, r1 - r0]) / np.hypot(z0 - z1, r1 - r0)
        start = len(vertices) * _ROUND
        for radius, height in ((r0, z0), (r1, z1)):
            vertices.append(np.column_stack([ring * radius, np.full(_ROUND, height)]))
            normals.append(np.column_stack([ring * normal[0], np.full(_ROUND, normal[1])]))
        here = start + np.arange(_ROUND)
        after = start + (np.arange(_ROUND) + 1) % _ROUND
        if r0 > 0:
            faces.append(np.column_stack([here, here + _ROUND, after]))
        if r1 > 0:
            faces.append(np.column_stack([after, here + _ROUND, after + _ROUND]))
    triangles = np.concatenate(faces).astype(np.int32)
    mesh = spec.add_mesh(name=name)
    mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
    mesh.uservert = np.concatenate(vertices).ravel()
    mesh.usernormal = np.concatenate(normals).ravel()
    mesh.userface = triangles.ravel()
    mesh.userfacenormal = triangles.ravel()


def _quaternion(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """A rotation matrix as MuJoCo's quaternion, w x y z."""
    x, y, z, w = matrix_to_quaternion(rotation)
    return np.array([w, x, y, z])
