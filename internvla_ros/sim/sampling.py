"""Scenes drawn from a family and a split, each confirmed to be one that the arm can do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from internvla_ros.robots.embodiment import Embodiment
from internvla_ros.sim.draft import Draft, NoRoomError
from internvla_ros.sim.families import Plan, Words, load_families
from internvla_ros.sim.grasps import GraspPlanner
from internvla_ros.sim.looks import sample_look
from internvla_ros.sim.scene import SceneError, arm_kinematics, sample_start
from internvla_ros.sim.splits import Split
from internvla_ros.sim.state import State
from internvla_ros.sim.task_scene import TaskScene, first_state
from internvla_ros.sim.task_world import TaskWorld

_DRAFTS = 400


class Sampler:
    """Draws scenes for one robot. Use one instance a thread."""

    def __init__(self, embodiment: Embodiment) -> None:
        self._embodiment = embodiment
        self._kinematics = arm_kinematics(embodiment)
        self._grasps = GraspPlanner(embodiment)
        self._right = TaskWorld(embodiment).right()

    def sample(
        self,
        rng: np.random.Generator,
        split: Split,
        families: Sequence[str] = (),
        level: str = "low",
        checked: bool = True,
    ) -> TaskScene:
        """A scene of one of the families (none given: the split's own), each equally likely.

        Args:
            rng: the only source of chance.
            split: what scenes may hold.
            families: names of families.
            level: of randomisation; "off" starts the arm from its ready pose.
            checked: whether the arm must be able to do it, which takes a while to find out.

        Raises:
            SceneError: unknown names, or no scene that can be done was found.
        """
        choices = load_families(families or split.families)
        family = choices[int(rng.integers(len(choices)))]
        for _ in range(_DRAFTS):
            draft = Draft(rng, self._embodiment, split)
            try:
                make = family.draft(draft)
            except NoRoomError:
                continue
            state = first_state(tuple(draft.things), self._embodiment.tabletop.height, self._right)
            plan = make(Words(rng, draft.things, state))
            if not checked or self._can_be_done(plan, state):
                return self._scene(rng, family.name, draft, plan, level)
        raise SceneError(f"found no {family.name} scene of {split.name} that {self._name} can do")

    @property
    def _name(self) -> str:
        return self._embodiment.name

    def _can_be_done(self, plan: Plan, state: State) -> bool:
        """Whether every step has a grasp, if those before it went well, and is not yet done."""
        for step in plan.steps:
            if step.goal.holds(state):
                return False
            grasp = self._grasps.choose(step, state)
            if grasp is None or not grasp.clear:
                return False
            if not step.slides:
                state = state.moved(step.pick, grasp.place)
        return True

    def _scene(
        self, rng: np.random.Generator, family: str, draft: Draft, plan: Plan, level: str
    ) -> TaskScene:
        order = rng.permutation(len(draft.things))
        things = tuple(draft.things[i] for i in order)
        look = sample_look(
            rng, self._embodiment, ((thing.name, thing.colour) for thing in things), level
        )
        start = np.array(self._embodiment.ready)
        if level != "off":
            start = sample_start(rng, self._embodiment, self._kinematics)
        return TaskScene(family, things, plan.steps, plan.goals, plan.instruction, start, look)
