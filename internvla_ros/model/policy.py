"""InternVLA-M1 as one object: plan (where to act), ground (say where) and act (how)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from internvla_ros.data.normalisation import DatasetStatistics
from internvla_ros.model.checkpoint import CheckpointError, load_weights, read_checkpoint
from internvla_ros.model.config import PolicyConfig
from internvla_ros.model.decoding import greedy, greedy_with_draft
from internvla_ros.model.diffusion import Schedule, ddim_sample
from internvla_ros.model.dit import DiT
from internvla_ros.model.guidance import NoisePredictor
from internvla_ros.model.images import stack
from internvla_ros.model.planner import Planner, Prefix, left_padded
from internvla_ros.model.qformer import LayerwiseQFormer
from internvla_ros.model.vision_expert import VisionExpert
from internvla_ros.spatial.prompts import point_prompt, trace_prompt
from internvla_ros.spatial.text import parse
from internvla_ros.spatial.types import SpatialAnswer

Views = Sequence[NDArray[np.uint8]]
MAX_ANSWER_TOKENS = 96


@dataclass(frozen=True)
class Plan:
    """The latent plan: what the planner's used layers hold after reading views and prompt."""

    hidden_states: Tensor
    """[L, B, S, C]."""
    attention_mask: Tensor
    """[B, S], 1 where a token is real."""
    instructions: tuple[str, ...]


