"""Batches of conversations about images: the grounding loss of stage 1 and of co-training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from internvla_ros.model.chat import IGNORED
from internvla_ros.model.planner import Planner
from internvla_ros.spatial.types import Turn
from internvla_ros.train.dense import DenseDetection, Labelled


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


def grounding_losses(
    planner: Planner,
    source: Source,
    batch_size: int,
    rng: np.random.Generator,
    targets: Tensor | None = None,
    dense: DenseDetection | None = None,
) -> dict[str, Tensor]:
    """Losses of a fresh batch: "grounding" on the assistant's tokens and, with a head, "dense"."""
    drawn = [source(rng) for _ in range(batch_size)]
    sights = planner.see([[torch.from_numpy(c.image)] for c in drawn])
    encoded = [
        planner.chat_format.training_sequence(c.turns, sight.image_tokens)
        for c, sight in zip(drawn, sights, strict=True)
    ]
    length = max(len(ids) for ids, _ in encoded)
    ids = torch.full((batch_size, length), planner.chat_format.pad)
    labels = torch.full((batch_size, length), IGNORED)
    for row, (sequence, wanted) in enumerate(encoded):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        labels[row, : len(wanted)] = torch.tensor(wanted)
    features = torch.stack([sight.features for sight in sights])
    losses = {
        "grounding": planner.next_token_loss(
            ids, labels, features.flatten(0, 1), sights[0].grids, targets
        )
    }
    if dense is not None:
        embeddings = planner.vlm.model.language_model.embed_tokens.weight
        losses["dense"] = dense(features, [c.labelled for c in drawn], embeddings, targets)
    return losses
