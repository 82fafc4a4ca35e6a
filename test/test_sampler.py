"""Weighted sampling: repeatable, resumable, every item once an epoch."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from internvla_ros.data.sampler import MixtureSampler, Part, SamplerError

PARTS = st.lists(st.tuples(st.integers(1, 50), st.floats(0.05, 5)), min_size=1, max_size=4).map(
    lambda rows: [Part(f"set{n}", size, weight) for n, (size, weight) in enumerate(rows)]
)
SEEDS = st.integers(0, 2**31)


@given(PARTS, SEEDS, st.lists(st.integers(0, 200), max_size=5))
def test_draws_do_not_depend_on_how_they_are_taken(
    parts: list[Part], seed: int, counts: list[int]
) -> None:
    whole = MixtureSampler(parts, seed).take(sum(counts))
    sampler = MixtureSampler(parts, seed)
    pieces = [sampler.take(count) for count in counts]
    for axis in range(2):
        joined = np.concatenate([piece[axis] for piece in pieces] or [np.empty(0, int)])
        np.testing.assert_array_equal(joined, whole[axis])
    assert sampler.position == sum(counts)


LARGE = PARTS.map(lambda parts: [replace(part, size=part.size + 50) for part in parts])


@settings(max_examples=30)
@given(LARGE, SEEDS, st.integers(0, 300) | st.integers(4000, 4200), st.integers(1, 300))
def test_a_resumed_sampler_goes_on_as_if_nothing_had_been(
    parts: list[Part], seed: int, before: int, after: int
) -> None:
    sampler = MixtureSampler(parts, seed)
    sampler.take(before)
    state = json.loads(json.dumps(sampler.state_dict()))
    wanted = sampler.take(after)
    resumed = MixtureSampler(parts, seed)
    resumed.load_state_dict(state)
    for got, want in zip(resumed.take(after), wanted, strict=True):
        np.testing.assert_array_equal(got, want)
    assert resumed.state_dict() == sampler.state_dict()


@given(PARTS, SEEDS, st.integers(1, 800))
def test_every_epoch_holds_every_item_once(parts: list[Part], seed: int, count: int) -> None:
    sampler = MixtureSampler(parts, seed)
    sets, items = sampler.take(count)
    for number, part in enumerate(parts):
        own = items[sets == number]
        assert sampler.epochs[part.name] == len(own) / part.size
        for start in range(0, len(own), part.size):
            epoch = own[start : start + part.size]
            assert len(set(epoch.tolist())) == len(epoch) and (epoch < part.size).all()
    assert sampler.epoch == min(int(share) for share in sampler.epochs.values())


def test_weights_are_the_shares_of_the_draws() -> None:
    sampler = MixtureSampler([Part("a", 10, 3.0), Part("b", 1000, 1.0)], seed=4)
    sets, _ = sampler.take(20_000)
    assert abs((sets == 0).mean() - 0.75) < 0.01
    assert sampler.epoch_length == 4000


def test_other_seeds_and_epochs_have_other_orders() -> None:
    first = MixtureSampler([Part("a", 100)], 0).take(200)[1]
    assert not np.array_equal(first[:100], first[100:])
    assert not np.array_equal(first[:100], MixtureSampler([Part("a", 100)], 1).take(100)[1])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "at least one"),
        ([Part("a", 1), Part("a", 2)], "two data sets of a mixture have one name: a, a"),
        ([Part("a", 0)], "a has nothing to draw"),
        ([Part("a", 1, 0.0)], r"a has the weight 0\.0"),
        ([Part("a", 1, float("nan"))], "a has the weight nan"),
    ],
)
def test_mixtures_without_sense_are_refused(parts: list[Part], message: str) -> None:
    with pytest.raises(SamplerError, match=message):
        MixtureSampler(parts)


def test_the_state_of_another_mixture_is_refused() -> None:
    state = MixtureSampler([Part("a", 5)], 0).state_dict()
    with pytest.raises(SamplerError, match=r"its parts was .*'size': 5.* now .*'size': 6"):
        MixtureSampler([Part("a", 6)], 0).load_state_dict(state)
    with pytest.raises(SamplerError, match="its seed was 0, now it is 1"):
        MixtureSampler([Part("a", 5)], 1).load_state_dict(state)
    with pytest.raises(SamplerError, match="damaged state"):
        MixtureSampler([Part("a", 5)], 0).load_state_dict(state | {"position": 3})
