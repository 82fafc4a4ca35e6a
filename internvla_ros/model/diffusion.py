"""Gaussian diffusion over action chunks: the squared-cosine schedule, noising and DDIM sampling.

Nichol & Dhariwal 2021 (schedule), Song et al. 2021 (DDIM, eta 0), Ho & Salimans 2022 (guidance).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

PredictNoise = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Schedule:
    """Cumulative signal power alpha-bar[t] of the forward process, float64 [steps]."""

    alphas_cumprod: Tensor

    @classmethod
    def squared_cosine(cls, steps: int, max_beta: float = 0.999) -> Schedule:
        """The `squaredcos_cap_v2` schedule of `steps` training steps."""
        if steps < 1:
            raise ValueError(f"a diffusion schedule needs at least one step, got {steps}")

        def signal(u: float) -> float:
            return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

        betas = [
            min(1 - signal((i + 1) / steps) / signal(i / steps), max_beta) for i in range(steps)
        ]
        return cls(torch.cumprod(1 - torch.tensor(betas, dtype=torch.float64), dim=0))

    @property
    def steps(self) -> int:
        """Number of training timesteps."""
        return int(self.alphas_cumprod.numel())

    def noised(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t of `clean` [B, T, D] at integer `timesteps` [B]."""
        alpha = self.alphas_cumprod.to(clean.device)[timesteps].to(clean.dtype)[:, None, None]
        return alpha.sqrt() * clean + (1 - alpha).sqrt() * noise

    def sampling_timesteps(self, count: int) -> list[int]:
        """The `count` training timesteps that a shorter sampler visits, ascending.

        Evenly strided from 0 with the largest integer stride that yields exactly `count` steps,
        as in the reference sampler; a single step is taken from the middle.
        """
        if not 1 <= count <= self.steps:
            raise ValueError(f"num_ddim_steps must lie in 1..{self.steps}, got {count}")
        if count == 1:
            return [self.steps // 2]
        for stride in range(1, self.steps):
            visited = range(0, self.steps, stride)
            if len(visited) == count:
                return list(visited)
        raise ValueError(
            f"num_ddim_steps={count} has no even stride over {self.steps} training steps; "
            f"choose one of {sorted({-(-self.steps // s) for s in range(1, self.steps + 1)})}"
        )


def ddim_sample(
    predict_noise: PredictNoise, noise: Tensor, schedule: Schedule, steps: int
) -> Tensor:
    """Deterministic DDIM from `noise` [B, T, D] to a clean chunk; x0 is not clipped.

    `predict_noise(x_t, t)` takes integer timesteps [B] and returns the noise in x_t.
    """
    timesteps = schedule.sampling_timesteps(steps)
    alphas = [float(schedule.alphas_cumprod[t]) for t in timesteps]
    sample = noise
    for index in reversed(range(steps)):
        alpha, previous = alphas[index], alphas[index - 1] if index else 1.0
        t = torch.full((sample.shape[0],), timesteps[index], dtype=torch.long, device=sample.device)
        eps = predict_noise(sample, t)
        clean = (sample - math.sqrt(1 - alpha) * eps) / math.sqrt(alpha)
        sample = math.sqrt(previous) * clean + math.sqrt(1 - previous) * eps
    return sample
