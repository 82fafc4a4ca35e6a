"""The arms of the claim: a recipe with all of spatial guidance, with stage 1 alone, with none.

`none`: no stage 1, no co-training, a plain prompt, no points for the actor. `stage1`: the same
after stage 1, so that it differs from `none` by stage 1 alone and from `full` by what guides stage
2. Data, steps, size and network are the same in all three.
"""

from __future__ import annotations

from dataclasses import replace

from internvla_ros.train.settings import PLAIN_PROMPT, Guidance, LoopConfig, Recipe, StageTwo

ARMS: tuple[Guidance, ...] = ("full", "stage1", "none")


def guided(recipe: Recipe, guidance: Guidance, seed: int | None = None) -> Recipe:
    """A recipe as one of the arms, with another seed of everything but the data."""
    recipe = recipe if seed is None else _seeded(recipe, seed)
    if guidance == "full":
        return recipe
    return replace(
        recipe,
        name=f"{recipe.name}-{guidance}",
        model=replace(recipe.model, prompt=PLAIN_PROMPT),
        stage1=recipe.stage1 if guidance == "stage1" else None,
        actor=None if recipe.actor is None else _unguided(recipe.actor),
        stage2=_unguided(recipe.stage2),
    )


def _unguided(stage: StageTwo) -> StageTwo:
    """Without co-training, and without points."""
    return replace(stage, grounding_batch_size=0, action=replace(stage.action, point_dropout=1.0))


def _seeded(recipe: Recipe, seed: int) -> Recipe:
    def loop(config: LoopConfig) -> LoopConfig:
        return replace(config, seed=seed)

    one, actor, two = recipe.stage1, recipe.actor, recipe.stage2
    return replace(
        recipe,
        stage1=None if one is None else replace(one, loop=loop(one.loop)),
        actor=None if actor is None else replace(actor, loop=loop(actor.loop)),
        stage2=replace(two, loop=loop(two.loop)),
    )
