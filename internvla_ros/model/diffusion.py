"""Gaussian diffusion over action chunks: the squared-cosine schedule, noising and two samplers.

Nichol & Dhariwal 2021 (schedule), Song et al. 2021 (DDIM, eta 0), Lu et al. 2022 (DPM-Solver++).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

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

    @cached_property
    def powers(self) -> tuple[float, ...]:
        """The same as plain numbers, for samplers whose steps are traced or captured."""
        return tuple(self.alphas_cumprod.tolist())

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

        Evenly strided from 0 with the smallest integer stride that yields exactly `count` steps,
        as in the reference sampler; a single step is taken from the middle. Counts that no stride
        yields, at which the reference fails, are spread as evenly as integers allow.
        """
        if not 1 <= count <= self.steps:
            raise ValueError(
                f"the number of sampling steps must lie in 1..{self.steps}, got {count}"
            )
        if count == 1:
            return [self.steps // 2]
        for stride in range(1, self.steps):
            visited = range(0, self.steps, stride)
            if len(visited) == count:
                return list(visited)
        return [index * self.steps // count for index in range(count)]


def ddim_sample(
    predict_noise: PredictNoise, noise: Tensor, schedule: Schedule, steps: int
) -> Tensor:
    """Deterministic DDIM from `noise` [B, T, D] to a clean chunk; x0 is not clipped.

    `predict_noise(x_t, t)` takes integer timesteps [B] and returns the noise in x_t.
    """
    *_, (sample, _) = ddim_states(predict_noise, noise, schedule, steps)
    return sample


def ddim_states(
    predict_noise: PredictNoise, noise: Tensor, schedule: Schedule, steps: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """After every DDIM step the sample, and the clean chunk that was predicted, both [B, T, D]."""
    timesteps = schedule.sampling_timesteps(steps)
    alphas = [schedule.powers[t] for t in timesteps]
    sample = noise
    for index in reversed(range(steps)):
        alpha, previous = alphas[index], alphas[index - 1] if index else 1.0
        t = torch.full((sample.shape[0],), timesteps[index], dtype=torch.long, device=sample.device)
        eps = predict_noise(sample, t)
        clean = (sample - math.sqrt(1 - alpha) * eps) / math.sqrt(alpha)
        sample = math.sqrt(previous) * clean + math.sqrt(1 - previous) * eps
        yield sample, clean


def dpm_solver_sample(
    predict_noise: PredictNoise, noise: Tensor, schedule: Schedule, steps: int
) -> Tensor:
    """DPM-Solver++(2M): second order by reusing the previous prediction; arguments as in DDIM.

    It starts where DDIM starts, and its timesteps are spread evenly in log-SNR, on which its order
    rests. The first and the last step are of first order.
    """
    timesteps = _even_in_log_snr(schedule, steps)
    alphas = [math.sqrt(schedule.powers[t]) for t in timesteps]
    sigmas = [math.sqrt(1 - schedule.powers[t]) for t in timesteps]
    snr = [math.log(alpha / sigma) for alpha, sigma in zip(alphas, sigmas, strict=True)]
    sample, earlier = noise, noise
    for index, timestep in enumerate(timesteps):
        t = torch.full((sample.shape[0],), timestep, dtype=torch.long, device=sample.device)
        clean = (sample - sigmas[index] * predict_noise(sample, t)) / alphas[index]
        if index == steps - 1:
            return clean
        step = snr[index + 1] - snr[index]
        direction = clean
        if index:
            share = 0.5 * step / (snr[index] - snr[index - 1])
            direction = (1 + share) * clean - share * earlier
        sample = (sigmas[index + 1] / sigmas[index]) * sample - (
            alphas[index + 1] * math.expm1(-step)
        ) * direction
        earlier = clean
    return sample


def _even_in_log_snr(schedule: Schedule, count: int) -> list[int]:
    """`count` distinct timesteps, from the noisiest that DDIM visits down to 0."""
    noisiest = schedule.sampling_timesteps(count)[-1]
    snr = schedule.alphas_cumprod.logit()
    targets = torch.linspace(float(snr[noisiest]), float(snr[0]), count, dtype=snr.dtype)
    nearest = (snr[None] - targets[:, None]).abs().argmin(dim=1).tolist()
    timesteps = [noisiest]
    for index, timestep in enumerate(nearest[1:], start=1):
        timesteps.append(max(min(timestep, timesteps[-1] - 1), count - 1 - index))
    return timesteps


SAMPLERS: dict[str, Callable[[PredictNoise, Tensor, Schedule, int], Tensor]] = {
    "ddim": ddim_sample,
    "dpm-solver++": dpm_solver_sample,
}
