"""How well a policy says where to act, on frames recorded inside episodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from internvla_ros.data.lerobot.reader import LeRobotDataset
from internvla_ros.evaluate.policies import PlannerActor
from internvla_ros.evaluate.report import Proportion, Report
from internvla_ros.spatial.types import Box, SpatialAnswer

Array = NDArray[np.float64]

IOU = 0.5  # overlap from which on a box counts as right
ROLES = ("pick", "place")


class GroundingError(ValueError):
    """The data set cannot serve to measure grounding."""


@dataclass(frozen=True)
class Question:
    """One frame: pictures of the policy's cameras, the task, and where its objects are.

    Attributes:
        episode, frame: where it was recorded.
        images: uint8 [h, w, 3], one a camera.
        instruction: the task.
        boxes: [2, 4] pixels of the first image, pick and place; NaN where it is not seen.
        points: [2, 2] pixels, likewise.
    """

    episode: int
    frame: int
    images: list[NDArray[np.uint8]]
    instruction: str
    boxes: Array
    points: Array


def sample_questions(
    dataset: LeRobotDataset, cameras: tuple[str, ...], frames: int, rng: np.random.Generator
) -> Iterator[Question]:
    """Frames drawn evenly from all episodes, each frame at most once, in the data set's order.

    Raises:
        GroundingError: the data set has fewer frames than asked for.
    """
    lengths = [int(meta["length"]) for meta in dataset.episodes]
    total = sum(lengths)
    if frames < 1 or frames > total:
        raise GroundingError(f"{dataset.root} has {total} frames; cannot draw {frames} of them")
    ends = np.cumsum(lengths)
    chosen = np.sort(rng.choice(total, frames, replace=False))
    for episode in np.unique(np.searchsorted(ends, chosen, side="right")):
        start = ends[episode] - lengths[episode]
        inside = chosen[(chosen >= start) & (chosen < ends[episode])] - start
        yield from _questions(dataset, int(episode), [int(i) for i in inside], cameras)


def _questions(
    dataset: LeRobotDataset, episode: int, frames: list[int], cameras: tuple[str, ...]
) -> Iterator[Question]:
    recorded = dataset.episode(episode)
    videos = [dataset.frames(episode, camera) for camera in cameras]
    boxes = [recorded.column(f"annotation.box.{role}") for role in ROLES]
    points = [recorded.column(f"annotation.point.{role}") for role in ROLES]
    for i in frames:
        yield Question(
            episode=episode,
            frame=i,
            images=[video[i] for video in videos],
            instruction=recorded.instruction,
            boxes=np.array([column[i] for column in boxes], dtype=np.float64),
            points=np.array([column[i] for column in points], dtype=np.float64),
        )


def run_grounding(
    model: PlannerActor,
    dataset: LeRobotDataset,
    *,
    frames: int,
    seed: int,
    batch: int,
    labels: Mapping[str, Any],
    on_frame: Callable[[int], None] = lambda count: None,
) -> Report:
    """Ask about the task's boxes and points in `frames` frames and compare with the truth.

    Ctrl-C ends it early with a report of the frames so far.

    Args:
        model: answers.
        dataset: recorded frames with their annotations.
        frames, seed: how many are drawn, and by what.
        batch: questions asked at once.
        labels: what the report says of the policy, by name.
        on_frame: is told of the number of frames that are done.
    """
    started = time.monotonic()
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    complete = False
    try:
        questions = sample_questions(dataset, tuple(model.config.cameras), frames, rng)
        for group in _grouped(questions, batch):
            _, answers = model.look([q.images for q in group], [q.instruction for q in group])
            rows += [_row(q, answer) for q, answer in zip(group, answers, strict=True)]
            on_frame(len(group))
        complete = True
    except KeyboardInterrupt:
        pass
    settings = {**labels, "data": str(dataset.root), "frames": frames, "seed": seed}
    return Report("grounding", settings, _results(rows), rows, time.monotonic() - started, complete)


def _grouped(questions: Iterator[Question], size: int) -> Iterator[list[Question]]:
    group: list[Question] = []
    for question in questions:
        group.append(question)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _row(question: Question, answer: SpatialAnswer) -> dict[str, Any]:
    row: dict[str, Any] = {
        "episode": question.episode,
        "frame": question.frame,
        "instruction": question.instruction,
        "problems": len(answer.problems),
    }
    for i, role in enumerate(ROLES):
        row[f"{role}_iou"] = _overlap(question.boxes[i], answer.boxes, i)
        row[f"{role}_error_px"] = _error(question.points[i], answer, i)
    return row


def _overlap(truth: Array, boxes: tuple[Box, ...], i: int) -> float:
    """IoU of the i-th box with the true one; 0 where it is missing, NaN where nothing is seen."""
    if not np.isfinite(truth).all():
        return float("nan")
    return boxes[i].iou(Box(*truth)) if i < len(boxes) else 0.0


def _error(truth: Array, answer: SpatialAnswer, i: int) -> float:
    """Pixels from the i-th point to the true one; infinite where it is missing."""
    if i >= len(answer.points):
        return float("inf")
    return float(np.hypot(answer.points[i].x - truth[0], answer.points[i].y - truth[1]))


def _results(rows: list[dict[str, Any]]) -> dict[str, Proportion | float | int | str]:
    results: dict[str, Proportion | float | int | str] = {}
    overlaps = {role: _known([row[f"{role}_iou"] for row in rows]) for role in ROLES}
    pooled = np.concatenate([overlaps[role] for role in ROLES])
    for name, values in (("all", pooled), *overlaps.items()):
        results[f"box IoU@{IOU}, {name}"] = Proportion(int((values >= IOU).sum()), len(values))
    results["mean IoU"] = float(pooled.mean()) if len(pooled) else float("nan")
    for role in ROLES:
        errors = _known([row[f"{role}_error_px"] for row in rows])
        results[f"median {role} point error, px"] = (
            float(np.median(errors)) if len(errors) else float("nan")
        )
        results[f"missing {role} points"] = int(np.isinf(errors).sum())
    results["answers with problems"] = sum(row["problems"] > 0 for row in rows)
    return results


def _known(values: list[float]) -> Array:
    array = np.array(values, dtype=np.float64)
    return array[~np.isnan(array)]
