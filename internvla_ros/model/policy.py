"""InternVLA-M1 as one object: plan (where to act), ground and chat (say it), act (how)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedTokenizerBase

from internvla_ros.data.normalisation import DatasetStatistics
from internvla_ros.model.acceleration import runner
from internvla_ros.model.actor import Actor
from internvla_ros.model.checkpoint import read_checkpoint
from internvla_ros.model.config import PolicyConfig
from internvla_ros.model.images import AnyImage, at_image_size, to_tensor
from internvla_ros.model.plan import Plan
from internvla_ros.model.planner import Planner, Views
from internvla_ros.model.pretrained import load_part
from internvla_ros.spatial.prompts import Kind
from internvla_ros.spatial.types import SpatialAnswer

PROMPT_BLOCK = 32
"""Prompts are padded to multiples of this many tokens where shapes are captured or compiled."""


class Policy(nn.Module):
    """Planner and actor in one process; either can also be loaded and used alone."""

    def __init__(
        self,
        config: PolicyConfig,
        tokenizer: PreTrainedTokenizerBase,
        statistics: Mapping[str, DatasetStatistics],
    ) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.planner = Planner(config, tokenizer)
        self.actor = Actor(config, statistics, tokenizer)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, device: str = "cpu", dtype: torch.dtype | None = None
    ) -> Policy:
        """Load a checkpoint of either layout, a folder or hub id, in eval mode.

        `dtype` None: as stored on a GPU, float32 on a CPU. Raises `CheckpointError`.
        """
        checkpoint = read_checkpoint(name)
        return load_part(
            lambda: cls(checkpoint.config, checkpoint.tokenizer, checkpoint.statistics),
            checkpoint,
            "",
            device,
            dtype,
        )

    @property
    def statistics(self) -> dict[str, DatasetStatistics]:
        """By name, what actions are un-normalised with."""
        return self.actor.statistics

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.actor.device

    def accelerate(self, *, compiled: bool = False, cuda_graphs: bool = False) -> None:
        """Fuse kernels (`torch.compile`) and replay calls as CUDA graphs from now on.

        The first call with new shapes takes seconds: `warm_up` spends them in advance.
        """
        run = runner(compiled=compiled, cuda_graphs=cuda_graphs)
        self.planner.run = self.actor.run = self.actor.vision_expert.run = run
        self.planner.length_multiple = PROMPT_BLOCK if compiled or cuda_graphs else 1

    def warm_up(self, views: int, size: tuple[int, int] = (480, 640)) -> None:
        """Make the first chunk as fast as the next: plan and act once on grey views."""
        grey = np.full((*size, 3), 128, np.uint8)
        images = [[grey] * views]
        key = next(iter(self.statistics))
        state = np.zeros((1, self.config.actor.state_dim))
        self.act(images, self.plan(images, ["pick up the cube"]), state, unnorm_key=key)

    def plan(self, images: Sequence[Views], instructions: Sequence[str]) -> Plan:
        """See `Planner.plan`."""
        return self.planner.plan(images, instructions)

    def look(
        self,
        images: Sequence[Views],
        instructions: Sequence[str],
        *,
        trace: bool = False,
        drafts: dict[str, list[int]] | None = None,
    ) -> tuple[Plan, list[SpatialAnswer]]:
        """See `Planner.look`."""
        return self.planner.look(images, instructions, trace=trace, drafts=drafts)

    def ground(
        self, image: AnyImage, query: str, kind: Kind = "box", max_tokens: int = 96
    ) -> SpatialAnswer:
        """See `Planner.ground`."""
        return self.planner.ground(image, query, kind, max_tokens)

    def chat(self, images: Views, message: str, **options: Any) -> str:
        """See `Planner.chat`."""
        return self.planner.chat(images, message, **options)

    def act(
        self,
        images: Sequence[Views],
        plan: Plan | None,
        states: NDArray[np.float64] | None = None,
        points: NDArray[np.float64] | None = None,
        **options: Any,
    ) -> NDArray[np.float64]:
        """See `Actor.act`."""
        return self.actor.act(images, plan, states, points, **options)

    def predict(
        self, images: Sequence[Views], instructions: Sequence[str], **options: Any
    ) -> NDArray[np.float64]:
        """Plan and act at once: action chunks [B, T, D] in SI units; options as `Actor.act`."""
        views = self._resized(images)
        return self.act(views, self.plan(views, instructions), **options)

    def predict_normalised(
        self,
        images: Sequence[Views],
        instructions: Sequence[str],
        states: NDArray[np.float64] | None = None,
        points: NDArray[np.float64] | None = None,
        *,
        unnorm_key: str | None = None,
        **options: Any,
    ) -> NDArray[np.float32]:
        """As `predict`, but as the network says it: about -1..1, nothing clipped or thresholded.

        States are in SI units and normalised by the named statistics. Other options as
        `Actor.sample`.
        """
        normalised = None
        if self.config.actor.state_dim:
            normalised = self.actor.normalised_states(states, unnorm_key)
        views = self._resized(images)
        plan = self.plan(views, instructions)
        return self.actor.sample(views, plan, normalised, points, **options).cpu().numpy()

    def _resized(self, images: Sequence[Views]) -> list[Views]:
        """The views as both parts see them: both begin with the same resize, done here once."""
        size = self.config.planner.image_size
        return [
            at_image_size([to_tensor(view, self.device) for view in sample], size)
            for sample in images
        ]
