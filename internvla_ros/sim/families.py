"""Families of tasks: each drafts a scene and says what is to be done in it.

A family gives the steps, which the expert does one after the other and a planner learns to say; the
relations that hold in the end; and the task in words.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from internvla_ros.sim.draft import Draft, NoRoomError, Pair, compact, stackable
from internvla_ros.sim.kinds import CONTAINERS, DRAWER, MOVABLES, TRAVEL
from internvla_ros.sim.relations import ASIDE, NEXT, Relation
from internvla_ros.sim.scene import SceneError
from internvla_ros.sim.state import State
from internvla_ros.sim.task_scene import Step, Thing
from internvla_ros.sim.wordings import in_a_row, listed, phrase, wording

_STEP = 0.02  # m: what stands as far apart as another family's goal would have it, and more


@dataclass(frozen=True)
class Plan:
    """What a family asks for in a scene that it has drafted."""

    steps: tuple[Step, ...]
    goals: tuple[Relation, ...]
    instruction: str


@dataclass(frozen=True)
class Words:
    """What phrases are made from: chance, and the scene as it is laid out."""

    rng: np.random.Generator
    things: list[Thing]
    state: State

    def __call__(self, name: str) -> str:
        """A phrase for a thing."""
        return phrase(self.rng, name, self.things, self.state)

    def step(self, pick: str, relation: str, *place: str, heading: float | None = None) -> Step:
        """A step in words of its own."""
        gaps = {"pick": self(pick), "place": self(place[0]), "other": self(place[-1])}
        return Step(pick, relation, place, wording(self.rng, relation, **gaps), heading)


@dataclass(frozen=True)
class Family:
    """A kind of task.

    Attributes:
        name: of the family.
        draft: puts things on a table and returns what makes the plan once all of them lie.
    """

    name: str
    draft: Callable[[Draft], Callable[[Words], Plan]]


def _single(step: Step) -> Plan:
    return Plan((step,), (step.goal,), step.instruction)


def _put(draft: Draft) -> Callable[[Words], Plan]:
    base = draft.add(draft.choose_container())
    pick = draft.add(draft.choose(), apart=0.02)
    if draft.split.distractors[1] < 4 and draft.rng.random() < 0.5:
        draft.add(draft.choose_container())
    draft.distract()
    relation = CONTAINERS[base.kind].relation
    return lambda words: _single(words.step(pick.name, relation, base.name))


def _stack(draft: Draft) -> Callable[[Words], Plan]:
    _low, high = draft.split.steps
    count = int(draft.rng.integers(min(2, high), min(3, high) + 1))
    things = [draft.add(draft.choose(stackable), apart=0.02) for _ in range(count)]
    draft.distract()

    def plan(words: Words) -> Plan:
        pairs = list(itertools.pairwise(things))
        steps = tuple(words.step(upper.name, "stacked", lower.name) for lower, upper in pairs)
        goal = Relation("stacked", tuple(thing.name for thing in things))
        if len(steps) == 1:
            return Plan(steps, (goal,), steps[0].instruction)
        names = listed([words(thing.name) for thing in things])
        return Plan(steps, (goal,), wording(words.rng, "tower", things=names))

    return plan


def _sort(draft: Draft) -> Callable[[Words], Plan]:
    first = draft.choose_container()
    kind = first[1]
    second = draft.choose_container(lambda other: other.name == kind)
    bases = [draft.add(first), draft.add(second)]
    low, high = draft.split.steps
    count = int(draft.rng.integers(max(low, 2), min(high, 4) + 1))
    pairs: list[tuple[Thing, Thing]] = []
    for number in range(count):
        base = bases[number % 2]
        thing = draft.add(draft.choose(compact, colour=base.colour), apart=0.015)
        pairs.append((thing, base))
    relation = CONTAINERS[kind].relation

    def plan(words: Words) -> Plan:
        steps = tuple(words.step(thing.name, relation, base.name) for thing, base in pairs)
        places = f"{bases[0].name} and the {bases[1].name}"
        said = wording(words.rng, "sort", places=places, relation=relation, kind=kind)
        return Plan(steps, tuple(step.goal for step in steps), said)

    return plan


def _line_up(draft: Draft) -> Callable[[Words], Plan]:
    table, rng = draft.table, draft.rng
    heading = float(rng.choice((-1, 1)) * np.pi / 2 + rng.uniform(-0.25, 0.25))
    way = np.array([np.cos(heading), np.sin(heading)])
    apart = max(table.spacing, 0.080)
    anchor = draft.add(draft.choose(compact), apart=0.02)
    ends = [np.array([anchor.x, anchor.y]) + i * apart * way for i in (1, 2)]
    lower, upper = np.transpose([table.x, table.y])
    if any((end < lower).any() or (end > upper).any() for end in ends):
        raise NoRoomError("the row would leave the table")
    for x, y in ends:
        draft.keep_free(float(x), float(y), 0.036)
    others = [draft.add(draft.choose(compact), apart=0.02, away=(anchor, 0.115)) for _ in range(2)]
    draft.distract(compact)

    def plan(words: Words) -> Plan:
        names = [thing.name for thing in (anchor, *others)]
        first = words.step(names[1], "aligned", names[0], heading=heading)
        last = words.step(names[2], "aligned", names[0], names[1])
        said = listed([words(name) for name in names])
        said = wording(words.rng, "line_up", things=said)
        return Plan((first, last), (Relation("aligned", tuple(names)),), said)

    return plan


def _next_to(draft: Draft) -> Callable[[Words], Plan]:
    if draft.rng.random() < 0.4:
        base = draft.add(draft.choose_container())
    else:
        base = draft.add(draft.choose(compact, picked=False), apart=0.02)
    relation = ("next_to", "next_to", "left_of", "right_of")[int(draft.rng.integers(4))]
    most = (NEXT if relation == "next_to" else ASIDE) + _STEP
    pick = draft.add(draft.choose(compact), apart=0.02, away=(base, most))
    draft.distract(compact)
    return lambda words: _single(words.step(pick.name, relation, base.name))


def _between(draft: Draft) -> Callable[[Words], Plan]:
    rng, table = draft.rng, draft.table
    heading = float(np.pi / 2 + rng.uniform(-0.5, 0.5))
    way = np.array([np.cos(heading), np.sin(heading)])
    half = float(rng.uniform(1.0, 1.15)) * max(table.spacing, 0.085)
    lower, upper = np.transpose([table.x, table.y])
    middle = rng.uniform(lower, upper)
    sides = []
    for sign in (-1, 1):
        x, y = middle + sign * half * way
        if not (lower[0] <= x <= upper[0] and lower[1] <= y <= upper[1]):
            raise NoRoomError("the gap would leave the table")
        pair = draft.choose(compact, picked=False)
        size = MOVABLES[pair[1]].sample(rng)
        sides.append(draft.put(pair, size, float(x), float(y), float(rng.uniform(-0.3, 0.3))))
    draft.keep_free(float(middle[0]), float(middle[1]), 0.036)
    pick = draft.add(draft.choose(compact), apart=0.02)
    draft.distract(compact)
    return lambda words: _single(words.step(pick.name, "between", *(s.name for s in sides)))


def _clear(draft: Draft) -> Callable[[Words], Plan]:
    base = draft.add(draft.choose_container(lambda kind: kind.name in ("bin", "tray")))
    low, high = draft.split.steps
    count = int(draft.rng.integers(max(2, low), min(high, 4) + 1))
    things = [draft.add(draft.choose(compact), apart=0.015) for _ in range(count)]
    relation = CONTAINERS[base.kind].relation

    def plan(words: Words) -> Plan:
        # What is nearest goes first, so that the arm passes over as little as may be.
        order = sorted(things, key=lambda t: float(np.hypot(t.x - base.x, t.y - base.y)))
        steps = tuple(words.step(thing.name, relation, base.name) for thing in order)
        into = {"on": "onto", "in": "into"}[relation]
        said = wording(words.rng, "clear", place=words(base.name), relation=relation, into=into)
        return Plan(steps, tuple(step.goal for step in steps), said)

    return plan


def _drawer(draft: Draft) -> Callable[[Words], Plan]:
    drawer, opens = add_drawer(draft)
    draft.distract(compact)
    relation = "open" if opens else "closed"
    handle = f"{drawer.name} handle"

    def plan(words: Words) -> Plan:
        said = wording(words.rng, relation, place=words(drawer.name))
        return _single(Step(handle, relation, (drawer.name,), said))

    return plan


def add_drawer(draft: Draft) -> tuple[Thing, bool]:
    """Puts a drawer to the table's side, its front to the camera; whether it shall be opened."""
    rng, table = draft.rng, draft.table
    size = DRAWER.sample(rng)
    leans = abs(table.tilt) > 0.1
    # An arm that leans comes from behind what it reaches for: the front faces it.
    facing = np.pi if leans else 0.0
    x = table.x[1] - 0.03 if leans else table.x[0] + 0.02
    x += float(rng.uniform(-0.012, 0.012))
    y = float(rng.uniform(table.y[0] + 0.06, table.y[1] - 0.06))
    opens = bool(rng.random() < 0.5)
    colours = DRAWER.colours
    pair: Pair = (colours[int(rng.integers(len(colours)))], DRAWER.name)
    out = 0.0 if opens else float(rng.uniform(0.9, 1.0)) * TRAVEL
    yaw = facing + float(rng.uniform(-0.12, 0.12))
    drawer = draft.put(pair, size, x, y, yaw, out)
    front = np.array([x, y]) + (size[0] / 2 + 0.055) * np.array([np.cos(yaw), np.sin(yaw)])
    draft.keep_free(float(front[0]), float(front[1]), 0.055)
    return drawer, opens


