"""Table-top scenes as data: which objects lie where, and what is asked for.

Positions are metres in the robot's base frame; what a table-top is like says the embodiment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.motion.se3 import Pose, rpy_to_matrix
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import Embodiment, Tabletop

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.10, 0.10),
    "green": (0.12, 0.55, 0.18),
    "blue": (0.10, 0.27, 0.78),
    "yellow": (0.95, 0.80, 0.10),
    "orange": (0.95, 0.42, 0.04),
    "purple": (0.48, 0.16, 0.62),
}
MOVABLES = ("cube", "cylinder", "ball")
SMALLEST, LARGEST = 0.030, 0.042  # m, width and height of a movable
MAX_MOVABLES, MAX_RECEPTACLES = 3, 2

_RIM_SPACING = 0.030  # m that a thing may be nearer to a receptacle's rim than to another thing


@dataclass(frozen=True)
class Receptacle:
    """The shape of a kind of receptacle, in metres.

    Attributes:
        relation: things lie "on" it or "in" it.
        radius: the largest horizontal extent from its centre that others must stay clear of.
        usable: within this distance of its centre an object counts as placed.
        floor, rim: heights of the inner floor and of the rim.
        inner, outer: radius (half width for the bin) of the floor and of the rim.
    """

    relation: str
    radius: float
    usable: float
    floor: float
    rim: float
    inner: float
    outer: float


RECEPTACLES = {
    "plate": Receptacle("on", 0.066, 0.052, 0.005, 0.012, 0.050, 0.066),
    "bowl": Receptacle("in", 0.062, 0.042, 0.005, 0.036, 0.040, 0.062),
    "bin": Receptacle("in", 0.072, 0.052, 0.004, 0.040, 0.052, 0.056),
}

TEMPLATES = {
    "on": (
        "put the {pick} on the {place}",
        "place the {pick} on the {place}",
        "move the {pick} onto the {place}",
        "set the {pick} on the {place}",
        "pick up the {pick} and put it on the {place}",
        "take the {pick} and place it on the {place}",
    ),
    "in": (
        "put the {pick} in the {place}",
        "place the {pick} in the {place}",
        "move the {pick} into the {place}",
        "drop the {pick} into the {place}",
        "pick up the {pick} and put it in the {place}",
        "take the {pick} and place it in the {place}",
    ),
}

_SYNONYMS = {"block": "cube", "sphere": "ball", "can": "cylinder", "dish": "plate", "box": "bin"}
_LONGEST_INSTRUCTION = 200


class SceneError(ValueError):
    """No scene can be made as asked."""


@dataclass(frozen=True)
class ObjectSpec:
    """An object of a scene.

    `size` is a movable's width and height (m); for a receptacle its radius. `rgb` is the shade of
    its colour (0..1). `x`, `y` (m) and `yaw` (rad) place its centre on the table.
    """

    name: str
    colour: str
    kind: str
    role: str
    size: float
    x: float
    y: float
    yaw: float
    rgb: tuple[float, float, float]


@dataclass(frozen=True)
class Task:
    """What is asked for; `relation` is "on" or "in", `pick` and `place` are names of objects."""

    pick: str
    place: str
    relation: str
    instruction: str


@dataclass(frozen=True)
class Look:
    """The look of table and light: colours 0..1, the light's direction (towards the table)."""

    table: tuple[float, float, float]
    floor: tuple[float, float, float]
    light: float
    direction: tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """Everything that `World.reset` needs. `start` is the arm's first position [n] (rad)."""

    objects: tuple[ObjectSpec, ...]
    task: Task
    start: NDArray[np.float64]
    look: Look

    def object(self, name: str) -> ObjectSpec:
        """The object called `name`; SceneError where there is none."""
        for spec in self.objects:
            if spec.name == name:
                return spec
        names = ", ".join(spec.name for spec in self.objects)
        raise SceneError(f"the scene has no {name!r}; it has {names}")


def vocabulary() -> str:
    """One sentence that says what instructions may speak of."""
    return (
        f"say 'put the A on/in the B' with A a {_list(MOVABLES)}, B a {_list(tuple(RECEPTACLES))}, "
        f"each {_list(tuple(COLOURS))}"
    )


