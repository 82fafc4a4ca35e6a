"""The noise schedule and DDIM sampling."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from internvla_ros.model.diffusion import SAMPLERS, Schedule

SCHEDULE = Schedule.squared_cosine(100)


def test_signal_fades_monotonically() -> None:
    alphas = SCHEDULE.alphas_cumprod
    assert bool((alphas.diff() < 0).all())
    assert 0 < float(alphas[-1]) < 1e-3 < 0.99 < float(alphas[0]) < 1


@given(st.sampled_from(sorted(SAMPLERS)), st.integers(1, 100), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_a_perfect_predictor_recovers_the_clean_chunk(name: str, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randn(2, 16, 7, generator=generator, dtype=torch.float64)
    start = torch.randn(2, 16, 7, generator=generator, dtype=torch.float64)

    def perfect(noisy: Tensor, timesteps: Tensor) -> Tensor:
        alpha = SCHEDULE.alphas_cumprod[timesteps][:, None, None]
        return (noisy - alpha.sqrt() * clean) / (1 - alpha).sqrt()

    torch.testing.assert_close(SAMPLERS[name](perfect, start, SCHEDULE, count), clean)


@given(st.integers(1, 100))
def test_any_number_of_steps_visits_as_many_distinct_timesteps(count: int) -> None:
    visited = SCHEDULE.sampling_timesteps(count)
    assert len(visited) == count
    assert visited == sorted(set(visited))
    assert 0 <= visited[0] <= visited[-1] < 100


def test_the_second_order_solver_is_nearer_to_the_exact_flow() -> None:
    """For Gaussian data of spread s the flow is known: x_t shrinks as the spread of x_t does."""
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(512, 1, 1, generator=generator, dtype=torch.float64)
    spread = 0.3

    def exact(noisy: Tensor, timesteps: Tensor) -> Tensor:
        alpha = SCHEDULE.alphas_cumprod[timesteps][:, None, None]
        return noisy * (1 - alpha).sqrt() / (alpha * spread**2 + 1 - alpha)

    first = SCHEDULE.alphas_cumprod[SCHEDULE.sampling_timesteps(10)[-1]]
    clean = start * spread / (first * spread**2 + 1 - first).sqrt()
    errors = {
        name: float((sampler(exact, start, SCHEDULE, 10) - clean).abs().mean())
        for name, sampler in SAMPLERS.items()
    }
    assert errors["dpm-solver++"] < 0.5 * errors["ddim"]


@pytest.mark.parametrize("count", [0, -1, 101])
def test_impossible_step_counts_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="sampling steps"):
        SCHEDULE.sampling_timesteps(count)


def test_noising_keeps_unit_power() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(4000, 4, 4, generator=generator)
    noise = torch.randn(4000, 4, 4, generator=generator)
    steps = torch.randint(100, (4000,), generator=generator)
    assert float(SCHEDULE.noised(clean, noise, steps).var()) == pytest.approx(1.0, abs=0.02)
