"""LLaVA-style files: questions whose answers are boxes, points or a trace, as for training.

The layout is that of `data.grounding.llava`, which the data engine writes and the released training
code reads. Questions that are answered in other words (names of things) are left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from internvla_ros.data.grounding import LlavaItem, read_llava
from internvla_ros.data.lerobot.layout import DatasetError
from internvla_ros.evaluate.benchmarks.sample import (
    Benchmark,
    BenchmarkError,
    Sample,
    Truth,
    picture,
)
from internvla_ros.spatial.text import parse
from internvla_ros.spatial.types import SpatialAnswer, Turn


def open_llava(root: Path, split: str | None) -> Benchmark:
    """All questions about places in a file or the folder with its `grounding.json`.

    Raises:
        BenchmarkError: it is missing or damaged, or asks about no place.
    """
    if split is not None:
        raise BenchmarkError("LLaVA files have no splits")
    try:
        items = read_llava(root)
    except DatasetError as error:
        raise BenchmarkError(str(error)) from error
    pairs = [(item, turn) for item in items for turn in item.turns if _truth(item, turn)]
    if not pairs:
        raise BenchmarkError(f"{root} has no question that is answered with a place")
    return _Conversations(root, pairs)


class _Conversations:
    def __init__(self, root: Path, pairs: list[tuple[LlavaItem, Turn]]) -> None:
        self._root, self._pairs = root, pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Sample:
        item, turn = self._pairs[index]
        where = f"{self._root}, item {item.id}"
        truth = _truth(item, turn)
        assert item.image is not None and truth is not None
        return Sample(f"item {item.id}", item.id, picture(item.image, where), turn.question, truth)


def _truth(item: LlavaItem, turn: Turn) -> Truth | None:
    """What an answer says about places; None where it says nothing, or there is no picture."""
    if item.image is None:
        return None
    limit = float("inf")
    answer = parse(turn.answer, item.width or limit, item.height or limit)
    if answer.traces:
        return Truth(trace=answer.traces[0].points)
    if answer.points:
        return Truth(points=np.array([[p.x, p.y] for p in answer.points]), roles=_roles(answer))
    if answer.boxes:
        boxes = np.array([[b.x1, b.y1, b.x2, b.y2] for b in answer.boxes])
        return Truth(boxes=boxes, roles=_roles(answer))
    return None


def _roles(answer: SpatialAnswer) -> tuple[str, ...]:
    """Two places are those of a task."""
    count = len(answer.points) or len(answer.boxes)
    return {1: ("",), 2: ("pick", "place")}.get(count, tuple(str(n) for n in range(count)))
