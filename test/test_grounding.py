"""Grounding: what is measured of answers, and how a benchmark is asked."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from internvla_ros.data.episode import Episode
from internvla_ros.data.images import read_image
from internvla_ros.data.lerobot.writer import EpisodeWriter
from internvla_ros.evaluate import cli, grounding_cli
from internvla_ros.evaluate.benchmarks.formats import open_benchmark
from internvla_ros.evaluate.benchmarks.sample import BenchmarkError, Sample, Truth
from internvla_ros.evaluate.grounding import GroundingPlan, chosen, run_grounding
from internvla_ros.evaluate.grounding_scores import SIDE, badness, scores, summarise
from internvla_ros.evaluate.report import Estimate, Proportion, Report
from internvla_ros.serving.errors import PolicyClientError
from internvla_ros.spatial.types import Box, Point, SpatialAnswer, Trace

SIZE = (448, 112)  # errors of 4 px in x and of 1 px in y are 2 px at 224
TASK = SpatialAnswer(
    boxes=(Box(10, 10, 30, 28), Box(0, 0, 50, 40)), points=(Point(23, 24), Point(70, 51))
)


class Double:
    """A test double that answers every question alike."""

    def __init__(self, answer: SpatialAnswer = TASK, dies_after: int | None = None) -> None:
        self.asked: list[str] = []
        self.batches: list[int] = []
        self._answer, self._dies_after = answer, dies_after

    def look(
        self, images: Any, instructions: Sequence[str], *, trace: bool = False
    ) -> tuple[None, list[SpatialAnswer]]:
        assert trace and all(len(views) == 2 for views in images)
        return None, self.answer([views[0] for views in images], instructions)

    def answer(self, images: Any, questions: Sequence[str]) -> list[SpatialAnswer]:
        if self._dies_after is not None and len(self.asked) >= self._dies_after:
            raise PolicyClientError("the server has gone")
        assert all(image.dtype == np.uint8 and image.ndim == 3 for image in images)
        self.batches.append(len(images))
        self.asked += questions
        return [self._answer] * len(questions)


class Questions:
    """A benchmark in memory; the entries of the numbers in `damaged` cannot be read."""

    def __init__(self, truths: Sequence[Truth], damaged: Sequence[int] = ()) -> None:
        self._truths, self._damaged = truths, damaged

    def __len__(self) -> int:
        return len(self._truths)

    def __getitem__(self, index: int) -> Sample:
        if index in self._damaged:
            raise BenchmarkError(f"list.json, item {index} is no good")
        return Sample(
            f"item {index}", f"picture {index}", view, f"Where is {index}?", self._truths[index]
        )


def view() -> list[NDArray[np.uint8]]:
    return [np.full((96, 128, 3), 90, np.uint8)]


def ask(benchmark: Any, answer: SpatialAnswer = TASK, **options: Any) -> Report:
    report, trouble = run_grounding(Double(answer), benchmark, GroundingPlan(**options), {})
    assert trouble is None
    return report


BOX = Truth(boxes=np.array([[10.0, 10, 30, 30]]))


def test_boxes_are_right_from_half_an_overlap_on() -> None:
    for right, expected in ((20.0, 0.5), (10.1, 0.005)):
        answer = SpatialAnswer(boxes=(Box(10, 10, right, 30),))
        assert scores(BOX, answer, (64, 64))["iou"] == pytest.approx(expected)
    half, none = (
        {"group": "a", "problems": 0, "iou": 0.5}, {"group": "a", "problems": 0, "iou": 0.0}
    )  # fmt: skip
    assert summarise([half, none])["box IoU@0.5"] == Proportion(1, 2)


def test_errors_are_in_pixels_at_224() -> None:
    truth = Truth(
        points=np.array([[20.0, 20.0]]),
        trace=np.array([[0.0, 0.0], [40.0, 0.0]]),
        within=np.array([[16.0, 19.0, 30.0, 30.0]]),
    )
    answer = SpatialAnswer(
        points=(Point(24.0, 20.0),), traces=(Trace(np.array([[0.0, 1.0], [40.0, 1.0]])),)
    )
    row = scores(truth, answer, SIZE)
    assert row["point_error_px"] == pytest.approx(2.0) and row["point_in_box"] == 1.0
    assert row["trace_mae_px"] == pytest.approx(1.0)  # 2 px in y, none in x


def test_traces_are_compared_at_even_speed() -> None:
    """Neither the number of waypoints nor where they lie on the path counts."""
    truth = Truth(trace=np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 30.0]]))
    same = Trace(np.array([[0.0, 0.0], [2.0, 0.0], [10.0, 0.0], [10.0, 29.0], [10.0, 30.0]]))
    assert scores(truth, SpatialAnswer(traces=(same,)), (224, 224))["trace_mae_px"] < 1e-9


@given(st.floats(-50, 50), st.floats(-50, 50))
def test_a_shifted_trace_is_off_by_the_mean_of_its_shift(dx: float, dy: float) -> None:
    path = np.array([[60.0, 60.0], [100.0, 80.0], [90.0, 140.0]])
    answer = SpatialAnswer(traces=(Trace(path + np.array([dx, dy])),))
    found = scores(Truth(trace=path), answer, (224, 224))["trace_mae_px"]
    assert found == pytest.approx((abs(dx) + abs(dy)) / 2, abs=1e-6)


def test_what_is_missing_is_wrong_and_what_is_unknown_does_not_count() -> None:
    unseen = np.full((1, 4), np.nan)
    nothing = SpatialAnswer(problems=("cut off",))
    row = scores(Truth(BOX.boxes, np.zeros((1, 2)), np.zeros((2, 2)), unseen), nothing, (64, 64))
    assert row["iou"] == 0.0 and np.isinf([row["point_error_px"], row["trace_mae_px"]]).all()
    assert np.isnan(row["point_in_box"])
    assert np.isnan(scores(Truth(boxes=unseen), TASK, (64, 64))["iou"])
    assert badness(row) == 1.0
    results = summarise([{"group": "a", "problems": 1, **row}])
    assert results["missing points"] == 1 and results["missing traces"] == 1
    assert results["answers with problems"] == 1


def test_points_in_a_region_and_boxes_in_their_place() -> None:
    mask = np.zeros((20, 20), bool)
    mask[:, 10:] = True
    truth = Truth(region=lambda: mask)

    def found(answer: SpatialAnswer) -> tuple[float, float]:
        row = scores(truth, answer, (20, 20))
        return row["in_region_share"], row["in_region_hit"]

    assert found(SpatialAnswer(points=(Point(12, 3), Point(3, 3)))) == (0.5, 1.0)
    assert found(SpatialAnswer(points=(Point(20, 20), Point(12, 3)))) == (0.5, 0.0)
    assert found(SpatialAnswer(boxes=(Box(5, 0, 15, 10),))) == (0.5, 1.0)
    assert found(SpatialAnswer()) == (0.0, 0.0)


def test_means_know_of_groups() -> None:
    """Ten frames of one episode say no more than one."""
    rows = [{"group": str(i % 2), "problems": 0, "iou": float(i % 2)} for i in range(20)]
    mean = summarise(rows)["mean IoU"]
    assert mean == Estimate(0.5, 0.0, 1.0, 20, 2)


def test_questions_are_drawn_by_the_seed_and_once_each() -> None:
    plan = GroundingPlan(questions=5, seed=3)
    assert chosen(plan, 50) == chosen(plan, 50) != chosen(GroundingPlan(5, seed=4), 50)
    assert len(set(chosen(plan, 6))) == 5
    assert chosen(GroundingPlan(), 4) == [0, 1, 2, 3]
    with pytest.raises(BenchmarkError, match="there are 4 questions; cannot draw 5"):
        chosen(plan, 4)
    with pytest.raises(BenchmarkError, match="at least 1"):
        GroundingPlan(questions=0)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_damaged_entry_ends_it_with_what_was_answered(batch: int) -> None:
    model, benchmark = Double(), Questions([BOX] * 6, damaged=[4])
    report, trouble = run_grounding(model, benchmark, GroundingPlan(batch=batch), {})
    assert str(trouble) == "list.json, item 4 is no good"
    assert not report.complete and [row["sample"] for row in report.rows] == [
        f"item {i}" for i in range(4)
    ]
    assert max(model.batches) == batch


def test_a_dead_server_ends_it_with_what_was_answered() -> None:
    benchmark = Questions([BOX] * 6)
    report, trouble = run_grounding(Double(dies_after=2), benchmark, GroundingPlan(), {})
    assert str(trouble) == "the server has gone"
    assert not report.complete and len(report.rows) == 2


def test_the_worst_answers_are_drawn(tmp_path: Path) -> None:
    mask = np.zeros((96, 128), bool)
    truths = [BOX, Truth(boxes=np.array([[60.0, 60, 90, 90]])), Truth(region=lambda: mask)]
    ask(Questions(truths), draw=2, pictures=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00.jpg", "01.jpg"]
    height, width, _ = read_image(tmp_path / "00.jpg").shape
    assert width == 2 * 480 and height >= 360  # each side is enlarged, under a caption


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short episodes; in one frame the object to pick is not seen."""
    root = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(0)
    with EpisodeWriter(root, 5.0) as writer:
        for number, length in enumerate((6, 4)):
            boxes = np.tile(np.array([[10.0, 10, 30, 30], [50, 40, 90, 60]]), (length, 1, 1))
            boxes[0, 0] = np.nan
            writer.write(
                Episode(
                    images={
                        name: np.full((length, 96, 128, 3), 40 * number, dtype=np.uint8)
                        for name in ("front", "wrist")
                    },
                    state=rng.normal(size=(length, 10)),
                    action=rng.normal(size=(length, 7)),
                    boxes=boxes,
                    pick_point=np.tile([20.0, 20.0], (length, 1)),
                    place_point=np.tile([70.0, 50.0], (length, 1)),
                    tip_pixel=rng.uniform(0, 90, (length, 2)),
                    timestamps=np.arange(length) * 0.2,
                    instruction="put the red cube on the blue plate",
                    pick="red cube",
                    place="blue plate",
                    relation="on",
                    objects=("red cube", "blue plate"),
                    seed=number,
                    success=True,
                )
            )
    return root


