"""Stage 2's action loss: the noise in expert chunks, predicted under the spatial prompt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from internvla_ros.data.normalisation import DatasetStatistics
from internvla_ros.model.diffusion import Schedule
from internvla_ros.model.dit import DiT
from internvla_ros.model.policy import Policy
from internvla_ros.train.frames import EpisodeFrames
from internvla_ros.train.loop import Streams


@dataclass(frozen=True)
class ActionLossConfig:
    """How action samples are drawn and weighted."""

    batch_size: int = 32
    condition_dropout: float = 0.1
    """Share of the samples that get the learned `uncondition` instead of the latent plan; for these
    no image is encoded at all. 1 trains the actor on points and state alone."""
    point_dropout: float = 0.1
    """Probability that all points of a sample are withheld."""
    repeated_diffusion_steps: int = 4
    """Noise draws per encoded sample."""
    point_noise: float = 0.012
    """Standard deviation added to the annotated points, as a fraction of the image: the planner's
    own points are about this wrong."""
    state_noise: float = 0.02
    """Standard deviation added to the normalised state."""
    draft_batch_size: int = 512
    """Samples a step for the draft, where the actor has one: it costs little and needs many."""
    noise_weight_cap: float = 0.0
    """Weigh each sample's loss by its noise-to-signal power, up to this cap; 0: all alike.

    The error of the clean chunk is that of the noise times this power. Where little compute goes
    into training, equal weights leave the first, noisiest denoising steps, and with them the
    chunk's destination, centimetres off.
    """
    gradient_decay: float = 0.5
    """Share of the actor's gradient that reaches the planner; 0 spares its backward pass."""


@dataclass(frozen=True)
class ActionBatch:
    """One optimizer step's samples, ready for the network."""

    frames: NDArray[np.int64]
    actions: Tensor
    points: Tensor
    states: Tensor


def draw(
    data: EpisodeFrames,
    statistics: DatasetStatistics,
    policy: Policy,
    config: ActionLossConfig,
    size: int,
    streams: Streams,
) -> ActionBatch:
    """A batch of frames with normalised chunks and states, and points with the planner's errors."""
    rng, actor = streams.numpy, policy.config.actor
    frames = rng.integers(len(data), size=size)
    points = data.points[frames] + rng.normal(0, config.point_noise, (size, 2, 2))
    points[rng.random(size) < config.point_dropout] = np.nan
    assert statistics.state is not None
    states = statistics.state.normalise(data.state[frames])
    states = states + rng.normal(0, config.state_noise, states.shape)
    actions = statistics.action.normalise(data.chunks(frames, actor.chunk_size))
    return ActionBatch(frames, _tensor(actions), _tensor(points), _tensor(states))


def action_loss(
    policy: Policy,
    data: EpisodeFrames,
    statistics: DatasetStatistics,
    config: ActionLossConfig,
    streams: Streams,
) -> Tensor:
    """Mean squared error of the predicted noise over one batch."""
    batch = draw(data, statistics, policy, config, config.batch_size, streams)
    planned = round(config.batch_size * (1 - config.condition_dropout))
    condition = policy.actor.dit.uncondition.expand(config.batch_size - planned, -1, -1)
    if planned:
        condition = torch.cat([_plan(policy, data, batch.frames[:planned], config), condition])

    def repeated(x: Tensor) -> Tensor:
        return x.repeat(config.repeated_diffusion_steps, *([1] * (x.ndim - 1)))

    clean = repeated(_diffused(policy.actor.dit, batch))
    noise = torch.randn(clean.shape, generator=streams.torch)
    timesteps = torch.randint(policy.actor.schedule.steps, (len(clean),), generator=streams.torch)
    predicted = policy.actor.dit(
        policy.actor.schedule.noised(clean, noise, timesteps),
        timesteps,
        repeated(condition),
        repeated(batch.points) if policy.config.actor.num_points else None,
        repeated(batch.states) if policy.config.actor.state_dim else None,
    )
    errors = F.mse_loss(predicted, noise, reduction="none").mean(dim=(1, 2))
    return (
        errors * noise_weights(policy.actor.schedule, timesteps, config.noise_weight_cap)
    ).mean()


def draft_loss(
    policy: Policy,
    data: EpisodeFrames,
    statistics: DatasetStatistics,
    config: ActionLossConfig,
    streams: Streams,
) -> Tensor:
    """Mean squared error of the drafted chunk over one batch."""
    batch = draw(data, statistics, policy, config, config.draft_batch_size, streams)
    return F.mse_loss(policy.actor.dit.drafted(batch.points, batch.states), batch.actions)


@torch.no_grad()
def _diffused(actor: DiT, batch: ActionBatch) -> Tensor:
    """What is diffused: the chunk, or what the draft leaves of it."""
    if not actor.config.draft_scale:
        return batch.actions
    return (batch.actions - actor.drafted(batch.points, batch.states)) / actor.config.draft_scale


def noise_weights(schedule: Schedule, timesteps: Tensor, cap: float) -> Tensor:
    """Loss weights [B] of timesteps [B], 1 on average over all timesteps."""
    if cap <= 0:
        return torch.ones(len(timesteps))
    power = (1 - schedule.alphas_cumprod) / schedule.alphas_cumprod
    weights = 0.1 + power.clamp(max=cap)
    return (weights / weights.mean()).float()[timesteps]


def _plan(
    policy: Policy, data: EpisodeFrames, frames: NDArray[np.int64], config: ActionLossConfig
) -> Tensor:
    planner, layers = policy.planner, policy.config.qformer
    cameras = [torch.from_numpy(data.views[camera][frames]) for camera in policy.config.cameras]
    samples = [list(views) for views in zip(*cameras, strict=True)]
    with torch.set_grad_enabled(config.gradient_decay > 0 and torch.is_grad_enabled()):
        sights = planner.see([views[: policy.config.planner.views] for views in samples])
        prompts = [
            planner.chat_format.prompt(planner.prompt(data.instruction(f)), sight.image_tokens)
            for f, sight in zip(frames, sights, strict=True)
        ]
        reading = planner.prepare(prompts, [sight.grids for sight in sights])
        features = torch.cat([sight.features for sight in sights])
        hidden = planner.hidden_states(reading, features, layers.start_layer, layers.end_layer)
    hidden = config.gradient_decay * hidden + (1 - config.gradient_decay) * hidden.detach()
    tokens, vision_mask = policy.actor.vision_expert.look(
        [views[: policy.config.vision.views] for views in samples], policy.config.planner.image_size
    )
    return policy.actor.condition(hidden, tokens, reading.mask, vision_mask)


def _tensor(array: NDArray[np.floating]) -> Tensor:
    return torch.as_tensor(array, dtype=torch.float32)
