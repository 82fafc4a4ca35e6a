"""Qwen2.5-VL's vision tower: the same weights and results, computed in few large steps.

What depends on the views' sizes alone (the order of the windows, the rotary angles, which patches
attend to which) is laid out once for each combination of sizes. Windows of equal length attend in
one batched call, uneven ones under one block-diagonal mask; the patch embedding, a 3-D convolution
whose kernel covers its whole input, is the matrix product that it amounts to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
    Qwen2_5_VLVisionAttention,
    Qwen2_5_VLVisionBlock,
)

from internvla_ros.model.language_model import Rotation, rotated

Grid = tuple[int, int]
"""Rows and columns of a view's patches, before merging."""


@dataclass(frozen=True)
class Segments:
    """Which patches attend to each other: `count` runs of one length, or what a mask allows."""

    count: int
    mask: Tensor | None
    """bool [S, S], where the runs' lengths differ."""

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Segments:
        """Consecutive runs of patches of these lengths."""
        if len(set(lengths)) == 1:
            return cls(len(lengths), None)
        numbers = torch.arange(len(lengths), device=device)
        owner = numbers.repeat_interleave(torch.tensor(lengths, device=device))
        return cls(1, owner[:, None] == owner[None])


@dataclass(frozen=True)
class Layout:
    """Everything about a forward pass that the views' sizes determine."""

    order: Tensor
    """[S / merge^2], where each merged group comes from as windows are put together."""
    back: Tensor
    """[S / merge^2], the way back."""
    rotation: Rotation
    window_lengths: tuple[int, ...]
    """Patches in each window."""
    windows: Segments
    views: Segments


class VisionTower:
    """Runs one transformers vision model; holds no parameter of its own."""

    def __init__(self, model: Qwen2_5_VisionTransformerPretrainedModel) -> None:
        self.model = model
        self.merge: int = model.spatial_merge_size
        self._layouts: dict[tuple[tuple[Grid, ...], torch.device], Layout] = {}

    def __call__(self, patches: Tensor, grids: tuple[Grid, ...]) -> Tensor:
        """Merged image tokens [sum of rows * columns / merge^2, C] of views' patches [S, P]."""
        model = self.model
        weight = model.patch_embed.proj.weight
        layout = self.layout(grids, weight.device)
        hidden = F.linear(patches.to(weight.dtype), weight.flatten(1))
        hidden = self._grouped(hidden)[layout.order].reshape(hidden.shape)
        for index, block in enumerate(model.blocks):
            full = index in model.fullatt_block_indexes
            arguments = (block, hidden, layout.rotation, layout.views if full else layout.windows)
            if model.gradient_checkpointing and torch.is_grad_enabled():
                hidden = checkpoint(_block, *arguments, use_reentrant=False)
            else:
                hidden = _block(*arguments)
        merged: Tensor = model.merger(hidden)
        return merged[layout.back]

    def layout(self, grids: tuple[Grid, ...], device: torch.device) -> Layout:
        """The layout for views of these patch grids."""
        key = (grids, device)
        if key not in self._layouts:
            with torch.inference_mode(False):  # what is kept must serve training too
                self._layouts[key] = self._lay_out(grids, device)
        return self._layouts[key]

    def _lay_out(self, grids: tuple[Grid, ...], device: torch.device) -> Layout:
        orders, lengths, start = [], [], 0
        side = self.model.window_size // self.merge // self.model.patch_size
        for rows, columns in grids:
            order, sizes = window_order(rows // self.merge, columns // self.merge, side)
            orders.append(order + start)
            lengths += [size * self.merge**2 for size in sizes]
            start += len(order)
        order = torch.cat(orders).to(device)
        places = torch.cat([patch_places(*grid, self.merge) for grid in grids]).to(device)
        cos, sin = self.model.rotary_pos_emb(places, places)
        rotation = (
            self._grouped(cos)[order].reshape(cos.shape)[:, None],
            self._grouped(sin)[order].reshape(sin.shape)[:, None],
        )
        views = [rows * columns for rows, columns in grids]
        return Layout(
            order,
            order.argsort(),
            rotation,
            tuple(lengths),
            Segments.of(lengths, device),
            Segments.of(views, device),
        )

    def _grouped(self, x: Tensor) -> Tensor:
        """Patches [S, C] as merged groups [S / merge^2, merge^2, C]."""
        return x.reshape(x.shape[0] // self.merge**2, self.merge**2, x.shape[1])


def window_order(rows: int, columns: int, side: int) -> tuple[Tensor, list[int]]:
    """How a grid of merged groups is cut into windows of `side` x `side` groups.

    Returns the groups' row-major indices, window after window, and each window's size; windows at
    the right and lower edge are smaller.
    """
    indices = torch.arange(rows * columns).view(rows, columns)
    windows = [
        indices[top : top + side, left : left + side].flatten()
        for top in range(0, rows, side)
        for left in range(0, columns, side)
    ]
    return torch.cat(windows), [len(window) for window in windows]


def patch_places(rows: int, columns: int, merge: int) -> Tensor:
    """Row and column [S, 2] of every patch, in the order in which merged groups list them."""
    row = torch.arange(rows)[:, None].expand(rows, columns)
    column = torch.arange(columns)[None].expand(rows, columns)

    def grouped(x: Tensor) -> Tensor:
        tiles = x.reshape(rows // merge, merge, columns // merge, merge)
        return tiles.permute(0, 2, 1, 3).flatten()

    return torch.stack([grouped(row), grouped(column)], dim=1)


def _block(
    block: Qwen2_5_VLVisionBlock, hidden: Tensor, rotation: Rotation, segments: Segments
) -> Tensor:
    hidden = hidden + _attention(block.attn, block.norm1(hidden), rotation, segments)
    return hidden + block.mlp(block.norm2(hidden))


def _attention(
    attention: Qwen2_5_VLVisionAttention, x: Tensor, rotation: Rotation, segments: Segments
) -> Tensor:
    total = x.shape[0]
    query, key, value = attention.qkv(x).view(total, 3, attention.num_heads, -1).unbind(1)

    def batched(states: Tensor) -> Tensor:
        runs = states.reshape(segments.count, -1, attention.num_heads, states.shape[-1])
        return runs.transpose(1, 2)

    mixed = F.scaled_dot_product_attention(
        batched(rotated(query, rotation)),
        batched(rotated(key, rotation)),
        batched(value),
        attn_mask=segments.mask,
    )
    return attention.proj(mixed.transpose(1, 2).reshape(total, -1))
