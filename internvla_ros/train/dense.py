"""Dense detection: an auxiliary loss that teaches the planner's vision tower what lies where.

Every image token answers for the patches it was merged from: does an object's centre lie here,
which attribute and noun name it, and how far are the box's sides? The head is thrown away
after stage 1; without it a tower trained from scratch sees hardly any gradient until the language
model has learned to look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn


@dataclass(frozen=True)
class Labelled:
    """Named boxes of one image: `boxes` float[N, 4] in its pixels, NaN where not seen."""

    names: tuple[str, ...] = ()
    boxes: NDArray[np.floating] | None = None


def split_name(name: str) -> tuple[str, str]:
    """("red", "cube") of "red cube"; the attribute of a bare noun is empty."""
    attribute, _, noun = name.rpartition(" ")
    return attribute, noun


class DenseDetection(nn.Module):
    """A linear head over image tokens [B, rows * columns, C] of images of `size` pixels.

    `grid` is (rows, columns) of tokens, each merged from `merge` x `merge` patches.
    """

    def __init__(
        self,
        dim: int,
        grid: tuple[int, int],
        merge: int,
        size: tuple[int, int],
        names: Sequence[str],
    ) -> None:
        super().__init__()
        self.grid, self.merge, self.size = grid, merge, size
        self.attributes = sorted({split_name(n)[0] for n in names})
        self.nouns = sorted({split_name(n)[1] for n in names})
        self.parts = (1, len(self.attributes), len(self.nouns), 4)
        self.head = nn.Linear(dim, merge**2 * sum(self.parts))

    def forward(self, tokens: Tensor, labels: Sequence[Labelled]) -> Tensor:
        """The loss of a batch; zero where nothing is labelled."""
        cells, names, boxes = self._targets(labels)
        rows, columns = self.grid
        answers = self.head(tokens).view(len(labels), rows, columns, self.merge, self.merge, -1)
        answers = answers.transpose(2, 3).flatten(1, 4)
        presence = torch.zeros(answers.shape[:2])
        presence[cells[:, 0], cells[:, 1]] = 1.0
        loss = F.binary_cross_entropy_with_logits(
            answers[..., 0], presence, pos_weight=torch.tensor(4.0)
        )
        if not len(cells):
            return loss
        _, attribute, noun, sides = answers[cells[:, 0], cells[:, 1]].split(self.parts, dim=-1)
        naming = F.cross_entropy(attribute, names[:, 0]) + F.cross_entropy(noun, names[:, 1])
        return loss + naming + F.smooth_l1_loss(sides, boxes, beta=0.05) * 4

    def _targets(self, labels: Sequence[Labelled]) -> tuple[Tensor, Tensor, Tensor]:
        """Cells [M, 2] (image, patch), names [M, 2], sides [M, 4] from the patch, in images."""
        cells, names, sides = [], [], []
        rows, columns = self.merge * self.grid[0], self.merge * self.grid[1]
        patch = np.array([self.size[0] / columns, self.size[1] / rows])
        scale = np.array([*self.size, *self.size]) / 4
        for image, label in enumerate(labels):
            for name, box in zip(
                label.names, label.boxes if label.boxes is not None else (), strict=False
            ):
                if not np.isfinite(box).all():
                    continue
                column, row = np.floor((box[:2] + box[2:]) / 2 / patch).astype(int)
                if not (0 <= column < columns and 0 <= row < rows):
                    continue
                attribute, noun = split_name(name)
                centre = np.tile((np.array([column, row]) + 0.5) * patch, 2)
                cells.append((image, row * columns + column))
                names.append((self.attributes.index(attribute), self.nouns.index(noun)))
                sides.append((box - centre) / scale)
        return (
            torch.tensor(cells, dtype=torch.long).view(-1, 2),
            torch.tensor(names, dtype=torch.long).view(-1, 2),
            torch.tensor(np.array(sides), dtype=torch.float32).view(-1, 4),
        )
