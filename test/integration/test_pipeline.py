"""From nothing to a measured policy with the commands that README names, as small as it gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from internvla_ros import cli

pytestmark = pytest.mark.integration

RECIPE = """
stage1: {loop: {steps: 2}, batch_size: 2}
actor:
  loop: {steps: 2, ema_decay: 0.9}
  action: {batch_size: 4, condition_dropout: 1.0}
  grounding_batch_size: 0
stage2:
  loop: {steps: 2, ema_decay: 0.9}
  action: {batch_size: 4, condition_dropout: 0.5, gradient_decay: 0.5}
  grounding_batch_size: 2
"""


def test_generate_train_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, runs, recipe = tmp_path / "data", tmp_path / "runs", tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE)

    def internvla(*arguments: object) -> int:
        return cli.main([str(argument) for argument in arguments])

    size = ("--episodes", 3, "--snapshots", 4, "--seed", 3, "--workers", 1)
    assert internvla("generate", "--out", data, *size) == 0
    train = ("train", "--recipe", recipe, "--data", data, "--out", runs)
    assert internvla(*train) == 0
    assert internvla(*train) == 2  # what is there is not overwritten
    assert "--resume" in capsys.readouterr().err
    assert internvla(*train, "--stage", "stage2", "--resume", "--steps", 3) == 0
    metrics = (runs / "stage2" / "trainer_state.pt").stat()
    assert metrics.st_size > 0

    policy, report = runs / "stage2" / "checkpoint", tmp_path / "report.json"
    assert internvla("checkpoint", "inspect", policy) == 0
    grounding = ("--data", data, "--frames", 4, "--json", report)
    assert internvla("evaluate", "grounding", "--policy", policy, *grounding) == 0
    assert json.loads(report.read_text())["complete"]
    closed_loop = ("--scenes", 1, "--seed", 5, "--max-seconds", 1, "--json", report)
    assert internvla("evaluate", "tabletop", "--policy", policy, *closed_loop) == 0
    measured = json.loads(report.read_text())
    assert measured["settings"]["scenes"] == 1
    assert measured["results"]["success"]["trials"] == 1
