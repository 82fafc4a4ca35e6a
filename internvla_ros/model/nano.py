"""The nano configuration: InternVLA-M1's own classes, small enough for two CPU cores."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from internvla_ros.model.config import (
    ActorConfig,
    PlannerConfig,
    PolicyConfig,
    QFormerConfig,
    VisionExpertConfig,
)
from internvla_ros.model.planner import Planner
from internvla_ros.model.tokenizer import train_tokenizer

IMAGE_SIZE = 128
PATCH = 16
STATE_DIM = 10
INITIALIZER_RANGE = 0.06
"""About 0.7 / sqrt(width): with the 0.02 of wide models these narrow ones start much slower."""


def nano_tokenizer(corpus: Iterable[str], phrases: Iterable[str]) -> PreTrainedTokenizerFast:
    """Tokenizer with one token for each pixel coordinate of the nano image."""
    return train_tokenizer(corpus, largest_integer=IMAGE_SIZE, phrases=tuple(phrases))


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """Rows of the embeddings: a multiple of 64."""
    return math.ceil(len(tokenizer) / 64) * 64


def nano_config(tokenizer: PreTrainedTokenizerBase) -> PolicyConfig:
    """The configuration of the small policy for a tokenizer made by `nano_tokenizer`."""
    text_dim, vision_dim, dino_dim, actor_dim = 128, 128, 96, 128

    def token(text: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(text))

    qwen = {
        "text_config": {
            "vocab_size": vocabulary_size(tokenizer),
            "hidden_size": text_dim,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "initializer_range": INITIALIZER_RANGE,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 6, 6],
            },
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": None,
        },
        "vision_config": {
            "depth": 4,
            "hidden_size": vision_dim,
            "intermediate_size": 384,
            "num_heads": 4,
            "patch_size": PATCH,
            "spatial_merge_size": 1,
            "temporal_patch_size": 2,
            "initializer_range": INITIALIZER_RANGE,
            "window_size": IMAGE_SIZE,
            "out_hidden_size": text_dim,
            "fullatt_block_indexes": [0, 1, 2, 3],
        },
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
        "tie_word_embeddings": True,
    }
    dinov2 = {
        "hidden_size": dino_dim,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "mlp_ratio": 4,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH,
        "layerscale_value": 1.0,
    }
    return PolicyConfig(
        planner=PlannerConfig(
            qwen, (IMAGE_SIZE, IMAGE_SIZE), system_prompt=None, absolute_positions=True
        ),
        vision=VisionExpertConfig(dinov2, IMAGE_SIZE, views=2),
        qformer=QFormerConfig(
            4, 5, 8, input_dim=text_dim, hidden_dim=actor_dim, num_heads=4, dropout=0.0
        ),
        actor=ActorConfig(
            hidden_dim=actor_dim,
            depth=6,
            num_heads=4,
            state_dim=STATE_DIM,
            num_points=2,
            draft_scale=0.25,
        ),
        cameras=("front", "wrist"),
        guidance=1.0,
        name="internvla-m1-nano",
    )


def integer_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, int]:
    """Token id -> integer, for the single-token integers of a tokenizer; ids ascend."""
    vocabulary = tokenizer.get_vocab()  # whose order is another one in every process
    found = {
        index: int(text)
        for text, index in vocabulary.items()
        if text.isdecimal() and text.isascii()
    }
    return dict(sorted(found.items()))


@torch.no_grad()
def order_integer_embeddings(planner: Planner, tokenizer: PreTrainedTokenizerBase) -> None:
    """Initialise the integers' embeddings with smooth features of their value.

    Neighbouring coordinates then start out alike, in the input and (tied) in the output.
    """
    weight = planner.vlm.model.language_model.embed_tokens.weight
    dim, spread = weight.shape[1], INITIALIZER_RANGE
    rates = torch.exp(torch.linspace(math.log(2 * math.pi / 512), math.log(math.pi / 4), dim // 4))
    for index, value in integer_tokens(tokenizer).items():
        waves = torch.cat([(rates * value).sin(), (rates * value).cos()]) * spread * math.sqrt(2)
        weight[index, : dim // 2] = waves
        weight[index, dim // 2 :] = torch.randn(dim - dim // 2) * spread * 0.1


def ordinal_targets(
    tokenizer: PreTrainedTokenizerBase, vocab_size: int, sigma: float
) -> torch.Tensor:
    """Soft targets [V, V]: a Gaussian of `sigma` px over neighbouring integers, else one-hot."""
    targets = torch.eye(vocab_size)
    integers = integer_tokens(tokenizer)
    ids = torch.tensor(list(integers))
    values = torch.tensor(list(integers.values()), dtype=torch.float32)
    weights = torch.exp(-0.5 * ((values[:, None] - values[None]) / sigma) ** 2)
    targets[ids] = 0.0
    targets[ids[:, None], ids[None]] = weights / weights.sum(dim=1, keepdim=True)
    return targets