def test_frames_of_our_own_episodes(dataset: Path) -> None:
    benchmark = open_benchmark("internvla", dataset, cameras=("front", "wrist"))
    assert len(benchmark) == 10
    places = [benchmark[i].name for i in (0, 5, 6, 9)]
    assert places == [f"episode {e} frame {f}" for e, f in ((0, 0), (0, 5), (1, 0), (1, 3))]
    assert [shown[0, 0, 0] for i in (5, 6) for shown in benchmark[i].views()] == pytest.approx(
        [0, 0, 40, 40], abs=3
    )
    results = ask(benchmark, batch=4).results
    assert results["box IoU@0.5, pick"] == Proportion(8, 8)  # two pick boxes are not seen
    assert results["box IoU@0.5, place"] == Proportion(0, 10)
    assert results["box IoU@0.5"] == Proportion(8, 18)
    at_224 = SIDE / np.array([128, 96])
    expected = np.hypot(*(np.array([3.0, 4.0]) * at_224))
    assert results["median pick point error, px at 224"] == pytest.approx(expected, abs=0.01)
    assert results["pick point in its box"] == Proportion(8, 8)
    assert results["missing traces"] == 10


def evaluate(*words: str) -> int:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return cli.run(parser.parse_args(["grounding", "--policy", "x", *words]))


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Double:
    found = Double()
    monkeypatch.setattr(
        grounding_cli, "load_asked", lambda path, device: (found, ("front", "wrist"))
    )
    return found


