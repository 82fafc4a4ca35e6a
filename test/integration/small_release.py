"""A small random policy in the released layout, written without this package's code for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from internvla_ros.model.nano import nano_tokenizer

TEXT, VISION, DINO, HIDDEN, VOCABULARY = 32, 32, 384, 384, 640
State = dict[str, Tensor]


def write_release(
    run: Path,
    *,
    old_names: bool = False,
    step: int = 20,
    change: Callable[[State], Any] = lambda state: state,
    configure: Callable[[dict[str, Any]], Any] = lambda config: None,
) -> Path:
    """Write a run and, beside it, its base model; `change` gives what is saved as checkpoint."""
    base = run.parent / "tiny_qwen"
    nano_tokenizer(["put the red cube on the blue plate"] * 20, []).save_pretrained(str(base))
    (base / "config.json").write_text(json.dumps(base_config(), indent=2))
    (base / "preprocessor_config.json").write_text('{"patch_size": 14}')
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    config = run_config()
    configure(config)
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (run / "config.json").write_text(json.dumps(config))
    (run / "dataset_statistics.json").write_text(json.dumps(statistics()))
    torch.save(
        change(state_dict(old_names)), run / "checkpoints" / f"steps_{step}_pytorch_model.pt"
    )
    return run


def base_config() -> dict[str, Any]:
    """A base model's config.json, flat as published."""
    return {
        "model_type": "qwen2_5_vl",
        "hidden_size": TEXT,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 4096,
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "image_token_id": 5,
        "video_token_id": 6,
        "vision_start_token_id": 3,
        "vision_end_token_id": 4,
        "vision_config": {
            "depth": 1,
            "hidden_size": VISION,
            "intermediate_size": 40,
            "num_heads": 2,
            "out_hidden_size": TEXT,
            "fullatt_block_indexes": [0],
        },
    }


def run_config() -> dict[str, Any]:
    """A run's configuration, with entries that only the release knows."""
    return {
        "run_id": "small",
        "seed": 42,
        "framework": {
            "qwenvl": {"base_vlm": "./tiny_qwen", "attn_implementation": "flash_attention_2"},
            "dino": {"dino_backbone": "dinov2_vits14"},
            "layer_qformer": {
                "qformer_start_layer": 1,
                "qformer_end_layer": 3,
                "num_query_tokens": 8,
                "input_dim": TEXT,
                "ouptput_dim": HIDDEN,
                "grad_scale": 0.5,
            },
            "action_model": {
                "action_model_type": "DiT-S",
                "action_hidden_dim": HIDDEN,
                "action_dim": 7,
                "future_action_window_size": 7,
                "past_action_window_size": 0,
            },
        },
        "datasets": {
            "vla_data": {
                "data_mix": "bridge",
                "obs": ["image_0"],
                "image_size": [56, 56],
                "CoT_prompt": "Your task is {instruction}.",
            }
        },
        "trainer": {"learning_rate": {"base": 5.0e-05}},
    }


def statistics() -> dict[str, Any]:
    """Two datasets, one of them without a mask."""
    rng = np.random.default_rng(0)
    rows = {name: sorted(rng.normal(size=7)) for name in ("min", "q01", "mean", "q99", "max")}
    block = {name: list(map(float, row)) for name, row in rows.items()} | {"std": [1.0] * 7}
    low, high = np.minimum(block["q01"], block["q99"]), np.maximum(block["q01"], block["q99"])
    block |= {"q01": low.tolist(), "q99": (high + 1).tolist()}
    masked = {"action": {**block, "mask": [True] * 6 + [False]}, "num_transitions": 9}
    return {"with_mask": masked, "without_mask": {"action": block, "extra": "kept"}}


def state_dict(old_names: bool = False) -> State:
    """The weights, bfloat16, as the released code names and orders them."""
    generator = torch.Generator().manual_seed(0)
    state: State = {}

    def add(prefix: str, **shapes: tuple[int, ...]) -> None:
        for name, shape in shapes.items():
            tensor = torch.randn(shape, generator=generator) * 0.05
            state[prefix + name.replace("__", ".")] = tensor.to(torch.bfloat16)

    def linear(prefix: str, rows: int, columns: int) -> None:
        add(prefix + ".", weight=(rows, columns), bias=(rows,))

    _add_language_model(add, linear, state, old_names)
    add("layer_qformer.", query_tokens=(8, HIDDEN))
    linear("layer_qformer.proj", HIDDEN, TEXT)
    for layer in range(2):
        prefix = f"layer_qformer.layers.{layer}."
        add(prefix, norm1__weight=(HIDDEN,), norm1__bias=(HIDDEN,))
        add(
            f"{prefix}cross_attn.",
            in_proj_weight=(3 * HIDDEN, HIDDEN),
            in_proj_bias=(3 * HIDDEN,),
        )
        linear(f"{prefix}cross_attn.out_proj", HIDDEN, HIDDEN)
        add(prefix, norm2__weight=(HIDDEN,), norm2__bias=(HIDDEN,))
        linear(f"{prefix}mlp.0", 4 * HIDDEN, HIDDEN)
        linear(f"{prefix}mlp.2", HIDDEN, 4 * HIDDEN)
    _add_actor(add, linear)
    _add_dino(add, linear)
    linear("dino_pro", TEXT, DINO)
    return state


