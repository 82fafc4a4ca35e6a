"""The MuJoCo model of one task scene: the robot at its table, and every object as it is there.

Compiling takes about a millisecond, so that each scene has a model of its own.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from internvla_ros.robots.embodiment import Embodiment
from internvla_ros.sim.kinds import DRAWER, HANDLE_OUT, TRAVEL, Kind, kind_of
from internvla_ros.sim.looks import PLAIN, Look, Paint
from internvla_ros.sim.mjcf import KEY_LIGHT, add_camera, bare_spec, felt
from internvla_ros.sim.parts import OWN, PAINTS, Part, box
from internvla_ros.sim.task_scene import TaskScene, Thing, handle_name

_HIDDEN, _SHOWN = 3, 1
_DENSITY = 420.0  # kg/m^3 of the box about a thing: about that of wood in what fills half of it
_LIGHTEST, _HEAVIEST = 0.012, 0.060  # kg
_LOW = 0.15  # how far below its middle a thing's centre of mass is, as a share of half its height
_TILE = 32  # pixels of a pattern's side
_BOARD = 0.003  # half the thickness of a drawer's boards, m
_LATCH = 0.25  # N that a drawer resists being moved with


def drawer_joint(name: str) -> str:
    """The joint that a drawer slides on."""
    return f"{name} slide"


def build_task_model(embodiment: Embodiment, scene: TaskScene) -> mujoco.MjModel:
    """Compiles a scene with a robot."""
    spec = bare_spec(embodiment)
    look = scene.look
    for camera in look.cameras:
        add_camera(spec, camera)
    _light(spec, look)
    rng = np.random.default_rng(look.seed)
    for name in ("table", "floor"):
        paint = look.table if name == "table" else look.floor
        geom = spec.geom(name)
        geom.rgba = (*paint.rgb, 1.0)
        if paint.pattern != PLAIN:
            geom.material = _surface(spec, name, paint.pattern, rng)
    top = embodiment.tabletop.height
    for thing in scene.things:
        paint = look.paints[thing.name]
        material = _pattern(spec, thing.name, paint, rng) if paint.pattern != PLAIN else ""
        builder = _drawer if thing.kind == DRAWER.name else _thing
        builder(spec, thing, top, paint, material)
    return spec.compile()


def _light(spec: mujoco.MjSpec, look: Look) -> None:
    for light in spec.lights:
        if light.name == "key":
            light.diffuse, light.dir = (KEY_LIGHT * look.light,) * 3, look.direction
        else:
            light.dir = (-look.direction[0], -look.direction[1], look.direction[2])
    spec.visual.headlight.ambient = (look.ambient,) * 3


def _thing(spec: mujoco.MjSpec, thing: Thing, top: float, paint: Paint, material: str) -> None:
    kind = kind_of(thing.kind)
    half = np.array(thing.size) / 2
    turn = (np.cos(thing.yaw / 2), 0.0, 0.0, np.sin(thing.yaw / 2))
    body = spec.worldbody.add_body(
        name=thing.name, pos=(thing.x, thing.y, top + half[2]), quat=turn
    )
    if isinstance(kind, Kind):
        body.pos[2] += 0.0005
        body.add_freejoint()
        mass = float(np.clip(_DENSITY * np.prod(2 * half), _LIGHTEST, _HEAVIEST))
        body.explicitinertial = True
        body.mass = mass
        body.ipos = (0.0, 0.0, -_LOW * half[2])
        body.inertia = mass / 3 * (np.sum(half**2) - half**2)
    for number, part in enumerate(kind.parts(thing.size)):
        _add(spec, body, part, f"{thing.name} {number}", paint, material)


def _drawer(spec: mujoco.MjSpec, thing: Thing, top: float, paint: Paint, material: str) -> None:
    """A cabinet that stands fast, with a tray in it that slides out along its own x."""
    a, b, c = (side / 2 for side in thing.size)
    turn = (np.cos(thing.yaw / 2), 0.0, 0.0, np.sin(thing.yaw / 2))
    cabinet = spec.worldbody.add_body(name=thing.name, pos=(thing.x, thing.y, top + c), quat=turn)
    thin = _BOARD
    for number, part in enumerate(
        (
            box((a, b, thin), (0, 0, c - thin)),
            box((a, b, thin / 2), (0, 0, thin / 2 - c)),
            box((a, thin, c), (0, b - thin, 0)),
            box((a, thin, c), (0, thin - b, 0)),
            box((thin, b, c), (thin - a, 0, 0)),
        )
    ):
        _add(spec, cabinet, part, f"{thing.name} {number}", paint, material)
    tray = spec.worldbody.add_body(name=f"{thing.name} tray", pos=cabinet.pos, quat=turn)
    joint = tray.add_joint(name=drawer_joint(thing.name), type=mujoco.mjtJoint.mjJNT_SLIDE)
    joint.axis, joint.range, joint.limited = (1.0, 0.0, 0.0), (0.0, TRAVEL), True
    joint.frictionloss, joint.damping[0], joint.armature = _LATCH, 1.0, 0.02
    tray.explicitinertial, tray.mass, tray.inertia = True, 0.15, (2e-4, 2e-4, 2e-4)
    tray.gravcomp = 1.0
    inner, low = b - 3 * thin, 3 * thin - c
    light = Paint(tuple(min(1.0, 0.55 + 0.5 * v) for v in paint.rgb))  # type: ignore[arg-type]
    boards = (
        box((a - 2 * thin, inner, thin), (0, 0, low)),
        box((a - 2 * thin, thin, 0.55 * c), (0, inner - thin, low + 0.5 * c)),
        box((a - 2 * thin, thin, 0.55 * c), (0, thin - inner, low + 0.5 * c)),
        box((thin, inner, 0.55 * c), (3 * thin - a, 0, low + 0.5 * c)),
        box((thin, b - 2.5 * thin, c - 2.5 * thin), (a - thin, 0, 0)),
    )
    for number, part in enumerate(boards):
        _add(spec, tray, part, f"{thing.name} tray {number}", light, "")
    knob = np.array(HANDLE_OUT) / 2
    grip = box((knob[0], knob[1], knob[2]), (a + knob[0], 0.0, 0.0), "black")
    _add(spec, tray, grip, handle_name(thing.name), paint, "")
    spec.add_exclude(bodyname1=cabinet.name, bodyname2=tray.name)


def _add(
    spec: mujoco.MjSpec,
    body: mujoco.MjsBody,
    part: Part,
    name: str,
    paint: Paint,
    material: str,
) -> None:
    geom = part.add_to(spec, body, name)
    felt(geom)
    if not part.solid:
        geom.contype = geom.conaffinity = 0
    geom.group = _SHOWN if part.seen else _HIDDEN
    own = part.paint == OWN
    geom.rgba = (*(paint.rgb if own else PAINTS[part.paint]), 1.0)
    if own and material:
        geom.material = material


def _pattern(spec: mujoco.MjSpec, name: str, paint: Paint, rng: np.random.Generator) -> str:
    """A material with a pattern in light and dark, which the colour is multiplied with."""
    texture = spec.add_texture(name=f"{name} pattern", type=mujoco.mjtTexture.mjTEXTURE_CUBE)
    texture.width = texture.height = _TILE
    dark = float(rng.uniform(0.55, 0.8))
    texture.rgb1, texture.rgb2, texture.markrgb = (1, 1, 1), (dark,) * 3, (dark,) * 3
    texture.builtin = {
        "checker": mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        "gradient": mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
    }.get(paint.pattern, mujoco.mjtBuiltin.mjBUILTIN_FLAT)
    if paint.pattern == "speckle":
        texture.mark, texture.random = mujoco.mjtMark.mjMARK_RANDOM, 0.15
    elif paint.pattern == "edges":
        texture.mark = mujoco.mjtMark.mjMARK_EDGE
    return _material(spec, texture, (1.0, 1.0))


def _surface(spec: mujoco.MjSpec, name: str, pattern: str, rng: np.random.Generator) -> str:
    """A material for something flat and wide."""
    texture = spec.add_texture(name=f"{name} pattern", type=mujoco.mjtTexture.mjTEXTURE_2D)
    pixels = _surface_pixels(pattern, rng)
    texture.height, texture.width, texture.nchannel = pixels.shape[0], pixels.shape[1], 3
    texture.data = pixels.tobytes()
    repeat = float(rng.uniform(1.0, 4.0))
    return _material(spec, texture, (repeat, repeat))


def _material(spec: mujoco.MjSpec, texture: mujoco.MjsTexture, repeat: tuple[float, float]) -> str:
    material = spec.add_material(name=texture.name, texrepeat=repeat)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = texture.name
    return str(material.name)


def _surface_pixels(pattern: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """uint8 [64, 64, 3]: light greys, to be multiplied with a colour."""
    side = 64
    rows, columns = np.mgrid[0:side, 0:side] / side
    if pattern == "wood":
        wave = rows * 9 + 0.4 * np.sin(2 * np.pi * columns + rng.uniform(0, 6))
        value = 0.80 + 0.12 * np.sin(2 * np.pi * wave) + rng.normal(scale=0.02, size=(side, side))
    elif pattern == "cloth":
        value = 0.82 + 0.10 * (np.sin(40 * np.pi * rows) * np.sin(40 * np.pi * columns))
    elif pattern == "checker":
        value = np.where((np.floor(rows * 4) + np.floor(columns * 4)) % 2, 1.0, 0.78)
    else:
        value = np.where(rng.random((side, side)) < 0.12, 0.65, 0.95)
    grey = np.clip(255 * value, 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
