"""The layer-wise QFormer: learned queries read the planner's hidden states and the DINO tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from internvla_ros.model.config import QFormerConfig


class CrossAttentionBlock(nn.Module):
    """Pre-norm cross-attention and MLP. Only the query is normalised, as in the reference."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn = nn.MultiheadAttention(dim, num_heads, dropout=dropout, batch_first=True)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, query: Tensor, memory: Tensor, padding: Tensor | None) -> Tensor:
        """query [B, Q, C], memory [B, S, C], padding [B, S] True where memory is to be ignored."""
        attended, _ = self.cross_attn(
            self.norm1(query), memory, memory, key_padding_mask=padding, need_weights=False
        )
        query = query + attended
        return query + self.mlp(self.norm2(query))


class LayerwiseQFormer(nn.Module):
    """One block per used planner layer; the queries pass through them in order."""

    def __init__(self, config: QFormerConfig) -> None:
        super().__init__()
        layers = config.end_layer - config.start_layer
        if layers < 1:
            raise ValueError(f"the QFormer reads no layer: {config.start_layer}:{config.end_layer}")
        self.query_tokens = nn.Parameter(
            torch.randn(config.num_query_tokens, config.hidden_dim) * 0.02
        )
        self.proj = nn.Linear(config.input_dim, config.hidden_dim)
        self.layers = nn.ModuleList(
            CrossAttentionBlock(config.hidden_dim, config.num_heads, config.dropout)
            for _ in range(layers)
        )

    def forward(
        self,
        hidden_states: Tensor,
        vision_tokens: Tensor,
        attention_mask: Tensor | None,
        vision_mask: Tensor | None = None,
    ) -> Tensor:
        """The plan as condition tokens.

        hidden_states [L, B, S, input_dim] of the used layers; vision_tokens [B, V, input_dim];
        attention_mask [B, S] and vision_mask [B, V], nonzero where a token is real, None where all
        are (padding is never attended, unlike in the released code). Returns [B, Q, hidden_dim].
        """
        padding = None
        if attention_mask is not None or vision_mask is not None:
            real = [
                torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
                if mask is None
                else mask.bool()
                for tokens, mask in (
                    (hidden_states[0], attention_mask),
                    (vision_tokens, vision_mask),
                )
            ]
            padding = ~torch.cat(real, dim=1)
        query = self.query_tokens.expand(hidden_states.shape[1], -1, -1)
        for block, states in zip(self.layers, hidden_states, strict=True):
            memory = self.proj(torch.cat([states, vision_tokens], dim=1))
            query = block(query, memory, padding)
        return query