def _add_language_model(
    add: Callable[..., None], linear: Callable[..., None], state: State, old_names: bool
) -> None:
    visual = (
        "qwen_vl_interface.model.visual." if old_names else "qwen_vl_interface.model.model.visual."
    )
    text = "qwen_vl_interface.model.model." + ("" if old_names else "language_model.")
    add(visual, patch_embed__proj__weight=(VISION, 3, 2, 14, 14))
    block = f"{visual}blocks.0."
    add(block, norm1__weight=(VISION,), norm2__weight=(VISION,))
    linear(f"{block}attn.qkv", 3 * VISION, VISION)
    linear(f"{block}attn.proj", VISION, VISION)
    linear(f"{block}mlp.gate_proj", 40, VISION)
    linear(f"{block}mlp.up_proj", 40, VISION)
    linear(f"{block}mlp.down_proj", VISION, 40)
    add(f"{visual}merger.", ln_q__weight=(VISION,))
    linear(f"{visual}merger.mlp.0", 4 * VISION, 4 * VISION)
    linear(f"{visual}merger.mlp.2", TEXT, 4 * VISION)
    add(text, embed_tokens__weight=(VOCABULARY, TEXT))
    for layer in range(2):
        prefix = f"{text}layers.{layer}."
        linear(f"{prefix}self_attn.q_proj", TEXT, TEXT)
        linear(f"{prefix}self_attn.k_proj", TEXT // 2, TEXT)
        linear(f"{prefix}self_attn.v_proj", TEXT // 2, TEXT)
        add(f"{prefix}self_attn.", o_proj__weight=(TEXT, TEXT))
        add(f"{prefix}mlp.", gate_proj__weight=(48, TEXT), up_proj__weight=(48, TEXT))
        add(f"{prefix}mlp.", down_proj__weight=(TEXT, 48))
        add(prefix, input_layernorm__weight=(TEXT,), post_attention_layernorm__weight=(TEXT,))
    add(text, norm__weight=(TEXT,))
    state["qwen_vl_interface.model.lm_head.weight"] = state[f"{text}embed_tokens.weight"]


def _add_actor(add: Callable[..., None], linear: Callable[..., None]) -> None:
    net = "action_model.net."
    add(net, positional_embedding=(16, HIDDEN))
    linear(f"{net}history_embedder.linear", HIDDEN, 7)
    linear(f"{net}x_embedder.linear", HIDDEN, 7)
    linear(f"{net}t_embedder.mlp.0", HIDDEN, 256)
    linear(f"{net}t_embedder.mlp.2", HIDDEN, HIDDEN)
    add(net, z_embedder__uncondition=(8, HIDDEN))
    linear(f"{net}z_embedder.linear", HIDDEN, HIDDEN)
    for number in range(6):
        block = f"{net}blocks.{number}."
        linear(f"{block}attn.qkv", 3 * HIDDEN, HIDDEN)
        linear(f"{block}attn.proj", HIDDEN, HIDDEN)
        linear(f"{block}mlp.fc1", 4 * HIDDEN, HIDDEN)
        linear(f"{block}mlp.fc2", HIDDEN, 4 * HIDDEN)
    linear(f"{net}final_layer.linear", 7, HIDDEN)


def _add_dino(add: Callable[..., None], linear: Callable[..., None]) -> None:
    body, block = "dino_encoder.body.", "dino_encoder.body.blocks.0."
    add(body, cls_token=(1, 1, DINO), pos_embed=(1, 37 * 37 + 1, DINO), mask_token=(1, DINO))
    add(body, patch_embed__proj__weight=(DINO, 3, 14, 14), patch_embed__proj__bias=(DINO,))
    add(block, norm1__weight=(DINO,), norm1__bias=(DINO,))
    linear(f"{block}attn.qkv", 3 * DINO, DINO)
    linear(f"{block}attn.proj", DINO, DINO)
    add(block, ls1__gamma=(DINO,), norm2__weight=(DINO,), norm2__bias=(DINO,))
    linear(f"{block}mlp.fc1", 4 * DINO, DINO)
    linear(f"{block}mlp.fc2", DINO, 4 * DINO)
    add(block, ls2__gamma=(DINO,))
    add(body, norm__weight=(DINO,), norm__bias=(DINO,))
