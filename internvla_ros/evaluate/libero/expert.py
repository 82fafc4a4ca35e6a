"""A scripted expert for LIBERO's pick-and-place tasks: it is told where everything is.

It moves as a policy does, by inputs of LIBERO's pose controller, and is judged by LIBERO. It knows
two grasps from above: across an object that fits between the fingers, and of a rim. Frames are
LIBERO's world frame, lengths in m.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from internvla_ros.evaluate.libero.conventions import POSITION_UNIT, ROTATION_UNIT
from internvla_ros.motion.se3 import matrix_to_rotvec, rotvec_to_matrix

Array = NDArray[np.float64]

MAX_GRASP_WIDTH = 0.074  # of 0.08 between open fingers
RIM_INSET = 0.005  # half a wall: from the outline of a bowl to the middle of its rim
FINGER_DEPTH = 0.025  # how far below the top of an object the finger tips reach
FLOOR_GAP = 0.009  # below the tip, for the ends of the fingers
HOVER = 0.10  # above a grasp before it is approached
CLEARANCE = 0.04  # below what is carried, over where it goes
LIFT = 0.10  # above where it was, at least: out of a drawer too
RELEASE_GAP = 0.012  # above a surface at which an object is let go
INTO_CONTAINER = 0.06  # below a container's rim, likewise
PLACES = 16  # around a rim, where it may be grasped
REACHED = 0.008
TURNED = 0.06  # rad
CLOSE_STEPS = 10
OPEN_STEPS = 8
LOST = 0.05  # between tip and object, more than when it was grasped: it has slipped
PATIENCE = 60  # steps in which a motion must arrive
STALL_STEPS = 8
STALL = 0.003  # moved in as many steps: something is in the way
FINGER_REACH = 0.05  # from the tip to the outer side of an open finger
HAND_REACH = 0.105  # from its middle to the ends of the hand, along the fingers' motion
HAND_HEIGHT = 0.06  # of the hand's lower side over the tip
ROOM = 0.02  # around the fingers; more is no better
POSITION_GAIN = 1.0
ROTATION_GAIN = 0.6

# The grip site's axes in the world when the hand points down: its fingers close along world y.
DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])


class ExpertError(ValueError):
    """A task of another kind than to put one thing on or into another."""


@dataclass(frozen=True, eq=False)
class Grasp:
    """Where the tip is to be, relative to the object's position [3], and how the hand is turned.

    `yaw` is the angle from world y to the direction in which the fingers close, rad. `at_rim`: the
    fingers close on a wall of the object, not on the whole of it.
    """

    offset: Array
    yaw: float
    at_rim: bool = False


@dataclass(frozen=True)
class Goal:
    """What is to be put where: names of bodies, and "on" or "in"."""

    relation: str
    pick: str
    place: str


def goal_of(clauses: list[list[str]], names: list[str]) -> Goal:
    """The one goal of a task; its place is a body or one of a body's regions.

    Raises:
        ExpertError: several goals, or one of another kind.
    """
    if len(clauses) != 1 or len(clauses[0]) != 3 or clauses[0][0] not in ("on", "in"):
        raise ExpertError(
            f"the expert puts one thing on or into another; this task's goal is {clauses}: use the "
            "suites object and spatial"
        )
    relation, pick, place = clauses[0]
    bodies = [name for name in names if place == name or place.startswith(f"{name}_")]
    if pick not in names or not bodies:
        raise ExpertError(f"the expert does not know where {place} is")
    return Goal(relation, pick, max(bodies, key=len))


def outline(extent: Array, rotation: Array) -> Array:
    """Lowest and highest corner [2, 3], world axes, of a box `extent` [2, 3] that is turned."""
    corners = np.array(
        [[extent[i, 0], extent[j, 1], extent[k, 2]] for i, j, k in np.ndindex(2, 2, 2)]
    )
    turned = corners @ rotation.T
    return np.array([turned.min(axis=0), turned.max(axis=0)])


def grasps(extent: Array, rotation: Array) -> list[Grasp]:
    """Grasps from above of an object, the better ones first.

    Args:
        extent: its lowest and highest corner [2, 3] in its own frame.
        rotation: [3, 3], object to world.
    """
    low, high = outline(extent, rotation)
    middle = (low + high) / 2.0
    height = max(high[2] - FINGER_DEPTH, low[2] + FLOOR_GAP)
    found = []
    for yaw, width in _widths(extent, rotation):
        if width <= MAX_GRASP_WIDTH:
            found.append((width, Grasp(np.array([middle[0], middle[1], height]), yaw)))
    if found:
        return [grasp for _, grasp in sorted(found, key=lambda item: item[0])]
    return _rim_grasps(middle, high, height)


def _widths(extent: Array, rotation: Array) -> list[tuple[float, float]]:
    """(yaw, width) of the object's two upright sides."""
    sizes = extent[1] - extent[0]
    upright = int(np.argmax(np.abs(rotation[2])))
    found = []
    for axis in range(3):
        if axis != upright:
            direction = rotation[:2, axis]
            found.append((_folded(np.arctan2(-direction[0], direction[1])), float(sizes[axis])))
    return found


