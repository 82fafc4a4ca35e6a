"""The stages of a recipe as runs that write checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from internvla_ros.data.normalisation import DatasetStatistics
from internvla_ros.model.checkpoint import load_weights, open_weights, save_checkpoint
from internvla_ros.model.nano import (
    nano_config,
    nano_tokenizer,
    order_integer_embeddings,
    ordinal_targets,
)
from internvla_ros.model.policy import Policy
from internvla_ros.train.actions import action_loss, draft_loss
from internvla_ros.train.conversations import Source, grounding_losses
from internvla_ros.train.dense import DenseDetection
from internvla_ros.train.frames import EpisodeFrames
from internvla_ros.train.loop import Loop, LoopConfig, Streams
from internvla_ros.train.recipe import StageOne, StageTwo

CORPUS_SIZE = 2000


@dataclass(frozen=True)
class Run:
    """Where a stage writes, and whether it continues what is there."""

    folder: Path
    resume: bool
    steps: int | None = None

    @property
    def checkpoint(self) -> Path:
        """The stage's result."""
        return self.folder / "checkpoint"

    def length(self, loop: LoopConfig) -> LoopConfig:
        """The recipe's loop, with the number of steps that the user asked for."""
        return loop if self.steps is None else replace(loop, steps=self.steps)


def new_policy(
    source: Source, phrases: list[str], statistics: Mapping[str, DatasetStatistics], seed: int
) -> Policy:
    """An untrained nano policy whose tokenizer is trained on conversations of `source`."""
    rng = np.random.default_rng(seed)
    texts = [
        text
        for _ in range(CORPUS_SIZE)
        for turn in source(rng).turns
        for text in (turn.question, turn.answer)
    ]
    tokenizer = nano_tokenizer(texts, phrases)
    torch.manual_seed(seed)
    policy = Policy(nano_config(tokenizer), tokenizer, statistics)
    order_integer_embeddings(policy.planner, tokenizer)
    return policy


class StageOneModule(nn.Module):
    """What stage 1 trains: the policy's planner, and the head that is thrown away."""

    def __init__(self, policy: Policy, dense: DenseDetection | None) -> None:
        super().__init__()
        self.policy = policy
        self.dense = dense


def stage_one(
    policy: Policy, config: StageOne, source: Source, names: Sequence[str], run: Run
) -> None:
    """Train the planner to answer; every save is a complete checkpoint.

    `names` are all that objects may be called, for the dense detection loss.
    """
    targets = _coordinate_targets(policy, config.coordinate_sigma)
    planner, dense = policy.planner, None
    groups = [{"params": list(planner.parameters()), "lr": config.learning_rate}]
    if config.dense_weight:
        grid, side = planner.merged_grid, planner.patch * planner.merge
        size = (grid[1] * side, grid[0] * side)
        dense = DenseDetection(planner.hidden_dim, grid, size, names, policy.tokenizer)
        groups.append({"params": list(dense.parameters()), "lr": config.learning_rate})
    loop = Loop(StageOneModule(policy, dense), groups, run.length(config.loop), run.folder)

    def step(streams: Streams) -> dict[str, Tensor]:
        losses = grounding_losses(planner, source, config.batch_size, streams.numpy, targets, dense)
        weights = {"grounding": 1.0, "dense": config.dense_weight}
        return {"loss": torch.stack([weights[k] * v for k, v in losses.items()]).sum(), **losses}

    _execute(loop, step, run, "stage 1: spatial grounding")


def stage_two(
    policy: Policy,
    config: StageTwo,
    data: EpisodeFrames,
    source: Source | None,
    run: Run,
    coordinate_sigma: float,
) -> None:
    """Train actions under the spatial prompt, co-trained on `source` where there is one."""
    statistics = next(iter(policy.statistics.values()))
    targets = _coordinate_targets(policy, coordinate_sigma)
    loop = Loop(policy, _groups(policy, config), run.length(config.loop), run.folder)

    def step(streams: Streams) -> dict[str, Tensor]:
        losses = {"action": action_loss(policy, data, statistics, config.action, streams)}
        total = losses["action"]
        if policy.config.actor.draft_scale:
            losses["draft"] = draft_loss(policy, data, statistics, config.action, streams)
            total = total + losses["draft"]
        if source is not None and config.grounding_batch_size:
            losses |= grounding_losses(
                policy.planner, source, config.grounding_batch_size, streams.numpy, targets
            )
            total = total + config.grounding_weight * losses["grounding"]
        return {"loss": total, **losses}

    _execute(loop, step, run, "stage 2: actions under the spatial prompt")


def adopt_actor(policy: Policy, other: Path) -> None:
    """Take the actor's weights from another checkpoint, whatever its planner is."""
    load_weights(policy.actor.dit, open_weights(other), part="actor.dit.")


def _groups(policy: Policy, config: StageTwo) -> list[dict[str, object]]:
    actor = list(policy.actor.dit.parameters())
    groups: list[dict[str, object]] = [{"params": actor, "lr": config.learning_rate_actor}]
    if config.action.condition_dropout < 1:
        rest = [*policy.actor.vision_expert.parameters(), *policy.actor.qformer.parameters()]
        groups.append({"params": rest, "lr": config.learning_rate_rest})
    if config.grounding_batch_size:
        planner = list(policy.planner.parameters())
        groups.append({"params": planner, "lr": config.learning_rate_planner})
    return groups


def _coordinate_targets(policy: Policy, sigma: float) -> Tensor | None:
    if sigma <= 0:
        return None
    vocabulary = policy.planner.vlm.model.language_model.embed_tokens.num_embeddings
    return ordinal_targets(policy.tokenizer, vocabulary, sigma)


def _execute(
    loop: Loop, step: Callable[[Streams], Mapping[str, Tensor]], run: Run, title: str
) -> None:
    if run.resume and loop.resume():
        print(f"{title}: continuing at step {loop.step}")

    def save(network: nn.Module, at_step: int) -> None:
        policy = network.policy if isinstance(network, StageOneModule) else network
        assert isinstance(policy, Policy)
        save_checkpoint(
            run.checkpoint,
            policy,
            policy.config,
            policy.tokenizer,
            policy.statistics,
            f"# {policy.config.name}\n\nWritten by {title}, step {at_step}.\n",
        )

    loop.module.train()
    loop.run(step, save)
