"""The noise schedule and DDIM sampling."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from internvla_ros.model.diffusion import Schedule, ddim_sample

SCHEDULE = Schedule.squared_cosine(100)
COUNTS = [1, 2, 4, 5, 10, 20, 25, 50, 100]


def test_signal_fades_monotonically() -> None:
    alphas = SCHEDULE.alphas_cumprod
    assert bool((alphas.diff() < 0).all())
    assert 0 < float(alphas[-1]) < 1e-3 < 0.99 < float(alphas[0]) < 1


@given(st.sampled_from(COUNTS), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_a_perfect_predictor_recovers_the_clean_chunk(count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randn(2, 16, 7, generator=generator, dtype=torch.float64)
    start = torch.randn(2, 16, 7, generator=generator, dtype=torch.float64)

    def perfect(noisy: Tensor, timesteps: Tensor) -> Tensor:
        alpha = SCHEDULE.alphas_cumprod[timesteps][:, None, None]
        return (noisy - alpha.sqrt() * clean) / (1 - alpha).sqrt()

    torch.testing.assert_close(ddim_sample(perfect, start, SCHEDULE, count), clean)


@pytest.mark.parametrize("count", [0, -1, 101, 11])
def test_impossible_step_counts_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="num_ddim_steps"):
        SCHEDULE.sampling_timesteps(count)


def test_noising_keeps_unit_power() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(4000, 4, 4, generator=generator)
    noise = torch.randn(4000, 4, 4, generator=generator)
    steps = torch.randint(100, (4000,), generator=generator)
    assert float(SCHEDULE.noised(clean, noise, steps).var()) == pytest.approx(1.0, abs=0.02)
