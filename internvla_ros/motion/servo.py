"""The embedded servo: Cartesian targets in, joint setpoints within every limit out.

Each cycle goes through three stages.
1. The reference follows the target: straight in space, within the tip's speed and acceleration,
   inside the workspace box; inverse kinematics turns it into joint positions within the limits.
2. A velocity is asked of each joint: the reference's own plus what closes the gap to it, never
   more than the joint can brake within the gap.
3. The guard lets the joints approach that velocity within their limits, and only as long as they
   can still stop without harm.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from internvla_ros.motion.backend import JointCommand
from internvla_ros.motion.clearance import Room
from internvla_ros.motion.guard import MARGIN, Guard
from internvla_ros.motion.kinematics import IkResult, Kinematics, Tip
from internvla_ros.motion.limits import Limit, Reasons
from internvla_ros.motion.reference import Reference
from internvla_ros.motion.se3 import Pose, distance
from internvla_ros.robots.embodiment import Embodiment

Array = NDArray[np.float64]

_GAIN = 12.0  # 1/s: how quickly a small gap to the reference is closed
_BRAKING = 0.6  # share of the acceleration limit counted on when closing a large gap
_SHARE = 0.8  # share of the acceleration limit left to the reference
_TIP_SHARE = 0.9  # share of the tip's speed limits left to the reference
_LATE = 0.5  # control periods that a call may come late before the arm counts as braking since
_ITERATIONS = 3  # of the inverse kinematics: the reference moves little in one period
_LEFT = 0.25  # of the squared error: steps that leave more lead nowhere, and are the last
_PULL = 0.05  # rad (or m) of a joint towards the posture preferred; more upsets the tip
_TILT = 0.4  # rad that the tip may be off its direction so as to come nearer to its place
_NEARER = 1e-6  # m that count as progress
_STANDSTILL = 1e-3  # share of a speed limit that counts as none
_START_TOLERANCE = 0.02  # rad (or m) that a measured joint may be outside its limits


class ServoError(ValueError):
    """The servo was started or called in a way it cannot obey."""


class EmbeddedServo:
    """Follows a stream of tip poses with one arm, at its control rate.

    Args:
        embodiment: joints, limits, workspace and control rate.
        kinematics: of the same joints.
        room: around the arm; None: nothing is known that it could hit.

    Raises:
        ServoError: kinematics and embodiment disagree about the joints.
    """

    def __init__(
        self, embodiment: Embodiment, kinematics: Kinematics, room: Room | None = None
    ) -> None:
        if kinematics.joints != tuple(embodiment.joints):
            raise ServoError(
                f"servo: kinematics has joints {', '.join(kinematics.joints)}, robot "
                f"{embodiment.name} has {', '.join(embodiment.joints)}"
            )
        self._embodiment = embodiment
        self._kinematics = kinematics
        self._guard = Guard(embodiment, kinematics, room)
        tip = embodiment.tip_limits
        self._tip = Reference(
            _TIP_SHARE * tip.speed,
            tip.acceleration,
            _TIP_SHARE * tip.turn,
            tip.turn_acceleration,
        )
        self._period = 1.0 / embodiment.control_rate
        self._lower, self._upper = embodiment.position_lower, embodiment.position_upper
        acceleration = MARGIN * embodiment.acceleration
        self._slowness = 1.0 / (MARGIN * embodiment.velocity)
        self._inertia = 1.0 / acceleration
        self._braking = _BRAKING * acceleration
        # Up to this gap the proportional law brakes gently enough.
        self._near = self._braking / _GAIN**2
        self._time: float | None = None
        self._speed = 1.0
        self._reference: Tip = self._guard.tip
        self._settle_reference()

    @property
    def speed(self) -> float:
        """Share of the speed limits that is used, 0..1."""
        return self._speed

    @speed.setter
    def speed(self, share: float) -> None:
        self._speed = min(max(share, 0.0), 1.0)
        self._tip.speed = self._speed

    @property
    def started(self) -> bool:
        """Whether `start` has been called."""
        return self._time is not None

    def start(self, q: ArrayLike, t: float) -> JointCommand:
        """Take over an arm that rests at joint positions q [n] at time t (s).

        Raises:
            ServoError: q has the wrong length, is not finite or is outside the limits.
        """
        positions = np.array(q, dtype=np.float64)
        if positions.shape != self._lower.shape or not np.isfinite(positions).all():
            raise ServoError(
                f"servo: cannot start from {positions.tolist()}; need {len(self._lower)} finite "
                "joint positions"
            )
        if not math.isfinite(t):
            raise ServoError(f"servo: cannot start at time {t}")
        bounded = np.clip(positions, self._lower, self._upper)
        outside = np.abs(bounded - positions)
        if outside.max() > _START_TOLERANCE:
            i = int(outside.argmax())
            raise ServoError(
                f"servo: joint {self._embodiment.joints[i]} is at {positions[i]:.3f}, outside "
                f"{self._lower[i]:.3f}..{self._upper[i]:.3f}; move it back by hand first"
            )
        self._time = float(t)
        self._guard.reset(bounded)
        self._settle_reference()
        return self._command(Reasons())

    def setpoint(self, pose: Pose, t: float) -> JointCommand:
        """Advance to time t (s) towards a tip pose in the base frame.

        Call it once a control period. A pose that is not finite or not a rotation makes the arm
        brake and hold, as `stop` does.
        """
        if not pose.is_valid():
            reasons = Reasons()
            reasons.add(Limit.TARGET, "the target is not a finite, rigid pose: holding")
            return self._brake(t, reasons)
        step, reasons = self._advance(t), Reasons()
        if step == 0.0:
            reasons.add(Limit.TIME, "time did not advance")
            return self._command(reasons)
        before = self._reference
        self._reference = self._move_reference(pose, step, reasons)
        self._reference_velocity = (self._reference.q - before.q) / step
        wish = self._reference_velocity + self._closing_velocity(before.q)
        if self._guard.move(wish, step, reasons):
            self._settle_reference()
        return self._command(reasons)

    def stop(self, t: float) -> JointCommand:
        """Advance to time t (s) braking as fast as the limits allow; then hold."""
        return self._brake(t, Reasons())

    def _brake(self, t: float, reasons: Reasons) -> JointCommand:
        step = self._advance(t)
        if step > 0.0:
            self._guard.brake(step)
        self._settle_reference()
        return self._command(reasons)

    def _advance(self, t: float) -> float:
        """Seconds to advance by; 0 when time did not.

        After a setpoint the robot brakes unless the next one comes, so an arm that is called late
        has been braking meanwhile; it goes on from there, one period before t.
        """
        if self._time is None:
            raise ServoError("servo: start(q, t) must come before setpoint and stop")
        if not math.isfinite(t) or t <= self._time:
            return 0.0
        step = float(t) - self._time
        self._time = float(t)
        late = step - self._period
        if late <= _LATE * self._period:
            return step
        self._guard.brake(late)
        self._settle_reference()
        return self._period

    def _settle_reference(self) -> None:
        """The reference is where the arm is commanded to be, at rest."""
        self._reference = self._guard.tip
        self._reference_velocity = np.zeros_like(self._reference.q)
        self._tip.reset(self._reference.pose)

    def _move_reference(self, target: Pose, step: float, reasons: Reasons) -> Tip:
        """The reference one step nearer to the target; why it falls short goes to reasons."""
        here = self._tip.pose
        goal = self._tip.towards(self._inside_workspace(target, reasons), step)
        if self._tip.saturated:
            reasons.add(Limit.TIP_SPEED, "tip speed: the target is too far or too fast")
        found = self._solve(goal)
        if not found.converged:
            at_limit = (found.q <= self._lower) | (found.q >= self._upper)
            cause = f" at the limit of {self._names(at_limit)}" if at_limit.any() else ""
            reasons.add(Limit.REACH, f"out of reach{cause}")
        wanted = found.tip if found.converged else self._next_best(found.tip, goal, here, target)
        reference = self._feasible(wanted, step, reasons)
        if reference is not found.tip or not found.converged:
            self._tip.correct(reference.pose, step)
        return reference

    def _next_best(self, nearest: Tip, goal: Pose, here: Pose, target: Pose) -> Tip:
        """Where to go when the goal cannot be met, to which `nearest` comes nearest.

        Shift without turning; else come nearer to the target's place and turn away from its
        direction no further than `_TILT`, as an arm at a joint's limit must to get away from it;
        else stay.
        """
        shifted = self._solve(Pose.of(goal.position, here.rotation))
        if shifted.converged:
            return shifted.tip
        metres, radians = distance(nearest.pose, target)
        metres_here, radians_here = distance(here, target)
        better = metres < metres_here - _NEARER and radians <= max(radians_here, _TILT)
        return nearest if better else self._reference

    def _solve(self, goal: Pose) -> IkResult:
        return self._kinematics.inverse(
            goal,
            self._reference,
            posture=self._posture(),
            lower=self._lower,
            upper=self._upper,
            max_iterations=_ITERATIONS,
            most_left=_LEFT,
        )

    def _feasible(self, wanted: Tip, step: float, reasons: Reasons) -> Tip:
        """Where the reference is led to, no further than the joints can, the direction kept."""
        here, velocity = self._reference.q, self._reference_velocity
        move, cut = wanted.q - here, False
        share = max(self._speed, _STANDSTILL) * step
        excess = max(map(abs, (move * self._slowness).tolist())) / share
        if excess > 1.0:
            too_fast = np.abs(move) * self._slowness > share
            reasons.add(Limit.VELOCITY, f"velocity limit of {self._names(too_fast)}")
            move, cut = move / excess, True
        change = move / step - velocity
        excess = max(map(abs, (change * self._inertia).tolist())) / (_SHARE * step)
        if excess > 1.0:
            move, cut = (velocity + change / excess) * step, True
        if not cut:
            return wanted
        return self._kinematics.look(np.minimum(np.maximum(here + move, self._lower), self._upper))

    def _posture(self) -> Array | None:
        """What a redundant arm prefers: a little nearer to its ready pose than it is."""
        if len(self._lower) <= 6:
            return None
        here = self._reference.q
        away = self._embodiment.ready - here
        return here + np.minimum(np.maximum(away, -_PULL), _PULL)

    def _inside_workspace(self, target: Pose, reasons: Reasons) -> Pose:
        lower, upper = self._embodiment.workspace
        inside = np.minimum(np.maximum(target.position, lower), upper)
        if inside.tolist() == target.position.tolist():
            return target
        i = int(np.abs(inside - target.position).argmax())
        reasons.add(
            Limit.WORKSPACE,
            f"workspace: {'xyz'[i]} = {target.position[i]:.3f} m is outside "
            f"{lower[i]:.3f}..{upper[i]:.3f}",
        )
        return Pose.of(inside, target.rotation)

    def _closing_velocity(self, reference: Array) -> Array:
        """[n] velocity towards the reference: proportional when near, braking-bound when far."""
        gap = reference - self._guard.state.positions
        far = np.abs(gap)
        if all((far <= self._near).tolist()):
            return _GAIN * gap
        fast = np.sqrt(self._braking * np.maximum(2.0 * far - self._near, 0.0))
        result: Array = np.where(far <= self._near, _GAIN * gap, np.sign(gap) * fast)
        return result

    def _names(self, chosen: NDArray[np.bool_]) -> str:
        return ", ".join(
            name for name, yes in zip(self._embodiment.joints, chosen, strict=True) if yes
        )

    def _command(self, reasons: Reasons) -> JointCommand:
        state = self._guard.state
        return JointCommand(
            positions=state.positions.copy(),
            velocities=state.velocities.copy(),
            accelerations=state.accelerations.copy(),
            limited=bool(reasons.limits),
            reason=reasons.text,
            tip=self._guard.tip.pose,
            stop=self._guard.stop,
            limits=reasons.limits,
        )
