"""Real-time chunking: a chunk that goes on from the one being executed.

While a policy thinks, the arm executes steps of the chunk before; the new chunk must begin with
just these and should go on without a jump. Black et al. 2025 treat that as in-painting: the steps
that will have been executed are given, the ones after them are given the less the further ahead
they lie, and sampling is guided towards them through the gradient of the predicted clean chunk
(Song et al. 2023). There it is done for flow matching; here for the noise that DDIM denoises.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from internvla_ros.model.diffusion import PredictNoise, Schedule


@dataclass(frozen=True, eq=False)
class Commitment:
    """What a new chunk has to go on from.

    Attributes:
        previous: [B, K, D] what is left of the chunk in execution, its first step the one that is
            under way at the new observation; K is at least 1 and at most the chunk's length.
        frozen: how many of these steps will be executed before the new chunk arrives, 0..K.
    """

    previous: Tensor
    frozen: int

    def __post_init__(self) -> None:
        if self.previous.ndim != 3 or not 0 <= self.frozen <= self.previous.shape[1]:
            raise ValueError(
                f"a commitment needs [B, K, D] actions and at most K frozen steps, got "
                f"{list(self.previous.shape)} and {self.frozen}"
            )


def soft_mask(length: int, known: int, frozen: int) -> Tensor:
    """Weights [length] of the given steps: 1 while frozen, then falling to 0 at step `known`."""
    steps = torch.arange(length, dtype=torch.float64)
    nearness = ((known - steps) / (known - frozen + 1)).clamp(0.0, 1.0)
    falling = nearness * torch.expm1(nearness) / math.expm1(1.0)
    return torch.where(steps < frozen, 1.0, falling)


def realtime_ddim_sample(
    predict_noise: PredictNoise,
    noise: Tensor,
    schedule: Schedule,
    steps: int,
    commitment: Commitment,
    guidance_weight_max: float = 5.0,
) -> Tensor:
    """DDIM from `noise` [B, T, D] to a clean chunk that goes on from a commitment.

    Frozen steps are exactly those given, as they are executed whatever is sampled.

    Args:
        predict_noise, noise, schedule, steps: as `ddim_sample` takes them.
        commitment: in the space that is sampled in; at most T steps of it are used.
        guidance_weight_max: bound on how strongly one denoising step is guided; without it the
            first steps, from almost nothing but noise, would be thrown far off.
    """
    length = noise.shape[1]
    known = min(commitment.previous.shape[1], length)
    given = torch.zeros_like(noise)
    given[:, :known] = commitment.previous[:, :known]
    weights = soft_mask(length, known, commitment.frozen).to(noise)[None, :, None]
    timesteps = schedule.sampling_timesteps(steps)
    alphas = [float(schedule.alphas_cumprod[t]) for t in timesteps]
    sample = noise
    for index in reversed(range(steps)):
        alpha, previous = alphas[index], alphas[index - 1] if index else 1.0
        strength = min(1.0 / math.sqrt(alpha), guidance_weight_max)
        clean = _guided(predict_noise, sample, timesteps[index], alpha, given, weights, strength)
        eps = (sample - math.sqrt(alpha) * clean) / math.sqrt(1 - alpha)
        sample = math.sqrt(previous) * clean + math.sqrt(1 - previous) * eps
    executed = torch.arange(length, device=noise.device)[None, :, None] < commitment.frozen
    return torch.where(executed, given, sample)


def _guided(
    predict_noise: PredictNoise,
    sample: Tensor,
    timestep: int,
    alpha: float,
    given: Tensor,
    weights: Tensor,
    strength: float,
) -> Tensor:
    """The clean chunk predicted from `sample`, drawn towards the given steps.

    For data of unit variance 1 / sqrt(alpha) times the gradient is the posterior's own mean.
    """
    t = torch.full((sample.shape[0],), timestep, dtype=torch.long, device=sample.device)
    with torch.inference_mode(False), torch.enable_grad():
        x = sample.clone().requires_grad_()
        clean = (x - math.sqrt(1 - alpha) * predict_noise(x, t)) / math.sqrt(alpha)
        error = weights * (given.clone() - clean.detach())
        (pull,) = torch.autograd.grad(clean, x, grad_outputs=error)
    return clean.detach() + strength * pull