def test_the_command_prints_and_writes(
    dataset: Path, double: Double, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--data", str(dataset), "--questions", "3", "--out", str(tmp_path), "--draw", "1")
    assert evaluate(*words) == 0
    assert "box IoU@0.5, place" in capsys.readouterr().out
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["settings"]["format"] == "internvla" and len(stored["trials"]) == 3
    assert stored["results"]["mean IoU"]["bootstrap95"][0] is not None
    assert "| data |" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "worst" / "00.jpg").is_file()


def test_the_command_keeps_what_was_answered_before_an_error(
    double: Double, tmp_path: Path
) -> None:
    rows = [{"text": "the cup", "rgb_path": "testA/image/0.png", "bbox": [1, 1, 9, 9]}, {}]
    (tmp_path / "testA" / "image").mkdir(parents=True)
    write_picture(tmp_path / "testA" / "image" / "0.png")
    (tmp_path / "testA" / "roborefit_testA.json").write_text(json.dumps(rows))
    words = ("--format", "roborefit", "--data", str(tmp_path), "--out", str(tmp_path / "out"))
    with pytest.raises(BenchmarkError, match=r"roborefit_testA\.json, item 1: rgb_path is missing"):
        evaluate(*words)
    stored = json.loads((tmp_path / "out" / "report.json").read_text())
    assert not stored["complete"] and len(stored["trials"]) == 1


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"there is no .*none"):
        evaluate("--data", str(tmp_path / "none"))
    with pytest.raises(BenchmarkError, match="--draw needs --out"):
        evaluate("--data", str(tmp_path), "--draw", "1")


def write_picture(path: Path) -> None:
    import cv2

    cv2.imwrite(str(path), np.full((12, 16, 3), 80, np.uint8))
