"""Batches of conversations about images: the grounding loss of stage 1 and of co-training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from internvla_ros.model.chat import IGNORED, ChatFormat
from internvla_ros.model.planner import Planner
from internvla_ros.model.vision_tower import Grid
from internvla_ros.spatial.types import Turn
from internvla_ros.train.dense import DenseDetection, Labelled, Labeller, Targets

DENSE_WEIGHTS = {"presence": 1.0, "naming": 4.0, "sides": 1.0}
"""Of the detection losses among each other."""


@dataclass(frozen=True)
class Conversation:
    """One image at the planner's size; turns and labelled boxes are in its pixels."""

    image: NDArray[np.uint8]
    turns: Sequence[Turn]
    labelled: Labelled = field(default_factory=Labelled)


Source = Callable[[np.random.Generator], Conversation]


class Mixture:
    """Draws from several sources in proportion to their weights."""

    def __init__(self, sources: Sequence[tuple[Source, float]]) -> None:
        if not sources or min(weight for _, weight in sources) <= 0:
            raise ValueError("a mixture needs at least one source, and positive weights")
        total = sum(weight for _, weight in sources)
        self.sources = [source for source, _ in sources]
        self.bounds = np.cumsum([weight / total for _, weight in sources])

    def __call__(self, rng: np.random.Generator) -> Conversation:
        """One conversation."""
        return self.sources[
            min(int(np.searchsorted(self.bounds, rng.random())), len(self.bounds) - 1)
        ](rng)


@dataclass(frozen=True)
class Talk:
    """Conversations ready for the planner.

    `images` uint8 [B, h, w, 3]; `ids` and `labels` [B, S], padded on the right; `targets` of the
    dense detection, where it is wanted.
    """

    images: Tensor
    ids: Tensor
    labels: Tensor
    targets: Targets | None = None

    @property
    def counts(self) -> dict[str, float]:
        """Over how many elements each loss is summed."""
        answered = {"grounding": int((self.labels[:, 1:] >= 0).sum())}
        return answered | (self.targets.counts if self.targets is not None else {})

    def each(self, change: Callable[[Tensor], Tensor]) -> Talk:
        """The same with every tensor changed: moved, pinned."""
        return Talk(
            change(self.images),
            change(self.ids),
            change(self.labels),
            self.targets.each(change) if self.targets is not None else None,
        )

    def to(self, device: torch.device) -> Talk:
        """The same on a device."""
        return self.each(lambda x: x.to(device, non_blocking=True))

    def pin_memory(self) -> Talk:
        """The same where a GPU can fetch it while it computes."""
        return self.each(lambda x: x.pin_memory())


@dataclass(frozen=True)
class Scribe:
    """Turns conversations into token ids, without the network."""

    chat: ChatFormat
    grid: Grid
    """Of an image's merged tokens."""
    labeller: Labeller | None = None

    def __call__(self, conversations: Sequence[Conversation]) -> Talk:
        """One batch."""
        tokens = [self.grid[0] * self.grid[1]]
        encoded = [self.chat.training_sequence(c.turns, tokens) for c in conversations]
        length = max(len(ids) for ids, _ in encoded)
        ids = torch.full((len(encoded), length), self.chat.pad)
        labels = torch.full((len(encoded), length), IGNORED)
        for row, (sequence, wanted) in enumerate(encoded):
            ids[row, : len(sequence)] = torch.tensor(sequence)
            labels[row, : len(wanted)] = torch.tensor(wanted)
        images = torch.from_numpy(np.stack([c.image for c in conversations]))
        talk = Talk(images, ids, labels)
        if self.labeller is None:
            return talk
        return replace(talk, targets=self.labeller([c.labelled for c in conversations]))


def grounding_losses(
    planner: Planner,
    talk: Talk,
    targets: Tensor | None = None,
    dense: DenseDetection | None = None,
) -> dict[str, Tensor]:
    """Summed losses: "grounding" over the assistant's tokens and, with a head, those of `dense`.

    `targets` [V, V] are soft distributions for coordinate tokens.
    """
    sights = planner.see([[image] for image in talk.images])
    features = torch.stack([sight.features for sight in sights])
    mean = planner.next_token_loss(
        talk.ids, talk.labels, features.flatten(0, 1), sights[0].grids, targets
    )
    losses = {"grounding": mean * (talk.labels[:, 1:] >= 0).sum()}
    if dense is not None and talk.targets is not None:
        embeddings = planner.vlm.model.language_model.embed_tokens.weight
        losses |= dense(features, talk.targets, embeddings, targets)
    return losses
