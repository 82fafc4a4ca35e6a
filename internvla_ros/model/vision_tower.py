"""Qwen2.5-VL's vision tower, same weights and results, for camera views on any device.

Without flash-attention, transformers attends image by image in a Python loop; camera views all have
one size, so here their attention is one batched call. And the patch embedding, a 3-D convolution
whose kernel covers its whole input, is the matrix product that it amounts to.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionPatchEmbed,
    Qwen2_5_VisionTransformerPretrainedModel,
    Qwen2_5_VLVisionAttention,
    apply_rotary_pos_emb_vision,
)


class EqualImagesAttention(Qwen2_5_VLVisionAttention):
    """Same weights and results as its base; faster when every segment has the same length."""

    def forward(
        self,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """hidden_states [sum of segment lengths, C] -> the same shape."""
        lengths = cu_seqlens.diff()
        if position_embeddings is None or not bool((lengths == lengths[0]).all()):
            return super().forward(
                hidden_states,
                cu_seqlens=cu_seqlens,
                position_embeddings=position_embeddings,
                **kwargs,
            )
        total = hidden_states.shape[0]
        qkv = self.qkv(hidden_states).view(total, 3, self.num_heads, -1)
        query, key, value = qkv.unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)

        def batched(x: Tensor) -> Tensor:
            return x.reshape(len(lengths), -1, self.num_heads, x.shape[-1]).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(batched(query), batched(key), batched(value))
        return self.proj(mixed.transpose(1, 2).reshape(total, -1))


class PatchProjection(Qwen2_5_VisionPatchEmbed):
    """The convolution over single patches as one matrix product."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Flattened patches [N, 3 * temporal * patch * patch] -> [N, C]."""
        weight = self.proj.weight
        return F.linear(hidden_states.to(weight.dtype), weight.flatten(1))


def specialise(visual: Qwen2_5_VisionTransformerPretrainedModel) -> None:
    """Let `visual` compute in these ways; parameters and their names stay."""
    visual.patch_embed.__class__ = PatchProjection
    for block in visual.blocks:
        block.attn.__class__ = EqualImagesAttention
