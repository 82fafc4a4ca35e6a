"""Named sizes of the released architecture, for building it without a checkpoint."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

from internvla_ros.model.config import (
    ActorConfig,
    PlannerConfig,
    PolicyConfig,
    QFormerConfig,
    VisionExpertConfig,
)

SIZES = ("tiny", "3b")


def released_config(size: str, tokenizer: PreTrainedTokenizerBase | None = None) -> PolicyConfig:
    """The architecture of the released checkpoints, at "3b" their own size.

    "tiny" keeps its proportions (about 40 planner parameters to one of the actor, the vocabulary
    9 times the intermediate width) at a hundredth of the parameters, for a CPU. A `tokenizer` sets
    the special tokens; without one they are Qwen2.5-VL's.
    """
    if size not in SIZES:
        raise ValueError(f"no size '{size}'; there are {', '.join(SIZES)}")
    tiny = size == "tiny"
    text, vision, dino = (_TINY_TEXT, _TINY_VISION, _TINY_DINO) if tiny else (_TEXT, _VISION, _DINO)
    width, layers = text["hidden_size"], text["num_hidden_layers"]
    qwen = {
        "text_config": {**text, **_COMMON_TEXT},
        "vision_config": {**vision, **_COMMON_VISION, "out_hidden_size": width},
        **_special_tokens(tokenizer),
        "tie_word_embeddings": True,
    }
    actor = ActorConfig(128, 6, 4, history=True) if tiny else ActorConfig(history=True)
    return PolicyConfig(
        planner=PlannerConfig(qwen, native_answers=True, views=0),
        vision=VisionExpertConfig({**dino, **_COMMON_DINO}, views=0),
        qformer=QFormerConfig(
            layers, layers + 1, input_dim=width, hidden_dim=actor.hidden_dim, num_heads=8
        ),
        actor=actor,
        cameras=("front", "wrist"),
        name=f"internvla-m1-{size}",
    )


def _special_tokens(tokenizer: PreTrainedTokenizerBase | None) -> dict[str, int]:
    if tokenizer is None:
        return dict(_QWEN_TOKENS)
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {key: int(tokenizer.convert_tokens_to_ids(name)) for key, name in names.items()}


_QWEN_TOKENS = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
}
_TEXT: dict[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128000,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1000000.0,
        "mrope_section": [16, 24, 24],
    },
}
_TINY_TEXT: dict[str, Any] = {
    "vocab_size": 16384,
    "hidden_size": 384,
    "intermediate_size": 1792,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128000,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1000000.0,
        "mrope_section": [8, 12, 12],
    },
}
_COMMON_TEXT: dict[str, Any] = {
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_VISION: dict[str, Any] = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_TINY_VISION: dict[str, Any] = {
    "depth": 12,
    "hidden_size": 240,
    "intermediate_size": 640,
    "num_heads": 6,
    "fullatt_block_indexes": [2, 5, 8, 11],
}
_COMMON_VISION: dict[str, Any] = {
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
}
_DINO: dict[str, Any] = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}
_TINY_DINO: dict[str, Any] = {"hidden_size": 96, "num_hidden_layers": 6, "num_attention_heads": 3}
_COMMON_DINO: dict[str, Any] = {
    "mlp_ratio": 4,
    "image_size": 518,
    "patch_size": 14,
    "layerscale_value": 1.0,
}
