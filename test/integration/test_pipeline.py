"""From nothing to a measured policy with the commands that README names, as small as it gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_training import write_recipe

from internvla_ros import cli

pytestmark = pytest.mark.integration


def test_generate_train_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, runs, recipe = tmp_path / "data", tmp_path / "runs", write_recipe(tmp_path)

    def internvla(*arguments: object) -> int:
        return cli.main([str(argument) for argument in arguments])

    size = ("--episodes", 3, "--snapshots", 4, "--seed", 3, "--workers", 1)
    assert internvla("generate", "--out", data, *size) == 0
    train = ("train", recipe, "--data", data, "--out", runs)
    assert internvla(*train) == 0
    assert internvla(*train) == 2  # what is there is not overwritten
    assert "--resume" in capsys.readouterr().err
    assert internvla(*train, "--stage", 2, "--resume", "--set", "stage2.loop.steps=8") == 0
    assert (runs / "stage2" / "states" / "step_00000008").is_dir()

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
