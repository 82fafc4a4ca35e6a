"""Recipes: what ships can be read, and every mistake is told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_training import RECIPE, write_data, write_recipe

from internvla_ros.train.dry_run import describe
from internvla_ros.train.job import with_data
from internvla_ros.train.recipe import RecipeError, differences, load_recipe
from internvla_ros.train.recipe import write_recipe as keep


@pytest.mark.parametrize("name", ["nano", "m1-3b", "ablation"])
def test_recipes_that_ship_can_be_read(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.stage2.loop.steps > 0


def test_the_large_recipe_is_the_papers() -> None:
    stage = load_recipe("m1-3b").stage2
    rates = stage.learning_rate_planner, stage.learning_rate_rest, stage.learning_rate_actor
    assert rates == (1e-5, 2.5e-5, 1e-4)
    assert (stage.loop.steps, stage.loop.warmup_steps) == (50_000, 5_000)
    assert stage.loop.learning_rate(50_000, 1e-4) == pytest.approx(5e-7)
    assert stage.loop.betas == (0.9, 0.95) and stage.loop.clip == 1.0
    assert 16 * stage.action.batch_size == 256 and 16 * stage.grounding_batch_size == 64
    assert stage.grounding_weight == 0.1 and stage.action.gradient_decay == 0.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stage2:\n  loop: {steps: 5}\n", ":1: name: is missing"),
        (RECIPE.replace("batch_size: 4\n", "batch_siz: 4\n"), ":6: batch_siz: is not known"),
        (RECIPE.replace("batch_size: 4\n", "batch_size: 0\n"), ":6: batch_size: expected at least"),
        (RECIPE.replace("learning_rate: 0.001", "learning_rate: fast"), ":7: learning_rate: exp"),
        (RECIPE.replace("decay: cosine", "decay: sine", 1), ":5: decay: expected one of linear"),
        (RECIPE.replace("size: nano", "size: huge"), ":2: size: expected one of nano"),
        (RECIPE.replace("steps: 4,", ""), ":9: steps: is missing"),
        (RECIPE + "stage3: {}\n", ":16: stage3: is not known here"),
        (RECIPE + " - x\n", ":16:"),
        ("[1, 2]\n", ":1: expected a mapping"),
    ],
)
def test_mistakes_are_told_with_their_line(tmp_path: Path, text: str, said: str) -> None:
    path = write_recipe(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert f"{path}{said}" in str(caught.value)


def test_a_missing_recipe_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot read"):
        load_recipe(tmp_path / "nonesuch.yaml")
    with pytest.raises(RecipeError, match="nonesuch"):
        load_recipe("nonesuch")


def test_entries_can_be_set(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    changes = ("stage2.loop.steps=77", "model.lora_rank=8", "evaluation.scenes=3")
    recipe = load_recipe(path, changes)
    assert recipe.stage2.loop.steps == 77
    assert recipe.model.lora_rank == 8 and recipe.evaluation.scenes == 3
    assert differences(load_recipe(path), recipe) == [
        "model.lora_rank: 0 -> 8",
        "stage2.loop.steps: 6 -> 77",
        "evaluation.scenes: 100 -> 3",
    ]
    assert load_recipe("nano", ("data.sets.1.episodes=9",)).data.sets[1].episodes == 9


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("stage2.loop.steps", "expected key=value"),
        ("stage2.loop.stepz=3", "stepz: is not known"),
        ("stage2.loop.steps=", "no value"),
        ("stage2.loop.steps=[", "not YAML"),
        ("name.x=3", "name holds no entries"),
        ("stage2.loop.steps=soon", "expected a number"),
    ],
)
def test_wrong_changes_are_told(tmp_path: Path, change: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said.replace(".", r"\.")):
        load_recipe(write_recipe(tmp_path), (change,))


def test_a_kept_recipe_is_the_same(tmp_path: Path) -> None:
    for name in ("nano", "m1-3b"):
        recipe = load_recipe(name)
        keep(tmp_path / "kept.yaml", recipe)
        assert load_recipe(tmp_path / "kept.yaml") == recipe


def test_a_dry_run_tells_of_model_data_and_memory(tmp_path: Path) -> None:
    said = describe(load_recipe("m1-3b"), ())
    for words in ("3872.7 M parameters", "bf16", "planner.vision", "GB (weights 15.49", "50000"):
        assert words in said
    data = write_data(tmp_path / "squares")
    recipe, folders = with_data(load_recipe(write_recipe(tmp_path)), [f"{data}=2"])
    said = describe(recipe, folders)
    for words in ("18 frames of 3 episodes", "100 %", "1.3 epochs of 18 frames", "averaged with"):
        assert words in said
