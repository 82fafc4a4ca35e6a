"""The motion benchmark's own parts: its checker sees what breaks a limit, and its parts add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from internvla_ros.motion.collision import CollisionModel
from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import load_embodiment

Array = NDArray[np.float64]
BENCH = Path(__file__).parents[1] / "bench"
ROBOT = load_embodiment("widowx_250s")
PERIOD = 1.0 / ROBOT.control_rate


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    import motion

    return motion


def violations(bench: ModuleType, rows: Array, at_once: int = 1000) -> Counter[str]:
    """What the checker counts when the arm rests at rows [0] and then goes through all [k, n]."""
    kinematics = Kinematics(urdf(ROBOT.name), ROBOT.joints, ROBOT.tip_frame)
    checker = bench.Checker(ROBOT, kinematics, CollisionModel(ROBOT).room, ROBOT.ready)
    checker.rest(0.0, rows[0])
    for i, q in enumerate(rows[1:], start=1):
        checker.see(i * PERIOD, q)
        if i % at_once == 0:
            checker.check()
    checker.check()
    assert checker.setpoints == len(rows) - 1
    return Counter({name: count for name, count in checker.violations.items() if count})


def swing(joint: int, far: float, seconds: float = 2.0) -> Array:
    """[k, n] from the ready pose, one joint going so far (rad) as smoothly as can be."""
    x = np.linspace(0.0, 1.0, round(seconds / PERIOD) + 1)[:, None]
    smooth = x**4 * (35 - 84 * x + 70 * x**2 - 20 * x**3)
    return ROBOT.ready + far * smooth * np.eye(len(ROBOT.joints))[joint]


def test_a_smooth_motion_breaks_nothing(bench: ModuleType) -> None:
    assert not violations(bench, swing(0, 0.3))


@pytest.mark.parametrize(
    ("rows", "limit"),
    [
        (lambda: swing(0, 0.3, 0.08), "velocity"),
        (lambda: swing(5, 2.0, 0.7), "acceleration"),
        (lambda: np.vstack([swing(0, 0.0)[:9], swing(0, 0.01)[-9:]]), "jerk"),
        (lambda: swing(5, 4.0, 9.0), "position"),
        (lambda: swing(0, 1.5, 6.0), "workspace"),
        (lambda: swing(0, 1.0, 0.7), "tip speed"),
        (lambda: swing(1, 1.2, 6.0), "clearance"),
        (lambda: swing(0, 0.0) + np.eye(1, 101, 50).T * np.nan, "finite"),
    ],
)
@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_every_limit_that_is_broken_is_seen(
    bench: ModuleType, rows: Callable[[], Array], limit: str, at_once: int
) -> None:
    """And counted alike, however many setpoints are looked at together."""
    found = violations(bench, rows(), at_once)
    assert found[limit] > 0
    assert found == violations(bench, rows())


def test_parts_that_were_done_before_count_as_if_done_now(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "PART", 20)
    about = {"seed": 3, "chunks": 30}

    def run(path: Path | None, chunks: int) -> bench.Tally:
        record = bench.Record(path, about)
        tally = bench.trials(ROBOT, chunks, np.inf, 3, record)
        tally.microseconds = Counter()
        return tally

    run(tmp_path / "parts.json", 20)
    assert run(tmp_path / "parts.json", 30) == run(None, 30)
    parts, kept = bench.Record(tmp_path / "parts.json", about).done(ROBOT.name)
    assert parts == 2 and kept.sent.total() == 30 and not kept.violations.total()
    with pytest.raises(ValueError, match="name another file"):
        bench.Record(tmp_path / "parts.json", {"seed": 4, "chunks": 30})


def test_percentiles_are_those_of_all_setpoints(bench: ModuleType) -> None:
    times = np.random.default_rng(0).integers(100, 900, 5000)
    half = len(times) // 2
    tally = bench.Tally(microseconds=Counter(times[:half].tolist()))
    tally.add(bench.Tally(microseconds=Counter(times[half:].tolist())))
    expected = np.percentile(times, [50, 99, 100], method="inverted_cdf")
    assert tally.percentiles(50, 99, 100) == expected.tolist()
