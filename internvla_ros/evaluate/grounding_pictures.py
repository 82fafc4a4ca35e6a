"""Answers beside the truth, as pictures to look at."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from internvla_ros.data.images import encode_jpeg
from internvla_ros.evaluate.benchmarks.sample import Image, Sample, Truth
from internvla_ros.evaluate.report import ReportError
from internvla_ros.spatial.draw import annotate
from internvla_ros.spatial.types import Box, Point, SpatialAnswer, Trace

HEIGHT = 360  # px; smaller pictures are enlarged, so that captions can be read
REGION_TINT = (140, 210, 60)


def draw(folder: Path, answers: Iterable[tuple[Sample, SpatialAnswer]]) -> None:
    """Write `00.jpg`, `01.jpg`, ...: the truth on the left, the answer on the right.

    Raises:
        ReportError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, (sample, answer) in enumerate(answers):
            (folder / f"{number:02d}.jpg").write_bytes(encode_jpeg(side_by_side(sample, answer)))
    except OSError as error:
        raise ReportError(f"cannot write the pictures in {folder}: {error.strerror}") from error


def side_by_side(sample: Sample, answer: SpatialAnswer) -> Image:
    """The first view twice, with the truth and with the answer, uint8 [h, 2 w, 3]."""
    image = sample.views()[0]
    truth = _as_answer(sample.truth)
    scale = max(HEIGHT / image.shape[0], 1.0)
    left = image if sample.truth.region is None else _tinted(image, sample.truth.region())
    sides = [
        annotate(_enlarged(side, scale), said.scaled(scale, scale), caption=caption, status=status)
        for side, said, caption, status in (
            (left, truth, sample.question, "truth"),
            (image, answer, sample.name, "answer"),
        )
    ]
    return np.concatenate(sides, axis=1)


def _as_answer(truth: Truth) -> SpatialAnswer:
    boxes = [] if truth.boxes is None else zip(truth.boxes.tolist(), truth.roles, strict=True)
    points = [] if truth.points is None else truth.points.tolist()
    return SpatialAnswer(
        boxes=tuple(
            Box(x1, y1, x2, y2, role)
            for (x1, y1, x2, y2), role in boxes
            if np.isfinite([x1, y1, x2, y2]).all()
        ),
        points=tuple(Point(*point) for point in points if np.isfinite(point).all()),
        traces=() if truth.trace is None else (Trace(truth.trace),),
    )


def _tinted(image: Image, region: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> Image:
    tinted = image.copy()
    tinted[region] = (0.5 * image[region] + 0.5 * np.array(REGION_TINT)).astype(np.uint8)
    return tinted


def _enlarged(image: Image, scale: float) -> Image:
    if scale == 1.0:
        return image
    resized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    return np.asarray(resized, np.uint8)
