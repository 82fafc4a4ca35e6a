"""An instruction's tokens, as the actor's draft reads them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from internvla_ros.model.config import PolicyConfig

MAX_WORDS = 32
"""Tokens of an instruction that are read: always as many, so that shapes stay the same."""


class Words:
    """Instructions as rows of token ids, which `none` fills up."""

    def __init__(self, config: PolicyConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer, self._lowercase = tokenizer, config.lowercase_instruction
        self.none = vocabulary(config)
        self._ids = lru_cache(maxsize=100_000)(self._read)

    def __call__(self, instructions: Sequence[str]) -> Tensor:
        """int64 [B, MAX_WORDS]."""
        return torch.tensor([self._ids(each) for each in instructions], dtype=torch.long)

    def _read(self, instruction: str) -> tuple[int, ...]:
        spoken = instruction.lower() if self._lowercase else instruction
        ids = self._tokenizer.encode(spoken, add_special_tokens=False)[:MAX_WORDS]
        return (*ids, *[self.none] * (MAX_WORDS - len(ids)))


def vocabulary(config: PolicyConfig) -> int:
    """How many tokens a policy has embeddings of."""
    return int(config.planner.qwen["text_config"]["vocab_size"])
