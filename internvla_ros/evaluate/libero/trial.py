"""One attempt at a LIBERO task: what is known of it, and what to execute next."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from internvla_ros.control.ensemble import Prediction, blend
from internvla_ros.evaluate.libero.conventions import turned
from internvla_ros.motion.se3 import rot6d

Array = NDArray[np.float64]
Image = NDArray[np.uint8]


class Trial:
    """An attempt from one official initial state.

    Args:
        task: number of the task in its suite.
        number: of the initial state.
        method, horizon: how overlapping chunks are blended, see `control.ensemble`.

    Attributes:
        memory: the policy's own.
        executed: the actions [7] so far, as the robot was given them.
        wanted: what an expert that is pushed about would have done instead, if there is one.
    """

    def __init__(self, task: int, number: int, method: str, horizon: int) -> None:
        self.task, self.number = task, number
        self.memory: dict[str, Any] = {}
        self.executed: list[Array] = []
        self.wanted: list[Array] = []
        self.facts: dict[str, Any] = {}
        self.state: dict[str, Any] = {}
        self._method = method
        self._predictions: deque[Prediction] = deque(maxlen=horizon)

    def observe(self, answer: dict[str, Any]) -> None:
        """Take in what LIBERO's process answered."""
        self.facts = self.facts or answer
        self.state = answer

    @property
    def steps(self) -> int:
        """Steps since the objects have settled."""
        return len(self.executed)

    @property
    def success(self) -> bool:
        """LIBERO says that the task is achieved."""
        return bool(self.state["success"])

    @property
    def instruction(self) -> str:
        """The task in words."""
        return str(self.facts["instruction"])

    def pictures(self) -> list[Image]:
        """What the cameras see, as policies are trained on it, uint8 [h, w, 3]."""
        return [turned(image) for image in self.state["images"]]

    def proprioception(self) -> Array:
        """See `proprioception`."""
        return proprioception(self.facts["base"], self.state)

    def execute(self, chunk: Array, count: int) -> Array:
        """The next `count` actions [<= count, 7]: a new chunk [T, 7], blended with older ones."""
        self._predictions.append(Prediction(float(self.steps), 1.0, chunk))
        newest = Prediction(float(self.steps), 1.0, chunk[:count])
        actions = blend([*list(self._predictions)[:-1], newest], self._method, "rotvec")
        return actions

    def advanced(self, actions: Array, answer: dict[str, Any]) -> None:
        """Take in what came of actions; LIBERO stops within them when the task is achieved."""
        self.executed.extend(actions[: int(answer["steps"]) - self.steps])
        self.observe(answer)


def proprioception(base: Array, state: Mapping[str, Any]) -> Array:
    """State [10] as in our data sets: tip x y z from the base (m), rotation (6), opening 0..1."""
    return np.array([*(state["tip"] - base), *rot6d(state["rotation"]), state["opening"]])


class Attempt(Protocol):
    """What a policy without privileges sees of a trial, in whatever simulator."""

    @property
    def instruction(self) -> str:
        """The task in words."""
        ...

    def pictures(self) -> list[Image]:
        """What the cameras see, uint8 [h, w, 3]."""
        ...

    def proprioception(self) -> Array:
        """State [10] as in our data sets."""
        ...


class TrialPolicy(Protocol):
    """What may be evaluated."""

    views: int
    """How many of the cameras it looks at."""

    def decide(self, trials: Sequence[Trial]) -> list[Array]:
        """A chunk [T, 7] for each trial, from its present observation."""
        ...
