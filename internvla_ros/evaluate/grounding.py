"""How well a policy says where things are, on the questions of a benchmark."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from internvla_ros.evaluate.benchmarks.sample import Benchmark, BenchmarkError, Image, Sample
from internvla_ros.evaluate.grounding_pictures import draw
from internvla_ros.evaluate.grounding_scores import Row, badness, scores, summarise
from internvla_ros.evaluate.report import Report
from internvla_ros.serving.errors import PolicyClientError
from internvla_ros.serving.protocol import is_remote
from internvla_ros.spatial.types import SpatialAnswer

_Shown = tuple[Sample, list[Image]]


class Asked(Protocol):
    """What is used of `internvla_ros.model.planner.Planner` and of its remote stand-in."""

    def look(
        self, images: Sequence[Sequence[Image]], instructions: Sequence[str], *, trace: bool = False
    ) -> tuple[Any, list[SpatialAnswer]]:
        """Boxes, points and, where wanted, traces of tasks, in pixels of their first views."""
        ...

    def answer(self, images: Sequence[Image], questions: Sequence[str]) -> list[SpatialAnswer]:
        """One question about each picture, answered in its pixels."""
        ...


@dataclass(frozen=True)
class GroundingPlan:
    """What is asked.

    Args:
        questions: how many, drawn evenly; None for all.
        seed: of the draw.
        batch: questions asked at once.
        draw: how many of the worst answers are drawn.
        pictures: folder for them.

    Raises:
        BenchmarkError: a number that makes no sense.
    """

    questions: int | None = None
    seed: int = 0
    batch: int = 1
    draw: int = 0
    pictures: Path | None = None

    def __post_init__(self) -> None:
        if (self.questions is not None and self.questions < 1) or self.batch < 1 or self.draw < 0:
            raise BenchmarkError("questions and batch must be at least 1, drawn answers at least 0")


def chosen(plan: GroundingPlan, count: int) -> list[int]:
    """Numbers of the questions that are asked, in order, each at most once.

    Raises:
        BenchmarkError: there are fewer than are wanted.
    """
    if plan.questions is None:
        return list(range(count))
    if plan.questions > count:
        raise BenchmarkError(f"there are {count} questions; cannot draw {plan.questions} of them")
    drawn = np.random.default_rng(plan.seed).choice(count, plan.questions, replace=False)
    return [int(number) for number in np.sort(drawn)]


def load_asked(path: str, device: str) -> tuple[Asked, tuple[str, ...]]:
    """The planner of a checkpoint, or of a policy server (ws://...), and the policy's cameras.

    Raises what `Planner.from_pretrained` and `PolicyClient` raise.
    """
    if is_remote(path):
        from internvla_ros.serving.client import PolicyClient

        client = PolicyClient(path)
        return client, tuple(client.config.cameras)
    from internvla_ros.model.planner import Planner

    planner = Planner.from_pretrained(path, device)
    return planner, tuple(planner.policy_config.cameras)


@dataclass
class _Worst:
    """The worst answers so far."""

    count: int
    heap: list[tuple[float, int, Sample, SpatialAnswer]] = field(default_factory=list)

    def offer(self, row: Row, number: int, sample: Sample, answer: SpatialAnswer) -> None:
        item = (badness(row), -number, sample, answer)
        if len(self.heap) < self.count:
            heapq.heappush(self.heap, item)
        elif self.count:
            heapq.heappushpop(self.heap, item)


def run_grounding(
    model: Asked,
    benchmark: Benchmark,
    plan: GroundingPlan,
    labels: Mapping[str, Any],
    on_questions: Callable[[int], None] = lambda count: None,
) -> tuple[Report, BenchmarkError | PolicyClientError | None]:
    """Ask, and compare the answers with the truth.

    Ctrl-C, a damaged entry or the end of a policy server ends it early with a report of the
    questions so far.

    Args:
        model: answers.
        benchmark: questions.
        plan: which of them.
        labels: what the report says of the policy and the benchmark, by name.
        on_questions: is told of the number of questions that are done.

    Returns:
        The report, and what ended it early, if anything.

    Raises:
        BenchmarkError: fewer questions than are wanted.
    """
    started = time.monotonic()
    numbers = chosen(plan, len(benchmark))
    rows: list[Row] = []
    worst = _Worst(plan.draw)
    complete = False
    trouble: BenchmarkError | PolicyClientError | None = None
    try:
        for group in _grouped(benchmark, numbers, plan.batch):
            for (sample, views), answer in zip(group, _ask(model, group), strict=True):
                height, width = views[0].shape[:2]
                row = _row(sample, answer, (width, height))
                worst.offer(row, len(rows), sample, answer)
                rows.append(row)
            on_questions(len(group))
        complete = True
    except KeyboardInterrupt:
        pass
    except (BenchmarkError, PolicyClientError) as error:
        trouble = error
    settings = {**labels, "questions": len(numbers), "seed": plan.seed}
    seconds = time.monotonic() - started
    if plan.pictures is not None:
        ordered = sorted(worst.heap, key=lambda item: item[:2], reverse=True)
        draw(plan.pictures, [(sample, answer) for _, _, sample, answer in ordered])
    return Report("grounding", settings, summarise(rows), rows, seconds, complete), trouble


def _grouped(benchmark: Benchmark, numbers: Sequence[int], size: int) -> Iterator[list[_Shown]]:
    """Questions of one kind at a time, at most `size`, in order, with their views.

    What stands before a damaged entry is asked before that is complained of.
    """
    group: list[_Shown] = []
    for number in numbers:
        try:
            sample = benchmark[number]
            views = sample.views()
        except BenchmarkError:
            if group:
                yield group
            raise
        if group and (len(group) == size or group[0][0].task != sample.task):
            yield group
            group = []
        group.append((sample, views))
    if group:
        yield group


def _ask(model: Asked, group: Sequence[_Shown]) -> list[SpatialAnswer]:
    questions = [sample.question for sample, _ in group]
    if group[0][0].task:
        wanted = any(sample.truth.trace is not None for sample, _ in group)
        return model.look([views for _, views in group], questions, trace=wanted)[1]
    return model.answer([views[0] for _, views in group], questions)


def _row(sample: Sample, answer: SpatialAnswer, size: tuple[int, int]) -> Row:
    return {
        "sample": sample.name,
        "group": sample.group,
        "question": sample.question,
        "answer": answer.text,
        "problems": len(answer.problems),
        **scores(sample.truth, answer, size),
    }
