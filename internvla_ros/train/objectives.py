"""What each stage trains: its module, losses, groups of parameters and batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from internvla_ros.data.normalisation import DatasetStatistics, write_statistics
from internvla_ros.model.checkpoint import STATISTICS, deferred, write_checkpoint
from internvla_ros.model.config import PolicyConfig
from internvla_ros.model.nano import ordinal_targets
from internvla_ros.model.policy import Policy
from internvla_ros.model.vision_tower import Grid
from internvla_ros.model.weights import tied_entries
from internvla_ros.train.actions import action_losses
from internvla_ros.train.batches import (
    ActionBatches,
    JointBatch,
    JointBatches,
    Prompter,
    Share,
    TalkBatches,
)
from internvla_ros.train.conversations import DENSE_WEIGHTS, Scribe, Talk, grounding_losses
from internvla_ros.train.corpus import Corpus
from internvla_ros.train.dense import DenseDetection, Labeller, words_of
from internvla_ros.train.errors import TrainingError
from internvla_ros.train.loop import Group, Objective
from internvla_ros.train.lora import adapter_parameters, add_adapters, merged
from internvla_ros.train.pictures import drawing
from internvla_ros.train.settings import ModelConfig, StageOne, StageTwo

HELD_OUT_BATCHES = 4
HELD_OUT_SEED = 1_000_003

POLICY = "policy."


class StageOneModule(nn.Module):
    """What stage 1 trains: the policy's planner, and the head that is thrown away."""

    def __init__(
        self, policy: Policy, dense: DenseDetection | None, targets: Tensor | None
    ) -> None:
        super().__init__()
        self.policy, self.dense = policy, dense
        self.targets: Tensor | None
        self.register_buffer("targets", targets, persistent=False)

    def forward(self, batch: Talk) -> dict[str, Tensor]:
        """Summed losses."""
        return grounding_losses(self.policy.planner, batch, self.targets, self.dense)


class StageTwoModule(nn.Module):
    """What stage 2 trains: the whole policy."""

    def __init__(self, policy: Policy, config: StageTwo, targets: Tensor | None) -> None:
        super().__init__()
        self.policy, self.config = policy, config
        self.targets: Tensor | None
        self.register_buffer("targets", targets, persistent=False)

    def forward(self, batch: JointBatch) -> dict[str, Tensor]:
        """Summed losses."""
        losses = action_losses(self.policy, batch.action, self.config.action)
        if batch.talk is not None:
            losses |= grounding_losses(self.policy.planner, batch.talk, self.targets)
        return losses


def stage_one(
    policy: Policy,
    model: ModelConfig,
    config: StageOne,
    corpus: Corpus,
    held_out: Corpus | None,
    share: Share,
) -> Objective:
    """Spatial grounding: the planner answers; loss on its own words."""
    prepare_planner(policy, model)
    keep_rate(policy, corpus)
    planner, dense, labeller = policy.planner, None, None
    if config.dense_weight:
        grid, side = planner.merged_grid, planner.patch * planner.merge
        size = (grid[1] * side, grid[0] * side)
        words = words_of(corpus.names)
        dense = DenseDetection(planner.hidden_dim, max(size), words, policy.tokenizer)
        labeller = Labeller(grid, size, words)
    scribe = Scribe(planner.chat_format, planner.merged_grid, labeller)
    weights = {"grounding": 1.0}
    weights |= {k: config.dense_weight * w for k, w in DENSE_WEIGHTS.items() if dense is not None}
    groups = planner_groups(policy, config.learning_rate)
    if dense is not None:
        groups.append(Group("dense", list(dense.parameters()), config.learning_rate))
    checks: list[Talk] = []
    if held_out is not None:
        plain = Scribe(planner.chat_format, planner.merged_grid)
        other = TalkBatches(held_out.source, plain, config.batch_size, Share(HELD_OUT_SEED))
        checks = [other[number] for number in range(HELD_OUT_BATCHES)]
    return Objective(
        StageOneModule(policy, dense, soft_targets(policy, config.coordinate_sigma)),
        groups,
        weights,
        TalkBatches(corpus.source, scribe, config.batch_size, share),
        exporter(policy, model, "stage 1: spatial grounding"),
        checks,
        drawing(held_out),
    )


def stage_two(
    policy: Policy,
    model: ModelConfig,
    config: StageTwo,
    corpus: Corpus,
    held_out: Corpus | None,
    share: Share,
    coordinate_sigma: float,
) -> Objective:
    """Actions under the spatial prompt, co-trained with grounding."""
    prepare_planner(policy, model)
    keep_rate(policy, corpus)
    if policy.config.actor.state_dim and any(s.statistics.state is None for s in corpus.sets):
        raise TrainingError("this policy's actor takes the robot's state, which the data lack")
    batches = joint_batches(policy, config, corpus, share)
    weights = {"action": 1.0}
    if policy.config.actor.draft_scale:
        weights["draft"] = 1.0
    if batches.talks is not None:
        weights["grounding"] = config.grounding_weight
    checks: list[JointBatch] = []
    if held_out is not None:
        other = joint_batches(policy, config, held_out, Share(HELD_OUT_SEED))
        checks = [other[number] for number in range(HELD_OUT_BATCHES)]
    seeing = config.action.condition_dropout < 1
    return Objective(
        StageTwoModule(policy, config, soft_targets(policy, coordinate_sigma)),
        stage_two_groups(policy, config),
        weights,
        batches,
        exporter(policy, model, "stage 2: actions under the spatial prompt"),
        checks,
        drawing(held_out) if seeing else None,
    )


