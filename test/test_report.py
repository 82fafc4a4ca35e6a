"""Reports: intervals against known values, JSON, table."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvla_ros.evaluate.report import Proportion, Report, ReportError, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # to four places
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (30, 100, 0.2189, 0.3958),
    ],
)
def test_wilson_interval(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == (
        pytest.approx(low, abs=1e-4),
        pytest.approx(high, abs=1e-4),
    )


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_rate(counts: tuple[int, int]) -> None:
    successes, trials = counts
    low, high = wilson(successes, trials)
    assert 0.0 <= low <= successes / trials + 1e-12 and successes / trials - 1e-12 <= high <= 1.0
    mirrored = wilson(trials - successes, trials)
    assert mirrored == (pytest.approx(1 - high), pytest.approx(1 - low))


def test_no_trials_say_nothing() -> None:
    nothing = Proportion(0, 0)
    assert nothing.interval == (0.0, 1.0) and math.isnan(nothing.rate)
    assert nothing.to_json()["rate"] is None and str(nothing) == "0/0"
    with pytest.raises(ReportError, match="3 successes in 2 trials"):
        Proportion(3, 2)


def report() -> Report:
    return Report(
        "tabletop",
        {"policy": Path("somewhere"), "seed": 3, "horizon": None},
        {"success": Proportion(30, 100), "time, s": float("nan"), "scenes: done": 30},
        [{"scene": 0, "success": np.bool_(True), "held": ("red cube",), "error": np.float32(1.5)}],
        seconds=12.34,
        complete=False,
    )


def test_json_is_complete_and_strict(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.json"
    report().write(path)
    read = json.loads(path.read_text())
    assert read["results"]["success"]["wilson95"] == [0.2189, 0.3958]
    assert read["results"]["time, s"] is None and read["complete"] is False
    assert read["settings"] == {"policy": "somewhere", "seed": 3, "horizon": None}
    assert read["trials"] == [{"scene": 0, "success": 1.0, "held": ["red cube"], "error": 1.5}]
    assert {"python", "internvla_ros", "numpy"} <= set(read["versions"])
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]


def test_unwritable_reports_say_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="cannot write the report"):
        report().write(tmp_path / "file" / "report.json")


def test_table_lines_up() -> None:
    lines = report().table().splitlines()
    assert lines[0] == "tabletop (interrupted: part of the trials)"
    assert "  success       30/100 = 30.0 % (95 % 21.9..39.6)" in lines
    assert "  time, s       unknown" in lines
