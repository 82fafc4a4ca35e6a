"""Classifier-free guidance: the actor with and without the latent plan, in one batch.

Ho & Salimans 2022. What does not change from one denoising step to the next, the condition tokens
and the embeddings of all timesteps, is computed once a chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor

from internvla_ros.model.dit import DiT


class NoisePredictor:
    """eps(x_t, t) of an actor under one observation, as samplers call it."""

    def __init__(
        self,
        actor: DiT,
        plan: Tensor,
        points: Tensor | None,
        states: Tensor | None,
        *,
        scale: float,
        steps: int,
    ) -> None:
        """Embed what stays the same.

        plan [B, Q, C] are the plan's tokens; points and states, as the actor takes them, stand in
        both passes: guidance strengthens the plan alone. `scale` 1 needs no second pass; `steps`
        is the number of training timesteps.
        """
        self.actor, self.scale = actor, scale
        self.times = actor.time(torch.arange(steps, device=plan.device))
        if scale != 1.0:
            without = actor.uncondition.expand(len(plan), -1, -1).to(plan.dtype)
            plan = torch.cat([plan, without])
            points, states = _twice(points), _twice(states)
        self.condition = actor.condition(plan, points, states)

    def __call__(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """Predicted noise [B, T, D], in float32, at integer timesteps [B]."""
        x, time = noisy.to(self.times.dtype), self.times[timesteps]
        if self.scale == 1.0:
            return self.actor.denoise(x, time, self.condition).float()
        both = self.actor.denoise(
            torch.cat([x, x]), torch.cat([time, time]), self.condition
        ).float()
        with_plan, without_plan = both.chunk(2)
        return without_plan + self.scale * (with_plan - without_plan)


def withheld(plan: Tensor, uncondition: Tensor, uniform: Tensor, share: float) -> Tensor:
    """Plans [B, Q, C] for training, `share` of them replaced by the learned `uncondition` [Q, C].

    `uniform` [B] are numbers drawn from 0..1; a sample is withheld where its number is below.
    """
    return torch.where((uniform < share)[:, None, None], uncondition[None], plan)


def _twice(x: Tensor | None) -> Tensor | None:
    return None if x is None else torch.cat([x, x])
