"""Joint motion that is always able to stop: velocities within acceleration and jerk limits.

Ruckig shapes each change of velocity. Given position targets every cycle it would plan to arrive
at rest each time and lag behind by the braking distance, so it is given velocities instead, and
the position limits are kept here: a state is entered only if braking from it stays inside.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from ruckig import ControlInterface, InputParameter, Result, Ruckig, Synchronization, Trajectory

Array = NDArray[np.float64]

_AT_REST = 1e-6


@dataclass(frozen=True, eq=False)
class JointState:
    """Commanded positions, velocities and accelerations, each [n]."""

    positions: Array
    velocities: Array
    accelerations: Array

    @staticmethod
    def at_rest(q: ArrayLike) -> JointState:
        """Standing still at joint positions q [n]."""
        positions = np.array(q, dtype=np.float64)
        return JointState(positions, np.zeros_like(positions), np.zeros_like(positions))


class VelocityProfile:
    """Time-optimal changes of velocity within acceleration, jerk and position limits, each [n]."""

    def __init__(self, acceleration: Array, jerk: Array, lower: Array, upper: Array) -> None:
        n = len(lower)
        self._lower, self._upper = lower, upper
        self._acceleration = acceleration
        self._ruckig, self._trajectory = Ruckig(n), Trajectory(n)
        self._input = InputParameter(n)
        self._input.control_interface = ControlInterface.Velocity
        self._input.synchronization = Synchronization.No
        self._input.max_acceleration = acceleration.tolist()
        self._input.max_jerk = jerk.tolist()

    def towards(
        self, state: JointState, velocity: Array, step: float
    ) -> tuple[JointState, NDArray[np.bool_]]:
        """The state after `step` seconds towards `velocity` [n], and which joints braked [n]."""
        wished = self._after(state, velocity, step)
        braked = ~self._can_stop(wished)
        if not braked.any():
            return wished, braked
        stopping = self.brake(state, step)
        return (
            JointState(
                np.where(braked, stopping.positions, wished.positions),
                np.where(braked, stopping.velocities, wished.velocities),
                np.where(braked, stopping.accelerations, wished.accelerations),
            ),
            braked,
        )

    def brake(self, state: JointState, step: float) -> JointState:
        """The state after `step` seconds of braking; positions that are at rest stay as they are.

        The way to a stop was checked before the state was entered; the clip removes rounding.
        """
        after = self._after(state, np.zeros_like(state.velocities), step)
        if (
            np.abs(after.velocities).max() < _AT_REST
            and np.abs(after.accelerations).max() < _AT_REST
        ):
            return JointState.at_rest(np.clip(after.positions, self._lower, self._upper))
        return replace(after, positions=np.clip(after.positions, self._lower, self._upper))

    def resting_place(self, state: JointState) -> Array:
        """Positions [n] at which braking from `state` ends."""
        self._plan(state, np.zeros_like(state.velocities))
        return np.array(self._trajectory.at_time(self._trajectory.duration)[0])

    def _can_stop(self, state: JointState) -> NDArray[np.bool_]:
        """[n] whether braking from `state` stays within the position limits throughout."""
        self._plan(state, np.zeros_like(state.velocities))
        bounds = self._trajectory.position_extrema
        lowest = np.array([b.min for b in bounds])
        highest = np.array([b.max for b in bounds])
        inside: NDArray[np.bool_] = (lowest >= self._lower) & (highest <= self._upper)
        return inside

    def _after(self, state: JointState, velocity: Array, step: float) -> JointState:
        self._plan(state, velocity)
        p, v, a = self._trajectory.at_time(step)
        accelerations = np.clip(a, -self._acceleration, self._acceleration)
        return JointState(np.array(p), np.array(v), accelerations)

    def _plan(self, state: JointState, velocity: Array) -> None:
        self._input.current_position = state.positions.tolist()
        self._input.current_velocity = state.velocities.tolist()
        self._input.current_acceleration = state.accelerations.tolist()
        self._input.target_velocity = velocity.tolist()
        result = self._ruckig.calculate(self._input, self._trajectory)
        if result not in (Result.Working, Result.Finished):
            raise RuntimeError(f"servo: ruckig refused a joint state: {result}")