def sample_scene(
    rng: np.random.Generator, embodiment: Embodiment, start: str = "anywhere"
) -> Scene:
    """A random scene with a task that can be done.

    Args:
        rng: the only source of chance.
        embodiment: whose arm stands at the table.
        start: "anywhere" (tip down, anywhere over the table) or "ready" (the robot's own pose).
    """
    movables = _distinct(rng, MOVABLES, int(rng.integers(2, MAX_MOVABLES + 1)), [])
    receptacles = _distinct(rng, tuple(RECEPTACLES), MAX_RECEPTACLES, [])
    return _build(rng, embodiment, movables, receptacles, None, start)


def scene_for_instruction(
    rng: np.random.Generator, embodiment: Embodiment, text: str, start: str = "anywhere"
) -> Scene:
    """A random scene in which `text` can be done; a colour left out is chosen.

    Raises:
        SceneError: the text does not ask for a movable to be put on or in a receptacle.
    """
    pick, place = _parse(text)
    n_movables = int(rng.integers(2, MAX_MOVABLES + 1))
    movables = _asked(rng, MOVABLES, pick, n_movables)
    receptacles = _asked(rng, tuple(RECEPTACLES), place, MAX_RECEPTACLES)
    return _build(rng, embodiment, movables, receptacles, " ".join(text.split()), start)


def sample_start(
    rng: np.random.Generator, embodiment: Embodiment, kinematics: Kinematics
) -> NDArray[np.float64]:
    """Joint positions [n] that hold the tip, pointing nearly down, anywhere over the table."""
    table = embodiment.tabletop
    for _ in range(200):
        lower, upper = np.transpose([table.x, table.y, table.start_height])
        position = rng.uniform(lower, upper)
        position[2] += table.height
        tilt = rng.uniform((-0.05, -0.05, -0.25), (0.05, 0.05, 0.25))
        target = Pose(position, rpy_to_matrix(tilt) @ embodiment.down)
        found = kinematics.inverse(target, embodiment.ready, posture=embodiment.posture)
        if found.converged:
            return found.q
    raise SceneError(f"robot {embodiment.name} reaches nowhere above the table")


def arm_kinematics(embodiment: Embodiment) -> Kinematics:
    """The kinematics of the embodiment's arm, base to tip."""
    return Kinematics(urdf(embodiment.name), embodiment.joints, embodiment.tip_frame)


def _build(
    rng: np.random.Generator,
    embodiment: Embodiment,
    movables: list[tuple[str, str]],
    receptacles: list[tuple[str, str]],
    instruction: str | None,
    start: str,
) -> Scene:
    """A scene whose first movable goes to its first receptacle; `instruction` None: chosen."""
    if start not in ("anywhere", "ready"):
        raise SceneError(f"start must be 'anywhere' or 'ready', not {start!r}")
    pick, place = " ".join(movables[0]), " ".join(receptacles[0])
    relation = RECEPTACLES[receptacles[0][1]].relation
    if instruction is None:
        templates = TEMPLATES[relation]
        template = templates[int(rng.integers(len(templates)))]
        instruction = template.format(pick=pick, place=place)
    objects = _layout(rng, embodiment.tabletop, movables, receptacles)
    order = rng.permutation(len(objects))
    if start == "ready":
        first = np.array(embodiment.ready)
    else:
        first = sample_start(rng, embodiment, arm_kinematics(embodiment))
    return Scene(
        objects=tuple(objects[i] for i in order),
        task=Task(pick, place, relation, instruction),
        start=first,
        look=_look(rng),
    )


def _layout(
    rng: np.random.Generator,
    table: Tabletop,
    movables: list[tuple[str, str]],
    receptacles: list[tuple[str, str]],
) -> list[ObjectSpec]:
    """Places everything clear of everything else, with room for the fingers about each movable."""
    for _ in range(1000):
        placed: list[ObjectSpec] = []
        for colour, kind in receptacles:
            margin = RECEPTACLES[kind].radius
            spec = _try_to_place(rng, table, placed, colour, kind, "receptacle", margin, 0.030)
            if spec is not None:
                placed.append(spec)
        for colour, kind in movables:
            size = float(rng.uniform(SMALLEST, LARGEST))
            spec = _try_to_place(rng, table, placed, colour, kind, "movable", size, 0.0)
            if spec is not None:
                placed.append(spec)
        if len(placed) == len(movables) + len(receptacles):
            return placed
    raise SceneError("found no room on the table for the objects")


