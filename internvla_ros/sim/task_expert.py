"""A scripted policy for every family of tasks: one step after the other, as things really are.

It decides anew at every moment from the true state, so that it recovers from being pushed, from a
thing that rolled away, from a grasp that failed and from a step that came undone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from internvla_ros.motion.se3 import Pose, interpolate, matrix_to_rotvec
from internvla_ros.robots.embodiment import Embodiment
from internvla_ros.sim.expert import SHARE, SPEED, TURN
from internvla_ros.sim.grasps import HOVER, Grasp, GraspPlanner
from internvla_ros.sim.relations import CLOSED, OPEN
from internvla_ros.sim.state import Body, State
from internvla_ros.sim.task_scene import Step
from internvla_ros.sim.task_world import TaskWorld

Array = NDArray[np.float64]

_SLOW = 0.12  # m/s of a drawer
_OVER = 0.018  # m that what moves sideways stays above what it passes over
_WAY = 0.050  # m beside the path that count as being passed over
_RETREAT = 0.060  # m up from where a thing was let go
_NEAR, _CLOSE, _AIMED = 0.012, 0.007, 0.10  # m, m, rad: near enough to go down; to close or open
_EXACT = 0.006  # m: near enough to let go what must stand where it is put
_STIRRED = 0.020  # m that a thing has moved from where its grasp was chosen
_GONE = 0.030  # m from the tip at which a thing that is not felt any more has been dropped
_LOST = 5  # decisions of closing after which a grasp counts as failed
_STUCK = 12  # decisions of going down, or of pulling, after which another grasp is tried
_PONDER = 5  # decisions between two looks for a grasp where there was none
_ASTRAY = 15  # decisions of getting above a thing after which the arm is unwound
_UNWIND = 8  # decisions that it goes back over the middle of the table for
_STRANDED = 15  # decisions without a grasp after which there will be none
_LOSSES = 7  # grasps that may fail in one step
_SURE = 0.006  # m that a drawer is moved beyond where it counts as open or closed
_DROP = 0.005  # m above where it will stand at which a thing is let go


class TaskExpert:
    """Does the steps of the scene's task, tip down, at the policy's rate."""

    def __init__(self, embodiment: Embodiment) -> None:
        self._period = 1.0 / embodiment.policy_rate
        self._table = embodiment.tabletop
        self._reach = embodiment.gripper.reach
        self._speed = min(SPEED, SHARE * embodiment.tip_limits.speed)
        self._turn = min(TURN, SHARE * embodiment.tip_limits.turn)
        self._planner = GraspPlanner(embodiment)
        self._begin(0)

    def _begin(self, step: int) -> None:
        self._step = step
        self._phase, self._waited = "approach", 0
        self._grasp: Grasp | None = None
        self._from: Body | None = None
        self._failed: frozenset[float] = frozenset()
        self._anchor = np.zeros(3)
        self._losses = 0
        self._unwinding = 0
        self._up = 0.0

    def reset(self, world: TaskWorld) -> None:
        """Starts over for the scene that the world holds."""
        self._begin(world.current)
        self._opening = world.gripper_opening

    @property
    def step(self) -> int:
        """The index of the step that it is at."""
        return self._step

    @property
    def phase(self) -> str:
        """What it decided last to be at."""
        return self._phase

    @property
    def trouble(self) -> str:
        """Why it is not worth waiting for it any longer, if it is not."""
        if self._grasp is None and self._waited > _STRANDED:
            return "what is to be taken is out of reach"
        return "no grasp holds" if self._losses > _LOSSES else ""

    def points(self, world: TaskWorld) -> tuple[Array, Array]:
        """[3] where the current step's thing is taken, and [3] where it goes."""
        step, state = world.scene.steps[self._step], world.state()
        if self._grasp is None:
            take, goes = world.task_points()
            return take, goes
        return self._taken_at(state[step.pick]), self._place(state, step)

    def act(self, world: TaskWorld, commanded: Pose) -> tuple[Pose, float, str, bool]:
        """One decision.

        Args:
            world: whose true state is looked at.
            commanded: the tip pose commanded last.

        Returns:
            The pose to command next (one policy period on), the gripper's target (0 or as far open
            as the table-top says), the name of the phase, and whether the task is done and the arm
            out of the way.
        """
        state = world.state()
        self._unwinding = max(0, self._unwinding - 1)
        phase = self._next_phase(world, state)
        self._waited = self._waited + 1 if phase == self._phase else 0
        self._phase = phase
        self._opening = world.gripper_opening
        goal = self._goal(world, state, commanded)
        closed = phase in ("close", "lift", "carry", "lower")
        gripper = 0.0 if closed else self._table.opening
        done = phase == "retreat" and world.success() and self._is_away(commanded)
        return self._towards(commanded, goal), gripper, phase, done

    def _is_away(self, commanded: Pose) -> bool:
        return float(commanded.position[2]) > self._up - 0.005

    def _next_phase(self, world: TaskWorld, state: State) -> str:
        step = world.scene.steps[self._step]
        tip = world.tip_pose()
        body = state[step.pick]
        held = world.holding() == step.pick
        if self._phase in ("lift", "carry", "lower"):
            if not held and np.linalg.norm(self._taken_at(body) - tip.position) > _GONE:
                return self._plan(state, step, tip)
            return self._with_thing(world, state, step, tip)
        if self._phase == "close":
            if held and abs(world.gripper_opening - self._opening) < 0.03:
                return "carry" if step.slides else "lift"
            return "close" if self._waited < _LOST else self._again(state, step, tip)
        if self._phase == "open":
            still = step.pick in world.touched() and self._waited < _LOST
            if still or self._waited < 1:
                return "open"
            self._up = float(tip.position[2]) + _RETREAT
            return "retreat"
        if self._phase == "retreat":
            return self._after(world, state, tip)
        return self._towards_grasp(state, step, tip)

    def _after(self, world: TaskWorld, state: State, tip: Pose) -> str:
        """Away from what was put down, then on to the first step that is not done."""
        if float(tip.position[2]) < self._up - 0.015 and self._waited < _STUCK:
            return "retreat"
        undone = [i for i, s in enumerate(world.scene.steps) if not s.goal.holds(state)]
        if not undone:
            return "retreat"
        self._begin(undone[0])
        return self._plan(state, world.scene.steps[self._step], tip)

    def _again(self, state: State, step: Step, tip: Pose) -> str:
        """Another grasp, rather not the one that failed."""
        self._losses += 1
        if self._grasp is not None:
            self._failed |= {self._grasp.yaw}
        return self._plan(state, step, tip)

    def _plan(self, state: State, step: Step, tip: Pose) -> str:
        self._from = state[step.pick]
        self._anchor = state[step.place[0]].position
        self._grasp = self._planner.choose(step, state, self._failed, self._planner.turn_of(tip))
        if self._grasp is not None:
            self._waited = -1
        return "approach"

    def _towards_grasp(self, state: State, step: Step, tip: Pose) -> str:
        body = state[step.pick]
        if self._grasp is None and self._waited % _PONDER:
            return "approach"
        if self._grasp is None or self._from is None or _has_moved(self._from, body):
            self._plan(state, step, tip)
        if self._grasp is None:
            return "approach"
        target = self._taken_at(body)
        offset = np.hypot(*(target - tip.position)[:2])
        low = float(tip.position[2]) < target[2] + HOVER + 0.02
        aimed = self._aimed(tip, self._yaw(body))
        if self._phase == "descend":
            if self._waited > _STUCK:
                return self._again(state, step, tip)
            if offset < _CLOSE and abs(tip.position[2] - target[2]) < _CLOSE and aimed:
                return "close"
            return "descend" if offset < 2 * _NEAR else "approach"
        if self._waited > _ASTRAY:
            self._unwinding = _UNWIND
            return self._again(state, step, tip)
        near = offset < _NEAR and low and aimed and not self._unwinding
        return "descend" if near else "approach"

    def _aimed(self, tip: Pose, yaw: float) -> bool:
        wanted = self._planner.tip_rotation(yaw)
        return float(np.linalg.norm(matrix_to_rotvec(tip.rotation.T @ wanted))) < _AIMED

    def _with_thing(self, world: TaskWorld, state: State, step: Step, tip: Pose) -> str:
        """The phase while the thing is between the fingers."""
        if step.slides:
            out = state.drawers[step.place[0]]
            far = out > OPEN + _SURE if step.relation == "open" else out < CLOSED - _SURE
            if self._waited > 2 * _STUCK:
                return self._again(state, step, tip)
            return "open" if far else "carry"
        assert self._grasp is not None
        body, place = state[step.pick], self._place(state, step)
        offset = np.hypot(*(place - body.position)[:2])
        if offset > (_NEAR if self._phase != "lower" else 2 * _NEAR):
            high = float(tip.position[2]) > self._carry(state, step, body, tip, place) - 0.010
            return "carry" if high else "lift"
        turned = self._aimed(tip, self._grasp.place_yaw) or self._waited > _STUCK // 2
        if not turned and self._phase != "lower":
            return "carry"
        release = self._release(state, step, body, tip, place)
        reached = abs(float(tip.position[2]) - release) < 0.004 and offset < _EXACT
        if self._phase == "lower" and (reached or self._waited > _STUCK):
            return "open"
        return "lower"

    def _goal(self, world: TaskWorld, state: State, commanded: Pose) -> Pose:
        """Where the tip should go in this phase."""
        step = world.scene.steps[self._step]
        if self._grasp is None:
            return Pose(commanded.position, self._planner.tip_rotation(0.0))
        body, tip = state[step.pick], world.tip_pose()
        here = commanded.position
        if self._phase in ("carry", "lower", "lift"):
            return self._goal_with_thing(state, step, body, tip, here)
        rotation = self._planner.tip_rotation(self._yaw(body))
        target = self._taken_at(body)
        if self._phase == "approach" and self._unwinding:
            return Pose(self._middle(), self._planner.tip_rotation(0.0))
        if self._phase == "approach":
            return Pose(self._above(state, step, target, here), rotation)
        if self._phase == "descend":
            return Pose(target, rotation)
        if self._phase == "close":
            return Pose(np.array([here[0], here[1], target[2]]), commanded.rotation)
        if self._phase == "open":
            return Pose(here, commanded.rotation)
        return Pose(np.array([here[0], here[1], max(here[2], self._up)]), commanded.rotation)

    def _middle(self) -> Array:
        """[3] high over the middle of the table, where joints are far from their ends."""
        table = self._table
        x, y, high = (0.5 * sum(span) for span in (table.x, table.y, table.start_height))
        return np.array([x, y, table.height + high])

    def _above(self, state: State, step: Step, target: Array, here: Array) -> Array:
        """On the way to above a place: first up, then sideways over what is there."""
        hover = target[2] + HOVER
        if np.hypot(*(target - here)[:2]) < 0.035:
            return np.array([target[0], target[1], hover])
        high = max(hover, self._over(state, (), here, target) + self._reach + _OVER)
        if here[2] < high - 0.012:
            return np.array([here[0], here[1], high])
        return np.array([target[0], target[1], high])

    def _goal_with_thing(
        self, state: State, step: Step, body: Body, tip: Pose, here: Array
    ) -> Pose:
        assert self._grasp is not None
        place = self._place(state, step)
        # The thing need not be in the middle of the fingers: bring it, not the tip, there.
        shift = tip.position - body.position
        if step.slides:
            way = place - body.position
            way = way * min(1.0, _SLOW * self._period / max(1e-9, float(np.linalg.norm(way))))
            return Pose(here + np.array([way[0], way[1], 0.0]), self._tip_of(tip))
        turned = self._planner.tip_rotation(self._grasp.place_yaw)
        x, y = place[:2] + shift[:2]
        if self._phase == "lower":
            return Pose(np.array([x, y, self._release(state, step, body, tip, place)]), turned)
        high = self._carry(state, step, body, tip, place)
        if self._phase == "lift":
            return Pose(np.array([here[0], here[1], high]), self._tip_of(tip))
        return Pose(np.array([x, y, high]), turned)

    def _tip_of(self, tip: Pose) -> Array:
        """The rotation that the tip has been asked to have at the grasp."""
        assert self._grasp is not None
        return self._planner.tip_rotation(self._grasp.yaw)

    def _carry(self, state: State, step: Step, body: Body, tip: Pose, place: Array) -> float:
        """The tip's height at which the thing passes over everything on its way."""
        over = self._over(state, (step.pick,), body.position, place, 0.5 * max(body.size[:2]))
        own = float(tip.position[2]) - body.bottom
        fingers = over + self._reach + _OVER
        return max(over + own + _OVER, fingers, place[2] + own + 0.03)

    def _release(self, state: State, step: Step, body: Body, tip: Pose, place: Array) -> float:
        """The tip's height at which the thing is let go, the fingers clear of any rim."""
        own = float(tip.position[2]) - body.bottom
        height = place[2] + own + _DROP
        base = state[step.place[0]]
        if base.is_container and step.relation in ("on", "in"):
            height = max(height, base.top + self._reach + 0.004)
        return height

    def _over(
        self, state: State, ignored: tuple[str, ...], start: Array, end: Array, wide: float = 0.0
    ) -> float:
        """Height of the highest thing that a straight way over the table comes near."""
        first, way = start[:2], (end - start)[:2]
        length = max(1e-9, float(way @ way))
        highest = self._table.height + 0.03
        for body in state.bodies.values():
            if body.name in ignored:
                continue
            middles = body.discs[:, :2]
            share = np.clip((middles - first) @ way / length, 0.0, 1.0)
            away = np.linalg.norm(middles - first - share[:, None] * way, axis=1)
            if (away - body.discs[:, 2]).min() < _WAY + wide:
                highest = max(highest, body.top)
        return highest

    def _taken_at(self, body: Body) -> Array:
        """[3] the tip when it takes the thing where it is now."""
        assert self._grasp is not None
        return body.position + body.rotation @ self._grasp.at

    def _yaw(self, body: Body) -> float:
        """The tip's turn (rad) that takes the thing as it lies now."""
        assert self._grasp is not None and self._from is not None
        was, now = self._from.rotation, body.rotation
        turned = now @ was.T
        return self._grasp.yaw + float(np.arctan2(turned[1, 0], turned[0, 0]))

    def _place(self, state: State, step: Step) -> Array:
        """[3] where the thing goes, which follows what it is put to."""
        assert self._grasp is not None
        if step.slides:
            return self._grasp.place
        return self._grasp.place + state[step.place[0]].position - self._anchor

    def _towards(self, here: Pose, goal: Pose) -> Pose:
        """As far from here to the goal as one period allows; shift and turn go side by side."""
        shift = goal.position - here.position
        distance = float(np.linalg.norm(shift))
        angle = float(np.linalg.norm(matrix_to_rotvec(here.rotation.T @ goal.rotation)))
        step = min(1.0, self._speed * self._period / distance) if distance > 0 else 1.0
        turn = min(1.0, self._turn * self._period / angle) if angle > 0 else 1.0
        rotation = interpolate(here, goal, turn).rotation
        return Pose(here.position + step * shift, rotation)


def _has_moved(was: Body, now: Body) -> bool:
    shift = float(np.linalg.norm(was.position - now.position))
    turn = float(np.linalg.norm(matrix_to_rotvec(was.rotation.T @ now.rotation)))
    is_round = getattr(now.kind, "grips", "") == "round" and was.upright and now.upright
    return shift > _STIRRED or (turn > 0.25 and not is_round)
