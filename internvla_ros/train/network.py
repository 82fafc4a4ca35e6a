"""The policy that a run starts from: new, from pre-trained parts, or from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    Dinov2Model,
    PreTrainedTokenizerBase,
    Qwen2_5_VLForConditionalGeneration,
)

from internvla_ros.data.normalisation import DatasetStatistics
from internvla_ros.model.checkpoint import read_checkpoint
from internvla_ros.model.config import PolicyConfig
from internvla_ros.model.nano import nano_config, nano_tokenizer, order_integer_embeddings
from internvla_ros.model.policy import Policy
from internvla_ros.model.pretrained import load_part
from internvla_ros.model.released_config import qwen_config
from internvla_ros.model.sizes import released_config
from internvla_ros.train.conversations import Source
from internvla_ros.train.dense import words_of
from internvla_ros.train.errors import TrainingError
from internvla_ros.train.settings import ModelConfig
from internvla_ros.train.sources import template_phrases
from internvla_ros.train.words import with_words

CORPUS_SIZE = 1000
"""Conversations that a tokenizer is trained on."""
NAME_REPEATS = 50
"""How often each object's name stands beside them, so that each of its words gets a token."""


def new_policy(
    config: ModelConfig,
    source: Source | None,
    names: Sequence[str],
    statistics: Mapping[str, DatasetStatistics],
    seed: int,
) -> Policy:
    """What stage 1 (or, without one, stage 2) starts from.

    A nano policy is made anew, with a tokenizer trained on conversations of `source` about things
    of these `names`; larger ones come from pre-trained parts or a checkpoint. A nano checkpoint is
    taught the words of `names` that it has no token for.
    """
    torch.manual_seed(seed)
    if config.start:
        policy = restart(config.start, statistics)
        if config.size == "nano":
            policy = with_words(policy, words_of(names))
        if config.draft_words:
            policy = with_words_in_draft(policy)
    elif config.size == "nano":
        if source is None:
            raise TrainingError("a nano policy's tokenizer needs annotated data to be trained on")
        policy = _nano(config, source, names, statistics, seed)
    else:
        policy = _large(config, statistics)
    return with_robots(policy, sorted(statistics))


def restart(name: str | Path, statistics: Mapping[str, DatasetStatistics] | None) -> Policy:
    """The policy of a checkpoint of either layout, in float32, to go on training.

    With `statistics` it is for other data than it was trained on.
    """
    checkpoint = read_checkpoint(name)
    known = checkpoint.statistics if statistics is None else statistics
    policy = load_part(
        lambda: Policy(checkpoint.config, checkpoint.tokenizer, known),
        checkpoint,
        dtype=torch.float32,
    )
    return policy


def with_words_in_draft(policy: Policy) -> Policy:
    """The same policy, whose draft can be taught to heed the instruction; it does not as yet.

    Raises:
        TrainingError: it drafts no chunks.
    """
    actor = policy.config.actor
    if actor.draft_words:
        return policy
    if not actor.draft_scale:
        raise TrainingError("this policy drafts no chunks: leave model.draft_words out")
    config = replace(policy.config, actor=replace(actor, draft_words=True))
    grown = Policy(config, policy.tokenizer, policy.statistics)
    grown.load_state_dict({**grown.state_dict(), **policy.state_dict()})
    return grown


def with_robots(policy: Policy, names: Sequence[str]) -> Policy:
    """The same policy, whose actor can be taught to tell these robots apart, and those it knows.

    A new one is to it as the mean of those. One robot alone has nobody to be taken for.
    """
    actor = policy.config.actor
    new = [name for name in names if name not in actor.embodiments]
    if not actor.state_dim or not new or (not actor.embodiments and len(new) < 2):
        return policy
    config = replace(actor, embodiments=(*actor.embodiments, *new))
    grown = Policy(replace(policy.config, actor=config), policy.tokenizer, policy.statistics)
    entries = policy.state_dict()
    for name, wanted in grown.state_dict().items():
        columns = wanted.shape[-1] - entries[name].shape[-1] if wanted.dim() else 0
        if columns:
            robots = entries[name][:, -len(actor.embodiments) :] if actor.embodiments else None
            like = entries[name].new_zeros(len(wanted)) if robots is None else robots.mean(dim=1)
            entries[name] = torch.cat([entries[name], like[:, None].expand(-1, columns)], dim=1)
    grown.load_state_dict(entries)
    return grown


