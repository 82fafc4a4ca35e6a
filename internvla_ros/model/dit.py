"""The diffusion transformer that predicts the noise in an action chunk.

Not adaLN: the condition tokens, each shifted by the timestep embedding, stand in front of the
noisy action tokens and everything attends to everything. In front of the action tokens also stand,
where configured, one token per image point (the spatial prompt made explicit) and one for the
proprioceptive state. And a small network may draft the chunk from points and state, so that only
what is left, the residual, is diffused: with little training compute a diffusion transformer is
centimetres off where a regression is millimetres off. The released actor has none of these.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from internvla_ros.model.config import ActorConfig

TIMESTEP_FREQUENCIES = 256
POINT_FREQUENCIES = 6
DRAFT_DIM = 384


def timestep_embedding(
    timesteps: Tensor, dim: int = TIMESTEP_FREQUENCIES, period: float = 10000.0
) -> Tensor:
    """Sinusoids of integer timesteps [B] -> [B, dim], cosines first."""
    half = dim // 2
    rates = torch.exp(-math.log(period) * torch.arange(half, device=timesteps.device) / half)
    angles = timesteps[:, None].float() * rates[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def point_features(points: Tensor) -> Tensor:
    """Fourier features of image coordinates [..., 2] in 0..1, [..., 2 + 4 * frequencies]."""
    rates = math.pi * 2.0 ** torch.arange(POINT_FREQUENCIES, device=points.device)
    angles = (points[..., None] * rates).flatten(-2)
    return torch.cat([2 * points - 1, angles.sin(), angles.cos()], dim=-1)


class Attention(nn.Module):
    """Multi-head self-attention with a fused projection."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, wanted: int) -> Tensor:
        """[B, S, C] -> [B, wanted, C]: what the last `wanted` tokens gather from all."""
        batch, length, dim = x.shape
        if wanted == length:
            query, key, value = self.qkv(x).chunk(3, dim=-1)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            query = F.linear(x[:, -wanted:], weight[:dim], bias[:dim])
            key, value = F.linear(x, weight[dim:], bias[dim:]).chunk(2, dim=-1)

        def heads(tokens: Tensor) -> Tensor:
            return tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(heads(query), heads(key), heads(value))
        return self.proj(mixed.transpose(1, 2).reshape(batch, wanted, dim))


class Mlp(nn.Module):
    """Two linear layers around a tanh-approximated GELU."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    """Pre-norm transformer block with affine-free norms."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Tensor, wanted: int) -> Tensor:
        """[B, S, C] -> [B, wanted, C], the last tokens; all of them where `wanted` is S."""
        x = x[:, -wanted:] + self.attn(self.norm1(x), wanted)
        return x + self.mlp(self.norm2(x))


