"""Qwen2.5-VL reading views and prompts: image features, hidden states, prefixes to decode from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from internvla_ros.model.acceleration import Runner, eager
from internvla_ros.model.chat import ChatFormat
from internvla_ros.model.config import PlannerConfig
from internvla_ros.model.image_sizes import Size, planner_path, smart_size
from internvla_ros.model.images import planner_pixels
from internvla_ros.model.language_model import KeyValueCache, hidden_states
from internvla_ros.model.vision_tower import Grid, VisionTower


@dataclass(frozen=True)
class Sight:
    """What the vision tower made of one sample's views, for any number of prompts about them."""

    features: Tensor
    """[image tokens of all views, C]."""
    grids: tuple[Grid, ...]
    """Rows and columns of merged tokens, a view each."""

    @property
    def image_tokens(self) -> list[int]:
        """Image tokens of each view, in order."""
        return [rows * columns for rows, columns in self.grids]


@dataclass(frozen=True)
class Reading:
    """A batch of prompts, padded on the left, ready for the language model."""

    ids: Tensor
    """[B, S]."""
    mask: Tensor | None
    """[B, S], 1 where a token is real; None where all are."""
    positions: Tensor
    """Multimodal rotary positions [3, B, S] (temporal, height, width); padding has 1."""
    slots: Tensor
    """Where image features go, indices into the flattened [B * S]."""

    def to(self, device: torch.device) -> Reading:
        """The same on a device."""
        return Reading(
            self.ids.to(device),
            None if self.mask is None else self.mask.to(device),
            self.positions.to(device),
            self.slots.to(device),
        )


@dataclass
class Prefix:
    """What the planner has read so far: keys and values, and where the next token stands."""

    cache: KeyValueCache
    ids: Tensor
    """[B, S]."""
    mask: Tensor | None
    next_position: Tensor
    """[B], the rotary position of the next token."""
    last_hidden: Tensor
    """[B, C], the hidden state from which the next token is predicted."""


