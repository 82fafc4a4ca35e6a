"""Where to take a thing: antipodal grasps, chosen by reach and by the room that fingers need.

A grasp is a turn of a tip that reaches down and a place between the fingers. Candidates come from a
thing's shape, are ranked by the room about them seen from above, and the first that inverse
kinematics reaches and the clearance model finds free is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from internvla_ros.motion.collision import CollisionModel
from internvla_ros.motion.planning_scene import PlanningScene
from internvla_ros.motion.se3 import Pose, rpy_to_matrix
from internvla_ros.robots.embodiment import Embodiment
from internvla_ros.sim.kinds import Kind
from internvla_ros.sim.scene import arm_kinematics
from internvla_ros.sim.state import Body, State, disc_gap
from internvla_ros.sim.targets import free, spots
from internvla_ros.sim.task_scene import Step

Array = NDArray[np.float64]

DEPTH = 0.028  # m that a thing may reach up between the fingers above the tip
HOVER = 0.055  # m above the grasp from which the tip goes straight down
_FINGER, _THICK = 0.0125, 0.0065  # m: radius of a finger from above; half its thickness
_PINCH, _SPARE = 0.002, 0.010  # m that a thing is wider than closed, narrower than open fingers
_AMPLE = 0.020  # m of room beyond which more does not count
_TURN_COST = 0.004  # m of room that a turn of one rad is worth
_STEEP = 0.5  # how far (sine) an axis may point up for fingers to close along or across it
_TRIES = 10  # of the best candidates that kinematics are asked about
_YAWS = np.arange(-5, 7) * np.pi / 12


@dataclass(frozen=True, eq=False)
class Grasp:
    """How a thing is taken and where it goes.

    Attributes:
        yaw: rad, of the tip about the vertical while it takes the thing.
        at: [3] m, the tip, in the thing's own frame.
        place: [3] m, where the thing's bottom goes.
        place_yaw: rad, of the tip while it lets go.
        clear: whether reach and room were confirmed.
    """

    yaw: float
    at: Array
    place: Array
    place_yaw: float
    clear: bool


@dataclass(frozen=True, eq=False)
class _Candidate:
    yaw: float
    tip: Array
    place: Array
    room: float


class GraspPlanner:
    """Chooses grasps for one robot. Holds scratch memory: use one instance a thread."""

    def __init__(self, embodiment: Embodiment) -> None:
        self._embodiment = embodiment
        self._table = embodiment.tabletop
        self._kinematics = arm_kinematics(embodiment)
        self._collision = CollisionModel(embodiment)
        self._collision.set_opening(self._table.opening)
        gripper = embodiment.gripper
        closed, opened = gripper.width
        self._narrowest = closed + _PINCH
        width = closed + self._table.opening * (opened - closed)
        self._widest = width - _SPARE
        self._finger_at = width / 2 + _THICK

    def tip_rotation(self, yaw: float) -> Array:
        """[3, 3] of a tip that reaches down, turned about the vertical."""
        return np.asarray(rpy_to_matrix((0.0, 0.0, yaw)) @ self._embodiment.down)

    def turn_of(self, tip: Pose) -> float:
        """Rad that a tip is turned about the vertical against one that just reaches down."""
        turn = tip.rotation @ self._embodiment.down.T
        return float(np.arctan2(turn[1, 0] - turn[0, 1], turn[0, 0] + turn[1, 1]))

    def yaws(self, body: Body) -> list[tuple[float, float]]:
        """Turns of the tip (rad) in which the fingers can close on a body, and its width then."""
        found: list[tuple[float, float]] = []
        kind = body.kind
        assert isinstance(kind, Kind)
        if kind.grips == "round" and (body.upright or kind.ovoid):
            found = [(float(yaw), kind.share * body.size[0]) for yaw in _YAWS]
        elif body.axis is not None:
            along = body.rotation[:, body.axis]
            if abs(along[2]) < _STEEP:
                found = [(float(np.arctan2(along[1], along[0])), kind.share * body.size[1])]
        else:
            for axis in range(3):
                way = body.rotation[:, axis]
                if abs(way[2]) > _STEEP or (body.upright and "xyz"[axis] not in kind.grips):
                    continue
                share = kind.share if body.upright else 1.0
                found.append((float(np.arctan2(-way[0], way[1])), share * body.size[axis]))
        found = [(yaw - np.pi * round(yaw / np.pi), width) for yaw, width in found]
        found = [pair for pair in found if self._narrowest < pair[1] < self._widest]
        turned = [(yaw - np.pi * np.sign(yaw), w) for yaw, w in found if abs(yaw) > 1.2]
        return found + turned

    def height(self, body: Body) -> float:
        """m, of the tip when it takes a body."""
        bottom = max(body.bottom, self._table.height)
        return max(bottom + self._table.grasp, body.top - DEPTH)

    def choose(
        self, step: Step, state: State, avoid: frozenset[float] = frozenset(), now: float = 0.0
    ) -> Grasp | None:
        """The best grasp for a step as things are; None where none is within reach.

        Args:
            step: to do.
            state: of the scene.
            avoid: turns (rad) that have failed before, taken last.
            now: the tip's turn; the nearer to it, the better.
        """
        body = state[step.pick]
        candidates = sorted(
            self._candidates(step, state, now),
            key=lambda c: (any(_same_turn(c.yaw, yaw) for yaw in avoid), -c.room),
        )
        fallback: Grasp | None = None
        scene = self._scene(step, state)
        for candidate in candidates[:_TRIES]:
            for place_yaw in self._place_yaws(step, candidate.yaw):
                grasp, confirmed = self._confirm(candidate, place_yaw, body, scene)
                if confirmed:
                    return grasp
                fallback = fallback or grasp
        return fallback

    def _place_yaws(self, step: Step, yaw: float) -> tuple[float, ...]:
        if step.slides:
            return (yaw,)
        other = yaw - np.copysign(np.pi / 2, yaw)
        return (yaw,) if abs(yaw) < 0.3 else (yaw, 0.5 * yaw, 0.0, other)

    def _candidates(self, step: Step, state: State, now: float) -> Iterator[_Candidate]:
        body = state[step.pick]
        kind = body.kind
        assert isinstance(kind, Kind)
        tip = body.position + body.rotation @ (kind.off * body.size[0] / 2, 0.0, 0.0)
        tip = np.array([*tip[:2], self.height(body)])
        places = spots(step, state, self._table.spacing)
        for yaw, _ in self.yaws(body):
            pick_room = self._room(tip, yaw, state, (step.pick, *self._owners(step)))
            for rank, place in enumerate(places):
                room = min(pick_room, _AMPLE)
                if not step.slides:
                    room += min(self._place_room(step, state, tip, yaw, place), _AMPLE)
                turning = abs(yaw) + 0.5 * abs(yaw - now)
                yield _Candidate(yaw, tip, place, room - _TURN_COST * turning - 1e-4 * rank)

    def _owners(self, step: Step) -> tuple[str, ...]:
        """The drawer whose handle is taken: the fingers belong before its front."""
        return step.place if step.slides else ()

    def _place_room(self, step: Step, state: State, tip: Array, yaw: float, place: Array) -> float:
        """Room about the thing where it goes, and about the fingers that let it go."""
        body = state[step.pick]
        base = step.place if step.relation in ("on", "in", "stacked") else ()
        x, y = self._table.x, self._table.y
        inside = min(place[0] - x[0], x[1] - place[0], place[1] - y[0], y[1] - place[1]) + 0.03
        lowered = np.array([*(tip[:2] + place[:2] - body.position[:2]), tip[2] - body.bottom])
        lowered[2] += place[2]
        fingers = self._room(lowered, yaw, state, (step.pick, *base))
        around = free(place, body, state, base)
        return min(fingers, around - 0.002, inside if not base else np.inf)

    def _room(self, tip: Array, yaw: float, state: State, ignored: tuple[str, ...]) -> float:
        """Metres between the open fingers about a tip and what stands as high as they reach."""
        way = np.array([-np.sin(yaw), np.cos(yaw)]) * self._finger_at
        fingers = np.array([[*(tip[:2] + s * way), _FINGER] for s in (-1, 1)])
        low = tip[2] - self._embodiment.gripper.reach
        gaps = [
            disc_gap(fingers, body.discs)
            for body in state.bodies.values()
            if body.name not in ignored and body.top > low
        ]
        return min(gaps, default=np.inf)

    def _confirm(
        self, candidate: _Candidate, place_yaw: float, body: Body, scene: PlanningScene
    ) -> tuple[Grasp | None, bool]:
        """The grasp if it is within reach, and whether there is room for the whole arm."""
        lift = candidate.tip - body.position
        cos, sin = np.cos(place_yaw - candidate.yaw), np.sin(place_yaw - candidate.yaw)
        turned = np.array([cos * lift[0] - sin * lift[1], sin * lift[0] + cos * lift[1]])
        raise_by = candidate.tip[2] - body.bottom
        released = np.array([*(candidate.place[:2] + turned), candidate.place[2] + raise_by])
        free_at = candidate.room > 0
        for tip, yaw in ((candidate.tip, candidate.yaw), (released, place_yaw)):
            for above in (0.0, HOVER):
                q = self._reach(tip + np.array([0.0, 0.0, above]), yaw)
                if q is None:
                    return None, False
                free_at = free_at and (above > 0 or scene.room(q) > 0.0)
        at = body.rotation.T @ lift
        return Grasp(candidate.yaw, at, candidate.place, place_yaw, free_at), free_at

    def _reach(self, tip: Array, yaw: float) -> Array | None:
        lower, upper = self._embodiment.workspace
        if (tip < lower).any() or (tip > upper).any():
            return None
        found = self._kinematics.inverse(
            Pose(tip, self.tip_rotation(yaw)),
            self._embodiment.ready,
            posture=self._embodiment.posture,
        )
        return found.q if found.converged else None

    def _scene(self, step: Step, state: State) -> PlanningScene:
        """All that the arm must keep off: not the thing itself, nor what it goes on."""
        scene = PlanningScene(self._collision)
        for body in state.bodies.values():
            if body.name in (step.pick, *step.place):
                continue
            scene.add_box(f"thing {body.name}", Pose(body.position, body.rotation), body.size)
        return scene


def _same_turn(one: float, other: float) -> bool:
    """Whether two turns of the tip bring the fingers to the same places."""
    return abs(one - other - np.pi * round((one - other) / np.pi)) < 0.05
