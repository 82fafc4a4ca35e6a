"""Segmentations as COCO writes them: polygons, or lengths of runs.

The format: https://cocodataset.org/#format-data and the mask API of github.com/cocodataset/cocoapi.
Runs go down the columns and begin with pixels that do not belong; as text, each number is written
in groups of five bits, lowest first, and from the fourth on as the difference to the last but one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from internvla_ros.data.images import ImageError, decode_image
from internvla_ros.evaluate.benchmarks.sample import BenchmarkError, Mask, numbers


def decode(segmentation: Any, width: int, height: int, where: str) -> Mask:
    """The pixels of a segmentation.

    Polygons are filled with their outline, which may be a pixel more along the border than with
    COCO's own tool.

    Args:
        segmentation: a list of polygons [x, y, x, y, ...] or {"size": [h, w], "counts": ...}.
        width, height: of the picture.
        where: for errors.

    Returns:
        bool [height, width].

    Raises:
        BenchmarkError: it is none of these, or of another size.
    """
    if isinstance(segmentation, dict):
        size = segmentation.get("size")
        if size != [height, width]:
            raise BenchmarkError(f"{where}: a mask of size {size} for {height} x {width} pixels")
        return _filled_runs(_runs(segmentation.get("counts"), where), width, height, where)
    if not isinstance(segmentation, list) or not segmentation:
        raise BenchmarkError(
            f"{where}: a segmentation is polygons or runs, not {segmentation!r:.40}"
        )
    parts = [segmentation] if isinstance(segmentation[0], int | float) else segmentation
    canvas = np.zeros((height, width), np.uint8)
    for polygon in parts:
        corners = numbers(polygon, (-1, 2), "a polygon", where)
        cv2.fillPoly(canvas, [np.rint(corners).astype(np.int32)], 1)
    return canvas.astype(np.bool_)


def read_mask(data: bytes, name: str) -> Mask:
    """A mask stored as a picture: what is brighter than half; raises BenchmarkError."""
    try:
        return decode_image(data, name).max(axis=2) > 127
    except ImageError as error:
        raise BenchmarkError(str(error)) from error


def read_mask_file(path: Path, threshold: int = 127) -> Mask:
    """As `read_mask`, of a file; what is brighter than `threshold` in any channel."""
    try:
        return decode_image(path.read_bytes(), str(path)).max(axis=2) > threshold
    except (OSError, ImageError) as error:
        raise BenchmarkError(f"mask {path}: {error}") from error


def _runs(counts: Any, where: str) -> list[int]:
    if isinstance(counts, bytes):
        counts = counts.decode("latin1")
    if isinstance(counts, str):
        return _unpacked(counts, where)
    if not isinstance(counts, list) or not all(type(run) is int for run in counts):
        raise BenchmarkError(f"{where}: counts of a mask are {counts!r:.40}")
    return counts


def _unpacked(text: str, where: str) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise BenchmarkError(f"{where}: counts of a mask have the character {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise BenchmarkError(f"{where}: counts of a mask are cut off")
    return runs


def _filled_runs(runs: Sequence[int], width: int, height: int, where: str) -> Mask:
    if any(run < 0 for run in runs) or sum(runs) != width * height:
        raise BenchmarkError(f"{where}: runs of a mask do not fill {height} x {width} pixels")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(flat.reshape(width, height).T)