class InternVLAM1(nn.Module):
    """The whole policy. Inference takes numpy images of any size, one list of views a sample."""

    def __init__(
        self,
        config: PolicyConfig,
        tokenizer: PreTrainedTokenizerBase,
        statistics: Mapping[str, DatasetStatistics],
    ) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.statistics = dict(statistics)
        self.planner = Planner(config.planner, tokenizer)
        self.vision_expert = VisionExpert(config.vision, self.planner.hidden_dim)
        self.qformer = LayerwiseQFormer(config.qformer)
        self.actor = DiT(config.actor, config.qformer.num_query_tokens, config.qformer.hidden_dim)
        self.schedule = Schedule.squared_cosine(config.actor.diffusion_steps)

    @classmethod
    def from_pretrained(cls, name: str | Path, device: str = "cpu") -> InternVLAM1:
        """Load a checkpoint folder or hub id, in eval mode; raises `CheckpointError`."""
        checkpoint = read_checkpoint(name)
        policy = cls(checkpoint.config, checkpoint.tokenizer, checkpoint.statistics)
        load_weights(policy, checkpoint.folder)
        return policy.to(device).eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.actor.positional_embedding.device

    def prompt(self, instruction: str) -> str:
        """The spatial prompt of an instruction, as trained."""
        text = instruction.lower() if self.config.lowercase_instruction else instruction
        return self.config.prompt.replace("{instruction}", text)

    @torch.inference_mode()
    def plan(self, images: Sequence[Views], instructions: Sequence[str]) -> Plan:
        """The latent plan of a batch; images[b] are sample b's views, the planner's first."""
        return self._read(images, instructions)[0]

    @torch.inference_mode()
    def look(
        self,
        images: Sequence[Views],
        instructions: Sequence[str],
        *,
        trace: bool = False,
        drafts: dict[str, list[int]] | None = None,
    ) -> tuple[Plan, list[SpatialAnswer]]:
        """The plan and, in words of the same conversation, its boxes and points (and a trace).

        Boxes and points are [object to move, destination], in pixels of each sample's first view.
        `drafts`, kept by the caller from tick to tick, makes decoding for one scene faster without
        changing its result.
        """
        plan, prefix = self._read(images, instructions)
        if len(instructions) == 1:
            texts = [
                self._converse(prefix, instructions[0], trace, drafts if drafts is not None else {})
            ]
        else:
            texts = self._converse_batch(images, instructions, prefix, trace)
        return plan, [
            self._parse_all(answers, views[0]) for answers, views in zip(texts, images, strict=True)
        ]

    @torch.inference_mode()
    def ground(self, images: Views, queries: Sequence[str]) -> list[SpatialAnswer]:
        """Answer one free question about each image; pixels are those of the image given."""
        prompts = [self.planner.chat.prompt(q, self.planner.image_tokens[:1]) for q in queries]
        ids, mask = self._padded(prompts)
        prefix = self.planner.hidden_states(
            ids, self._planner_images([[image] for image in images], 1), mask, *self._layers
        )[1]
        answers = greedy(self.planner, prefix, MAX_ANSWER_TOKENS)
        return [
            self._parse_all([self.planner.chat.decode(answer)], image)
            for answer, image in zip(answers, images, strict=True)
        ]

    @torch.inference_mode()
    def act(
        self,
        images: Sequence[Views],
        plan: Plan | None,
        states: NDArray[np.float64] | None = None,
        points: NDArray[np.float64] | None = None,
        *,
        seed: int = 0,
        num_ddim_steps: int | None = None,
        guidance: float | None = None,
        unnorm_key: str | None = None,
    ) -> NDArray[np.float64]:
        """Action chunks [B, T, D] in SI units, un-normalised by the named statistics.

        states [B, state_dim] in SI units; points [B, num_points, 2] in 0..1 of the first view, NaN
        where withheld. Without a plan the learned `uncondition` takes its place, and no image is
        looked at. The initial noise depends on `seed` alone, so that equal observations give
        equal chunks and successive chunks agree.
        """
        statistics = self._statistics(unnorm_key)
        batch = len(images)
        without = self.actor.uncondition.expand(batch, -1, -1)
        condition = without
        if plan is not None:
            views = self._actor_images(images)
            condition = self.condition(views, plan.hidden_states, plan.attention_mask)
        places, situation = self._points(points, batch), self._states(states, statistics)
        predictor = NoisePredictor(
            self.actor,
            condition,
            without,
            places,
            situation,
            scale=self.config.guidance if guidance is None else guidance,
        )
        chunk, width = self.config.actor.chunk_size, self.config.actor.action_dim
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(1, chunk, width, generator=generator).expand(batch, -1, -1)
        steps = self.config.num_ddim_steps if num_ddim_steps is None else num_ddim_steps
        actions = ddim_sample(predictor, noise.to(self.device), self.schedule, steps)
        if places is not None and situation is not None and self.config.actor.draft_scale:
            draft = self.actor.drafted(places, situation)
            actions = draft + self.config.actor.draft_scale * actions
        return statistics.action.unnormalise(actions.double().cpu().numpy())

    def condition(
        self, views: Tensor, hidden_states: Tensor, attention_mask: Tensor | None
    ) -> Tensor:
        """Condition tokens [B, Q, C] of uint8 views [B, V, h, w, 3], hidden states [L, B, S, C]."""
        return self.qformer(hidden_states, self.vision_expert(views), attention_mask)

    @property
    def _layers(self) -> tuple[int, int]:
        return self.config.qformer.start_layer, self.config.qformer.end_layer

    def _padded(self, prompts: list[list[int]]) -> tuple[Tensor, Tensor | None]:
        ids, mask = left_padded(prompts, self.planner.chat.pad)
        return ids.to(self.device), None if mask is None else mask.to(self.device)

    def _read(self, images: Sequence[Views], instructions: Sequence[str]) -> tuple[Plan, Prefix]:
        if len(images) != len(instructions) or not images:
            raise ValueError(f"{len(images)} sets of views for {len(instructions)} instructions")
        prompts = [
            self.planner.chat.prompt(self.prompt(i), self.planner.image_tokens)
            for i in instructions
        ]
        ids, mask = self._padded(prompts)
        views = self._planner_images(images, self.config.planner.views)
        states, prefix = self.planner.hidden_states(ids, views, mask, *self._layers)
        return Plan(states, prefix.attention_mask, tuple(instructions)), prefix

    def _questions(self, instruction: str, trace: bool) -> list[tuple[str, str]]:
        text = instruction.lower() if self.config.lowercase_instruction else instruction
        questions = [("points", point_prompt(text))]
        return [*questions, ("trace", trace_prompt(text))] if trace else questions

    def _converse(
        self, prefix: Prefix, instruction: str, trace: bool, drafts: dict[str, list[int]]
    ) -> list[str]:
        chat = self.planner.chat
        answers = {
            "boxes": greedy_with_draft(
                self.planner, prefix, MAX_ANSWER_TOKENS, drafts.get("boxes", [])
            )
        }
        for kind, question in self._questions(instruction, trace):
            self.planner.extend(
                prefix, torch.tensor([chat.follow_up(question)], device=self.device)
            )
            answers[kind] = greedy_with_draft(
                self.planner, prefix, MAX_ANSWER_TOKENS, drafts.get(kind, [])
            )
        drafts.update(answers)
        return [chat.decode(ids) for ids in answers.values()]

    def _converse_batch(
        self, images: Sequence[Views], instructions: Sequence[str], prefix: Prefix, trace: bool
    ) -> list[list[str]]:
        chat = self.planner.chat
        views = self._planner_images(images, self.config.planner.views)
        spoken = [[*chat.prompt(self.prompt(i), self.planner.image_tokens)] for i in instructions]
        texts: list[list[str]] = [[] for _ in instructions]
        rounds = list(zip(*(self._questions(i, trace) for i in instructions), strict=True))
        for number in range(len(rounds) + 1):
            if number:
                for said, (_, question) in zip(spoken, rounds[number - 1], strict=True):
                    said += chat.follow_up(question)
                ids, mask = self._padded(spoken)
                prefix = self.planner.hidden_states(ids, views, mask, *self._layers)[1]
            for row, answer in enumerate(greedy(self.planner, prefix, MAX_ANSWER_TOKENS)):
                texts[row].append(chat.decode(answer))
                spoken[row] += [*answer, chat.end]
        return texts

    def _parse_all(self, texts: Sequence[str], image: NDArray[np.uint8]) -> SpatialAnswer:
        width, height = self.config.planner.image_size
        answers = [parse(text, width, height) for text in texts]
        merged = SpatialAnswer(
            boxes=tuple(b for a in answers for b in a.boxes),
            points=tuple(p for a in answers for p in a.points),
            traces=tuple(t for a in answers for t in a.traces),
            text="\n".join(texts),
            problems=tuple(p for a in answers for p in a.problems),
        )
        return merged.scaled(image.shape[1] / width, image.shape[0] / height)

    def _planner_images(self, images: Sequence[Views], views: int) -> Tensor:
        flat = [view for sample in images for view in sample[:views]]
        if len(flat) != views * len(images):
            raise ValueError(f"the planner takes {views} views of every sample")
        return stack(flat, self.config.planner.image_size).to(self.device)

    def _actor_images(self, images: Sequence[Views]) -> Tensor:
        views, size = self.config.vision.views, self.config.vision.image_size
        flat = [view for sample in images for view in sample[:views]]
        if len(flat) != views * len(images):
            raise ValueError(
                f"the actor takes {views} views ({', '.join(self.config.cameras)}) of every sample"
            )
        return stack(flat, (size, size)).view(len(images), views, size, size, 3).to(self.device)

    def _points(self, points: NDArray[np.float64] | None, batch: int) -> Tensor | None:
        count = self.config.actor.num_points
        if not count:
            return None
        if points is None:
            return torch.full((batch, count, 2), float("nan"), device=self.device)
        if points.shape != (batch, count, 2):
            raise ValueError(f"points must be [{batch}, {count}, 2], got {list(points.shape)}")
        return torch.as_tensor(points, dtype=torch.float32, device=self.device)

    def _states(
        self, states: NDArray[np.float64] | None, statistics: DatasetStatistics
    ) -> Tensor | None:
        if not self.config.actor.state_dim:
            return None
        if states is None or states.shape[-1] != self.config.actor.state_dim:
            raise ValueError(
                f"this policy needs the robot's state of {self.config.actor.state_dim} numbers"
            )
        if statistics.state is None:
            raise CheckpointError("the checkpoint's statistics lack the robot's state")
        return torch.as_tensor(
            statistics.state.normalise(states), dtype=torch.float32, device=self.device
        )

    def _statistics(self, key: str | None) -> DatasetStatistics:
        if key is None and len(self.statistics) == 1:
            return next(iter(self.statistics.values()))
        if key not in self.statistics:
            raise CheckpointError(
                f"no statistics named {key!r} in this checkpoint; it has {sorted(self.statistics)}"
            )
        return self.statistics[key]
