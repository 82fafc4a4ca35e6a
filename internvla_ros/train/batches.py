"""All batches of a stage by number, drawn so that a process finds its part without the others.

A step's global batch is the same however it is cut: batch `number` of a process holds rows of it
that depend on the step, the place among the accumulated batches and the process's rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from internvla_ros.model.chat import ChatFormat
from internvla_ros.model.config import ActorConfig
from internvla_ros.model.reader import lay_out
from internvla_ros.model.vision_tower import Grid
from internvla_ros.model.words import Words
from internvla_ros.train.actions import ActionBatch, ActionSet, Samples, draw, planned_rows
from internvla_ros.train.conversations import Scribe, Source, Talk
from internvla_ros.train.randomness import stream
from internvla_ros.train.settings import ActionLossConfig

TALK, ACTION, NOISE, DRAFT = range(4)
"""Purposes that random numbers are drawn for."""


@dataclass(frozen=True)
class Share:
    """One process's part of every step."""

    seed: int
    accumulate: int = 1
    processes: int = 1
    rank: int = 0

    def rows(self, number: int, size: int) -> tuple[int, NDArray[np.int64], int]:
        """Step, rows and size of the global batch, of batch `number` with `size` rows."""
        step, part = divmod(number, self.accumulate)
        first = (part * self.processes + self.rank) * size
        return step, first + np.arange(size), size * self.accumulate * self.processes


@dataclass(frozen=True)
class TalkBatches:
    """Batches of `size` conversations."""

    source: Source
    scribe: Scribe
    size: int
    share: Share

    def __getitem__(self, number: int) -> Talk:
        """Batch `number`."""
        step, rows, _ = self.share.rows(number, self.size)
        seed = self.share.seed
        return self.scribe([self.source(stream(seed, TALK, step, int(row))) for row in rows])


@dataclass(frozen=True)
class JointBatch:
    """Actions and, where there is co-training, conversations."""

    action: ActionBatch
    talk: Talk | None

    @property
    def counts(self) -> Mapping[str, float]:
        """Over how many elements each loss is summed."""
        return {**self.action.counts, **(self.talk.counts if self.talk is not None else {})}

    def to(self, device: torch.device) -> JointBatch:
        """The same on a device."""
        return JointBatch(
            self.action.each(lambda x: x.to(device, non_blocking=True)),
            None if self.talk is None else self.talk.to(device),
        )

    def pin_memory(self) -> JointBatch:
        """The same where a GPU can fetch it while it computes."""
        return JointBatch(
            self.action.each(lambda x: x.pin_memory()),
            None if self.talk is None else self.talk.pin_memory(),
        )


class Prompter:
    """Instructions as the token ids of the prompts under which the planner looks."""

    def __init__(self, chat: ChatFormat, template: str, lowercase: bool, tokens: list[int]) -> None:
        """`tokens`: image tokens of each view."""

        @lru_cache(maxsize=100_000)
        def encoded(instruction: str) -> tuple[int, ...]:
            spoken = instruction.lower() if lowercase else instruction
            return tuple(chat.prompt(template.replace("{instruction}", spoken), tokens))

        self.encoded = encoded
        self.pad, self.image_token = chat.pad, chat.image_token


@dataclass(frozen=True)
class ActionBatches:
    """Batches of action samples with their draws of noise."""

    sets: Sequence[ActionSet]
    config: ActionLossConfig
    actor: ActorConfig
    cameras: Sequence[str]
    grids: Sequence[Grid]
    """Of the merged tokens of each view that the planner sees."""
    prompter: Prompter
    words: Words | None
    """For an actor whose draft reads the instruction."""
    share: Share

    def __getitem__(self, number: int) -> ActionBatch:
        """Batch `number`."""
        config, actor = self.config, self.actor
        step, rows, total = self.share.rows(number, config.batch_size)
        planned = planned_rows(rows, config.condition_dropout)
        rows = np.concatenate([rows[planned], rows[~planned]])
        rng = stream(self.share.seed, ACTION, step)
        samples = draw(self.sets, config, actor, total, rows, rng)
        rng = stream(self.share.seed, NOISE, step)
        shape = (total, config.repeated_diffusion_steps)
        steps = rng.integers(actor.diffusion_steps, size=shape)[rows]
        noise = rng.standard_normal((*shape, actor.chunk_size, actor.action_dim), np.float32)[rows]
        count = int(planned.sum())
        reading = None
        if count:
            prompts = [self.prompter.encoded(self._instruction(samples, i)) for i in range(count)]
            grids = [self.grids] * count
            reading = lay_out(prompts, grids, self.prompter.pad, self.prompter.image_token)
        return ActionBatch(
            tuple(self._views(samples, camera, count) for camera in self.cameras if count),
            reading,
            samples.actions,
            samples.points,
            samples.states,
            torch.from_numpy(noise).transpose(0, 1).contiguous(),
            torch.from_numpy(steps).T.contiguous(),
            self._words(samples),
            self._drafts(number),
        )

    def _instruction(self, samples: Samples, row: int) -> str:
        return self.sets[samples.sets[row]].frames.instruction(int(samples.frames[row]))

    def _views(self, samples: Samples, camera: str, count: int) -> torch.Tensor:
        """uint8 [count, h, w, 3] of the first samples."""
        found: NDArray[np.uint8] | None = None
        for index in np.unique(samples.sets[:count]):
            own = np.flatnonzero(samples.sets[:count] == index)
            pictures = self.sets[index].frames.views[camera][samples.frames[own]]
            if found is None:
                found = np.empty((count, *pictures.shape[1:]), np.uint8)
            found[own] = pictures
        assert found is not None
        return torch.from_numpy(found)

    def _words(self, samples: Samples) -> torch.Tensor | None:
        """int64 [B, W], for a draft that reads them."""
        if self.words is None:
            return None
        found = self.words([self._instruction(samples, row) for row in range(len(samples.sets))])
        found[torch.from_numpy(samples.wordless)] = self.words.none
        return found

    def _drafts(self, number: int) -> tuple[torch.Tensor, ...] | None:
        if not self.actor.draft_scale or not self.config.draft_batch_size:
            return None
        step, rows, total = self.share.rows(number, self.config.draft_batch_size)
        rng = stream(self.share.seed, DRAFT, step)
        samples = draw(self.sets, self.config, self.actor, total, rows, rng)
        known = (samples.actions, samples.points, samples.states)
        words = self._words(samples)
        return known if words is None else (*known, words)


@dataclass(frozen=True)
class JointBatches:
    """Batches of stage 2."""

    actions: ActionBatches
    talks: TalkBatches | None

    def __getitem__(self, number: int) -> JointBatch:
        """Batch `number`."""
        return JointBatch(
            self.actions[number], self.talks[number] if self.talks is not None else None
        )

    def with_seed(self, seed: int) -> JointBatches:
        """Other draws from the same data, undivided."""
        share = Share(seed)
        talks = None if self.talks is None else replace(self.talks, share=share)
        return JointBatches(replace(self.actions, share=share), talks)