def _rim_grasps(middle: Array, high: Array, height: float) -> list[Grasp]:
    """Of a rim too wide to be grasped across, at PLACES around it."""
    radius = float(np.min(high[:2] - middle[:2])) - RIM_INSET
    found = []
    for angle in np.arange(PLACES) * 2.0 * np.pi / PLACES:
        direction = np.array([-np.sin(angle), np.cos(angle)])
        place = np.array([*(middle[:2] + radius * direction), height])
        found.append(Grasp(place, _folded(angle), at_rim=True))
    return found


def _folded(yaw: float) -> float:
    """The same line's angle in -pi/2..pi/2, to which the wrist turns the least."""
    return float((yaw + np.pi / 2.0) % np.pi - np.pi / 2.0)


class Expert:
    """Carries out one trial.

    Args:
        facts: of the trial, as LIBERO's process tells them at its start.

    Raises:
        ExpertError: the task is none for it.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._extents: dict[str, Array] = facts["extents"]
        self.goal = goal_of(facts["goal"], list(self._extents))
        others = [boxes for name, boxes in facts["parts"].items() if name != self.goal.pick]
        self._obstacles = {
            key: np.concatenate([boxes[key] for boxes in others])
            for key in ("centres", "axes", "sizes")
        }
        self._attempt = 0
        self._enter("hover")

    @property
    def phase(self) -> str:
        """What it is at: "hover", "descend", "close", "lift", "carry", "lower" or "open"."""
        return self._phase

    def act(self, state: Mapping[str, Any]) -> Array:
        """The action [7] for a moment: inputs of the pose controller and the gripper, 1 open."""
        if self._phase == "hover" and self._since == 0:
            self._grasp = self._choose(state)
            self._start = np.array(state["positions"][self.goal.pick])
        self._since += 1
        target, opening = self._target(state)
        wanted = rotvec_to_matrix(np.array([0.0, 0.0, self._grasp.yaw])) @ DOWN
        turn = matrix_to_rotvec(wanted @ state["rotation"].T)
        move = target - state["tip"]
        self._path.append(state["tip"])
        self._advance(state, float(np.linalg.norm(move)), float(np.linalg.norm(turn)))
        inputs = [POSITION_GAIN * move / POSITION_UNIT, ROTATION_GAIN * turn / ROTATION_UNIT]
        return np.array([*_limited(inputs[0]), *_limited(inputs[1]), opening])

    def _choose(self, state: Mapping[str, Any]) -> Grasp:
        """The next grasp to try: with room for the fingers, then with the least turn."""
        pick = self.goal.pick
        found = grasps(self._extents[pick], state["rotations"][pick])
        rooms = [self._room_of(grasp, state["positions"][pick]) for grasp in found]
        order = sorted(range(len(found)), key=lambda i: (-rooms[i], abs(found[i].yaw)))
        return found[order[self._attempt % len(found)]]

    def _room_of(self, grasp: Grasp, position: Array) -> float:
        """Room for the fingers, and at a rim, where the hand stands out to a side, for the hand."""
        tip = position + grasp.offset
        room = _room(tip - [0.0, 0.0, FLOOR_GAP], grasp.yaw, FINGER_REACH, self._obstacles)
        if not grasp.at_rim:
            return room
        hand = np.add(tip, [0.0, 0.0, HAND_HEIGHT])
        return min(room, _room(hand, grasp.yaw, HAND_REACH, self._obstacles))

    def _outline(self, name: str, state: Mapping[str, Any]) -> Array:
        return outline(self._extents[name], state["rotations"][name]) + state["positions"][name]

    def _target(self, state: Mapping[str, Any]) -> tuple[Array, float]:
        """Where the tip is to go now, and the gripper."""
        grasp = self._start + self._grasp.offset
        if self._phase == "hover":
            return np.add(grasp, [0.0, 0.0, HOVER]), 1.0
        if self._phase == "descend":
            return grasp, 1.0
        if self._phase == "close":
            return grasp, 0.0
        held = state["tip"] - state["positions"][self.goal.pick]
        if self._phase == "lift":
            return np.array([*grasp[:2], self._carry_height(state) + held[2]]), 0.0
        place = state["positions"][self.goal.place] + held
        if self._phase == "carry":
            return np.array([*place[:2], self._carry_height(state) + held[2]]), 0.0
        place[2] = self._release_height(state) + held[2]
        return place, 0.0 if self._phase == "lower" else 1.0

    def _bottom(self, state: Mapping[str, Any]) -> float:
        """Lowest point of the object below its position."""
        return -float(
            outline(self._extents[self.goal.pick], state["rotations"][self.goal.pick])[0, 2]
        )

    def _carry_height(self, state: Mapping[str, Any]) -> float:
        """Height of the object's position at which it clears the place and its own start."""
        top = float(self._outline(self.goal.place, state)[1, 2])
        return max(top + self._bottom(state) + CLEARANCE, float(self._start[2]) + LIFT)

    def _release_height(self, state: Mapping[str, Any]) -> float:
        top = float(self._outline(self.goal.place, state)[1, 2])
        gap = RELEASE_GAP if self.goal.relation == "on" else -INTO_CONTAINER
        return top + gap + self._bottom(state)

    def _advance(self, state: Mapping[str, Any], far: float, turned: float) -> None:
        """Go on to the next phase when this one is done; start again when the object is lost."""
        if self._phase == "close":
            if self._since >= CLOSE_STEPS:
                self._held = state["tip"] - state["positions"][self.goal.pick]
                self._enter("lift")
            return
        if self._phase == "open":
            if self._since >= OPEN_STEPS:
                self._again()
            return
        if self._phase in ("lift", "carry", "lower"):
            held = state["tip"] - state["positions"][self.goal.pick]
            if np.linalg.norm(held - self._held) > LOST:
                self._again()
                return
        arrived = far < REACHED and turned < TURNED
        if arrived or self._since >= PATIENCE or self._stalled():
            self._enter(_NEXT[self._phase])

    def _stalled(self) -> bool:
        recent = self._path[-STALL_STEPS:]
        moved = np.linalg.norm(recent[-1] - recent[0])
        return len(self._path) > 2 * STALL_STEPS and bool(moved < STALL)

    def _again(self) -> None:
        self._attempt += 1
        self._enter("hover")

    def _enter(self, phase: str) -> None:
        self._phase, self._since = phase, 0
        self._path: list[Array] = []


_NEXT = {"hover": "descend", "descend": "close", "lift": "carry", "carry": "lower", "lower": "open"}


def _room(middle: Array, yaw: float, reach: float, obstacles: Mapping[str, Array]) -> float:
    """Distance from a line and its ends to k boxes, 0..ROOM, m.

    Args:
        middle: [3], of the line.
        yaw: its direction, as in Grasp.
        reach: from its middle to its ends.
        obstacles: "centres" [k, 3], "axes" [k, 3, 3] (columns) and half "sizes" [k, 3].
    """
    along = np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    least = ROOM
    for side in (-reach, 0.0, reach):
        local = np.einsum(
            "ki,kij->kj", middle + side * along - obstacles["centres"], obstacles["axes"]
        )
        gaps = np.linalg.norm(np.maximum(np.abs(local) - obstacles["sizes"], 0.0), axis=1)
        least = min([least, *gaps])
    return float(least)


def _limited(inputs: Array) -> Array:
    """Inputs [3] of the controller scaled to within -1..1, in their direction."""
    return inputs / max(1.0, float(np.abs(inputs).max()))
