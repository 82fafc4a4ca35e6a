"""What a recipe would do, without doing it: model, data, memory, steps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from internvla_ros.data.lerobot import LeRobotDataset
from internvla_ros.data.snapshots import snapshot_count
from internvla_ros.model.policy import Policy
from internvla_ros.train.corpus import SNAPSHOTS
from internvla_ros.train.hardware import chosen_precision
from internvla_ros.train.loop import Group
from internvla_ros.train.network import skeleton
from internvla_ros.train.objectives import planner_groups, prepare_planner, stage_two_groups
from internvla_ros.train.settings import DataSet, LoopConfig, Recipe, Stage, StageOne, StageTwo

GB = 1e9
FLOAT = 4
ADAM = 8
"""Bytes of the two moments of a parameter."""
STORED = 34
"""Values that a transformer layer keeps of a token for the backward pass, in units of its width
(Korthikanti et al. 2022, with attention that keeps no scores)."""
RECOMPUTED = 2
"""The same with gradient checkpointing: a layer's input, and what is kept of one layer at a time.
"""
ANSWER_TOKENS = 200
"""Of a conversation's text, about."""


def describe(recipe: Recipe, folders: Sequence[Path]) -> str:
    """The printed summary."""
    policy = skeleton(recipe.model)
    with torch.device("meta"):
        prepare_planner(policy, recipe.model)
    lines = [f"recipe {recipe.name}", *_model(recipe, policy), *_data(recipe, folders)]
    frames = _frames(recipe, folders)
    for stage in recipe.stages:
        lines += _stage(recipe, stage, policy, frames)
    return "\n".join(lines)


def _model(recipe: Recipe, policy: Policy) -> list[str]:
    config, total = recipe.model, sum(p.numel() for p in policy.parameters())
    start = config.start or ", ".join(filter(None, (config.planner, config.vision))) or "nothing"
    precision = chosen_precision(config.precision)
    parts = {
        "planner, vision": policy.planner.vlm.model.visual,
        "planner, all": policy.planner,
        "vision expert": policy.actor.vision_expert,
        "qformer": policy.actor.qformer,
        "actor": policy.actor.dit,
    }
    return [
        f"model {policy.config.name}, {total / 1e6:.1f} M parameters, from {start}",
        f"  precision {'float32' if precision == 'no' else precision}, gradient checkpointing "
        f"{'on' if config.gradient_checkpointing else 'off'}, "
        + (f"LoRA rank {config.lora_rank}" if config.lora_rank else "no LoRA"),
        *(
            f"  {name:<18}{sum(p.numel() for p in part.parameters()) / 1e6:>10.2f} M"
            for name, part in parts.items()
        ),
    ]


def _data(recipe: Recipe, folders: Sequence[Path]) -> list[str]:
    total = sum(s.weight for s in recipe.data.sets) or 1.0
    there = _there(recipe, folders)
    lines = ["data"]
    for entry in recipe.data.sets:
        share = f"{100 * entry.weight / total:.0f} %"
        if entry.name in there:
            data = LeRobotDataset(there[entry.name])
            count = sum(int(e["length"]) for e in data.episodes[: entry.episodes or None])
            posed = there[entry.name] / SNAPSHOTS
            shots = snapshot_count(posed) if posed.is_dir() else 0
            what = f"{count} frames of {entry.episodes or len(data)} episodes, {shots} snapshots"
        elif entry.path:
            what = "not there"
        else:
            what = f"{entry.episodes} episodes and {entry.snapshots} snapshots, to be made"
        lines.append(f"  {entry.name:<18}{share:>6}  {entry.path or entry.robot}: {what}")
    lines += [f"  LLaVA-style file   {path}" for path in recipe.data.llava]
    return lines


def _there(recipe: Recipe, folders: Sequence[Path]) -> dict[str, Path]:
    if len(folders) != len(recipe.data.sets):
        return {}
    pairs = zip(recipe.data.sets, folders, strict=True)
    return {s.name: folder for s, folder in pairs if folder.is_dir()}


def _frames(recipe: Recipe, folders: Sequence[Path]) -> int:
    """Frames of all sets that are there; 0 where one is missing."""
    there = _there(recipe, folders)
    if len(there) != len(recipe.data.sets):
        return 0

    def count(entry: DataSet) -> int:
        episodes = LeRobotDataset(there[entry.name]).episodes[: entry.episodes or None]
        return sum(int(episode["length"]) for episode in episodes)

    return sum(map(count, recipe.data.sets))


