"""Dense detection: an auxiliary loss that teaches the planner's vision tower what lies where.

Every image token answers: does an object's centre lie here, which words name it, and at which
pixels are the box's sides? Words and pixels are scored against the language model's own token
embeddings, so that what the tower sees and what the text says meet in one space; without this, a
model trained from scratch sees hardly any gradient until the language model has learned to look.
The head is thrown away after stage 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from internvla_ros.model.nano import integer_tokens

PRESENT_WEIGHT = 8.0
"""How much more an object counts than an empty place: there are that many more of these."""


@dataclass(frozen=True)
class Labelled:
    """Named boxes of one image: `boxes` float[N, 4] in its pixels, NaN where not seen."""

    names: tuple[str, ...] = ()
    boxes: NDArray[np.floating] | None = None


@dataclass(frozen=True)
class Targets:
    """What lies where in B images.

    `present` [B, rows * columns] is 1 where an object's centre lies; for the M objects `cells`
    [M, 2] (image, token), `words` [M, W] and `sides` [M, 4] in whole px.
    """

    present: Tensor
    cells: Tensor
    words: Tensor
    sides: Tensor

    @property
    def counts(self) -> dict[str, float]:
        """Over how many elements each loss is summed."""
        return {
            "presence": self.present.numel(),
            "naming": self.words.numel(),
            "sides": self.sides.numel(),
        }

    def each(self, change: Callable[[Tensor], Tensor]) -> Targets:
        """The same with every tensor changed: moved, pinned."""
        return Targets(
            change(self.present), change(self.cells), change(self.words), change(self.sides)
        )


class DenseDetection(nn.Module):
    """Scores image tokens [B, rows * columns, C] of images whose larger side is `largest` px.

    `words` are all that objects' names are made of.
    """

    def __init__(
        self,
        dim: int,
        largest: int,
        words: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        super().__init__()
        self.word_tokens = [_single_tokens(word, tokenizer) for word in words]
        integers = {value: token for token, value in integer_tokens(tokenizer).items()}
        self.pixel_tokens = [integers[i] for i in range(largest + 1)]
        self.presence = nn.Linear(dim, 1)
        self.sides = nn.Linear(dim, 4 * dim)
        self.word_scale = nn.Parameter(torch.tensor(4.0))
        self.word_bias = nn.Parameter(torch.tensor(-4.0))
        self.side_scale = nn.Parameter(torch.tensor(4.0))

    def forward(
        self,
        tokens: Tensor,
        targets: Targets,
        embeddings: Tensor,
        coordinates: Tensor | None,
    ) -> dict[str, Tensor]:
        """The summed losses of a batch: "presence", "naming" and "sides".

        `embeddings` [V, C] are the language model's; `coordinates` [V, V] its soft targets for
        coordinate tokens (None: plain cross-entropy).
        """
        rows, columns = targets.cells.unbind(1)
        presence = F.binary_cross_entropy_with_logits(
            self.presence(tokens)[..., 0],
            targets.present,
            pos_weight=tokens.new_tensor(PRESENT_WEIGHT),
            reduction="sum",
        )
        if not len(rows):
            return {"presence": presence}
        seen = tokens[rows, columns]
        meanings = torch.stack([embeddings[ids].mean(dim=0) for ids in self.word_tokens])
        named = self.word_scale * seen @ meanings.T + self.word_bias
        naming = F.binary_cross_entropy_with_logits(named, targets.words, reduction="sum")
        sides = self._side_loss(seen, targets.sides, embeddings, coordinates)
        return {"presence": presence, "naming": naming, "sides": sides}

    def _side_loss(
        self, seen: Tensor, sides: Tensor, embeddings: Tensor, coordinates: Tensor | None
    ) -> Tensor:
        ids = torch.tensor(self.pixel_tokens, device=seen.device)
        answers = self.sides(seen).view(-1, embeddings.shape[1])
        scores = self.side_scale * answers @ embeddings[ids].T
        pixels = sides.flatten()
        if coordinates is None:
            return F.cross_entropy(scores, pixels, reduction="sum")
        return F.cross_entropy(scores, coordinates[ids[pixels]][:, ids], reduction="sum")


@dataclass(frozen=True)
class Labeller:
    """Makes targets of labelled boxes, as `DenseDetection` takes them."""

    grid: tuple[int, int]
    size: tuple[int, int]
    words: tuple[str, ...]

    def __call__(self, labels: Sequence[Labelled]) -> Targets:
        """What lies where in images with these boxes."""
        cells: list[tuple[int, int]] = []
        words: list[list[float]] = []
        sides: list[NDArray[np.floating]] = []
        rows, columns = self.grid
        cell = np.array([self.size[0] / columns, self.size[1] / rows])
        for image, label in enumerate(labels):
            boxes = label.boxes if label.boxes is not None else np.zeros((0, 4))
            for name, box in zip(label.names, boxes, strict=True):
                if not np.isfinite(box).all():
                    continue
                column, row = np.floor((box[:2] + box[2:]) / 2 / cell).astype(int)
                if 0 <= column < columns and 0 <= row < rows:
                    cells.append((image, int(row * columns + column)))
                    words.append([float(word in name.split()) for word in self.words])
                    sides.append(np.clip(box, 0, np.tile(self.size, 2)))
        places = torch.tensor(cells, dtype=torch.long).view(-1, 2)
        present = torch.zeros(len(labels), rows * columns)
        present[places[:, 0], places[:, 1]] = 1.0
        pixels = torch.tensor(np.array(sides), dtype=torch.float32).view(-1, 4).round().long()
        return Targets(present, places, torch.tensor(words).view(-1, len(self.words)), pixels)


def words_of(names: Sequence[str]) -> tuple[str, ...]:
    """The different words of objects' names."""
    return tuple(sorted({word for name in names for word in name.split()}))


def _single_tokens(word: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that alone mean a word, with and without a space in front."""
    spellings = [tokenizer.encode(text, add_special_tokens=False) for text in (word, f" {word}")]
    single = [ids[0] for ids in spellings if len(ids) == 1]
    if not single:
        raise ValueError(f"the tokenizer has no single token for {word!r}: train it on more text")
    return single