def _sequence(draft: Draft) -> Callable[[Words], Plan]:
    """Several things to several places, none of which is moved itself."""
    rng = draft.rng
    low, high = draft.split.steps
    count = int(rng.integers(low, high + 1))
    bases = [draft.add(draft.choose_container())]
    anchor = draft.add(draft.choose(stackable, picked=False), apart=0.03)
    todo: list[tuple[Thing, str, Thing]] = []
    for number in range(count):
        if number == 1:
            pick = draft.add(draft.choose(stackable), apart=0.015)
            todo.append((pick, "stacked", anchor))
            continue
        if number == 2 and count > 3:
            bases.append(draft.add(draft.choose_container()))
        base = bases[-1]
        pick = draft.add(draft.choose(compact), apart=0.015)
        todo.append((pick, CONTAINERS[base.kind].relation, base))
    order = rng.permutation(count)

    def plan(words: Words) -> Plan:
        tasks = [todo[i] for i in order]
        steps = tuple(words.step(pick.name, how, base.name) for pick, how, base in tasks)
        said = in_a_row([step.instruction for step in steps])
        return Plan(steps, tuple(step.goal for step in steps), said)

    return plan


FAMILIES = {
    family.name: family
    for family in (
        Family("put", _put),
        Family("stack", _stack),
        Family("sort", _sort),
        Family("line_up", _line_up),
        Family("next_to", _next_to),
        Family("between", _between),
        Family("clear", _clear),
        Family("drawer", _drawer),
        Family("sequence", _sequence),
    )
}


def load_families(names: Sequence[str]) -> list[Family]:
    """The families of these names; SceneError, which names all, where there is none."""
    for name in names:
        if name not in FAMILIES:
            raise SceneError(f"unknown family {name!r}; there are {', '.join(FAMILIES)}")
    return [FAMILIES[name] for name in names]
