"""The same work as the policy's, done as the released code does it: what the speed is compared to.

All hidden states are kept and logits computed for every token; views are prepared by PIL and numpy
and looked at once for the plan and again for the answer; nothing is cached from one denoising step
to the next. The networks are transformers' own classes around the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from transformers import Qwen2VLImageProcessorPil

from internvla_ros.model.diffusion import ddim_sample
from internvla_ros.model.dit import DiT, timestep_embedding
from internvla_ros.model.images import IMAGENET_MEAN, IMAGENET_STD
from internvla_ros.model.policy import Policy
from internvla_ros.model.vision_expert import resampled_positions


class Clock(Protocol):
    """Times stages by name."""

    def __call__(self, stage: str) -> AbstractContextManager[None]:
        """A context whose duration counts for a stage."""
        ...


class ReleasedWay:
    """A policy's networks, used as the released code uses them."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.planner, self.actor = policy.planner, policy.actor
        self.processor = Qwen2VLImageProcessorPil(
            patch_size=self.planner.patch, merge_size=self.planner.merge
        )
        if self.planner.config.absolute_positions:
            self.planner.vlm.model.visual.register_forward_hook(self._add_positions)

    def chunk(
        self,
        views: Sequence[NDArray[np.uint8]],
        instruction: str,
        noise: Tensor,
        steps: int,
        scale: float,
        answer_tokens: int,
        clock: Clock,
    ) -> tuple[Tensor, list[int]]:
        """A normalised chunk [1, T, D] and the tokens of an answer."""
        with clock("preprocess"):
            pictures = self._pictures(views)
            seen = pictures[: self.policy.config.planner.views or None]
            inputs = self._inputs(seen, instruction)
        with clock("vision tower + language model"):
            output = self.planner.vlm(**inputs, output_hidden_states=True, use_cache=False)
            layers = self.policy.config.qformer
            states = torch.stack(output.hidden_states[layers.start_layer : layers.end_layer])
        with clock("vision expert"):
            tokens = self._vision_tokens(pictures)
        with clock("QFormer + denoising"):
            actions = self._denoised(states, tokens, noise, steps, scale)
        answer: list[int] = []
        if answer_tokens:
            with clock("answer"):
                answer = self._answer(seen, instruction, answer_tokens)
        return actions, answer

    def _add_positions(self, _: nn.Module, __: object, output: Any) -> None:
        """The table of positions that our small planners have, in transformers' own tower."""
        table = self.planner.image_positions
        output.pooler_output += table.repeat(len(output.pooler_output) // len(table), 1)

    def _pictures(self, views: Sequence[NDArray[np.uint8]]) -> list[Image.Image]:
        size = self.policy.config.planner.image_size
        pictures = [Image.fromarray(view) for view in views]
        return pictures if size is None else [picture.resize(size) for picture in pictures]

    def _inputs(self, pictures: list[Image.Image], instruction: str) -> dict[str, Any]:
        seen = self.processor(images=pictures, return_tensors="pt")
        merged = seen["image_grid_thw"].prod(dim=1) // self.planner.merge**2
        chat = self.planner.chat_format
        ids = torch.tensor([chat.prompt(self.planner.prompt(instruction), merged.tolist())])
        device = self.planner.device
        return {
            "input_ids": ids.to(device),
            "attention_mask": torch.ones_like(ids).to(device),
            "mm_token_type_ids": (ids == chat.image_token).int().to(device),
            "pixel_values": seen["pixel_values"].to(device, self.planner.dtype),
            "image_grid_thw": seen["image_grid_thw"].to(device),
        }

    def _answer(self, pictures: list[Image.Image], instruction: str, tokens: int) -> list[int]:
        inputs = self._inputs(pictures, instruction)
        ids = self.planner.vlm.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=tokens,
            eos_token_id=list(self.planner.chat_format.ends),
            pad_token_id=self.planner.chat_format.pad,
        )
        answer: list[int] = ids[0, inputs["input_ids"].shape[1] :].tolist()
        return answer[:-1] if answer[-1] in self.planner.chat_format.ends else answer

    def _vision_tokens(self, pictures: list[Image.Image]) -> Tensor:
        """Projected DINOv2 tokens [1, T, C]."""
        expert, arrays = self.actor.vision_expert, []
        for picture in pictures:
            path = expert.path(picture.size, None)
            resized = picture.resize(path.model, Image.Resampling.BILINEAR)
            pixels = np.asarray(resized, np.float32) / 255
            arrays.append((pixels - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD))
        pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
        pixels = pixels.to(self.actor.device, self.actor.dtype)
        body = expert.body
        patches = body.embeddings.patch_embeddings(pixels)
        hidden = torch.cat([body.embeddings.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        rows, columns = (side // expert.patch for side in pixels.shape[-2:])
        hidden = hidden + resampled_positions(body.embeddings.position_embeddings, rows, columns)
        hidden = body.layernorm(body.encoder(hidden).last_hidden_state)
        return expert.projector(hidden[:, 1:]).flatten(0, 1)[None]

    def _denoised(
        self, states: Tensor, tokens: Tensor, noise: Tensor, steps: int, scale: float
    ) -> Tensor:
        dit, plan = self.actor.dit, self.actor.condition(states, tokens, None)
        points, robot = neutral_inputs(self.policy)

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            if scale == 1.0:
                return whole_forward(dit, noisy, timesteps, dit.condition(plan, points, robot))
            both = whole_forward(
                dit,
                torch.cat([noisy, noisy]),
                torch.cat([timesteps, timesteps]),
                torch.cat(
                    [
                        dit.condition(plan, points, robot),
                        dit.condition(dit.uncondition[None], points, robot),
                    ]
                ),
            )
            with_plan, without_plan = both.chunk(2)
            return without_plan + scale * (with_plan - without_plan)

        return ddim_sample(predict, noise, self.actor.schedule, steps)


def neutral_inputs(policy: Policy) -> tuple[Tensor | None, Tensor | None]:
    """Withheld points and a state of zeros, for policies that take them."""
    config, like = policy.config.actor, policy.actor.dit.uncondition
    points = like.new_full((1, config.num_points, 2), float("nan")) if config.num_points else None
    return points, like.new_zeros(1, config.state_width) if config.state_dim else None


def whole_forward(dit: DiT, noisy: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
    """Predicted noise, with everything computed for every token at every step."""
    dtype = dit.x_embedder.weight.dtype
    time = dit.t_embedder(timestep_embedding(timesteps).to(dtype))[:, None]
    x = torch.cat([time + condition, dit.x_embedder(noisy.to(dtype))], dim=1)
    x = x + dit.positional_embedding
    for block in dit.blocks:
        batch, length, dim = x.shape
        qkv = block.attn.qkv(block.norm1(x)).view(batch, length, 3, block.attn.num_heads, -1)
        mixed = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4).unbind(0))
        x = x + block.attn.proj(mixed.transpose(1, 2).reshape(batch, length, dim))
        x = x + block.mlp(block.norm2(x))
    return dit.final(dit.final_norm(x)[:, -dit.config.chunk_size :]).float()
