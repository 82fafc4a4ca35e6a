"""Benchmarks spread over workers: the same rows, whoever does them, also after a resumption."""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from test_libero_harness import Forward, evaluation, outcomes, toy_worker

from internvla_ros.distributed import Workers, open_workers
from internvla_ros.evaluate import cli
from internvla_ros.evaluate.journal import JournalError
from internvla_ros.evaluate.libero.harness import Evaluation, PlanError
from internvla_ros.evaluate.libero.process import LiberoError
from internvla_ros.evaluate.libero.scale import run_spread
from internvla_ros.evaluate.policies import PolicyError

HAVE_RAY = importlib.util.find_spec("ray") is not None
NEEDS_RAY = pytest.mark.skipif(not HAVE_RAY, reason="Ray is not installed (extra 'scale')")


@pytest.fixture
def processes() -> Iterator[Workers]:
    with open_workers(2) as found:
        yield found


def tabletop(out: Path, *words: str) -> dict[str, Any]:
    """What the command leaves behind of scenes of one seed."""
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    given = ["tabletop", "--seed", "4", "--out", str(out), *words]
    assert cli.run(parser.parse_args(given)) == 0
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Three scenes of one process."""
    return tabletop(tmp_path_factory.mktemp("alone"), "--scenes", "3")


def test_scenes_are_kept_and_gone_on_with(alone: dict[str, Any], tmp_path: Path) -> None:
    tabletop(tmp_path, "--scenes", "1")
    with pytest.raises(JournalError, match="holds 1 finished trials: add --resume"):
        tabletop(tmp_path, "--scenes", "3")
    with pytest.raises(JournalError, match=r"its delay is 0\.1, not 0\.2"):
        tabletop(tmp_path, "--scenes", "3", "--resume", "--delay", "0.2")
    found = tabletop(tmp_path, "--scenes", "3", "--resume")
    assert found["trials"] == alone["trials"] and found["results"] == alone["results"]
    assert "success: 3/3" in (tmp_path / "report.md").read_text()


@pytest.mark.integration
def test_processes_find_what_one_does(alone: dict[str, Any], tmp_path: Path) -> None:
    tabletop(tmp_path, "--scenes", "1")
    found = tabletop(tmp_path, "--scenes", "3", "--resume", "--workers", "2")
    assert found["trials"] == alone["trials"] and found["results"] == alone["results"]


@NEEDS_RAY
@pytest.mark.integration
def test_a_cluster_finds_what_one_process_does(alone: dict[str, Any], tmp_path: Path) -> None:
    found = tabletop(tmp_path, "--scenes", "3", "--ray", "local:2")
    assert found["trials"] == alone["trials"] and found["results"] == alone["results"]


def test_workers_take_no_batches(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="use --batch 1 with workers"):
        tabletop(tmp_path, "--scenes", "2", "--workers", "2", "--batch", "2")


def toy_worker_here(options: tuple[str, ...], log: Path) -> Any:
    return toy_worker(log, *options)


def spread(workers: Workers, out: Path, *options: str, **settings: Any) -> Evaluation:
    """An evaluation whose trials workers do."""
    found = evaluation(out, **settings)
    told: list[dict[str, Any]] = []
    try:
        run_spread(found, workers, Forward, partial(toy_worker_here, options), told.append)
    finally:
        found.write()
    assert sorted(told, key=lambda row: (row["task"], row["trial"])) == found.rows
    return found


@pytest.mark.integration
def test_workers_do_liberos_trials(processes: Workers, tmp_path: Path) -> None:
    """Failures, of which task 9 is one, are filmed by the workers, and kept by the command."""
    found = spread(processes, tmp_path, tasks=(3, 9), trials=2, film=True)
    expected = [(3, 0, True, 10), (3, 1, True, 20), (9, 0, False, 280), (9, 1, False, 280)]
    assert outcomes(found.rows) == expected
    assert found.report().complete and found.versions == {"toy": "1"}
    films = sorted(path.name for path in (tmp_path / "videos").iterdir())
    assert films == ["task_09_trial_00.mp4", "task_09_trial_01.mp4"]


@pytest.mark.integration
def test_a_process_that_dies_twice_is_one_clear_error(processes: Workers, tmp_path: Path) -> None:
    with pytest.raises(LiberoError, match="ended with 3: out of memory"):
        spread(processes, tmp_path, "--dies-at", "2")
    assert not json.loads((tmp_path / "report.json").read_text())["complete"]


def test_what_workers_do_not_do_is_refused(processes: Workers, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="use --batch 1"):
        spread(processes, tmp_path / "a", batch=2)
    with pytest.raises(PlanError, match="use --workers, not --ray"):
        spread(processes, tmp_path / "b", demonstrations=tmp_path / "demos")
