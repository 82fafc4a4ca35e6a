"""Scenes of any task: which objects stand where, what is asked for, and the steps to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from internvla_ros.robots.embodiment import Embodiment
from internvla_ros.sim.kinds import DRAWER, HANDLE_OUT
from internvla_ros.sim.looks import Look
from internvla_ros.sim.parts import Triple
from internvla_ros.sim.relations import Relation
from internvla_ros.sim.scene import SceneError, Task
from internvla_ros.sim.state import Body, State, standing


@dataclass(frozen=True)
class Thing:
    """An object of a scene.

    Attributes:
        name: colour and kind, unique in its scene.
        colour, kind: of it.
        size: extents (m) along its own axes.
        x, y: of its middle on the table (m, base frame); `yaw` (rad) turns it.
        out: metres that a drawer is open.
    """

    name: str
    colour: str
    kind: str
    size: Triple
    x: float
    y: float
    yaw: float
    out: float = 0.0

    def body(self, table: float) -> Body:
        """The body that it is where it has been put, on a table of that height."""
        return standing(self.name, self.kind, self.size, self.x, self.y, self.yaw, table)


def handle_name(drawer: str) -> str:
    """What the handle of a drawer is called."""
    return f"{drawer} handle"


@dataclass(frozen=True)
class Step:
    """One thing to do: a sub-goal with words of its own.

    Attributes:
        pick: the object to take.
        relation: that shall hold of it and of `place`.
        place: the objects that say where it goes.
        instruction: the step in words.
        heading: rad over the table, in which direction from `place` it goes; None: any.
    """

    pick: str
    relation: str
    place: tuple[str, ...]
    instruction: str
    heading: float | None = None

    @property
    def slides(self) -> bool:
        """Whether the step moves a drawer."""
        return self.relation in ("open", "closed")

    @property
    def goal(self) -> Relation:
        """What is true when the step is done."""
        if self.slides:
            return Relation(self.relation, self.place)
        if self.relation == "stacked":
            return Relation(self.relation, (*self.place, self.pick))
        return Relation(self.relation, (self.pick, *self.place))


@dataclass(frozen=True)
class TaskScene:
    """Everything that `TaskWorld.reset` needs.

    Attributes:
        family: whose task it is.
        things: all objects.
        steps: to do, in order.
        goals: relations that hold when the task is done.
        instruction: the whole task in words.
        start: [n] the arm's first position (rad).
        look: of everything.
    """

    family: str
    things: tuple[Thing, ...]
    steps: tuple[Step, ...]
    goals: tuple[Relation, ...]
    instruction: str
    start: NDArray[np.float64]
    look: Look

    @property
    def task(self) -> Task:
        """The whole instruction, with what is taken first and where it goes."""
        return self.task_of(0)

    def task_of(self, index: int) -> Task:
        """As `task`, of the step at `index`."""
        step = self.steps[index]
        return Task(step.pick, step.place[0], step.relation, self.instruction)

    def thing(self, name: str) -> Thing:
        """The thing called `name`; SceneError where there is none."""
        for thing in self.things:
            if thing.name == name:
                return thing
        raise SceneError(
            f"the scene has no {name!r}; it has {', '.join(thing.name for thing in self.things)}"
        )

    def first_state(self, embodiment: Embodiment, right: NDArray[np.float64]) -> State:
        """Where everything is before anything has moved."""
        return first_state(self.things, embodiment.tabletop.height, right)


def first_state(things: tuple[Thing, ...], table: float, right: NDArray[np.float64]) -> State:
    """The state of things as they are laid out."""
    bodies = {thing.name: thing.body(table) for thing in things}
    drawers = {thing.name: thing.out for thing in things if thing.kind == DRAWER.name}
    for thing in things:
        if thing.kind == DRAWER.name:
            handle = handle_body(bodies[thing.name], thing.out)
            bodies[handle.name] = handle
    return State(bodies, table, right, drawers)


def handle_body(drawer: Body, out: float) -> Body:
    """The handle of a drawer that is `out` metres open."""
    size = HANDLE_OUT
    reach = drawer.size[0] / 2 + size[0] / 2 + out
    at = drawer.position + drawer.rotation @ np.array([reach, 0.0, 0.0])
    name = handle_name(drawer.name)
    yaw = float(np.arctan2(drawer.rotation[1, 0], drawer.rotation[0, 0]))
    return standing(name, "handle", size, at[0], at[1], yaw, float(at[2]) - size[2] / 2)
