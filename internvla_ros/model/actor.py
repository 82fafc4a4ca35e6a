"""The actor, system 1: how to act, as a chunk of motion sampled under a latent plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from internvla_ros.data.normalisation import DatasetStatistics
from internvla_ros.model.acceleration import Runner, eager
from internvla_ros.model.checkpoint import CheckpointError, read_checkpoint
from internvla_ros.model.config import PolicyConfig
from internvla_ros.model.diffusion import SAMPLERS, Schedule
from internvla_ros.model.dit import DiT
from internvla_ros.model.guidance import NoisePredictor
from internvla_ros.model.images import AnyImage, to_tensor
from internvla_ros.model.plan import Plan
from internvla_ros.model.pretrained import load_part
from internvla_ros.model.qformer import LayerwiseQFormer
from internvla_ros.model.realtime import Commitment, realtime_ddim_sample
from internvla_ros.model.vision_expert import VisionExpert
from internvla_ros.model.words import Words

Views = Sequence[AnyImage]


class Actor(nn.Module):
    """Vision expert, QFormer and diffusion transformer. Images are numpy, PIL or tensors."""

    def __init__(
        self,
        config: PolicyConfig,
        statistics: Mapping[str, DatasetStatistics],
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        """`tokenizer`: of the policy, for an actor whose draft reads words."""
        super().__init__()
        self.config = config
        self.statistics = dict(statistics)
        self.vision_expert = VisionExpert(config.vision, config.qformer.input_dim)
        self.qformer = LayerwiseQFormer(config.qformer)
        self.words = None
        if config.actor.draft_words:
            if tokenizer is None:
                raise ValueError("this actor reads words, and was given no tokenizer")
            self.words = Words(config, tokenizer)
        known = 0 if self.words is None else self.words.none
        qformer = config.qformer
        self.dit = DiT(config.actor, qformer.num_query_tokens, qformer.hidden_dim, known)
        self.schedule = Schedule.squared_cosine(config.actor.diffusion_steps)
        self.run: Runner = eager

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        watch: Callable[[float], object] | None = None,
    ) -> Actor:
        """The actor of a checkpoint alone, in eval mode; raises `CheckpointError`.

        `watch` is called with the share of the weights that is read, up to 1.
        """
        checkpoint = read_checkpoint(name)
        return load_part(
            lambda: cls(checkpoint.config, checkpoint.statistics, checkpoint.tokenizer),
            checkpoint,
            "actor.",
            device,
            dtype,
            watch,
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.dit.positional_embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.dit.positional_embedding.dtype

    @torch.inference_mode()
    def act(
        self,
        images: Sequence[Views],
        plan: Plan | None,
        states: NDArray[np.float64] | None = None,
        points: NDArray[np.float64] | None = None,
        *,
        seed: int = 0,
        noise: Tensor | None = None,
        num_ddim_steps: int | None = None,
        guidance: float | None = None,
        sampler: str = "ddim",
        unnorm_key: str | None = None,
        previous: NDArray[np.float64] | None = None,
        frozen: int = 0,
    ) -> NDArray[np.float64]:
        """Action chunks [B, T, D] in SI units, un-normalised by the named statistics.

        `previous` [B, K, D] in SI units is what is left of the chunk in execution, of which
        `frozen` steps will be executed before this chunk arrives: it goes on from there (see
        `realtime.Commitment`). Other arguments as in `sample`; a gripper is 0 or 1.
        """
        statistics = self.statistics_of(unnorm_key)
        commitment = None
        if previous is not None:
            known = torch.as_tensor(statistics.action.normalise(previous), device=self.device)
            commitment = Commitment(known.float(), frozen)
        actions = self.sample(
            images,
            plan,
            self.normalised_states(states, unnorm_key),
            points,
            seed=seed,
            noise=noise,
            num_ddim_steps=num_ddim_steps,
            guidance=guidance,
            sampler=sampler,
            commitment=commitment,
        )
        return statistics.action.unnormalise(actions.cpu().numpy())

    @torch.inference_mode()
    def sample(
        self,
        images: Sequence[Views],
        plan: Plan | None,
        states: Tensor | None = None,
        points: NDArray[np.float64] | None = None,
        *,
        seed: int = 0,
        noise: Tensor | None = None,
        num_ddim_steps: int | None = None,
        guidance: float | None = None,
        sampler: str = "ddim",
        commitment: Commitment | None = None,
    ) -> Tensor:
        """Normalised action chunks float32 [B, T, D], about -1..1.

        Args:
            images: of every sample its views, in the policy's order.
            plan: of as many samples. Without one the learned `uncondition` takes its place, and no
                image is looked at.
            states: [B, state_width] from `normalised_states`, for policies that take the robot's
                state.
            points: [B, num_points, 2] in 0..1 of the first view, NaN where withheld, for policies
                that take points.
            seed: of the initial noise (scaled as configured), which depends on it alone, so that
                equal observations give equal chunks and successive chunks agree.
            noise: the initial noise itself [B, T, D], instead.
            num_ddim_steps, guidance: denoising steps, and scale of classifier-free guidance; None:
                as configured.
            sampler: one of `diffusion.SAMPLERS`.
            commitment: what the chunk has to go on from, normalised; it is sampled by DDIM.
        """
        batch = len(images)
        if sampler not in SAMPLERS:
            raise ValueError(f"no sampler '{sampler}'; there are {', '.join(SAMPLERS)}")
        words = None
        if self.words is not None and plan is not None:
            words = self.words(plan.instructions).to(self.device)
        # What real-time chunking differentiates is neither compiled nor captured.
        run = self.run if commitment is None else eager
        return run(
            self._sampled,
            *self._memory(images, plan),
            self._places(points, batch),
            states,
            words,
            self._noise(batch, seed, noise),
            sampler,
            self.config.num_ddim_steps if num_ddim_steps is None else num_ddim_steps,
            self.config.guidance if guidance is None else guidance,
            commitment,
        )

    def condition(
        self,
        hidden_states: Tensor,
        vision_tokens: Tensor,
        attention_mask: Tensor | None,
        vision_mask: Tensor | None = None,
    ) -> Tensor:
        """Condition tokens [B, Q, C]; arguments as the QFormer takes them."""
        return self.qformer(
            hidden_states.to(self.dtype), vision_tokens, attention_mask, vision_mask
        )

    def statistics_of(self, key: str | None) -> DatasetStatistics:
        """The named statistics, or the only ones; raises `CheckpointError` naming what there is."""
        if key is None and len(self.statistics) == 1:
            return next(iter(self.statistics.values()))
        if key not in self.statistics:
            raise CheckpointError(
                f"no statistics named {key!r} in this checkpoint; it has {sorted(self.statistics)}"
            )
        return self.statistics[key]

    def _memory(
        self, images: Sequence[Views], plan: Plan | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        """What the QFormer reads: hidden states, vision tokens, and their masks."""
        if plan is None:
            return None, None, None, None
        if plan.hidden_states.shape[1] != len(images):
            raise ValueError(
                f"a plan of {plan.hidden_states.shape[1]} samples for the views of {len(images)}"
            )
        wanted = self.config.vision.views
        if any(not views or (wanted and len(views) < wanted) for views in images):
            cameras = f" ({', '.join(self.config.cameras)})" if self.config.cameras else ""
            raise ValueError(f"the actor takes {wanted or 'some'} views{cameras} of every sample")
        samples = [
            [to_tensor(view, self.device) for view in views[: wanted or None]] for views in images
        ]
        tokens, mask = self.vision_expert.look(samples, self.config.planner.image_size)
        attention_mask = plan.attention_mask
        return (
            plan.hidden_states.to(self.device),
            tokens,
            None if attention_mask is None else attention_mask.to(self.device),
            mask,
        )

    def _sampled(
        self,
        hidden_states: Tensor | None,
        vision_tokens: Tensor | None,
        attention_mask: Tensor | None,
        vision_mask: Tensor | None,
        points: Tensor | None,
        states: Tensor | None,
        words: Tensor | None,
        noise: Tensor,
        sampler: str,
        steps: int,
        scale: float,
        commitment: Commitment | None,
    ) -> Tensor:
        if hidden_states is None or vision_tokens is None:
            condition = self.dit.uncondition.expand(len(noise), -1, -1)
        else:
            condition = self.condition(hidden_states, vision_tokens, attention_mask, vision_mask)
        draft, unit = torch.zeros_like(noise), self.config.actor.draft_scale or 1.0
        if self.config.actor.draft_scale and points is not None and states is not None:
            draft = self.dit.drafted(points, states, words)
        predictor = NoisePredictor(
            self.dit, condition, points, states, scale=scale, steps=self.schedule.steps
        )
        if commitment is None:
            residual = SAMPLERS[sampler](predictor, noise, self.schedule, steps)
        else:
            known = commitment.previous.shape[1]
            left = replace(commitment, previous=(commitment.previous - draft[:, :known]) / unit)
            residual = realtime_ddim_sample(predictor, noise, self.schedule, steps, left)
        return draft + unit * residual

    def _noise(self, batch: int, seed: int, noise: Tensor | None) -> Tensor:
        shape = (batch, self.config.actor.chunk_size, self.config.actor.action_dim)
        if noise is None:
            generator = torch.Generator().manual_seed(seed)
            drawn = torch.randn(1, *shape[1:], generator=generator)
            noise = self.config.noise_scale * drawn.expand(batch, -1, -1)
        if noise.shape != shape:
            raise ValueError(f"the noise must be {list(shape)}, got {list(noise.shape)}")
        return noise.to(self.device, torch.float32)

    def _places(self, points: NDArray[np.float64] | None, batch: int) -> Tensor | None:
        count = self.config.actor.num_points
        if not count:
            return None
        if points is None:
            return torch.full((batch, count, 2), float("nan"), device=self.device, dtype=self.dtype)
        if points.shape != (batch, count, 2):
            raise ValueError(f"points must be [{batch}, {count}, 2], got {list(points.shape)}")
        return torch.as_tensor(points, dtype=self.dtype, device=self.device)

    def normalised_states(
        self, states: NDArray[np.float64] | None, unnorm_key: str | None
    ) -> Tensor | None:
        """States [B, state_dim] in SI units as `sample` takes them; None for who takes none.

        [B, state_width]: normalised by the named statistics, then which robot's they are.
        """
        config, statistics = self.config.actor, self.statistics_of(unnorm_key)
        width = config.state_dim
        if not width:
            return None
        if states is None or states.shape[-1] != width:
            raise ValueError(f"this policy needs the robot's state of {width} numbers")
        if statistics.state is None:
            raise CheckpointError("the checkpoint's statistics lack the robot's state")
        told = config.told_apart(unnorm_key or next(iter(self.statistics)))
        known = np.hstack([statistics.state.normalise(states), np.tile(told, (len(states), 1))])
        return torch.as_tensor(known, dtype=self.dtype, device=self.device)
