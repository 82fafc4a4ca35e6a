"""Normalisation by quantiles: there and back, the gripper, and the statistics file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from internvla_ros.data.normalisation import (
    CONSTANT_RANGE,
    Bounds,
    DatasetStatistics,
    StatisticsError,
    action_statistics,
    compute,
    read_statistics,
    write_statistics,
)

RNG = np.random.default_rng(0)
ACTIONS = np.column_stack(
    [
        RNG.normal(0, 0.02, (500, 3)),
        np.zeros(500),
        RNG.normal(0, 0.1, (500, 2)),
        RNG.random(500) > 0.5,
    ]
)
STATISTICS = action_statistics(ACTIONS)


@given(hnp.arrays(float, (4, 7), elements=st.floats(0, 1)))
def test_values_within_the_quantiles_survive_the_round_trip(fractions: np.ndarray) -> None:
    actions = STATISTICS.q01 + fractions * (STATISTICS.q99 - STATISTICS.q01)
    actions[:, 6] = fractions[:, 6] > 0.5
    normalised = STATISTICS.normalise(actions)
    assert (np.abs(normalised) <= 1).all()
    np.testing.assert_allclose(STATISTICS.unnormalise(normalised), actions, atol=1e-12)


SPREADS = hnp.arrays(float, (3, 4), elements=st.floats(-100, 100))


@given(SPREADS, hnp.arrays(float, (5, 4), elements=st.floats(0, 1)), st.booleans())
def test_any_statistics_take_values_there_and_back(
    spread: np.ndarray, shares: np.ndarray, extremes: bool
) -> None:
    """Of any data, by quantiles or by extremes, with a component that is not scaled."""
    bounds: Bounds = "extremes" if extremes else "quantiles"
    mask = np.array([True, True, True, False])
    statistics = replace(compute(spread, mask.tolist()), bounds=bounds)
    values = statistics.low + shares * (statistics.high - statistics.low)
    normalised = statistics.normalise(values)
    assert (np.abs(normalised[:, mask]) <= 1).all()
    np.testing.assert_array_equal(normalised[:, 3], values[:, 3])
    varies = statistics.high - statistics.low >= CONSTANT_RANGE
    back = statistics.unnormalise(normalised)
    np.testing.assert_allclose(back[:, varies & mask], values[:, varies & mask], atol=1e-9)
    half = (statistics.high + statistics.low)[~varies] / 2
    np.testing.assert_allclose(back[:, ~varies & mask], np.tile(half[mask[~varies]], (5, 1)))


@given(hnp.arrays(float, (6, 7), elements=st.floats(-2, 2)))
def test_order_is_kept_and_a_second_clip_changes_nothing(values: np.ndarray) -> None:
    ordered = np.sort(values, axis=0)
    normalised = STATISTICS.normalise(ordered)
    assert (np.diff(normalised, axis=0) >= 0).all()
    again = STATISTICS.normalise(STATISTICS.unnormalise(normalised))
    scaled = STATISTICS.mask & (STATISTICS.q99 - STATISTICS.q01 >= CONSTANT_RANGE)
    np.testing.assert_allclose(again[:, scaled], normalised[:, scaled], atol=1e-9)


def test_values_beyond_the_quantiles_are_clipped() -> None:
    far = np.full(7, 10.0)
    np.testing.assert_allclose(STATISTICS.normalise(far)[[0, 1, 2, 4, 5]], 1.0)
    np.testing.assert_allclose(STATISTICS.unnormalise(far)[:6], STATISTICS.q99[:6])


def test_gripper_is_not_scaled_but_thresholded_on_the_way_back() -> None:
    actions = np.zeros((4, 7))
    actions[:, 6] = [0.0, 0.49, 0.5, 1.2]
    np.testing.assert_array_equal(STATISTICS.normalise(actions)[:, 6], actions[:, 6])
    np.testing.assert_array_equal(STATISTICS.unnormalise(actions)[:, 6], [0, 0, 1, 1])
    assert actions[1, 6] == 0.49, "the input is left alone"


def test_component_that_never_varies_is_zero_and_comes_back_as_its_value() -> None:
    statistics = compute(np.full((10, 2), 0.3))
    np.testing.assert_array_equal(statistics.normalise([0.3, 0.7]), [0.0, 0.0])
    np.testing.assert_allclose(statistics.unnormalise([0.0, 0.0]), [0.3, 0.3])


def test_statistics_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run" / "dataset_statistics.json"
    written = DatasetStatistics(STATISTICS, compute(RNG.normal(size=(20, 10))), 500, 12)
    write_statistics(path, {"tabletop": written})
    read = read_statistics(path)["tabletop"]
    assert (read.num_transitions, read.num_trajectories) == (500, 12)
    assert read.state is not None and read.state.size == 10
    assert read.action.binary == (6,)
    for name in ("mean", "std", "min", "max", "q01", "q99", "mask"):
        np.testing.assert_array_equal(getattr(read.action, name), getattr(STATISTICS, name))


def test_mask_may_be_missing_and_state_too(tmp_path: Path) -> None:
    rows = {name: [0.0, 1.0] for name in ("mean", "std", "min", "max", "q01", "q99")}
    path = tmp_path / "statistics.json"
    path.write_text(json.dumps({"a": {"action": rows}}))
    read = read_statistics(path)["a"]
    assert read.action.mask.all() and read.action.binary == () and read.state is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("{}", "must map dataset names"),
        ('{"a": {}}', "a has no block named 'action'"),
        ('{"a": {"action": {"mean": [0]}}}', "a.action lacks std, min, max, q01, q99"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "statistics.json"
    path.write_text(content)
    with pytest.raises(StatisticsError, match=message) as caught:
        read_statistics(path)
    assert "statistics.json" in str(caught.value)


@pytest.mark.parametrize(("row", "value"), [("q01", [0.0]), ("q99", ["x", 1]), ("std", [0, 1e999])])
def test_unusable_rows_are_named(tmp_path: Path, row: str, value: list[object]) -> None:
    rows: dict[str, object] = {
        name: [0.0, 1.0] for name in ("mean", "std", "min", "max", "q01", "q99")
    }
    path = tmp_path / "statistics.json"
    path.write_text(json.dumps({"a": {"action": rows | {row: value}}}))
    with pytest.raises(StatisticsError, match=r"a\.action"):
        read_statistics(path)


def test_values_of_another_size_are_refused() -> None:
    with pytest.raises(StatisticsError, match=r"shape \[3, 6\] do not end in the 7"):
        STATISTICS.normalise(np.zeros((3, 6)))
    with pytest.raises(StatisticsError, match=r"\[N >= 1, D\], not \[0, 7\]"):
        compute(np.zeros((0, 7)))
