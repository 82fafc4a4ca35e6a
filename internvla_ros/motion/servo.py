"""The embedded motion backend: Cartesian targets in, joint setpoints within every limit out.

Each cycle goes through three stages.
1. The reference follows the target: straight in space, within the tip's speed and acceleration,
   inside the workspace box; inverse kinematics turns it into joint positions within the limits.
2. A velocity is asked of each joint: the reference's own plus what closes the gap to it, never
   more than the joint can brake within the gap.
3. The velocity is approached within the acceleration and jerk limits (ruckig, velocity control).
   A joint whose next state could no longer stop before its position limit brakes instead, and so
   does the arm whose tip would come to rest outside the workspace. As the check runs on every
   state before it is taken, a way to stop inside the limits always exists.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from internvla_ros.motion.backend import JointCommand
from internvla_ros.motion.kinematics import IkResult, Kinematics
from internvla_ros.motion.profile import JointState, VelocityProfile
from internvla_ros.motion.reference import Reference
from internvla_ros.motion.se3 import Pose
from internvla_ros.robots.embodiment import Embodiment

Array = NDArray[np.float64]

_MARGIN = 0.99  # share of each limit that is used, leaving the rest to rounding
_GAIN = 12.0  # 1/s: how quickly a small gap to the reference is closed
_BRAKING = 0.6  # share of the acceleration limit counted on when closing a large gap
_SHARE = 0.8  # share of the acceleration limit left to the reference
_EDGE = 0.004  # m: how far past the workspace's edge a stop may come to rest
_MAX_PERIODS = 2.5  # control periods that one call may advance: a late call never leaps
_START_TOLERANCE = 0.02  # rad (or m) that a measured joint may be outside its limits


class ServoError(ValueError):
    """The servo was started or called in a way it cannot obey."""


class EmbeddedServo:
    """Follows a stream of tip poses with one arm, at its control rate.

    Args:
        embodiment: joints, limits, workspace and control rate.
        kinematics: of the same joints.
        tip_speed, tip_acceleration: bounds on the motion of the reference, m/s and m/s^2.
        tip_turn, tip_turn_acceleration: bounds on its turning, rad/s and rad/s^2.

    Raises:
        ServoError: kinematics and embodiment disagree about the joints.
    """

    def __init__(
        self,
        embodiment: Embodiment,
        kinematics: Kinematics,
        *,
        tip_speed: float = 0.5,
        tip_acceleration: float = 2.5,
        tip_turn: float = 3.0,
        tip_turn_acceleration: float = 15.0,
    ) -> None:
        if kinematics.joints != tuple(embodiment.joints):
            raise ServoError(
                f"servo: kinematics has joints {', '.join(kinematics.joints)}, robot "
                f"{embodiment.name} has {', '.join(embodiment.joints)}"
            )
        self._embodiment = embodiment
        self._kinematics = kinematics
        self._tip = Reference(tip_speed, tip_acceleration, tip_turn, tip_turn_acceleration)
        self._period = 1.0 / embodiment.control_rate
        self._lower, self._upper = embodiment.position_lower, embodiment.position_upper
        self._velocity = _MARGIN * embodiment.velocity
        self._acceleration = _MARGIN * embodiment.acceleration
        self._profile = VelocityProfile(
            self._acceleration, _MARGIN * embodiment.jerk, self._lower, self._upper
        )
        self._time: float | None = None
        self._state = JointState.at_rest(embodiment.ready)
        self._reference: Array = self._state.positions
        self._reference_velocity: Array = np.zeros_like(self._reference)
        self._settle_reference()

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
        self._state = JointState.at_rest(bounded)
        self._settle_reference()
        return self._command([])

    def setpoint(self, pose: Pose, t: float) -> JointCommand:
        """Advance to time t (s) towards a tip pose in the base frame.

        Call it once a control period. A pose that is not finite or not a rotation makes the arm
        brake and hold, as `stop` does.
        """
        if not pose.is_valid():
            return self._brake(t, "the target is not a finite, rigid pose: holding")
        step = self._advance(t)
        if step == 0.0:
            return self._command(["time did not advance"])
        reasons: list[str] = []
        before = self._reference
        self._reference = self._move_reference(pose, step, reasons)
        self._reference_velocity = (self._reference - before) / step
        wish = self._reference_velocity + self._closing_velocity(before)
        wish = np.clip(wish, -self._velocity, self._velocity)
        state, braked = self._profile.towards(self._state, wish, step)
        if braked.any():
            reasons.append(f"position limit of {self._names(braked)}")
        if self._would_leave_workspace(state):
            reasons.append("workspace: braking before its edge")
            state = self._profile.brake(self._state, step)
        self._state = state
        return self._command(reasons)

    def stop(self, t: float) -> JointCommand:
        """Advance to time t (s) braking as fast as the limits allow; then hold."""
        return self._brake(t, "")

    def _brake(self, t: float, reason: str) -> JointCommand:
        step = self._advance(t)
        if step > 0.0:
            self._state = self._profile.brake(self._state, step)
        self._settle_reference()
        return self._command([reason] if reason else [])

    def _advance(self, t: float) -> float:
        """Seconds to advance by; a late call advances as if some periods had not been."""
        if self._time is None:
            raise ServoError("servo: start(q, t) must come before setpoint and stop")
        if not math.isfinite(t) or t <= self._time:
            return 0.0
        step = min(float(t) - self._time, _MAX_PERIODS * self._period)
        self._time = float(t)
        return step

    def _settle_reference(self) -> None:
        """The reference is where the arm is commanded to be, at rest."""
        self._reference = self._state.positions
        self._reference_velocity = np.zeros_like(self._reference)
        self._tip.reset(self._kinematics.forward(self._reference))

    def _move_reference(self, target: Pose, step: float, reasons: list[str]) -> Array:
        """The reference [n] one step nearer to the target; why it falls short goes to reasons."""
        here = self._tip.pose
        goal = self._tip.towards(self._inside_workspace(target, reasons), step)
        if self._tip.saturated:
            reasons.append("tip speed: the target is too far or too fast")
        found = self._solve(goal)
        if not found.converged:
            at_limit = (found.q <= self._lower) | (found.q >= self._upper)
            cause = f" at the limit of {self._names(at_limit)}" if at_limit.any() else ""
            reasons.append(f"out of reach{cause}")
            # Never trade the tip's place for its direction: shift without turning, or stay.
            found = self._solve(replace(goal, rotation=here.rotation))
        wanted = found.q if found.converged else self._reference
        reference = self._reference + self._feasible(wanted - self._reference, step, reasons)
        reference = np.clip(reference, self._lower, self._upper)
        self._tip.correct(self._kinematics.forward(reference), step)
        return reference

    def _solve(self, goal: Pose) -> IkResult:
        return self._kinematics.inverse(
            goal, self._reference, posture=self._posture(), lower=self._lower, upper=self._upper
        )

    def _feasible(self, move: Array, step: float, reasons: list[str]) -> Array:
        """A move [n] of the reference cut to what the joints can do, its direction kept."""
        excess = np.abs(move) / (self._velocity * step)
        if excess.max() > 1.0:
            reasons.append(f"velocity limit of {self._names(excess > 1.0)}")
            move = move / excess.max()
        change = move / step - self._reference_velocity
        excess = np.abs(change) / (_SHARE * self._acceleration * step)
        if excess.max() > 1.0:
            move = (self._reference_velocity + change / excess.max()) * step
        return move

    def _posture(self) -> Array | None:
        """What a redundant arm prefers."""
        return self._embodiment.ready if len(self._lower) > 6 else None

    def _inside_workspace(self, target: Pose, reasons: list[str]) -> Pose:
        lower, upper = self._embodiment.workspace
        inside = np.clip(target.position, lower, upper)
        if (inside == target.position).all():
            return target
        i = int(np.abs(inside - target.position).argmax())
        reasons.append(
            f"workspace: {'xyz'[i]} = {target.position[i]:.3f} m is outside "
            f"{lower[i]:.3f}..{upper[i]:.3f}"
        )
        return replace(target, position=inside)

    def _would_leave_workspace(self, state: JointState) -> bool:
        """Whether the tip, braking from `state`, would come to rest further outside than it is."""
        outside = self._outside(self._profile.resting_place(state))
        return outside > _EDGE and outside > self._outside(self._state.positions)

    def _outside(self, q: Array) -> float:
        """How far the tip is outside the workspace at joint positions q [n], in metres."""
        lower, upper = self._embodiment.workspace
        position = self._kinematics.forward(q).position
        return float(np.abs(np.clip(position, lower, upper) - position).max())

    def _closing_velocity(self, reference: Array) -> Array:
        """[n] velocity towards the reference: proportional when near, braking-bound when far."""
        gap = reference - self._state.positions
        braking = _BRAKING * self._acceleration
        near = braking / _GAIN**2  # up to this gap the proportional law brakes gently enough
        far = np.sqrt(braking * np.maximum(2.0 * np.abs(gap) - near, 0.0))
        result: Array = np.where(np.abs(gap) <= near, _GAIN * gap, np.sign(gap) * far)
        return result

    def _names(self, chosen: NDArray[np.bool_]) -> str:
        return ", ".join(
            name for name, yes in zip(self._embodiment.joints, chosen, strict=True) if yes
        )

    def _command(self, reasons: list[str]) -> JointCommand:
        state = self._state
        return JointCommand(
            positions=state.positions.copy(),
            velocities=state.velocities.copy(),
            accelerations=state.accelerations.copy(),
            limited=bool(reasons),
            reason="; ".join(reasons),
            tip=self._kinematics.forward(state.positions),
        )
