"""Whole recipes at a tiny size: data, stages, evaluation, export; cut into pieces; the ablation."""

from __future__ import annotations

import json
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_training import RECIPE, write_recipe

from internvla_ros.model.policy import Policy
from internvla_ros.sim import cli as generate_cli
from internvla_ros.train.ablation import Ablation, table
from internvla_ros.train.card import Evidence, model_card
from internvla_ros.train.errors import TrainingError
from internvla_ros.train.guidance import guided
from internvla_ros.train.pipeline import Machine, Pipeline
from internvla_ros.train.recipe import load_recipe
from internvla_ros.train.settings import PLAIN_PROMPT, Recipe

SMOKE = (
    RECIPE.replace(
        "data: {sets: []}",
        "data:\n"
        "  sets: [{name: widowx, robot: widowx_250s, episodes: 2, snapshots: 4, seed: 1}]\n"
        "  held_out_episodes: 1",
    )
    .replace("steps: 6", "steps: 2")
    .replace("steps: 4", "steps: 2")
    .replace("pictures_every: 4", "pictures_every: 2")
    + "evaluation: {scenes: 1, frames: 2, max_seconds: 0.4}\n"
)
QUIET = Machine(workers=1, device="cpu", threads=1)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Everything once, as small as can be."""
    return load_recipe(write_recipe(tmp_path, SMOKE))


def test_a_whole_recipe_runs_and_is_not_run_again(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    assert not Pipeline(recipe, out, Machine(minutes=0.0)).run()  # no time: nothing is begun
    assert not (out / "progress.json").exists()
    pipeline = Pipeline(recipe, out, QUIET)
    names = [name for name, _ in pipeline.steps()]
    assert names == [
        "data widowx",
        "held out widowx",
        "stage1",
        "actor",
        "stage2",
        "grounding widowx",
        "tabletop widowx simple",
        "export",
    ]
    assert pipeline.run()
    policy = Policy.from_pretrained(out / "policy")
    assert list(policy.statistics) == ["widowx_250s_tabletop"]
    card = (out / "policy" / "README.md").read_text()
    for words in ("| widowx | widowx_250s | 2 | 4 | 1 | 100 % |", "| stage2 | 2 | 0 |", "0/1 = "):
        assert words in card
    assert list((out / "stage1" / "pictures").glob("*.jpg"))
    progress = json.loads((out / "progress.json").read_text())["steps"]
    assert list(progress) == names and all(step["done"] for step in progress.values())
    for step in ("_generate", "_train", "_tabletop", "_export"):
        monkeypatch.setattr(pipeline, step, lambda *_: pytest.fail("done already"))
    assert pipeline.run()


def test_a_step_that_was_stopped_is_gone_on_with(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, done = Pipeline(recipe, tmp_path / "run", QUIET), []
    outcomes = iter([True, False, True, True])

    def step(name: str) -> bool:
        done.append(name)
        return next(outcomes)

    steps = [(name, lambda name=name: step(name)) for name in ("a", "b", "c")]
    monkeypatch.setattr(pipeline, "steps", lambda: steps)
    assert not pipeline.run()
    assert pipeline.run()
    assert done == ["a", "b", "b", "c"]


def test_arms_differ_in_guidance_alone(recipe: Recipe) -> None:
    full, one, none = (guided(recipe, arm, 3) for arm in ("full", "stage1", "none"))
    assert full.stages == ("stage1", "actor", "stage2") == one.stages
    assert none.stages == ("actor", "stage2")
    assert full.stage2.grounding_batch_size == 2
    for arm in (one, none):
        assert arm.stage2.grounding_batch_size == 0
        assert arm.stage2.action.point_dropout == 1.0
        assert arm.model.prompt == PLAIN_PROMPT
        assert arm.stage2.loop == full.stage2.loop and arm.data == full.data
    assert full.stage2.loop.seed == 3 and full.stage1 is not None and full.stage1.loop.seed == 3


def test_each_robot_is_measured_once_on_every_suite(recipe: Recipe, tmp_path: Path) -> None:
    (first,) = recipe.data.sets
    sets = (first, replace(first, name="arm", robot="franka_panda"), replace(first, name="tasks"))
    several = replace(
        recipe,
        data=replace(recipe.data, sets=sets),
        evaluation=replace(recipe.evaluation, suites=("simple", "clutter")),
    )
    names = [name for name, _ in Pipeline(several, tmp_path, QUIET).steps()]
    assert [name for name in names if name.startswith("tabletop")] == [
        "tabletop widowx simple",
        "tabletop widowx clutter",
        "tabletop arm simple",
        "tabletop arm clutter",
    ]


def test_a_suite_that_there_is_not_is_told_before_anything_is_made(
    recipe: Recipe, tmp_path: Path
) -> None:
    wrong = replace(recipe, evaluation=replace(recipe.evaluation, suites=("simple", "clutered")))
    with pytest.raises(TrainingError, match="there is no clutered; there are simple, seen"):
        Pipeline(wrong, tmp_path, QUIET)


def test_the_time_is_kept_where_a_shell_had_ctrl_c_ignored(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forever(_: object) -> int:
        threading.Event().wait(60.0)
        return 0

    monkeypatch.setattr(generate_cli, "run", forever)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        pipeline = Pipeline(recipe, tmp_path, replace(QUIET, minutes=0.005))
        assert not pipeline.run()
    finally:
        signal.signal(signal.SIGINT, before)
    assert not json.loads((tmp_path / "progress.json").read_text())["steps"]["data widowx"]["done"]


def test_a_card_counts_what_is_alike_together(recipe: Recipe, tmp_path: Path) -> None:
    counts = {"a_simple": (3, 4), "b_simple": (1, 4), "a_clutter": (2, 4)}
    paths = []
    for name, (successes, trials) in counts.items():
        settings = {"suite": "clutter"} if name.endswith("clutter") else {}
        paths.append(tmp_path / name / "report.json")
        report(paths[-1], settings, success=count(successes, trials))
    card = model_card(Evidence(recipe, tmp_path, {}, tuple(paths)))
    assert "| all of tabletop simple: success | 4/8 = 50.0 %" in card
    assert "| a clutter: success | 2/4 = 50.0 %" in card and "all of tabletop clutter" not in card


def report(path: Path, settings: dict[str, Any], **results: Any) -> None:
    """A report as an evaluation writes it."""
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"benchmark": "tabletop", "settings": settings, "results": results}))


def count(successes: int, trials: int) -> dict[str, Any]:
    return {"successes": successes, "trials": trials, "rate": successes / trials}


def test_the_table_pools_seeds_and_states_intervals(recipe: Recipe, tmp_path: Path) -> None:
    ablation = Ablation(recipe, tmp_path, (0, 1, 2), ("full", "none"))
    for seed, (good, bad) in enumerate([(70, 40), (60, 35), (65, 45)]):
        for arm, won in (("full", good), ("none", bad)):
            folder = tmp_path / f"seed_{seed}" / arm / "evaluation" / "tabletop_widowx"
            report(folder / "report.json", {}, success=count(won, 100), jerk=1.0)
    said = ablation.write()
    assert said == table(ablation.results()) == (tmp_path / "ablation.md").read_text().rstrip()
    assert (
        "| tabletop widowx: success | full recipe | 195/300 = 65.0 % (95 % 59.4..70.2) | "
        "70.0, 60.0, 65.0 |"
    ) in said
    assert "no spatial guidance | 120/300 = 40.0 % (95 % 34.6..45.6)" in said
    assert "jerk" not in said


def test_a_seeds_stage_1_is_trained_once(recipe: Recipe, tmp_path: Path) -> None:
    ablation = Ablation(recipe, tmp_path, (0,))
    full, one, none = (ablation.pipeline(arm, 0, QUIET) for arm in ("full", "stage1", "none"))
    assert full.stages == ("stage1", "actor", "stage2")
    assert one.stages == ("actor", "stage2") == none.stages
    assert one.stage1 == full.out / "stage1" / "checkpoint"
    folders = {p.data_folder(recipe.data.sets[0]) for p in (full, one, none)}
    assert folders == {tmp_path / "data" / "widowx"}
    assert full.points == "predicted" and one.points == none.points == "withheld"
