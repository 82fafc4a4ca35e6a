"""The last thing before a robot: joints move as wished only as long as they can still stop safely.

A state is entered only after its own way to a standstill has been looked at: it must stay within
the joints' position limits, within the workspace, clear of obstacles and of the arm itself, and
must not carry the tip faster than allowed. Where it does not, the arm brakes instead, along the
way that was found good when the present state was entered. So a safe stop exists at every moment,
whatever is wished and even if nothing is wished ever again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from internvla_ros.motion.clearance import Room
from internvla_ros.motion.kinematics import Kinematics, Tip
from internvla_ros.motion.limits import Limit, Reasons
from internvla_ros.motion.profile import JointState, Stop, VelocityProfile
from internvla_ros.motion.tip import TipLimits
from internvla_ros.robots.embodiment import Embodiment, VelocityCurve

Array = NDArray[np.float64]

EDGE = 0.004  # m: how far past the workspace's edge the tip may come
MARGIN = 0.99  # share of each limit that is used, leaving the rest to rounding
_ROUNDING = 1e-3
_EASED = 0.7  # share of a wish that is tried when the whole makes the tip too fast
_STOP_EXCESS = 1.1  # of the tip's limit while braking, as joints do not slow down in proportion
_TEXTS = {
    Limit.TIP_SPEED: "speed limit of the tip",
    Limit.WORKSPACE: "workspace: at its edge",
    Limit.CLEARANCE: "clearance: too close to something",
}


class Guard:
    """Joint states one after the other, each of them with a safe way to a standstill.

    Args:
        embodiment: joint limits, workspace and the tip's speeds.
        kinematics: of the same joints.
        room: how much room there is around the arm; None: nothing is known that it could hit.
    """

    def __init__(
        self, embodiment: Embodiment, kinematics: Kinematics, room: Room | None = None
    ) -> None:
        self._names = embodiment.joints
        self._room = room
        self._limits = TipLimits(embodiment, kinematics)
        self._velocity = MARGIN * embodiment.velocity
        self._acceleration = MARGIN * embodiment.acceleration
        self._curve = embodiment.velocity_curve
        self._profile = VelocityProfile(
            self._acceleration,
            MARGIN * embodiment.jerk,
            embodiment.position_lower,
            embodiment.position_upper,
        )
        self.reset(embodiment.ready)

    def reset(self, q: ArrayLike) -> None:
        """Rest at joint positions q [n], which are not questioned."""
        self._enter(JointState.at_rest(q))

    def move(self, wish: Array, step: float, reasons: Reasons) -> bool:
        """Let `step` seconds pass towards joint velocities [n]; whether it had to brake instead.

        What kept it from the velocities goes to `reasons`.
        """
        wish = self._slowed(wish, step, reasons)
        state, stop = self._try(wish, step, reasons)
        tip = self._limits.at(state.positions)
        danger = self._danger(tip, stop)
        if danger is Limit.TIP_SPEED:
            reasons.add(danger, _TEXTS[danger])
            state, stop = self._try(_EASED * wish, step, reasons)
            tip = self._limits.at(state.positions)
            danger = self._danger(tip, stop)
        if danger is not None:
            reasons.add(danger, f"{_TEXTS[danger]}: braking")
            self.brake(step)
            return True
        self.state, self.stop, self.tip = state, stop, tip
        return False

    def _try(self, wish: Array, step: float, reasons: Reasons) -> tuple[JointState, Stop]:
        """What `step` seconds towards joint velocities [n] would lead to, each joint in range."""
        state = self._profile.towards(self.state, wish, step)
        stop = self._profile.stop(state)
        within = stop.within & self._below_curve(stop)
        if all(within.tolist()):
            return state, stop
        reasons.add(Limit.POSITION, f"position limit of {self._named(~within)}")
        state = _mixed(within, state, self._profile.brake(self.state, step))
        return state, self._profile.stop(state)

    def brake(self, step: float) -> None:
        """Let `step` seconds of braking pass; a state at rest stays as it is."""
        self._enter(self._profile.brake(self.state, step))

    def _enter(self, state: JointState) -> None:
        self.state = state
        self.stop = self._profile.stop(state)
        self.tip = self._limits.at(state.positions)

    def _slowed(self, wish: Array, step: float, reasons: Reasons) -> Array:
        """The wish [n] within the joints' velocities, and as a whole within the tip's."""
        wish = np.minimum(np.maximum(wish, -self._velocity), self._velocity)
        if self._curve is not None:
            ahead = self.state.positions + self.state.velocities * step
            if not all(_below(self._curve, np.abs(wish) / MARGIN, ahead, ahead).tolist()):
                low, high = self._curve.limits(ahead)
                wish = np.minimum(np.maximum(wish, MARGIN * low), MARGIN * high)
        excess = self._limits.excess(self.tip, wish) / MARGIN
        if excess <= 1.0:
            return wish
        reasons.add(Limit.TIP_SPEED, _TEXTS[Limit.TIP_SPEED])
        return wish / excess

    def _below_curve(self, stop: Stop) -> NDArray[np.bool_]:
        """[n] whether each joint slows down in time towards the ends of its range."""
        if self._curve is None:
            return stop.within
        v = stop.rows[:, 1]
        below = _below(self._curve, np.maximum.reduce(np.abs(v)), stop.lowest, stop.highest)
        if all(below.tolist()):
            return below
        low, high = self._curve.limits(stop.positions)
        return np.logical_and.reduce((v >= low - _ROUNDING) & (v <= high + _ROUNDING), axis=0)

    def _danger(self, tip: Tip, stop: Stop) -> Limit | None:
        """Which limit forbids a state, with its tip, or the stop from it."""
        outside, excess = self._limits.most(tip, stop.rows)
        if self._too_fast(stop, excess):
            return Limit.TIP_SPEED
        if self._leaves(stop, outside):
            return Limit.WORKSPACE
        return Limit.CLEARANCE if self._too_close(stop) else None

    def _too_fast(self, stop: Stop, most: list[float]) -> bool:
        """Whether the tip goes beyond its limit and faster than it does now.

        Only where its bound (`most`, [k]) allows for that does it have to be looked at.
        """
        now: float | None = None
        for i, bound in enumerate(most):
            share = 1.0 if i == 0 else _STOP_EXCESS
            if bound <= share:
                continue
            excess = self._limits.excess_at(stop.positions[i], stop.rows[i, 1])
            if excess <= share:
                continue
            now = self._limits.excess(self.tip, self.state.velocities) if now is None else now
            if excess > now:
                return True
        return False

    def _leaves(self, stop: Stop, most: list[float]) -> bool:
        """Whether the tip leaves the workspace, and goes further out than it is now.

        Only where its bound (`most`, [k] m) allows for that does it have to be looked at.
        """
        here: float | None = None
        for i, bound in enumerate(most):
            outside = bound if bound <= EDGE else self._limits.outside_at(stop.positions[i])
            if outside <= EDGE:
                continue
            here = self._limits.outside(self.tip) if here is None else here
            if outside > here:
                return True
        return False

    def _too_close(self, stop: Stop) -> bool:
        """Whether the arm comes too close to something, and closer than it is now."""
        room = self._room
        if room is None or room.remains(stop.positions, 0.0):
            return False
        here = self.state.positions
        if room.remains(here[None], 0.0):
            return True
        return not room.remains(stop.positions, room.room(here))

    def _named(self, chosen: NDArray[np.bool_]) -> str:
        return ", ".join(name for name, yes in zip(self._names, chosen, strict=True) if yes)


def _mixed(chosen: NDArray[np.bool_], a: JointState, b: JointState) -> JointState:
    """Joints of `a` where chosen [n], of `b` elsewhere."""
    return JointState(
        np.where(chosen, a.positions, b.positions),
        np.where(chosen, a.velocities, b.velocities),
        np.where(chosen, a.accelerations, b.accelerations),
    )


def _below(
    curve: VelocityCurve, fastest: Array, lowest: Array, highest: Array
) -> NDArray[np.bool_]:
    """[n] whether speeds are below a curve wherever joints are between positions, each [n]."""
    room = np.minimum(curve.upper - highest, lowest - curve.lower)
    return np.square(fastest + curve.offset) <= curve.gain * room