class DiT(nn.Module):
    """eps(x_t, t | plan, points, state) for chunks [B, chunk_size, action_dim].

    With a draft, x is the residual of the chunk in units of `draft_scale`.
    """

    def __init__(
        self, config: ActorConfig, plan_tokens: int, plan_dim: int, vocabulary: int = 0
    ) -> None:
        """`vocabulary`: tokens that a draft which reads words knows; one more stands for none."""
        super().__init__()
        self.config = config
        dim = config.hidden_dim
        self.plan_tokens = plan_tokens
        self.x_embedder = nn.Linear(config.action_dim, dim)
        self.t_embedder = nn.Sequential(
            nn.Linear(TIMESTEP_FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim)
        )
        self.plan_embedder = nn.Linear(plan_dim, dim)
        self.uncondition = nn.Parameter(torch.zeros(plan_tokens, plan_dim))
        if config.history:
            self.history_embedder = nn.Linear(config.action_dim, dim)
        extra = config.num_points + (1 if config.state_dim else 0)
        if config.num_points:
            features = 2 + 4 * POINT_FREQUENCIES
            self.point_embedder = nn.Sequential(
                nn.Linear(features, dim), nn.SiLU(), nn.Linear(dim, dim)
            )
            self.no_point = nn.Parameter(torch.zeros(config.num_points, dim))
        if config.state_dim:
            self.state_embedder = nn.Sequential(
                nn.Linear(config.state_width, dim), nn.SiLU(), nn.Linear(dim, dim)
            )
        if config.draft_scale:
            inputs = 3 * config.num_points + config.state_width
            self.draft = nn.Sequential(
                nn.Linear(inputs, DRAFT_DIM),
                nn.SiLU(),
                nn.Linear(DRAFT_DIM, DRAFT_DIM),
                nn.SiLU(),
                nn.Linear(DRAFT_DIM, DRAFT_DIM),
                nn.SiLU(),
                nn.Linear(DRAFT_DIM, config.chunk_size * config.action_dim),
            )
        if config.draft_scale and config.draft_words:
            self.draft_words = nn.EmbeddingBag(
                vocabulary + 1, DRAFT_DIM, mode="sum", padding_idx=vocabulary
            )
            nn.init.zeros_(self.draft_words.weight)
        length = plan_tokens + extra + config.chunk_size
        self.positional_embedding = nn.Parameter(torch.randn(length, dim) * 0.02)
        self.blocks = nn.ModuleList(Block(dim, config.num_heads) for _ in range(config.depth))
        self.final_norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.final = nn.Linear(dim, config.action_dim)
        nn.init.zeros_(self.final.weight)
        nn.init.zeros_(self.final.bias)

    def drafted(self, points: Tensor, state: Tensor, words: Tensor | None = None) -> Tensor:
        """The regressed chunk [B, T, D], normalised; points and state as in `forward`.

        `words` [B, W] are the instruction's token ids, for a draft that reads them; None withholds
        them.
        """
        known = (~points.isnan().any(dim=-1)).float()
        places = (2 * points - 1).nan_to_num(0.0).flatten(1)
        hidden = self.draft[0](torch.cat([places, known, state], dim=1))
        if self.config.draft_words and words is not None:
            hidden = hidden + self.draft_words(words)
        chunk = self.draft[1:](hidden)
        return chunk.view(-1, self.config.chunk_size, self.config.action_dim)

    def condition(
        self, plan: Tensor, points: Tensor | None = None, state: Tensor | None = None
    ) -> Tensor:
        """Condition tokens [B, K, hidden_dim], which stay the same at all timesteps.

        plan [B, plan_tokens, plan_dim] (`uncondition` where there is none); points
        [B, num_points, 2] in 0..1, NaN where withheld; state
        [B, state_width], normalised, and which robot's.
        """
        tokens = [self.plan_embedder(plan)]
        if self.config.num_points:
            if points is None:
                raise ValueError("this actor takes image points; pass NaN to withhold them")
            withheld = points.isnan().any(dim=-1, keepdim=True)
            embedded = self.point_embedder(point_features(points.nan_to_num(0.5)))
            tokens.append(torch.where(withheld, self.no_point.expand_as(embedded), embedded))
        if self.config.state_dim:
            if state is None:
                raise ValueError("this actor takes the robot's state, and none was given")
            tokens.append(self.state_embedder(state)[:, None])
        return torch.cat(tokens, dim=1)

    def time(self, timesteps: Tensor) -> Tensor:
        """Embeddings [B, hidden_dim] of integer timesteps [B]."""
        dtype = self.x_embedder.weight.dtype
        return self.t_embedder(timestep_embedding(timesteps).to(dtype))

    def denoise(self, noisy: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Predicted noise [B, T, D] of noisy chunks [B, T, D], from `time` and `condition`."""
        tokens = torch.cat([time[:, None] + condition, self.x_embedder(noisy)], dim=1)
        tokens = tokens + self.positional_embedding
        for block in self.blocks[:-1]:
            tokens = block(tokens, tokens.shape[1])
        # Of the last block's output only the actions are read.
        return self.final(self.final_norm(self.blocks[-1](tokens, self.config.chunk_size)))

    def forward(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        plan: Tensor,
        points: Tensor | None = None,
        state: Tensor | None = None,
    ) -> Tensor:
        """Predicted noise [B, T, D] of noisy chunks [B, T, D] at integer timesteps [B].

        plan, points and state as in `condition`.
        """
        return self.denoise(noisy, self.time(timesteps), self.condition(plan, points, state))
