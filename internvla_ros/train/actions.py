"""Stage 2's action loss: the noise in expert chunks, predicted under the spatial prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from internvla_ros.data.normalisation import DatasetStatistics
from internvla_ros.model.config import ActorConfig
from internvla_ros.model.diffusion import Schedule
from internvla_ros.model.dit import DiT
from internvla_ros.model.policy import Policy
from internvla_ros.model.reader import Reading
from internvla_ros.train.frames import EpisodeFrames
from internvla_ros.train.settings import ActionLossConfig


@dataclass(frozen=True)
class ActionSet:
    """One dataset's frames, by what its actions are normalised, and its share of the samples.

    `rate`: its frames, and so a chunk's steps, a second.
    """

    name: str
    frames: EpisodeFrames
    statistics: DatasetStatistics
    weight: float
    rate: float = 5.0


@dataclass(frozen=True)
class Samples:
    """B samples: which frame of which set, and what of it needs no network.

    `actions` [B, T, D] and `states` [B, S] are normalised (states end with which robot's they are),
    `points` [B, n, 2] in 0..1; points and
    states have their errors already. `wordless` [B]: from whose drafts the words are withheld.
    """

    sets: NDArray[np.int64]
    frames: NDArray[np.int64]
    actions: Tensor
    points: Tensor
    states: Tensor
    wordless: NDArray[np.bool_]


def draw(
    sets: Sequence[ActionSet],
    config: ActionLossConfig,
    actor: ActorConfig,
    size: int,
    rows: NDArray[np.int64],
    rng: np.random.Generator,
) -> Samples:
    """The named rows of a batch of `size` samples, of which every process draws the same."""
    weights = np.array([s.weight for s in sets])
    chosen = rng.choice(len(sets), size=size, p=weights / weights.sum())
    place = rng.random(size)
    point_errors = rng.normal(0, config.point_noise, (size, 2, 2))
    withheld = rng.random(size) < config.point_dropout
    state_errors = rng.normal(0, config.state_noise, (size, max(actor.state_dim, 1)))
    lengths = np.array([len(s.frames.begins) for s in sets])
    starts = np.minimum((place * lengths[chosen]).astype(np.int64), lengths[chosen] - 1)
    frames = np.empty(size, np.int64)
    for index, data in enumerate(sets):
        frames[chosen == index] = data.frames.begins[starts[chosen == index]]
    actions = np.zeros((len(rows), actor.chunk_size, actor.action_dim))
    states = np.zeros((len(rows), actor.state_width))
    points = np.full((len(rows), 2, 2), np.nan)
    for index, data in enumerate(sets):
        own = np.flatnonzero(chosen[rows] == index)
        at = frames[rows[own]]
        actions[own] = data.statistics.action.normalise(data.frames.chunks(at, actor.chunk_size))
        points[own] = data.frames.points[at]
        if actor.state_dim:
            assert data.statistics.state is not None
            states[own, : actor.state_dim] = data.statistics.state.normalise(data.frames.state[at])
            states[own, actor.state_dim :] = actor.told_apart(data.name)
    points += point_errors[rows]
    points[withheld[rows]] = np.nan
    states[:, : actor.state_dim] += state_errors[rows, : actor.state_dim]
    wordless = rng.random(size)[rows] < config.word_dropout
    return Samples(
        chosen[rows], frames[rows], _tensor(actions), _tensor(points), _tensor(states), wordless
    )


def planned_rows(rows: NDArray[np.int64], dropout: float) -> NDArray[np.bool_]:
    """Which rows are given the latent plan: a share of 1 - dropout, evenly spread over all rows."""
    share = 1.0 - dropout
    return np.floor((rows + 1) * share + 1e-9) > np.floor(rows * share + 1e-9)


@dataclass(frozen=True)
class ActionBatch:
    """B samples of which the first P are given the latent plan, with K draws of noise each.

    `views`: uint8 [P, h, w, 3] of each camera; `reading`: the P prompts (None where P is 0);
    `noise` [K, B, T, D] and `timesteps` [K, B]; `words` [B, W] where the draft reads them;
    `drafts`: samples for the draft, where there is one
    """

    views: tuple[Tensor, ...]
    reading: Reading | None
    actions: Tensor
    points: Tensor
    states: Tensor
    noise: Tensor
    timesteps: Tensor
    words: Tensor | None = None
    drafts: tuple[Tensor, ...] | None = None
    """Actions, points, states and, where the draft reads them, words."""

    @property
    def counts(self) -> dict[str, float]:
        """Over how many elements each loss is summed."""
        counts: dict[str, float] = {"action": self.timesteps.numel()}
        if self.drafts is not None:
            counts["draft"] = self.drafts[0].numel()
        return counts

    def each(self, change: Callable[[Tensor], Tensor]) -> ActionBatch:
        """The same with every tensor changed: moved, pinned."""
        reading = self.reading
        if reading is not None:
            mask = None if reading.mask is None else change(reading.mask)
            reading = Reading(
                change(reading.ids), mask, change(reading.positions), change(reading.slots)
            )
        return ActionBatch(
            tuple(change(view) for view in self.views),
            reading,
            change(self.actions),
            change(self.points),
            change(self.states),
            change(self.noise),
            change(self.timesteps),
            None if self.words is None else change(self.words),
            None if self.drafts is None else tuple(map(change, self.drafts)),
        )


def action_losses(
    policy: Policy, batch: ActionBatch, config: ActionLossConfig
) -> dict[str, Tensor]:
    """Summed losses: "action", errors of the predicted noise, and "draft" where there is one.

    The backbone reads each sample once; the actor alone sees every draw of noise.
    """
    actor, schedule = policy.actor.dit, policy.actor.schedule
    draws, size = batch.timesteps.shape
    unplanned = size - (len(batch.views[0]) if batch.views else 0)
    condition = actor.uncondition.expand(unplanned, -1, -1)
    if batch.reading is not None:
        condition = torch.cat([_plan(policy, batch, config).to(condition.dtype), condition])
    tokens = actor.condition(
        condition,
        batch.points if actor.config.num_points else None,
        batch.states if actor.config.state_dim else None,
    )
    clean = _diffused(actor, batch).repeat(draws, 1, 1)
    noise, timesteps = batch.noise.flatten(0, 1), batch.timesteps.flatten()
    predicted = actor.denoise(
        schedule.noised(clean, noise, timesteps),
        actor.time(timesteps),
        tokens.repeat(draws, 1, 1),
    )
    errors = F.mse_loss(predicted.float(), noise, reduction="none").mean(dim=(1, 2))
    weights = noise_weights(schedule, timesteps, config.noise_weight_cap)
    losses = {"action": (errors * weights).sum()}
    if batch.drafts is not None:
        actions, *known = batch.drafts
        losses["draft"] = F.mse_loss(actor.drafted(*known).float(), actions, reduction="sum")
    return losses


@torch.no_grad()
def _diffused(actor: DiT, batch: ActionBatch) -> Tensor:
    """What is diffused: the chunk, or what the draft leaves of it."""
    if not actor.config.draft_scale:
        return batch.actions
    drafted = actor.drafted(batch.points, batch.states, batch.words).float()
    return (batch.actions - drafted) / actor.config.draft_scale


def noise_weights(schedule: Schedule, timesteps: Tensor, cap: float) -> Tensor:
    """Loss weights [B] of timesteps [B], 1 on average over all timesteps."""
    if cap <= 0:
        return torch.ones(len(timesteps), device=timesteps.device)
    power = (1 - schedule.alphas_cumprod) / schedule.alphas_cumprod
    weights = 0.1 + power.clamp(max=cap)
    return (weights / weights.mean()).float().to(timesteps.device)[timesteps]


def _plan(policy: Policy, batch: ActionBatch, config: ActionLossConfig) -> Tensor:
    """Condition tokens [P, Q, C]; of the gradient into the planner a share passes."""
    planner, layers, decay = policy.planner, policy.config.qformer, config.gradient_decay
    assert batch.reading is not None
    samples = [list(views) for views in zip(*batch.views, strict=True)]
    with torch.set_grad_enabled(decay > 0 and torch.is_grad_enabled()):
        shown = [views[: policy.config.planner.views or None] for views in samples]
        features = torch.cat([sight.features for sight in planner.see(shown)])
        hidden = planner.hidden_states(
            batch.reading, features, layers.start_layer, layers.end_layer
        )
    hidden = decay * hidden + (1 - decay) * hidden.detach()
    tokens, vision_mask = policy.actor.vision_expert.look(
        [views[: policy.config.vision.views or None] for views in samples],
        policy.config.planner.image_size,
    )
    return policy.actor.condition(hidden, tokens, batch.reading.mask, vision_mask)


def _tensor(array: NDArray[np.floating]) -> Tensor:
    return torch.as_tensor(array, dtype=torch.float32)
