"""New words for a small policy: fine-tuning on things that its tokenizer has never heard of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedTokenizerBase

from internvla_ros.model.nano import vocabulary_size
from internvla_ros.model.policy import Policy
from internvla_ros.model.tokenizer import taught


def with_words(policy: Policy, words: Sequence[str]) -> Policy:
    """The same policy with a token for each word of letters that had none.

    A new token's embedding is the mean of those of the pieces that the word was made of.
    """
    old = policy.tokenizer
    new = [word for word in words if word.isalpha() and _in_pieces(word, old)]
    if not new:
        return policy
    tokenizer = taught(old, new)
    planner = policy.config.planner
    text = {**planner.qwen["text_config"], "vocab_size": vocabulary_size(tokenizer)}
    qwen = {**planner.qwen, "text_config": text}
    config = replace(policy.config, planner=replace(planner, qwen=qwen))
    grown = Policy(config, tokenizer, policy.statistics)
    weights = policy.state_dict()
    for name, weight in grown.state_dict().items():
        if weights[name].shape != weight.shape:
            weights[name] = _reordered(weights[name], old, tokenizer, len(weight))
    grown.load_state_dict(weights)
    return grown


def _in_pieces(word: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    return any(len(tokenizer.tokenize(spelling)) > 1 for spelling in (word, f" {word}"))


def _reordered(
    rows: torch.Tensor,
    old: PreTrainedTokenizerBase,
    new: PreTrainedTokenizerBase,
    count: int,
) -> torch.Tensor:
    """Embeddings [V, C] of one tokenizer's tokens as `count` of another's; zero where none is."""
    known = old.get_vocab()
    result = rows.new_zeros(count, rows.shape[1])
    for token, index in new.get_vocab().items():
        pieces = [known[token]] if token in known else old.encode(new.decode([index]))
        result[index] = rows[pieces].mean(dim=0)
    return result