def skeleton(config: ModelConfig) -> Policy:
    """The network without weights (on the meta device), to be counted.

    Raises:
        TrainingError: a checkpoint or base model that is named cannot be read.
    """
    # Which words a token stands for makes no difference here.
    tokenizer = nano_tokenizer(["put the red cube on the plate"], ())
    if config.start:
        settings = read_checkpoint(config.start).config
    elif config.size == "nano":
        settings = _nano_settings(config, tokenizer)
    else:
        settings = _settings(config, None)
    if config.draft_words:
        settings = replace(settings, actor=replace(settings.actor, draft_words=True))
    with torch.device("meta"):
        return Policy(settings, tokenizer, {})


def _nano(
    config: ModelConfig,
    source: Source,
    names: Sequence[str],
    statistics: Mapping[str, DatasetStatistics],
    seed: int,
) -> Policy:
    rng = np.random.default_rng(seed)
    texts = [
        text
        for _ in range(CORPUS_SIZE)
        for turn in source(rng).turns
        for text in (turn.question, turn.answer)
    ]
    texts += [f" {name}" for name in names for _ in range(NAME_REPEATS)]
    tokenizer = nano_tokenizer([*texts, *names], template_phrases())
    torch.manual_seed(seed)
    policy = Policy(_nano_settings(config, tokenizer), tokenizer, statistics)
    order_integer_embeddings(policy.planner, tokenizer)
    return policy


def _nano_settings(config: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> PolicyConfig:
    settings = nano_config(tokenizer)
    vision = replace(settings.vision, views=len(config.cameras))
    actor = replace(settings.actor, draft_words=config.draft_words)
    return replace(
        settings,
        vision=vision,
        actor=actor,
        cameras=config.cameras,
        prompt=config.prompt,
        noise_scale=config.noise_scale,
    )


def _large(config: ModelConfig, statistics: Mapping[str, DatasetStatistics]) -> Policy:
    if not config.planner or not config.vision:
        raise TrainingError(
            f"a policy of size {config.size} starts from pre-trained parts: set model.planner "
            "(Qwen2.5-VL) and model.vision (DINOv2), folders or hub ids, or model.start"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(config.planner)
        policy = Policy(_settings(config, tokenizer), tokenizer, statistics)
        planner = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            config.planner, dtype=torch.float32
        )
        vision = Dinov2Model.from_pretrained(config.vision, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise TrainingError(f"the pre-trained parts cannot be loaded: {error}") from error
    _take(policy.planner.vlm, planner, config.planner)
    _take(policy.actor.vision_expert.body, vision, config.vision)
    return policy


def _settings(config: ModelConfig, tokenizer: PreTrainedTokenizerBase | None) -> PolicyConfig:
    """Of a large policy; parts that are there are as their own configurations say."""
    settings = released_config(config.size, tokenizer)
    planner, vision, qformer = settings.planner, settings.vision, settings.qformer
    if config.planner and tokenizer is not None:
        qwen = qwen_config(AutoConfig.from_pretrained(config.planner).to_dict(), config.planner)
        layers, width = (qwen["text_config"][k] for k in ("num_hidden_layers", "hidden_size"))
        planner = replace(planner, qwen=qwen)
        qformer = replace(qformer, start_layer=layers, end_layer=layers + 1, input_dim=width)
    if config.vision and tokenizer is not None:
        dinov2 = AutoConfig.from_pretrained(config.vision).to_dict()
        known = {k: dinov2[k] for k in (*vision.dinov2, "use_swiglu_ffn") if k in dinov2}
        vision = replace(vision, dinov2=known)
    # Diffusing the chunk itself, as released; past actions are never embedded.
    actor = replace(settings.actor, history=False)
    return replace(
        settings,
        planner=planner,
        vision=vision,
        qformer=qformer,
        actor=actor,
        cameras=config.cameras,
        prompt=config.prompt,
        noise_scale=config.noise_scale,
    )


def _take(part: nn.Module, trained: nn.Module, name: str) -> None:
    """Copy all weights of a pre-trained part; nothing may be left out or over."""
    try:
        part.load_state_dict(trained.state_dict())
    except RuntimeError as error:
        raise TrainingError(f"{name} does not fit: {str(error).splitlines()[0]}") from error
