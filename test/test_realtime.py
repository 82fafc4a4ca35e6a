"""Real-time chunking: in-painting with denoisers whose answers are known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from internvla_ros.model.diffusion import PredictNoise, Schedule, ddim_sample
from internvla_ros.model.realtime import Commitment, realtime_ddim_sample, soft_mask

SCHEDULE = Schedule.squared_cosine(100)
LENGTH, WIDTH = 16, 7


def gaussian(covariance: Tensor) -> PredictNoise:
    """The exact denoiser of chunks whose steps are jointly normal with [T, T] `covariance`."""

    def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
        alpha = float(SCHEDULE.alphas_cumprod[timesteps[0]])
        of_noisy = alpha * covariance + (1 - alpha) * torch.eye(len(covariance)).to(covariance)
        clean = math.sqrt(alpha) * covariance @ torch.linalg.solve(of_noisy, noisy)
        return (noisy - math.sqrt(alpha) * clean) / math.sqrt(1 - alpha)

    return predict


def smooth(length: int = LENGTH, reach: float = 4.0) -> Tensor:
    """Covariance of steps that resemble their neighbours."""
    steps = torch.arange(length, dtype=torch.float64)
    gaps = steps[:, None] - steps[None, :]
    return torch.exp(-0.5 * (gaps / reach) ** 2) + 1e-4 * torch.eye(length, dtype=torch.float64)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(1, 32), st.data())
def test_the_mask_falls_from_one_to_nothing(known: int, data: st.DataObject) -> None:
    frozen = data.draw(st.integers(0, known))
    mask = soft_mask(32, known, frozen)
    assert bool((mask[:frozen] == 1.0).all())
    assert bool((mask[known:] == 0.0).all())
    assert bool((mask[frozen:known] > 0.0).all()) and bool((mask[frozen:] < 1.0).all())
    assert bool((mask.diff() <= 0.0).all())


def test_the_mask_by_hand() -> None:
    c = 2.0 / 3.0
    expected = [1.0, c * (math.exp(c) - 1) / (math.e - 1)]
    torch.testing.assert_close(soft_mask(4, 3, 1)[:2], torch.tensor(expected, dtype=torch.float64))


@given(st.integers(0, 2**31), st.integers(1, LENGTH))
@settings(max_examples=20, deadline=None)
def test_frozen_steps_are_those_given(seed: int, frozen: int) -> None:
    previous = drawn(seed, 2, LENGTH, WIDTH)
    found = realtime_ddim_sample(
        gaussian(smooth()), drawn(seed + 1, 2, LENGTH, WIDTH), SCHEDULE, 10,
        Commitment(previous, frozen),
    )  # fmt: skip
    torch.testing.assert_close(found[:, :frozen], previous[:, :frozen])
    assert bool(found.isfinite().all())


@given(st.integers(0, 2**31), st.sampled_from([5, 10, 20]))
@settings(max_examples=20, deadline=None)
def test_what_follows_goes_on_from_what_is_frozen(seed: int, steps: int) -> None:
    """The step after the frozen ones is as near to them as neighbours are, not as strangers are."""
    predict, noise = gaussian(smooth()), drawn(seed, 8, LENGTH, WIDTH)
    before = ddim_sample(predict, drawn(seed + 1, 8, LENGTH, WIDTH), SCHEDULE, 50)
    alone = ddim_sample(predict, noise, SCHEDULE, steps)
    together = realtime_ddim_sample(predict, noise, SCHEDULE, steps, Commitment(before, 4))
    jump = (together[:, 4] - before[:, 3]).pow(2).mean()
    assert float(jump) < 0.3 * float((alone[:, 4] - before[:, 3]).pow(2).mean())


def test_nothing_given_changes_nothing() -> None:
    """With one step known and none frozen the rest of independent steps stays as it was."""
    predict = gaussian(torch.eye(LENGTH, dtype=torch.float64))
    noise = drawn(0, 1, LENGTH, WIDTH)
    found = realtime_ddim_sample(predict, noise, SCHEDULE, 10, Commitment(drawn(1, 1, 1, WIDTH), 0))
    torch.testing.assert_close(found[:, 1:], ddim_sample(predict, noise, SCHEDULE, 10)[:, 1:])


def test_it_works_under_inference_mode_and_leaves_no_gradients() -> None:
    network = torch.nn.Linear(WIDTH, WIDTH)
    with torch.inference_mode():
        bias = torch.ones(WIDTH)
        found = realtime_ddim_sample(
            lambda x, t: network(x) + bias,
            torch.zeros(1, LENGTH, WIDTH),
            SCHEDULE,
            5,
            Commitment(torch.ones(1, 8, WIDTH), 2),
        )
    assert not found.requires_grad
    assert network.weight.grad is None


@pytest.mark.parametrize(("shape", "frozen"), [((2, 3), 1), ((1, 4, 7), 5), ((1, 4, 7), -1)])
def test_impossible_commitments_are_refused(shape: tuple[int, ...], frozen: int) -> None:
    with pytest.raises(ValueError, match="frozen steps"):
        Commitment(torch.zeros(shape), frozen)