def _stage(recipe: Recipe, stage: Stage, policy: Policy, frames: int) -> list[str]:
    config = getattr(recipe, stage)
    loop: LoopConfig = config.loop
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if isinstance(config, StageOne):
        groups = planner_groups(policy, config.learning_rate)
        batch, talks = config.batch_size, config.batch_size
        what = f"{batch} conversations"
    else:
        groups = stage_two_groups(policy, config)
        batch, talks = config.action.batch_size, config.grounding_batch_size
        what = (
            f"{batch} action samples x {config.action.repeated_diffusion_steps} draws of noise"
            f" + {talks} conversations"
        )
    seen = loop.steps * batch * loop.accumulate * processes
    epochs = f", {seen / frames:.1f} epochs of {frames} frames" if frames else ""
    return [
        f"{stage}: {loop.steps} steps of {what}"
        + (f" x {loop.accumulate} accumulated" if loop.accumulate > 1 else "")
        + (f" x {processes} processes" if processes > 1 else ""),
        f"  {seen} samples{epochs}; {loop.decay} rate, {loop.warmup_steps} steps of warm-up, "
        + (f"averaged with decay {loop.ema_decay}" if loop.ema_decay else "not averaged"),
        *(
            f"  {g.name:<18}{sum(p.numel() for p in g.parameters) / 1e6:>10.2f} M at {g.peak:g}"
            for g in groups
        ),
        "  memory of a process, about: " + _memory(recipe, config, groups, policy),
    ]


def _memory(
    recipe: Recipe, config: StageOne | StageTwo, groups: Sequence[Group], policy: Policy
) -> str:
    """Weights, gradients, moments, average and activations, of one process that shards nothing."""
    total = sum(p.numel() for p in policy.parameters())
    trained = sum(p.numel() for g in groups for p in g.parameters)
    parts = {
        "weights": total * FLOAT,
        "gradients": trained * FLOAT,
        "Adam": trained * ADAM,
        "average": total * FLOAT if config.loop.ema_decay else 0,
        "activations": _activations(recipe, config, policy),
    }
    named = ", ".join(f"{k} {v / GB:.2f}" for k, v in parts.items() if v)
    return f"{sum(parts.values()) / GB:.2f} GB ({named})"


def _activations(recipe: Recipe, config: StageOne | StageTwo, policy: Policy) -> float:
    """Bytes kept for the backward pass, estimated."""
    value = 2 if chosen_precision(recipe.model.precision) == "bf16" else FLOAT
    kept = RECOMPUTED if recipe.model.gradient_checkpointing else STORED
    planner, settings = policy.planner, policy.config
    text = planner.vlm.config.text_config
    vision = planner.vlm.config.vision_config
    rows, columns = planner.merged_grid
    patches = rows * columns * planner.merge**2
    views = settings.planner.views or len(settings.cameras)

    def planner_bytes(samples: float, images: int, words: int) -> float:
        tower = images * patches * vision.depth * vision.hidden_size
        tokens = images * rows * columns + words
        language = tokens * text.num_hidden_layers * text.hidden_size
        return samples * (tower + language) * kept * value

    if isinstance(config, StageOne):
        answers = config.batch_size * ANSWER_TOKENS * text.vocab_size * FLOAT
        return planner_bytes(config.batch_size, 1, ANSWER_TOKENS) + answers
    action, actor = config.action, settings.actor
    planned = action.batch_size * (1 - action.condition_dropout)
    found = config.grounding_batch_size * ANSWER_TOKENS * text.vocab_size * FLOAT
    found += planner_bytes(config.grounding_batch_size, 1, ANSWER_TOKENS)
    if action.gradient_decay:
        found += planner_bytes(planned, views, 48)
    expert = policy.actor.vision_expert.body.config
    tokens = (settings.vision.image_size // policy.actor.vision_expert.patch) ** 2
    cameras = settings.vision.views or len(settings.cameras)
    seen = planned * cameras * tokens * expert.num_hidden_layers * expert.hidden_size
    length = settings.qformer.num_query_tokens + actor.chunk_size
    draws = action.batch_size * action.repeated_diffusion_steps
    diffused = draws * length * actor.depth * actor.hidden_dim
    return found + (seen + diffused) * STORED * value
