"""Joint motion that is always able to stop: velocities within acceleration and jerk limits.

Ruckig shapes each change of velocity. Given position targets every cycle it would plan to arrive
at rest each time and lag behind by the braking distance, so it is given velocities instead, and
the position limits are kept here: a state is entered only if braking from it stays inside.
"""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from ruckig import ControlInterface, InputParameter, Result, Ruckig, Synchronization, Trajectory

Array = NDArray[np.float64]

_AT_REST = 1e-6
_SPACING = 0.02  # s between the points of a stop
_MOST_POINTS = 24
_PLANNED = (Result.Working, Result.Finished)


class JointState(NamedTuple):
    """Commanded positions, velocities and accelerations, each [n]."""

    positions: Array
    velocities: Array
    accelerations: Array

    @staticmethod
    def at_rest(q: ArrayLike) -> JointState:
        """Standing still at joint positions q [n]."""
        positions = np.array(q, dtype=np.float64)
        return JointState(positions, np.zeros_like(positions), np.zeros_like(positions))


class Stop(NamedTuple):
    """The fastest way from a state to a standstill, as moments evenly spread over it.

    Attributes:
        duration: s until every joint rests.
        times: [k] s after the state; the first is 0, the last `duration`.
        rows: [k, 3, n] the joints then: the way from the state's positions, velocities and
            accelerations.
        positions: [k, n] the joints then.
        lowest, highest: [n] the ends of each joint's whole way, between the moments, too.
        within: [n] whether that is within its position limits.
    """

    duration: float
    times: list[float]
    rows: Array
    positions: Array
    lowest: Array
    highest: Array
    within: NDArray[np.bool_]

    @property
    def velocities(self) -> Array:
        """[k, n] at these times."""
        return self.rows[:, 1]

    @property
    def points(self) -> list[tuple[float, JointState]]:
        """(s after the state, the joints then) for all but the first moment."""
        rows = zip(self.positions, self.rows[:, 1], self.rows[:, 2], strict=True)
        states = [JointState(*row) for row in rows]
        return list(zip(self.times, states, strict=True))[1:]


class VelocityProfile:
    """Time-optimal changes of velocity within acceleration, jerk and position limits, each [n]."""

    def __init__(self, acceleration: Array, jerk: Array, lower: Array, upper: Array) -> None:
        n = len(lower)
        self._lower, self._upper = lower, upper
        self._acceleration, self._least_acceleration = acceleration, -acceleration
        self._ruckig, self._trajectory = Ruckig(n), Trajectory(n)
        self._input = InputParameter(n)
        self._input.control_interface = ControlInterface.Velocity
        self._input.synchronization = Synchronization.No
        self._input.max_acceleration = acceleration.tolist()
        self._input.max_jerk = jerk.tolist()
        # Planned relative to where the joints are: ruckig's extrema always contain zero.
        self._still = self._input.current_position = [0.0] * n

    def towards(self, state: JointState, velocity: Array, step: float) -> JointState:
        """The state after `step` seconds towards `velocity` [n]; position limits do not count."""
        self._plan(state, velocity.tolist())
        return self._at(step, state.positions)

    def brake(self, state: JointState, step: float) -> JointState:
        """The state after `step` seconds of braking; positions that are at rest stay as they are.

        The way to a stop was checked before the state was entered; the clip removes rounding.
        """
        self._plan(state, self._still)
        positions, velocities, accelerations = self._at(step, state.positions)
        positions = np.minimum(np.maximum(positions, self._lower), self._upper)
        if _is_none(velocities) and _is_none(accelerations):
            return JointState.at_rest(positions)
        return JointState(positions, velocities, accelerations)

    def stop(self, state: JointState) -> Stop:
        """How braking from `state` goes on."""
        self._plan(state, self._still)
        start, trajectory = state.positions, self._trajectory
        duration = trajectory.duration
        bounds = trajectory.position_extrema
        lowest = start + [b.min for b in bounds]
        highest = start + [b.max for b in bounds]
        points = 1 + min(int(duration / _SPACING), _MOST_POINTS - 1)
        spacing = duration / points
        times = [spacing * i for i in range(points)] + [duration]
        numbers = chain.from_iterable(chain.from_iterable(map(trajectory.at_time, times)))
        shape = (len(times), 3, len(start))
        rows = np.fromiter(numbers, np.float64, shape[0] * shape[1] * shape[2]).reshape(shape)
        return Stop(
            duration=duration,
            times=times,
            rows=rows,
            positions=rows[:, 0] + start,
            lowest=lowest,
            highest=highest,
            within=(lowest >= self._lower) & (highest <= self._upper),
        )

    def _at(self, t: float, start: Array) -> JointState:
        """The joints `t` s after the start of the last plan, which was at positions [n]."""
        moved, v, a = np.array(self._trajectory.at_time(t))
        np.minimum(a, self._acceleration, out=a)  # what rounding adds
        np.maximum(a, self._least_acceleration, out=a)
        return JointState(start + moved, v, a)

    def _plan(self, state: JointState, velocity: list[float]) -> None:
        self._input.current_velocity = state.velocities.tolist()
        self._input.current_acceleration = state.accelerations.tolist()
        self._input.target_velocity = velocity
        result = self._ruckig.calculate(self._input, self._trajectory)
        if result not in _PLANNED:
            raise RuntimeError(f"servo: ruckig refused a joint state: {result}")


def _is_none(rates: Array) -> bool:
    """Whether rates [n] are those of joints at rest."""
    return max(map(abs, rates.tolist())) < _AT_REST
