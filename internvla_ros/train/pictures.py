"""What a policy in training says about held-out frames, drawn beside the truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from internvla_ros.data.grounding import GroundingFrame
from internvla_ros.model.images import resize
from internvla_ros.model.policy import Policy
from internvla_ros.spatial.draw import annotate
from internvla_ros.spatial.types import Point, SpatialAnswer, Trace
from internvla_ros.train.corpus import Corpus

FRAMES = 8
SIDE = 256
"""Pixels that each frame is drawn in."""


@dataclass(frozen=True)
class Shown:
    """One held-out frame: its view uint8[s, s, 3], the task, and the truth in pixels of it."""

    view: NDArray[np.uint8]
    instruction: str
    truth: SpatialAnswer


def drawing(held_out: Corpus | None) -> Callable[[nn.Module], NDArray[np.uint8]] | None:
    """Draws a module's `policy` on some held-out frames; None where there are none."""
    shown = [] if held_out is None else shown_frames(held_out, FRAMES)
    if not shown:
        return None

    def drawn(module: nn.Module) -> NDArray[np.uint8]:
        policy = module.policy
        assert isinstance(policy, Policy)
        return picture(policy, shown)

    return drawn


def shown_frames(corpus: Corpus, count: int) -> list[Shown]:
    """Frames spread over the episodes of all annotated sets, early and late ones."""
    sets = [s for s in corpus.sets if s.frames.annotated and s.frames.views]
    found = []
    for number in range(count if sets else 0):
        frames = sets[number % len(sets)].frames
        episode = (number // len(sets)) % len(frames.records)
        length = len(frames.records[episode])
        row = (number * length) // (2 * count)
        index = int(np.flatnonzero(frames.record_of == episode)[row])
        view = next(iter(frames.views.values()))[np.array([index])][0]
        known = GroundingFrame.from_episode(frames.records[episode], row, frames.stored_size)
        found.append(Shown(view, known.instruction, _truth(known.resized(*view.shape[1::-1]))))
    return found


def picture(policy: Policy, shown: Sequence[Shown]) -> NDArray[np.uint8]:
    """Two rows: what the policy says, and below it the truth; uint8[h, w, 3]."""
    _, answers = policy.planner.look(
        [[frame.view] for frame in shown], [frame.instruction for frame in shown], trace=True
    )
    columns = [
        np.vstack([_drawn(frame, answer, "said"), _drawn(frame, frame.truth, "true")])
        for frame, answer in zip(shown, answers, strict=True)
    ]
    return np.hstack(columns)


def _drawn(frame: Shown, answer: SpatialAnswer, status: str) -> NDArray[np.uint8]:
    factor = SIDE / frame.view.shape[0]
    large = resize(frame.view, (SIDE, SIDE))
    return annotate(large, answer.scaled(factor, factor), caption=frame.instruction, status=status)


def _truth(known: GroundingFrame) -> SpatialAnswer:
    seen = {box.label: box for box in known.visible()}
    boxes = tuple(seen[name] for name in (known.pick, known.place) if name in seen)
    points = tuple(
        Point(float(x), float(y))
        for x, y in (known.pick_point, known.place_point)
        if np.isfinite([x, y]).all()
    )
    traces: tuple[Trace, ...] = ()
    if known.trace is not None and np.isfinite(known.trace).all():
        traces = (Trace(np.asarray(known.trace, np.float64)),)
    return SpatialAnswer(boxes=boxes, points=points, traces=traces)
