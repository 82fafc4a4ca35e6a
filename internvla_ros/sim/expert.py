"""A scripted policy that knows the state of the world: the teacher of the learned one.

It decides anew at every step from what it sees, so that it recovers from being pushed, from an
object that rolled away and from a failed grasp.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from internvla_ros.motion.se3 import Pose, interpolate, matrix_to_rotvec
from internvla_ros.robots.embodiment import Embodiment
from internvla_ros.sim.scene import RECEPTACLES
from internvla_ros.sim.world import World

PHASES = ("approach", "descend", "close", "lift", "carry", "lower", "open", "retreat")

SPEED, TURN = 0.27, 1.25  # m/s and rad/s
SHARE = 0.6  # of the tip's own speed limits that is used where they are lower
_HOVER, _CARRY, _RETREAT = 0.0695, 0.0895, 0.1045  # heights of the fingers' ends, m
_CLEARED = 0.0595  # from this height of the fingers' ends on the object may travel sideways
_NEAR, _CLOSE = 0.012, 0.007  # m: near enough to go down; to close or open the gripper
_GONE = 0.030  # m from the tip at which an object that is not felt any more has been dropped
_LOST = 4  # steps of closing after which a grasp counts as failed


class Expert:
    """Picks the object of the scene's task and places it, tip down, at the policy's rate."""

    def __init__(self, embodiment: Embodiment) -> None:
        self._period = 1.0 / embodiment.policy_rate
        self._table = embodiment.tabletop
        self._down = embodiment.down
        self._reach = embodiment.gripper.reach
        self._speed = min(SPEED, SHARE * embodiment.tip_limits.speed)
        self._turn = min(TURN, SHARE * embodiment.tip_limits.turn)
        self._phase = "approach"
        self._waited = 0
        self._opening = 1.0

    def reset(self, world: World) -> None:
        """Starts over for the scene that the world holds."""
        self._phase = "approach"
        self._waited = 0
        self._opening = world.gripper_opening

    def act(self, world: World, commanded: Pose) -> tuple[Pose, float, str, bool]:
        """One decision.

        Args:
            world: whose true state is looked at.
            commanded: the tip pose commanded last.

        Returns:
            The pose to command next (one policy period on), the gripper's target (0 or as far open
            as the table-top says), the name of the phase, and whether the task is done and the arm
            out of the way.
        """
        phase = self._next_phase(world, commanded)
        self._waited = self._waited + 1 if phase == self._phase else 0
        self._phase = phase
        self._opening = world.gripper_opening
        goal = Pose(self._goal(world, commanded.position), self._down)
        closed = phase in ("close", "lift", "carry", "lower")
        gripper = 0.0 if closed else self._table.opening
        away = self._height(commanded.position) > _HOVER + self._reach
        done = phase == "retreat" and world.success() and away
        return self._towards(commanded, goal), gripper, phase, done

    def _next_phase(self, world: World, commanded: Pose) -> str:
        task = world.scene.task
        tip = world.tip_pose().position
        held = world.holding() == task.pick
        if self._phase in ("lift", "carry", "lower"):
            gone = np.linalg.norm(world.object_position(task.pick) - tip) > _GONE
            return "approach" if gone and not held else self._with_object(world, tip)
        if self._phase == "close":
            if held and abs(world.gripper_opening - self._opening) < 0.03:
                return "lift"
            return "close" if self._waited < _LOST else "approach"
        if self._phase == "open":
            return "open" if held or self._waited < 1 else "retreat"
        if self._phase == "retreat" and world.placed(task.pick, task.place):
            return "retreat"
        offset = np.hypot(*(world.object_position(task.pick) - tip)[:2])
        if offset > (_NEAR if self._phase == "approach" else 2 * _NEAR):
            return "approach"
        if offset < _CLOSE and abs(self._height(tip) - self._table.grasp) < _CLOSE:
            return "close"
        return "descend"

    def _with_object(self, world: World, tip: NDArray[np.float64]) -> str:
        """The phase while the object is between the fingers."""
        goal = world.object_position(world.scene.task.place)
        offset = np.hypot(*(goal - world.object_position(world.scene.task.pick))[:2])
        if offset > (_NEAR if self._phase != "lower" else 2 * _NEAR):
            return "carry" if self._height(tip) > _CLEARED + self._reach else "lift"
        if self._phase == "lower" and self._height(tip) < self._release(world) + _CLOSE:
            return "open"
        return "lower"

    def _goal(self, world: World, commanded: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where the tip should go in this phase."""
        task = world.scene.task
        pick, place = world.object_position(task.pick), world.object_position(task.place)
        if self._phase in ("carry", "lower"):
            # The object need not be in the middle of the fingers: bring it, not the tip, there.
            place = place + world.tip_pose().position - pick
        here, reach, grasp = self._height(commanded), self._reach, self._table.grasp
        x, y, height = {
            "approach": (pick[0], pick[1], _HOVER + reach),
            "descend": (pick[0], pick[1], grasp),
            "close": (commanded[0], commanded[1], grasp),
            "lift": (commanded[0], commanded[1], _CARRY + reach),
            "carry": (place[0], place[1], _CARRY + reach),
            "lower": (place[0], place[1], self._release(world)),
            "open": (commanded[0], commanded[1], here),
            "retreat": (commanded[0], commanded[1], _RETREAT + reach),
        }[self._phase]
        if self._phase == "approach" and np.hypot(x - commanded[0], y - commanded[1]) > 0.04:
            low = here < _CLEARED + reach
            x, y = (commanded[0], commanded[1]) if low else (x, y)  # first up, then sideways
        return np.array([x, y, height + self._table.height])

    def _height(self, tip: NDArray[np.float64]) -> float:
        """Of the tip above the table."""
        return float(tip[2]) - self._table.height

    def _release(self, world: World) -> float:
        """The tip's height above the table at which the object is let go, clear of the rim."""
        shape = RECEPTACLES[world.scene.object(world.scene.task.place).kind]
        return max(shape.rim + self._reach + 0.004, shape.floor + self._table.grasp + 0.008)

    def _towards(self, here: Pose, goal: Pose) -> Pose:
        """As far from here to the goal as one period allows; shift and turn go side by side."""
        shift = goal.position - here.position
        distance = float(np.linalg.norm(shift))
        angle = float(np.linalg.norm(matrix_to_rotvec(here.rotation.T @ goal.rotation)))
        step = min(1.0, self._speed * self._period / distance) if distance > 0 else 1.0
        turn = min(1.0, self._turn * self._period / angle) if angle > 0 else 1.0
        rotation = interpolate(here, goal, turn).rotation
        return Pose(here.position + step * shift, rotation)
