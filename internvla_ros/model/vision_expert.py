"""The vision expert: DINOv2 patch tokens of the actor's views, projected to the planner's width."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import Dinov2Config, Dinov2Model

from internvla_ros.model.acceleration import Runner, eager
from internvla_ros.model.config import VisionExpertConfig
from internvla_ros.model.image_sizes import ResizePath, Size, expert_path
from internvla_ros.model.images import expert_pixels

POSITION_OFFSET = 0.1
"""Added to the number of patches where the original DINOv2 resamples its table of positions."""


class VisionExpert(nn.Module):
    """DINOv2 over every view; no class token in the output."""

    def __init__(self, config: VisionExpertConfig, output_dim: int) -> None:
        super().__init__()
        self.config = config
        dinov2 = Dinov2Config(**dict(config.dinov2))
        self.body = Dinov2Model._from_config(dinov2, attn_implementation="sdpa")
        self.projector = nn.Linear(dinov2.hidden_size, output_dim)
        self.patch: int = dinov2.patch_size
        self.run: Runner = eager

    def look(
        self, samples: Sequence[Sequence[Tensor]], image_size: Size | None
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens of every sample's views, uint8 [h, w, 3] of any size.

        `image_size` is the planner's, to which views are resized first. Returns tokens
        [B, T, output_dim], the views of a sample one after the other, and a mask [B, T], nonzero
        where a token is real; None where all are.
        """
        each = self._each([view for views in samples for view in views], image_size)
        rest = iter(each)
        rows = [torch.cat([next(rest) for _ in views]) for views in samples]
        if len({len(row) for row in rows}) == 1:
            return torch.stack(rows), None
        masks = [torch.ones(len(row), dtype=torch.long, device=row.device) for row in rows]
        return pad_sequence(rows, batch_first=True), pad_sequence(masks, batch_first=True)

    def _each(self, views: Sequence[Tensor], image_size: Size | None) -> list[Tensor]:
        """Tokens [patches, output_dim] of every view; views that come out alike go together."""
        ways: dict[Size, list[int]] = {}
        for index, view in enumerate(views):
            path = self.path((view.shape[1], view.shape[0]), image_size)
            ways.setdefault(path.model, []).append(index)
        tokens: dict[int, Tensor] = {}
        for members in ways.values():
            pixels = expert_pixels(
                [views[index] for index in members],
                image_size,
                shorter=self.config.image_size,
                patch=self.patch,
            )
            tokens.update(zip(members, self.run(self.tokens, pixels), strict=True))
        return [tokens[index] for index in range(len(views))]

    def path(self, size: Size, image_size: Size | None) -> ResizePath:
        """The sizes through which a view of `size` (width, height) goes."""
        return expert_path(size, image_size, self.config.image_size, self.patch)

    def tokens(self, pixels: Tensor) -> Tensor:
        """Normalised views [N, 3, h, w] -> projected patch tokens [N, patches, output_dim]."""
        return self.projector(self.patch_tokens(pixels))

    def patch_tokens(self, pixels: Tensor) -> Tensor:
        """Normalised views [N, 3, h, w] -> DINOv2's patch tokens [N, patches, C]."""
        embeddings = self.body.embeddings
        patches = embeddings.patch_embeddings(pixels.to(self.projector.weight.dtype))
        rows, columns = (side // self.patch for side in pixels.shape[-2:])
        hidden = torch.cat([embeddings.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        hidden = hidden + resampled_positions(embeddings.position_embeddings, rows, columns)
        for layer in self.body.encoder.layer:
            hidden = layer(hidden)
        return self.body.layernorm(hidden[:, 1:])


def resampled_positions(table: Tensor, rows: int, columns: int) -> Tensor:
    """A table of positions [1, 1 + N, C], class token first, for a grid of rows x columns patches.

    Resampled as the original DINOv2 does it, by a scale factor that is slightly more than the ratio
    of the sizes; transformers resamples by the sizes, which moves the actions by some 0.02.
    """
    side = round(sqrt(table.shape[1] - 1))
    if (rows, columns) == (side, side):
        return table
    grid = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resampled = F.interpolate(
        grid.float(),
        scale_factor=((rows + POSITION_OFFSET) / side, (columns + POSITION_OFFSET) / side),
        mode="bicubic",
    )
    places = resampled.permute(0, 2, 3, 1).reshape(1, rows * columns, -1).to(table.dtype)
    return torch.cat([table[:, :1], places], dim=1)