def _try_to_place(
    rng: np.random.Generator,
    table: Tabletop,
    placed: list[ObjectSpec],
    colour: str,
    kind: str,
    role: str,
    size: float,
    inset: float,
) -> ObjectSpec | None:
    for _ in range(30):
        x = float(rng.uniform(table.x[0] + inset, table.x[1] - inset))
        y = float(rng.uniform(table.y[0] + inset, table.y[1] - inset))
        if all(np.hypot(x - o.x, y - o.y) >= _clearance(table, role, size, o) for o in placed):
            yaw = float(rng.uniform(-0.25, 0.25))
            shade = rng.uniform(-0.06, 0.06, 3) + np.array(COLOURS[colour])
            red, green, blue = (float(v) for v in np.clip(shade, 0.0, 1.0))
            name = f"{colour} {kind}"
            return ObjectSpec(name, colour, kind, role, size, x, y, yaw, (red, green, blue))
    return None


def _clearance(table: Tabletop, role: str, size: float, other: ObjectSpec) -> float:
    """The least distance (m) between the centres of a new object and another one."""
    if role == "receptacle":
        return size + other.size + 0.010
    if other.role == "receptacle":
        return other.size + table.spacing - _RIM_SPACING
    return table.spacing


def _look(rng: np.random.Generator) -> Look:
    tables = ((0.86, 0.80, 0.70), (0.82, 0.83, 0.84), (0.90, 0.88, 0.84), (0.74, 0.66, 0.55))
    table = np.array(tables[int(rng.integers(len(tables)))]) + rng.uniform(-0.06, 0.04)
    table = table + rng.uniform(-0.015, 0.015, 3)
    floor = np.full(3, rng.uniform(0.55, 0.75)) + rng.uniform(-0.03, 0.03, 3)
    direction = np.array([rng.uniform(-0.5, 0.3), rng.uniform(-0.5, 0.5), -1.0])
    return Look(
        table=_triple(table),
        floor=_triple(floor),
        light=float(rng.uniform(0.85, 1.1)),
        direction=_triple(direction / np.linalg.norm(direction)),
    )


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def _distinct(
    rng: np.random.Generator, kinds: tuple[str, ...], count: int, taken: list[tuple[str, str]]
) -> list[tuple[str, str]]:
    """`count` pairs of colour and kind, all different, beginning with those taken."""
    pairs = list(taken)
    colours = tuple(COLOURS)
    while len(pairs) < count:
        pair = (colours[int(rng.integers(len(colours)))], kinds[int(rng.integers(len(kinds)))])
        if pair not in pairs:
            pairs.append(pair)
    return pairs


def _asked(
    rng: np.random.Generator, kinds: tuple[str, ...], asked: tuple[str | None, str], count: int
) -> list[tuple[str, str]]:
    """Pairs beginning with the one asked for; without a colour it is the only one of its kind."""
    colour, kind = asked
    if colour is not None:
        return _distinct(rng, kinds, count, [(colour, kind)])
    chosen = tuple(COLOURS)[int(rng.integers(len(COLOURS)))]
    others = _distinct(rng, tuple(k for k in kinds if k != kind), count - 1, [])
    return [(chosen, kind), *others]


def _parse(text: str) -> tuple[tuple[str | None, str], tuple[str | None, str]]:
    """The movable and the receptacle that a text speaks of, as (colour or None, kind)."""
    if not text.strip():
        raise SceneError(f"the instruction is empty; {vocabulary()}")
    if len(text) > _LONGEST_INSTRUCTION:
        raise SceneError(
            f"the instruction has {len(text)} characters, at most {_LONGEST_INSTRUCTION} are "
            f"understood; {vocabulary()}"
        )
    words = [_SYNONYMS.get(word, word) for word in re.findall(r"[a-z]+", text.lower())]
    found: list[tuple[str | None, str]] = []
    for before, word in zip(["", *words], words, strict=False):
        if word in MOVABLES or word in RECEPTACLES:
            found.append((before if before in COLOURS else None, word))
    picks = [pair for pair in found if pair[1] in MOVABLES]
    places = [pair for pair in found if pair[1] in RECEPTACLES]
    if len(picks) != 1 or len(places) != 1 or found[0] != picks[0]:
        raise SceneError(f"do not understand {text!r}; {vocabulary()}")
    relation = RECEPTACLES[places[0][1]].relation
    if not {relation, f"{relation}to"} & set(words):
        raise SceneError(
            f"do not understand {text!r}: things go {relation} a {places[0][1]}; {vocabulary()}"
        )
    return picks[0], places[0]


def _list(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