class Reader(nn.Module):
    """Qwen2.5-VL with the chat format and image sizes of one configuration."""

    def __init__(self, config: PlannerConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.config = config
        qwen = Qwen2_5_VLConfig(**dict(config.qwen))
        self.vlm = Qwen2_5_VLForConditionalGeneration._from_config(qwen, attn_implementation="sdpa")
        self.chat_format = ChatFormat(tokenizer, config.system_prompt)
        vision = qwen.vision_config
        self.patch: int = vision.patch_size
        self.merge: int = vision.spatial_merge_size
        self.temporal: int = vision.temporal_patch_size
        self.hidden_dim: int = qwen.text_config.hidden_size
        self.num_layers: int = qwen.text_config.num_hidden_layers
        self.tower = VisionTower(self.vlm.model.visual)
        self.run: Runner = eager
        self.length_multiple = 1
        """Prompts are padded to a multiple of this, so that few shapes occur (CUDA graphs)."""
        if config.absolute_positions:
            rows, columns = self.merged_grid
            self.image_positions = nn.Parameter(torch.randn(rows * columns, self.hidden_dim) * 0.02)

    @property
    def merged_grid(self) -> Grid:
        """Rows and columns of a view's merged tokens, where the configuration fixes them."""
        if self.config.image_size is None:
            raise ValueError("this model takes views in their own size: there is no one grid")
        width, height = smart_size(*self.config.image_size, self.patch * self.merge)
        return height // (self.patch * self.merge), width // (self.patch * self.merge)

    def grid(self, size: Size, image_size: Size | None) -> Grid:
        """Rows and columns of patches of a view of `size` (width, height) px."""
        width, height = planner_path(size, image_size, self.patch * self.merge).model
        return height // self.patch, width // self.patch

    def see(self, samples: Sequence[Sequence[Tensor]], native: bool = False) -> list[Sight]:
        """Look at the views, uint8 [h, w, 3] of any size, of every sample, in one pass.

        They are resized to the configured size first, or where `native` seen in their own.
        """
        image_size = None if native else self.config.image_size
        views = [view for sample in samples for view in sample]
        if not views:
            nothing = torch.empty(0, self.hidden_dim, dtype=self.dtype, device=self.device)
            return [Sight(nothing, ()) for _ in samples]
        grids = tuple(self.grid((view.shape[1], view.shape[0]), image_size) for view in views)
        patches, _ = planner_pixels(
            views,
            image_size,
            patch=self.patch,
            merge=self.merge,
            temporal=self.temporal,
        )
        features = self.run(self.features, patches.to(self.dtype), grids)
        merged = [(rows // self.merge, columns // self.merge) for rows, columns in grids]
        sizes = iter(merged)
        rest = iter(features.split([rows * columns for rows, columns in merged]))
        return [
            Sight(torch.cat([next(rest) for _ in sample]), tuple(next(sizes) for _ in sample))
            for sample in samples
        ]

    def features(self, patches: Tensor, grids: tuple[Grid, ...]) -> Tensor:
        """Merged image tokens [S, C] of views' patches with grids (rows, columns) of patches."""
        features = self.tower(patches, grids)
        if self.config.absolute_positions:
            features = features + self.image_positions.repeat(len(grids), 1)
        return features

    def prepare(self, prompts: Sequence[Sequence[int]], grids: Sequence[Sequence[Grid]]) -> Reading:
        """Pad prompts (token ids) whose image tokens stand for views of these merged grids."""
        chat, multiple = self.chat_format, self.length_multiple
        return lay_out(prompts, grids, chat.pad, chat.image_token, multiple).to(self.device)

    def embed(self, ids: Tensor, slots: Tensor, features: Tensor) -> Tensor:
        """Token embeddings [B, S, C] with the image features [N, C] put into the slots [N]."""
        embeds = self.vlm.model.language_model.embed_tokens(ids)
        flat = embeds.flatten(0, 1).index_copy(0, slots, features.to(embeds.dtype))
        return flat.view_as(embeds)

    def hidden_states(self, reading: Reading, features: Tensor, start: int, end: int) -> Tensor:
        """Hidden states [end - start, B, S, C] of prompts about image features [N, C].

        Index 0 are the embeddings, index k the output of layer k; the last has the final norm.
        """
        return self.run(
            self._states,
            features,
            reading.ids,
            reading.positions,
            reading.slots,
            reading.mask,
            (start, end),
        )

    def _states(
        self,
        features: Tensor,
        ids: Tensor,
        positions: Tensor,
        slots: Tensor,
        mask: Tensor | None,
        layers: tuple[int, int],
    ) -> Tensor:
        embeds = self.embed(ids, slots, features)
        language = self.vlm.model.language_model
        return torch.stack(hidden_states(language, embeds, positions, mask, range(*layers)))

    def read(
        self, reading: Reading, features: Tensor, start: int, end: int
    ) -> tuple[Tensor, Prefix]:
        """`hidden_states`, and the prefix from which to decode an answer."""
        embeds = self.embed(reading.ids, reading.slots, features)
        cache, last = KeyValueCache(), self.num_layers
        *states, final = hidden_states(
            self.vlm.model.language_model,
            embeds,
            reading.positions,
            reading.mask,
            [*range(start, end), last],
            cache,
        )
        after = reading.positions[:, :, -1].amax(dim=0) + 1
        return torch.stack(states), Prefix(cache, reading.ids, reading.mask, after, final[:, -1])

    def extend(self, prefix: Prefix, tokens: Tensor) -> Tensor:
        """Hidden states [B, K, C] of `tokens` [B, K] read after the prefix, which is advanced."""
        count = tokens.shape[1]
        steps = torch.arange(count, device=tokens.device)
        positions = (prefix.next_position[:, None] + steps).expand(3, -1, -1)
        if prefix.mask is not None:
            prefix.mask = torch.cat([prefix.mask, torch.ones_like(tokens)], dim=1)
        language = self.vlm.model.language_model
        embeds = language.embed_tokens(tokens)
        (hidden,) = hidden_states(
            language, embeds, positions, prefix.mask, [self.num_layers], prefix.cache
        )
        prefix.ids = torch.cat([prefix.ids, tokens], dim=1)
        prefix.next_position = prefix.next_position + count
        prefix.last_hidden = hidden[:, -1]
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits [..., V] of hidden states [..., C]."""
        return self.vlm.lm_head(hidden)

    def next_token_loss(
        self,
        input_ids: Tensor,
        labels: Tensor,
        features: Tensor,
        grids: Sequence[Grid],
        targets: Tensor | None = None,
    ) -> Tensor:
        """Mean cross-entropy over labelled tokens of right-padded sequences [B, S].

        `features` [B * tokens, C] are those of the rows' views, of merged `grids`. Every row must
        have its image tokens at the same places, so that positions are shared.
        `targets` [V, V'] optionally gives a soft distribution for each label token id.
        """
        slots = (input_ids.flatten() == self.chat_format.image_token).nonzero()[:, 0]
        embeds = self.embed(input_ids, slots, features)
        row = rotary_positions(input_ids[0].tolist(), self.chat_format.image_token, grids)
        positions = row.to(input_ids.device)[:, None].expand(-1, len(input_ids), -1)
        (hidden,) = hidden_states(
            self.vlm.model.language_model, embeds, positions, wanted=[self.num_layers]
        )
        wanted = labels[:, 1:] >= 0
        logits = self.logits(hidden[:, :-1][wanted])
        tokens = labels[:, 1:][wanted]
        if targets is None:
            return F.cross_entropy(logits, tokens)
        return F.cross_entropy(logits, targets[tokens])

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.vlm.model.language_model.embed_tokens.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.vlm.model.language_model.embed_tokens.weight.device


def lay_out(
    prompts: Sequence[Sequence[int]],
    grids: Sequence[Sequence[Grid]],
    pad: int,
    image_token: int,
    multiple: int = 1,
) -> Reading:
    """Pad prompts (token ids), whose image tokens stand for views of these merged grids, on the
    left with `pad` to a multiple of some length."""
    length = -(-max(map(len, prompts)) // multiple) * multiple
    padding = [length - len(prompt) for prompt in prompts]
    ids = torch.tensor([[pad] * n + list(p) for n, p in zip(padding, prompts, strict=True)])
    mask = (torch.arange(length) >= torch.tensor(padding)[:, None]).long()
    positions = torch.ones(3, len(prompts), length, dtype=torch.long)
    for row, (prompt, sizes) in enumerate(zip(prompts, grids, strict=True)):
        positions[:, row, padding[row] :] = rotary_positions(prompt, image_token, sizes)
    slots = (ids.flatten() == image_token).nonzero()[:, 0]
    return Reading(ids, mask if any(padding) else None, positions, slots)


def rotary_positions(ids: Sequence[int], image_token: int, grids: Sequence[Grid]) -> Tensor:
    """Multimodal rotary positions [3, S] (temporal, height, width) of one unpadded prompt.

    Text counts up in all three; a view's tokens keep one time and spread over its merged grid; what
    follows counts on from the view's longer side (Qwen2.5-VL report, section 2.1).

    Raises:
        ValueError: the image tokens in `ids` are not those of `grids`.
    """
    parts: list[Tensor] = []
    position, index, views = 0, 0, iter(grids)
    while index < len(ids):
        if ids[index] == image_token:
            rows, columns = next(views, (0, 0))
            end = index + rows * columns
            if end == index or any(token != image_token for token in ids[index:end]):
                raise ValueError("the prompt's image tokens do not fit its views")
            row = torch.arange(rows).repeat_interleave(columns)
            column = torch.arange(columns).repeat(rows)
            parts.append(torch.stack([torch.zeros_like(row), row, column]) + position)
            position += max(rows, columns)
        else:
            end = index
            while end < len(ids) and ids[end] != image_token:
                end += 1
            parts.append((torch.arange(end - index) + position).expand(3, -1))
            position += end - index
        index = end
    if next(views, None) is not None:
        raise ValueError("the prompt has fewer image tokens than its views")
    return torch.cat(parts, dim=1)
