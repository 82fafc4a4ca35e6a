"""The planner: Qwen2.5-VL as system 2, which turns views and a prompt into a plan and answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    DynamicCache,
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from internvla_ros.model.chat import ChatFormat
from internvla_ros.model.config import PlannerConfig
from internvla_ros.model.images import qwen_patches
from internvla_ros.model.vision_tower import specialise


@dataclass
class Prefix:
    """What the planner has read so far: keys and values, and where the next token stands."""

    cache: DynamicCache
    attention_mask: Tensor
    """[B, S], 1 where a token is real."""
    next_position: Tensor
    """[B], the rotary position of the next token."""
    last_hidden: Tensor
    """[B, C], the hidden state from which the next token is predicted."""


class Planner(nn.Module):
    """Qwen2.5-VL with the chat format and image sizes of one configuration."""

    def __init__(self, config: PlannerConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.config = config
        qwen = Qwen2_5_VLConfig(**dict(config.qwen))
        self.vlm = Qwen2_5_VLForConditionalGeneration._from_config(qwen, attn_implementation="sdpa")
        specialise(self.vlm.model.visual)
        self.chat = ChatFormat(tokenizer, config.system_prompt)
        vision = qwen.vision_config
        self.patch: int = vision.patch_size
        self.merge: int = vision.spatial_merge_size
        self.temporal: int = vision.temporal_patch_size
        self.hidden_dim: int = qwen.text_config.hidden_size
        self.num_layers: int = qwen.text_config.num_hidden_layers
        width, height = config.image_size
        self.merged_grid = (height // (self.patch * self.merge), width // (self.patch * self.merge))
        if config.absolute_positions:
            tokens = self.merged_grid[0] * self.merged_grid[1]
            self.image_positions = nn.Parameter(torch.randn(tokens, self.hidden_dim) * 0.02)

    @property
    def tokens_per_view(self) -> int:
        """Image tokens of one view after merging."""
        return self.merged_grid[0] * self.merged_grid[1]

    @property
    def image_tokens(self) -> list[int]:
        """Image tokens of each view, in order."""
        return [self.tokens_per_view] * self.config.views

    def image_features(self, images: Tensor) -> Tensor:
        """Merged image tokens [B * views, tokens_per_view, C].

        images: uint8 [B * views, h, w, 3] at the configured size, a sample's views together.
        """
        patches, grid = qwen_patches(images, self.patch, self.merge, self.temporal)
        features = self.vlm.model.visual(patches.to(self.dtype), grid_thw=grid).pooler_output
        features = features.view(len(images), self.tokens_per_view, self.hidden_dim)
        return features + self.image_positions if self.config.absolute_positions else features

    def embed(self, input_ids: Tensor, features: Tensor) -> Tensor:
        """Token embeddings [B, S, C] with the image features put in."""
        embeds = self.vlm.model.language_model.embed_tokens(input_ids)
        slots = (input_ids == self.chat.image_token).unsqueeze(-1)
        return embeds.masked_scatter(slots, features.reshape(-1, self.hidden_dim).to(embeds.dtype))

    def positions(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Multimodal rotary positions [3, B, S] (temporal, height, width); padding gets 1."""
        rows = [
            self._row_positions(ids if mask is None else ids[mask.bool()])
            for ids, mask in zip(
                input_ids,
                attention_mask if attention_mask is not None else [None] * len(input_ids),
                strict=True,
            )
        ]
        result = torch.ones(3, *input_ids.shape, dtype=torch.long, device=input_ids.device)
        for index, row in enumerate(rows):
            if attention_mask is None:
                result[:, index] = row
            else:
                result[:, index, attention_mask[index].bool()] = row
        return result

    def _row_positions(self, ids: Tensor) -> Tensor:
        rows, columns = self.merged_grid
        parts: list[Tensor] = []
        position, index = 0, 0
        starts = (ids == self.chat.image_token).nonzero()[:, 0].tolist()
        while index < len(ids):
            if starts and index == starts[0]:
                grid_r = torch.arange(rows).repeat_interleave(columns)
                grid_c = torch.arange(columns).repeat(rows)
                parts.append(torch.stack([torch.zeros_like(grid_r), grid_r, grid_c]) + position)
                position += max(rows, columns)
                index += rows * columns
                starts = starts[rows * columns :]
            else:
                end = starts[0] if starts else len(ids)
                parts.append((torch.arange(end - index) + position).expand(3, -1))
                position, index = position + end - index, end
        return torch.cat(parts, dim=1).to(ids.device)

    def hidden_states(
        self, input_ids: Tensor, images: Tensor, attention_mask: Tensor | None, start: int, end: int
    ) -> tuple[Tensor, Prefix]:
        """Hidden states [end - start, B, S, C] of a prompt and the prefix to decode from.

        Index 0 are the embeddings, index k the output of layer k; the last has the final norm.
        Only the layers asked for are kept, and no logits are computed.
        """
        embeds = self.embed(input_ids, self.image_features(images))
        positions = self.positions(input_ids, attention_mask)
        only_last = (start, end) == (self.num_layers, self.num_layers + 1)
        output = self.vlm.model.language_model(
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            position_ids=positions,
            use_cache=True,
            output_hidden_states=not only_last,
        )
        states = (
            output.last_hidden_state[None]
            if only_last
            else torch.stack(output.hidden_states[start:end])
        )
        mask = attention_mask if attention_mask is not None else torch.ones_like(input_ids)
        prefix = Prefix(
            output.past_key_values, mask, positions[0, :, -1] + 1, output.last_hidden_state[:, -1]
        )
        return states, prefix

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits [..., V] of hidden states [..., C]."""
        return self.vlm.lm_head(hidden)

    def extend(self, prefix: Prefix, tokens: Tensor) -> Tensor:
        """Hidden states [B, K, C] of `tokens` [B, K] read after the prefix, which is advanced."""
        count = tokens.shape[1]
        steps = torch.arange(count, device=tokens.device)
        positions = (prefix.next_position[:, None] + steps).expand(3, -1, -1)
        mask = torch.cat([prefix.attention_mask, torch.ones_like(tokens)], dim=1)
        hidden = self.vlm.model.language_model(
            inputs_embeds=self.vlm.model.language_model.embed_tokens(tokens),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=prefix.cache,
            use_cache=True,
        ).last_hidden_state
        prefix.attention_mask = mask
        prefix.next_position = prefix.next_position + count
        prefix.last_hidden = hidden[:, -1]
        return hidden

    def next_token_loss(
        self,
        input_ids: Tensor,
        labels: Tensor,
        features: Tensor,
        targets: Tensor | None = None,
    ) -> Tensor:
        """Mean cross-entropy over labelled tokens of right-padded sequences [B, S].

        `features` are the `image_features` of the rows' images. Every row must have its image
        tokens at the same places, so that positions are shared.
        `targets` [V, V'] optionally gives a soft distribution for each label token id.
        """
        embeds = self.embed(input_ids, features)
        positions = self.positions(input_ids[:1]).expand(-1, input_ids.shape[0], -1)
        hidden = self.vlm.model.language_model(
            inputs_embeds=embeds, position_ids=positions, use_cache=False
        ).last_hidden_state
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


def left_padded(sequences: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor | None]:
    """Ids [B, S] padded on the left and their mask, which is None where nothing is padded."""
    length = max(map(len, sequences))
    ids = torch.tensor([[pad] * (length - len(s)) + list(s) for s in sequences])
    if all(len(s) == length for s in sequences):
        return ids, None
    mask = torch.tensor([[0] * (length - len(s)) + [1] * len(s) for s in sequences])
    return ids, mask
