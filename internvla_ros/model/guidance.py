"""Classifier-free guidance: the actor with and without the latent plan, in one batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from internvla_ros.model.dit import DiT


@dataclass(frozen=True)
class NoisePredictor:
    """eps(x_t, t) of an actor under one observation, as samplers call it.

    `condition` and `without` [B, Q, C] are the plan's tokens and the learned `uncondition`;
    `scale` 1 needs no unconditional pass. Points and state stand in both passes: guidance
    strengthens the plan alone.
    """

    actor: DiT
    condition: Tensor
    without: Tensor
    points: Tensor | None
    states: Tensor | None
    scale: float

    def __call__(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """Predicted noise [B, T, D]."""
        if self.scale == 1.0:
            return self.actor(noisy, timesteps, self.condition, self.points, self.states)
        both = self.actor(
            torch.cat([noisy, noisy]),
            torch.cat([timesteps, timesteps]),
            torch.cat([self.condition, self.without]),
            _twice(self.points),
            _twice(self.states),
        )
        with_plan, without_plan = both.chunk(2)
        return without_plan + self.scale * (with_plan - without_plan)


def _twice(x: Tensor | None) -> Tensor | None:
    return None if x is None else torch.cat([x, x])
