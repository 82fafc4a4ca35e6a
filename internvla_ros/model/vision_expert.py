"""The vision expert: DINOv2 patch tokens of the actor's views, projected to the planner's width."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

from internvla_ros.model.config import VisionExpertConfig
from internvla_ros.model.images import IMAGENET_MEAN, IMAGENET_STD, normalise


class VisionExpert(nn.Module):
    """DINOv2 over every view; no class token in the output."""

    def __init__(self, config: VisionExpertConfig, output_dim: int) -> None:
        super().__init__()
        self.config = config
        dinov2 = Dinov2Config(**dict(config.dinov2))
        self.body = Dinov2Model(dinov2)
        self.projector = nn.Linear(dinov2.hidden_size, output_dim)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [B, V, h, w, 3] -> tokens [B, V * patches, output_dim]."""
        batch, views = images.shape[:2]
        if views != self.config.views:
            raise ValueError(f"this policy takes {self.config.views} views, got {views}")
        pixels = normalise(images.flatten(0, 1), IMAGENET_MEAN, IMAGENET_STD)
        tokens = self.body(pixels.to(self.projector.weight.dtype)).last_hidden_state[:, 1:]
        return self.projector(tokens).reshape(batch, views * tokens.shape[1], -1)
