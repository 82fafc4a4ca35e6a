"""Qwen2.5-VL's language model: the same weights and results, with no work that nobody reads.

transformers' classes hold the parameters; the computation is here, so that shapes can be static
(CUDA graphs), rotary angles are combined once for all layers, only the hidden states asked for are
kept, the layers above them are not run, and logits are computed for the wanted positions alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VLDecoderLayer,
    Qwen2_5_VLTextModel,
)

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines [B, 1, S, head_dim]."""


@dataclass
class KeyValueCache:
    """Keys and values [B, kv_heads, S, head_dim] of every layer, for decoding."""

    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens read so far."""
        return self.layers[0][0].shape[2] if self.layers else 0

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add new tokens of a layer; returns all of its keys and values."""
        if layer == len(self.layers):
            self.layers.append((key, value))
        else:
            old_key, old_value = self.layers[layer]
            self.layers[layer] = torch.cat([old_key, key], 2), torch.cat([old_value, value], 2)
        return self.layers[layer]

    def forget(self, count: int) -> None:
        """Drop the newest `count` tokens."""
        keep = self.length - count
        self.layers = [(key[:, :, :keep], value[:, :, :keep]) for key, value in self.layers]


def hidden_states(
    model: Qwen2_5_VLTextModel,
    embeds: Tensor,
    positions: Tensor,
    mask: Tensor | None = None,
    wanted: Sequence[int] = (),
    cache: KeyValueCache | None = None,
) -> list[Tensor]:
    """Hidden states [B, S, C] of the `wanted` depths, in that order.

    Depth 0 are the embeddings, depth k what layer k hands on; the last depth has the final norm
    (transformers' convention). Without a cache no layer above the deepest wanted one is run.

    Args:
        embeds: [B, S, C].
        positions: multimodal rotary positions [3, B, S].
        mask: [B, past + S], nonzero where a token is real; None where all are.
        wanted: depths in 0..layers.
        cache: what was read before; the new tokens are added to it.
    """
    depth = len(model.layers)
    highest = depth if cache is not None else max(wanted)
    rotation = _rotation(model, embeds, positions)
    attended = attention_mask(embeds, mask, 0 if cache is None else cache.length)
    kept = {0: embeds}
    hidden = embeds
    for index, layer in enumerate(model.layers[:highest]):
        arguments = (layer, hidden, rotation, attended, cache, index)
        if model.gradient_checkpointing and torch.is_grad_enabled():
            hidden = checkpoint(_layer, *arguments, use_reentrant=False)
        else:
            hidden = _layer(*arguments)
        kept[index + 1] = hidden
    if highest == depth:
        kept[depth] = model.norm(hidden)
    return [kept[index] for index in wanted]


def attention_mask(embeds: Tensor, mask: Tensor | None, past: int) -> Tensor | None:
    """What may attend to what, bool [B or 1, 1, S, past + S]; None where that is plain causal.

    A padded position attends to itself, so that no row of the softmax is empty.
    """
    length = embeds.shape[1]
    if mask is None and (past == 0 or length == 1):
        return None
    causal = torch.ones(length, past + length, dtype=torch.bool, device=embeds.device).tril(past)
    if mask is None:
        return causal[None, None]
    own = torch.eye(length, dtype=torch.bool, device=embeds.device)
    own = F.pad(own, (past, 0))
    return ((causal & mask[:, None].bool()) | own)[:, None]


def _rotation(model: Qwen2_5_VLTextModel, embeds: Tensor, positions: Tensor) -> Rotation:
    cos, sin = model.rotary_emb(embeds, positions)
    return cos[:, None], sin[:, None]


def _layer(
    layer: Qwen2_5_VLDecoderLayer,
    hidden: Tensor,
    rotation: Rotation,
    attended: Tensor | None,
    cache: KeyValueCache | None,
    index: int,
) -> Tensor:
    """One pre-norm block: grouped-query attention, then the gated MLP."""
    attention = layer.self_attn
    batch, length, _ = hidden.shape
    normed = layer.input_layernorm(hidden)

    def heads(x: Tensor) -> Tensor:
        return x.view(batch, length, -1, attention.head_dim).transpose(1, 2)

    query = rotated(heads(attention.q_proj(normed)), rotation)
    key = rotated(heads(attention.k_proj(normed)), rotation)
    value = heads(attention.v_proj(normed))
    if cache is not None:
        key, value = cache.append(index, key, value)
    mixed = F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attended,
        is_causal=attended is None and length > 1,
        scale=attention.scaling,
        enable_gqa=True,
    )
    hidden = hidden + attention.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def rotated(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotary position embedding of [..., head_dim], whose halves are paired; x's own type."""
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)
