"""A training recipe: one YAML file in config/train/ that fixes both stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from internvla_ros.resources import resource
from internvla_ros.train.actions import ActionLossConfig
from internvla_ros.train.loop import LoopConfig

T = TypeVar("T")


class RecipeError(ValueError):
    """A recipe that names something unknown or is not to be read."""


@dataclass(frozen=True)
class StageOne:
    """Spatial grounding: conversations about images, loss on the assistant's tokens."""

    loop: LoopConfig
    learning_rate: float = 1.5e-3
    batch_size: int = 16
    coordinate_sigma: float = 1.0
    """Width in pixels of the soft targets around a coordinate; 0: plain cross-entropy."""
    dense_weight: float = 0.5
    """Weight of the auxiliary detection loss; 0: none."""
    episode_weight: float = 0.5
    """Share of the images that are frames from inside episodes; the rest are snapshots."""


@dataclass(frozen=True)
class StageTwo:
    """Actions under the spatial prompt, co-trained with grounding."""

    loop: LoopConfig
    action: ActionLossConfig = field(default_factory=ActionLossConfig)
    learning_rate_planner: float = 1e-4
    learning_rate_actor: float = 1e-3
    learning_rate_rest: float = 5e-4
    grounding_weight: float = 0.1
    grounding_batch_size: int = 4
    """Conversations a step; 0: no co-training."""


@dataclass(frozen=True)
class Recipe:
    """All stages of one model. `actor` is stage 2's warm-up, which needs no planner."""

    name: str
    stage1: StageOne
    actor: StageTwo
    stage2: StageTwo


def load_recipe(name: str | Path) -> Recipe:
    """The recipe of that name in config/train/, or of that file; raises `RecipeError`."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = resource(f"config/train/{name}.yaml")
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, Mapping):
        raise RecipeError(f"{path}: expected a mapping")
    unknown = sorted(set(values) - {"name", "stage1", "actor", "stage2"})
    if unknown:
        raise RecipeError(f"{path}: unknown sections {unknown}; known: name, stage1, actor, stage2")
    one = dict(values.get("stage1", {}))
    one["loop"] = _build(LoopConfig, one.get("loop", {}), f"{path}: stage1.loop")
    return Recipe(
        name=str(values.get("name", path.stem)),
        stage1=_build(StageOne, one, f"{path}: stage1"),
        actor=_stage_two(values.get("actor", {}), f"{path}: actor"),
        stage2=_stage_two(values.get("stage2", {}), f"{path}: stage2"),
    )


def _stage_two(values: Mapping[str, Any], where: str) -> StageTwo:
    parts = dict(values)
    parts["loop"] = _build(LoopConfig, parts.get("loop", {}), f"{where}.loop")
    parts["action"] = _build(ActionLossConfig, parts.get("action", {}), f"{where}.action")
    return _build(StageTwo, parts, where)


def _build(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise RecipeError(f"{where}: unknown entries {unknown}; known: {sorted(known)}")
    try:
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except TypeError as error:
        raise RecipeError(f"{where}: {error}") from error