def joint_batches(policy: Policy, config: StageTwo, corpus: Corpus, share: Share) -> JointBatches:
    """Stage 2's batches for a policy's tokenizer, cameras and sizes."""
    planner, settings = policy.planner, policy.config
    views = settings.planner.views or len(settings.cameras)
    grids: list[Grid] = [planner.merged_grid] * min(views, len(settings.cameras))
    tokens = [rows * columns for rows, columns in grids]
    prompter = Prompter(
        planner.chat_format, settings.prompt, settings.lowercase_instruction, tokens
    )
    actions = ActionBatches(
        corpus.sets,
        config.action,
        settings.actor,
        settings.cameras,
        grids,
        prompter,
        policy.actor.words,
        share,
    )
    talks = None
    if config.grounding_batch_size:
        scribe = Scribe(planner.chat_format, planner.merged_grid)
        talks = TalkBatches(corpus.source, scribe, config.grounding_batch_size, share)
    return JointBatches(actions, talks)


def planner_groups(policy: Policy, rate: float) -> list[Group]:
    """The planner's parameters, or its adapters alone where it has some."""
    if not rate:
        return []
    adapters = adapter_parameters(policy)
    if adapters:
        return [Group("planner.adapters", adapters, rate)]
    tower = list(policy.planner.vlm.model.visual.parameters())
    inside = {id(p) for p in tower}
    rest = [p for p in policy.planner.parameters() if id(p) not in inside]
    return [Group("planner.vision", tower, rate), Group("planner.language", rest, rate)]


def stage_two_groups(policy: Policy, config: StageTwo) -> list[Group]:
    """All parameters that stage 2 trains, by module; parts with a rate of 0 are left out."""
    groups = [Group("actor", list(policy.actor.dit.parameters()), config.learning_rate_actor)]
    if config.action.condition_dropout < 1 and config.learning_rate_rest:
        rate = config.learning_rate_rest
        vision, qformer = policy.actor.vision_expert, policy.actor.qformer
        groups.append(Group("vision_expert", used_parameters(vision), rate))
        groups.append(Group("qformer", list(qformer.parameters()), rate))
    # Without co-training or a gradient from the actor, nothing would reach it.
    reached = config.action.condition_dropout < 1 and config.action.gradient_decay > 0
    if config.grounding_batch_size or reached:
        groups += planner_groups(policy, config.learning_rate_planner)
    return [group for group in groups if group.peak]


def used_parameters(vision_expert: nn.Module) -> list[nn.Parameter]:
    """Without DINOv2's mask token, which only its own pre-training uses."""
    return [p for name, p in vision_expert.named_parameters() if not name.endswith("mask_token")]


def soft_targets(policy: Policy, sigma: float) -> Tensor | None:
    """Targets [V, V] that forgive a coordinate's neighbours; None: plain cross-entropy."""
    if sigma <= 0:
        return None
    vocabulary = policy.planner.vlm.model.language_model.embed_tokens.num_embeddings
    return ordinal_targets(policy.tokenizer, vocabulary, sigma)


def keep_rate(policy: Policy, corpus: Corpus) -> None:
    """Have the checkpoint state at which rate its data's chunks are to be executed.

    With several rates that is the first set's; a robot whose statistics the checkpoint holds
    executes chunks at its own.
    """
    config = replace(policy.config, policy_rate=corpus.sets[0].rate)
    policy.config = policy.planner.policy_config = policy.actor.config = config


def prepare_planner(policy: Policy, model: ModelConfig) -> None:
    """Adapters and gradient checkpointing, as the recipe says."""
    if model.lora_rank and not adapter_parameters(policy):
        add_adapters(policy, model.lora_rank, model.lora_alpha)
    if model.gradient_checkpointing:
        policy.planner.vlm.model.visual.gradient_checkpointing = True
        policy.planner.vlm.model.language_model.gradient_checkpointing = True


def exporter(
    policy: Policy, model: ModelConfig, title: str
) -> Callable[[Mapping[str, Tensor], Path, int], None]:
    """Writes a stage's policy as a checkpoint."""
    config, tokenizer, statistics = policy.config, policy.tokenizer, dict(policy.statistics)
    ties = {name for name in tied_entries(policy)}

    def export(entries: Mapping[str, Tensor], folder: Path, step: int) -> None:
        own = {k.removeprefix(POLICY): v for k, v in entries.items() if k.startswith(POLICY)}
        if model.lora_rank:
            own = merged(own, model.lora_alpha / model.lora_rank)
        own = {k: v for k, v in own.items() if k not in ties}
        write_policy(folder, config, tokenizer, statistics, own, stage_card(config, title, step))

    return export


def stage_card(config: PolicyConfig, title: str, step: int) -> str:
    """What a stage's checkpoint says of itself."""
    return f"# {config.name}\n\nWritten by {title}, step {step}.\n"


def write_policy(
    folder: Path,
    config: PolicyConfig,
    tokenizer: PreTrainedTokenizerBase,
    statistics: Mapping[str, DatasetStatistics],
    entries: Mapping[str, Tensor],
    card: str,
) -> None:
    """Write weights by name as a checkpoint in this package's layout."""

    def others(temporary: Path) -> None:
        tokenizer.save_pretrained(str(temporary))
        write_statistics(temporary / STATISTICS, statistics)

    write_checkpoint(
        folder,
        config,
        card,
        {name: deferred(tensor) for name, tensor in entries.items()},
        {name: tensor.nbytes for name, tensor in entries.items()},
        others,
    )
