"""A policy of the real classes with random weights, which moves the arm a little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from internvla_ros.data.normalisation import DatasetStatistics, action_statistics, compute
from internvla_ros.model.checkpoint import save_checkpoint
from internvla_ros.model.nano import nano_config, nano_tokenizer
from internvla_ros.model.policy import Policy

WORDS = ["put the red cube on the blue plate", "warm up"]


def save_random_policy(folder: Path, seed: int = 0, silent: bool = True) -> Path:
    """Write a checkpoint into `folder`; its steps are within 3 cm and hardly turn the tip.

    A silent one answers nothing; another babbles up to the longest answer.
    """
    tokenizer = nano_tokenizer(WORDS * 20, WORDS)
    config = nano_config(tokenizer)
    torch.manual_seed(seed)
    policy = Policy(config, tokenizer, {"widowx_250s": _statistics(seed)})
    if silent:
        _fall_silent(policy)
    save_checkpoint(folder, policy, config, tokenizer, policy.statistics, "Random weights.\n")
    return folder


def _statistics(seed: int) -> DatasetStatistics:
    rng = np.random.default_rng(seed)
    spread = np.array([0.03, 0.03, 0.015, 0.01, 0.01, 0.01, 1.0])
    actions = rng.uniform(-spread, spread, (500, 7))
    actions[:, 6] = actions[:, 6] > 0.0
    states = rng.uniform(-1.0, 1.0, (500, 10))
    return DatasetStatistics(action_statistics(actions), compute(states), 500, 10)


@torch.no_grad()
def _fall_silent(policy: Policy) -> None:
    """Make the end token the likeliest always, so that no time goes into nonsense."""
    embeddings = policy.planner.vlm.model.language_model.embed_tokens.weight
    embeddings[:, 0] = 5.0
    embeddings[policy.planner.chat_format.end, 0] = 50.0
