"""Planner and actor of this process as `serving.client.PolicyClient` offers those of another.

Both take and give plans as plain arrays, so that who uses them needs not know where they run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from internvla_ros.model.config import PolicyConfig
from internvla_ros.serving.plan import PlanArrays
from internvla_ros.spatial.types import SpatialAnswer

if TYPE_CHECKING:
    from internvla_ros.model.actor import Actor
    from internvla_ros.model.planner import Planner

Image = NDArray[np.uint8]
Views = Sequence[Image]


class PlannerPart(Protocol):
    """System 2, wherever it runs."""

    @property
    def config(self) -> PolicyConfig:
        """Of the policy."""
        ...

    def look(
        self,
        images: Sequence[Views],
        instructions: Sequence[str],
        *,
        trace: bool = False,
        drafts: dict[str, list[int]] | None = None,
    ) -> tuple[PlanArrays, list[SpatialAnswer]]:
        """As `internvla_ros.model.planner.Planner.look`."""
        ...

    def answer(self, images: Views, questions: Sequence[str]) -> list[SpatialAnswer]:
        """As `internvla_ros.model.planner.Planner.answer`."""
        ...


class ActorPart(Protocol):
    """System 1, wherever it runs."""

    @property
    def config(self) -> PolicyConfig:
        """Of the policy."""
        ...

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the statistics that the policy can un-normalise with."""
        ...

    def act(
        self,
        images: Sequence[Views],
        plan: PlanArrays | None,
        states: NDArray[np.float64] | None = None,
        points: NDArray[np.float64] | None = None,
        *,
        seed: int = 0,
        num_ddim_steps: int | None = None,
        unnorm_key: str | None = None,
        previous: NDArray[np.float64] | None = None,
        frozen: int = 0,
    ) -> NDArray[np.float64]:
        """As `internvla_ros.model.actor.Actor.act`."""
        ...


class LocalPlanner:
    """A planner of this process."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner

    @property
    def config(self) -> PolicyConfig:
        """Of the policy."""
        return self._planner.policy_config

    def look(
        self,
        images: Sequence[Views],
        instructions: Sequence[str],
        *,
        trace: bool = False,
        drafts: dict[str, list[int]] | None = None,
    ) -> tuple[PlanArrays, list[SpatialAnswer]]:
        """See `Planner.look`."""
        from internvla_ros.model.plan import batch_to_arrays

        plan, answers = self._planner.look(images, instructions, trace=trace, drafts=drafts)
        return PlanArrays(*batch_to_arrays(plan), plan.instructions), answers

    def answer(self, images: Views, questions: Sequence[str]) -> list[SpatialAnswer]:
        """See `Planner.answer`."""
        return self._planner.answer(images, questions)


class LocalActor:
    """An actor of this process."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor

    @property
    def config(self) -> PolicyConfig:
        """Of the policy."""
        return self._actor.config

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the statistics that the policy can un-normalise with."""
        return tuple(self._actor.statistics)

    def act(
        self,
        images: Sequence[Views],
        plan: PlanArrays | None,
        states: NDArray[np.float64] | None = None,
        points: NDArray[np.float64] | None = None,
        **options: Any,
    ) -> NDArray[np.float64]:
        """See `Actor.act`."""
        from internvla_ros.model.plan import batch_from_arrays

        latent = None
        if plan is not None:
            latent = batch_from_arrays(plan.hidden_states, plan.attention_mask, plan.instructions)
        return self._actor.act(images, latent, states, points, **options)
