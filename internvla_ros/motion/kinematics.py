"""Forward and inverse kinematics of one serial chain, on pinocchio.

The chain is cut out of the URDF: every joint that is not asked for is fixed at zero, so that
joint vectors hold exactly the named joints, in the named order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pinocchio as pin
from numpy.typing import ArrayLike, NDArray
from scipy.linalg.lapack import dposv

from internvla_ros.motion.reach import bends
from internvla_ros.motion.se3 import Pose

Array = NDArray[np.float64]

_ROTATION_WEIGHT = 0.3  # metres a radian: what a turn costs beside a shift while solving
# Weighting the error by W and damping evenly is the same as damping by W^-2 without weights.
_DAMPED = np.diag([1.0] * 3 + [_ROTATION_WEIGHT**-2] * 3)
_DAMPING = 1e-6  # least damping, against singular Jacobians
_LARGEST_STEP = 0.5  # rad (or m) any joint may move in one iteration
_POSTURE_GAIN = 0.1  # share of the way to the posture taken in each iteration
_AT_ONCE = 0.01  # share of the tolerances that counts as there without a step being taken
_STALLED = 1e-7  # an iteration that moves no joint by more than this ends the search


class KinematicsError(ValueError):
    """The robot description lacks what was asked of it."""


class Tip(NamedTuple):
    """The tip at one place of the joints.

    Attributes:
        q: [n] joint positions (rad or m).
        pose: of the tip, in the root frame.
        jacobian: [6, n], see `Kinematics.jacobian`.
    """

    q: Array
    pose: Pose
    jacobian: Array


class IkResult(NamedTuple):
    """What the inverse kinematics found: always within the limits, the best pose seen.

    Args:
        q: [n] joint positions (rad or m).
        position_error: metres between the tip and the target.
        rotation_error: radians between the tip and the target.
        converged: whether both errors are within the tolerances.
        tip: at these positions.
    """

    q: Array
    position_error: float
    rotation_error: float
    converged: bool
    tip: Tip


class _Goal(NamedTuple):
    """Where the tip should be, what counts as there (metres, radians), and what share of the
    squared error a step may leave for another to follow."""

    pose: Pose
    position_tolerance: float
    rotation_tolerance: float
    most_left: float

    def reached(self, metres: float, radians: float) -> bool:
        return metres <= self.position_tolerance and radians <= self.rotation_tolerance


class _Limits(NamedTuple):
    """Joint positions [n] to stay between, and those to prefer where there is freedom."""

    low: Array
    high: Array
    posture: Array | None


class Kinematics:
    """One chain from the root of the description to a tip frame.

    Args:
        urdf_xml: the robot description.
        joints: [n] names of the moving joints, in the order of every joint vector.
        tip: name of the link or frame to be placed.

    Holds scratch memory: use one instance a thread.

    Raises:
        KinematicsError: the description is unreadable or lacks a joint or the tip, or a joint is
            of a kind with no position limits.
    """

    def __init__(self, urdf_xml: str, joints: Sequence[str], tip: str) -> None:
        try:
            full = pin.buildModelFromXML(urdf_xml)
        except (ValueError, RuntimeError) as error:
            raise KinematicsError(f"robot description: {error}") from error
        known = list(full.names)[1:]
        missing = [name for name in joints if name not in known]
        if missing:
            raise KinematicsError(
                f"robot description '{full.name}' lacks joint {', '.join(missing)}; "
                f"it has {', '.join(known)}"
            )
        locked = [full.getJointId(name) for name in known if name not in joints]
        self._model = pin.buildReducedModel(full, locked, pin.neutral(full))
        self._data = self._model.createData()
        if self._model.nq != len(joints):
            raise KinematicsError(
                f"robot description '{full.name}': joints must be revolute or prismatic with "
                f"limits, one number each; {len(joints)} joints have {self._model.nq} positions"
            )
        if not self._model.existFrame(tip):
            raise KinematicsError(f"robot description '{full.name}' lacks the tip frame {tip!r}")
        self._tip = self._model.getFrameId(tip)
        self.joints = tuple(joints)
        self.tip = tip
        # Column of each named joint in pinocchio's own order, and the way back.
        order = [self._model.joints[self._model.getJointId(name)].idx_q for name in joints]
        self._columns = np.array(order, dtype=np.intp)
        self._shape = self._columns.shape
        self._scatter = np.argsort(self._columns)
        self._in_order = order == list(range(len(order)))
        self.lower: Array = np.array(self._model.lowerPositionLimit)[self._columns]
        self.upper: Array = np.array(self._model.upperPositionLimit)[self._columns]
        self.velocity: Array = np.array(self._model.velocityLimit)[self._columns]

    def forward(self, q: ArrayLike) -> Pose:
        """Pose of the tip in the root frame at joint positions q [n]."""
        model, data = self._model, self._data
        pin.forwardKinematics(model, data, self._own(q))
        placement = pin.updateFramePlacement(model, data, self._tip)
        return Pose.of(placement.translation.copy(), placement.rotation.copy())

    def place(self, q: ArrayLike) -> Array:
        """Where `forward` puts the tip, [3] m, without its rotation."""
        pin.forwardKinematics(self._model, self._data, self._own(q))
        placement = pin.updateFramePlacement(self._model, self._data, self._tip)
        return placement.translation.copy()

    def twist(self, q: ArrayLike, velocities: ArrayLike) -> Array:
        """[6] velocity of the tip (vx vy vz, wx wy wz, along the root's axes) at joint positions
        and velocities [n]."""
        pin.forwardKinematics(self._model, self._data, self._own(q), self._own(velocities))
        motion = pin.getFrameVelocity(self._model, self._data, self._tip, pin.LOCAL_WORLD_ALIGNED)
        return np.asarray(motion.vector)

    def look(self, q: Array) -> Tip:
        """`jacobian` and `forward` at once, at joint positions q [n] that nobody will write to."""
        jacobian = self.jacobian(q)
        placement = pin.updateFramePlacement(self._model, self._data, self._tip)
        pose = Pose.of(placement.translation.copy(), placement.rotation.copy())
        return Tip(q, pose, jacobian)

    def bends(self) -> tuple[Array, Array]:
        """[n, n] each: bounds on how the Jacobian's rows of shifting (m) and of turning (rad)
        change with the joints, see `reach.bends`."""
        frame = self._model.frames[self._tip]
        shift, turn = bends(self._model, frame.parentJoint, frame.placement.translation)
        order = np.ix_(self._columns, self._columns)
        return shift[order], turn[order]

    def jacobian(self, q: ArrayLike) -> Array:
        """[6, n]: tip velocity (vx vy vz, wx wy wz, along the root's axes) per joint velocity."""
        columns: Array = pin.computeFrameJacobian(
            self._model, self._data, self._own(q), self._tip, pin.LOCAL_WORLD_ALIGNED
        )
        return columns if self._in_order else columns[:, self._columns]

    def inverse(
        self,
        target: Pose,
        seed: ArrayLike | Tip,
        *,
        posture: ArrayLike | None = None,
        lower: ArrayLike | None = None,
        upper: ArrayLike | None = None,
        position_tolerance: float = 1e-4,
        rotation_tolerance: float = 1e-3,
        max_iterations: int = 60,
        most_left: float = math.inf,
        restarts: int = 0,
    ) -> IkResult:
        """Joint positions that put the tip at `target`, near `seed`.

        Damped least squares whose damping falls with the error, so that it passes singular poses.
        A joint that reaches a limit is left there and the others make up for it. Out of reach, the
        nearest pose found is given.

        Args:
            target: where the tip should be, in the root frame.
            seed: [n] where to start, or what `look` saw there; the solution found is the one
                connected to it.
            posture: [n] positions to prefer where the chain has freedom left (redundant arms).
            lower, upper: [n] limits to keep instead of the description's.
            position_tolerance, rotation_tolerance: metres and radians that count as there.
            max_iterations: most Newton steps from one seed, about 30 us each.
            most_left: share of the squared error that a Newton step may leave for another to
                follow. Within reach one takes nearly all of it.
            restarts: how many more seeds, spread over the limits, are tried until one leads there;
                0 where the solution must be the one connected to `seed`.
        """
        low = self.lower if lower is None else np.asarray(lower, dtype=np.float64)
        high = self.upper if upper is None else np.asarray(upper, dtype=np.float64)
        rest = None if posture is None else np.asarray(posture, dtype=np.float64)
        limits = _Limits(low, high, rest)
        goal = _Goal(target, position_tolerance, rotation_tolerance, most_left)
        start = seed if isinstance(seed, Tip) else self._tip_within(seed, limits)
        found = self._descend(goal, start, limits, max_iterations)
        if found.converged or restarts == 0:
            return found
        for q in _spread(low, high, restarts):
            if found.converged:
                break
            other = self._descend(goal, self.look(q), limits, max_iterations)
            found = min(found, other, key=_miss)
        return found

    def _tip_within(self, q: ArrayLike, limits: _Limits) -> Tip:
        values = np.asarray(q, dtype=np.float64)
        return self.look(np.minimum(np.maximum(values, limits.low), limits.high))

    def _descend(self, goal: _Goal, tip: Tip, limits: _Limits, iterations: int) -> IkResult:
        """The best pose seen on the way from one place."""
        best: tuple[float, IkResult] | None = None
        for iteration in range(iterations + 1):
            left = _way(tip.pose, goal.pose)
            x, y, z, a, b, c = left.tolist()
            metres, radians = math.hypot(x, y, z), math.hypot(a, b, c)
            reached = there = goal.reached(metres, radians)
            if best is None:
                there = goal.reached(metres / _AT_ONCE, radians / _AT_ONCE)
            cost = metres * metres + (_ROTATION_WEIGHT * radians) ** 2
            slow = best is not None and cost > goal.most_left * best[0]
            if best is None or cost < best[0]:
                best = (cost, IkResult(tip.q, metres, radians, reached, tip))
            if there or slow or iteration == iterations:
                break
            after = _step(tip.jacobian, left, cost, tip.q, limits)
            if max(map(abs, (after - tip.q).tolist())) < _STALLED:
                break
            tip = self.look(after)
        assert best is not None
        return best[1]

    def _own(self, q: ArrayLike) -> Array:
        """Joint positions in pinocchio's order."""
        values = np.asarray(q, dtype=np.float64)
        if values.shape != self._shape:
            raise ValueError(f"kinematics: need {len(self.joints)} joints, got {values.shape}")
        return values if self._in_order else values[self._scatter]


def _way(a: Pose, b: Pose) -> Array:
    """[6] from pose a to pose b: a shift (m) and a turn (rad, a rotation vector) along the root's
    axes."""
    turn = pin.log3(b.rotation.dot(a.rotation.T))
    return np.concatenate((b.position - a.position, turn))


def _miss(found: IkResult) -> float:
    """How far a result is from its target, turns weighted as metres."""
    return found.position_error + _ROTATION_WEIGHT * found.rotation_error


def _spread(low: Array, high: Array, count: int) -> Iterator[Array]:
    """`count` joint positions [n] that fill the space between limits evenly, always the same."""
    root = 2.0  # of x^(n+1) = x + 1, whose powers are the most irrational steps
    for _ in range(40):
        root = (1.0 + root) ** (1.0 / (len(low) + 1))
    strides = root ** -np.arange(1.0, len(low) + 1)
    for i in range(1, count + 1):
        yield low + np.mod(0.5 + i * strides, 1.0) * (high - low)


def _step(jacobian: Array, error: Array, cost: float, q: Array, limits: _Limits) -> Array:
    """Where one damped step leads [n], within the limits."""
    towards = None if limits.posture is None else limits.posture - q
    step = _damped_step(jacobian, error, cost, towards)
    largest = max(map(abs, step.tolist()))
    if largest > _LARGEST_STEP:
        step *= _LARGEST_STEP / largest
    after = q + step
    bounded: Array = np.minimum(np.maximum(after, limits.low), limits.high)
    if bounded.tolist() == after.tolist():
        return bounded
    at_limit = ((after < limits.low) & (q <= limits.low)) | (
        (after > limits.high) & (q >= limits.high)
    )
    if not any(at_limit.tolist()):
        return bounded
    # Joints that cannot go on stay where they are, and the others make up for them.
    free = ~at_limit
    within = limits._replace(posture=None if towards is None else q + towards * free)
    return _step(jacobian * free, error, cost, q, within)


def _damped_step(j: Array, error: Array, cost: float, towards: Array | None) -> Array:
    """[n] least squares of `j step = error`, damped; `towards` is followed in the null space."""
    gram = j.dot(j.T)
    gram += (_DAMPING + 0.1 * cost) * _DAMPED
    if towards is None:
        step: Array = j.T.dot(_solved(gram, error))
        return step
    step = _POSTURE_GAIN * towards
    step += j.T.dot(_solved(gram, error - j.dot(step)))
    return step


def _solved(gram: Array, error: Array) -> Array:
    """x [6] of gram x = error; none where the error is so large that it hides the gram matrix."""
    _, solution, fault = dposv(gram, error)
    return np.zeros_like(error) if fault else solution
