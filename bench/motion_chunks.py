"""Chunks of all kinds, as from a policy that may be good, bad or broken."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from internvla_ros.control.chunk import Chunk
from internvla_ros.robots.embodiment import Embodiment

Array = NDArray[np.float64]
Maker = Callable[["Source"], Chunk]

RECORDED_SPEED = 0.15  # m/s of the recorded chunks' fastest axis


class Source:
    """Draws chunks for one robot; `now` (s) is to be kept up to date."""

    def __init__(self, robot: Embodiment, rng: np.random.Generator) -> None:
        self.robot, self.rng = robot, rng
        self.now, self.sequence = 0.0, 0
        self._dt = 1.0 / robot.policy_rate
        self._reach: Array = np.zeros(3)
        self._bell = np.sin(np.linspace(0.1, np.pi, robot.chunk_size))
        self._kinds: list[tuple[str, Maker]] = [
            ("recorded", Source.recorded),
            ("random", Source.random),
            ("step", Source.step),
            ("spike", Source.spike),
            ("zigzag", Source.zigzag),
            ("not finite", Source.not_finite),
            ("wrong shape", Source.wrong_shape),
            ("wrong time", Source.wrong_time),
        ]

    def draw(self) -> tuple[str, Chunk]:
        """A chunk of any kind, and which."""
        kind, make = self._kinds[self.rng.integers(len(self._kinds))]
        self.sequence += 1
        return kind, make(self)

    def one_of(self, values: Sequence[float]) -> float:
        """Any of some numbers."""
        return values[int(self.rng.integers(len(values)))]

    def recorded(self) -> Chunk:
        """As from a demonstration: a straight reach, its speed bell-shaped, then a grasp."""
        if self.rng.random() < 0.1:
            self._reach = self.rng.normal(0.0, 1.0, 3)
            self._reach *= RECORDED_SPEED / np.abs(self._reach).max()
        steps, bell = self.robot.chunk_size, self._bell
        actions = np.zeros((steps, 7))
        actions[:, :3] = bell[:, None] * self._reach * self._dt
        actions[:, 5] = 0.1 * bell * self._reach[0]
        actions[: steps // 2, 6] = 1.0
        return self._chunk(actions)

    def random(self) -> Chunk:
        """Deltas of any size."""
        return self._gripping(self.rng.normal(0, self.one_of([0.003, 0.01, 0.03, 0.1]), (8, 6)))

    def step(self) -> Chunk:
        """As far as it goes into one direction, along the axes or across."""
        direction = self.rng.integers(-1, 2, 6) * [0.08, 0.08, 0.08, 0.5, 0.5, 0.5]
        return self._gripping(np.tile(direction, (8, 1)))

    def spike(self) -> Chunk:
        """Nothing but one great leap."""
        actions = np.zeros((8, 7))
        actions[self.rng.integers(8), :6] = self.rng.normal(0, 0.2, 6)
        return self._chunk(actions)

    def zigzag(self) -> Chunk:
        """To and fro, as fast as steps go."""
        deltas = np.tile(self.rng.normal(0, 0.06, 6), (8, 1))
        deltas[1::2] *= -1.0
        return self._gripping(deltas)

    def not_finite(self) -> Chunk:
        """With numbers that are none."""
        chunk = self.random()
        place = self.rng.integers(8), self.rng.integers(7)
        chunk.actions[place] = self.one_of([math.nan, math.inf, -math.inf, 1e300])
        return chunk

    def wrong_shape(self) -> Chunk:
        """Too few numbers, none at all, or in the wrong order."""
        shape = [(0, 7), (8, 6), (8, 8), (7,), (2, 8, 7)][self.rng.integers(5)]
        return self._chunk(self.rng.normal(0, 0.03, shape))

    def wrong_time(self) -> Chunk:
        """From the past or the future, of steps that last no time, again or out of order."""
        chunk = self.random()
        stamp = self.now + self.one_of([-10.0, -0.9, 0.09, 0.2, 1e6, math.nan, -math.inf])
        dt = self.one_of([0.2, 0.0, -1.0, 1e-6, 1e3, math.nan])
        return Chunk(stamp, dt, chunk.actions, self.sequence - int(self.rng.integers(0, 3)))

    def _gripping(self, deltas: Array) -> Chunk:
        """Deltas [T, 6], and numbers of the gripper as they come."""
        grips = np.array([0.0, 1.0, 0.5, 0.45, -3.0])[self.rng.integers(5, size=len(deltas))]
        return self._chunk(np.column_stack([deltas, grips]))

    def _chunk(self, actions: Array) -> Chunk:
        delay = self.one_of([0.0, 0.02, 0.1, 0.3])
        return Chunk(self.now - delay, self._dt, actions, self.sequence)
