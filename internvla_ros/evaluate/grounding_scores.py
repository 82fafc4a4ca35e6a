"""How right an answer about places is: what is measured of one question, and of all of them.

Boxes: intersection over union with the true one, right from 0.5 on. Points: pixels to the true one,
and whether they lie in the box or region they should. Traces: the mean absolute error of their
coordinates, both traces being walked at even speed in ten steps. All pixels are those of a picture
of 224 x 224, whatever the size of the one given: that is what the model sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from internvla_ros.data.trace import future_waypoints
from internvla_ros.evaluate.benchmarks.sample import Array, Mask, Truth
from internvla_ros.evaluate.report import Estimate, Proportion, estimate
from internvla_ros.spatial.types import Box, SpatialAnswer

IOU = 0.5
"""Overlap from which on a box counts as right."""
SIDE = 224.0
"""Width and height, px, of the picture that errors are stated in."""
WAYPOINTS = 10

Row = dict[str, Any]
Result = Proportion | Estimate | float | int | str
MISSING = float("inf")
UNKNOWN = float("nan")


def scores(truth: Truth, answer: SpatialAnswer, size: tuple[int, int]) -> Row:
    """What is measured of one answer.

    Infinite is the error of a point or trace that is missing; NaN is what there is no truth for.

    Args:
        truth, answer: in pixels of the picture given.
        size: its width and height.
    """
    row: Row = {}
    scale = SIDE / np.array(size, np.float64)
    if truth.boxes is not None:
        for i, role in enumerate(truth.roles):
            row[_key("iou", role)] = _overlap(truth.boxes[i], answer.boxes, i)
    if truth.points is not None:
        found = np.array([[p.x, p.y] for p in answer.points]).reshape(-1, 2)
        for i, role in enumerate(truth.roles):
            row[_key("point_error_px", role)] = _distance(truth.points[i], found, i, scale)
            if truth.within is not None:
                row[_key("point_in_box", role)] = _inside(truth.within[i], found, i)
    if truth.region is not None:
        row |= _region_scores(truth.region(), answer)
    if truth.trace is not None:
        row["trace_mae_px"] = trace_error(truth.trace * scale, answer, scale)
    return row


def trace_error(truth: Array, answer: SpatialAnswer, scale: Array) -> float:
    """Mean absolute error of the first trace's coordinates, scaled; infinite where it is missing.

    `truth` [m, 2] is scaled already.
    """
    if not answer.traces:
        return MISSING
    paths = (truth, answer.traces[0].points * scale)
    ours = [future_waypoints(path, WAYPOINTS)[0] for path in paths]
    return float(np.abs(ours[0] - ours[1]).mean())


def badness(row: Mapping[str, Any]) -> float:
    """How wrong an answer is, 0 right to 1, averaged over what was measured of it."""
    parts = []
    for name, value in row.items():
        if name.startswith(("iou", "in_region_share", "point_in_box")):
            parts.append(1.0 - value)
        elif name.startswith(("point_error_px", "trace_mae_px")):
            parts.append(min(value / SIDE, 1.0))
    known = [part for part in parts if not np.isnan(part)]
    return float(np.mean(known)) if known else 0.0


def summarise(rows: Sequence[Row]) -> dict[str, Result]:
    """The results of all questions, with intervals; only what was measured."""
    results: dict[str, Result] = {"questions answered": len(rows)}
    results |= _box_results(rows)
    results |= _point_results(rows)
    if hits := _pairs(rows, "in_region_hit"):
        shares = _pairs(rows, "in_region_share")
        results["points in the region, mean share"] = _mean(shares)
        results["first point in the region"] = _share(hits, bool)
    if errors := _pairs(rows, "trace_mae_px"):
        given = [(value, group) for value, group in errors if np.isfinite(value)]
        results["trace MAE, px at 224"] = _mean(given)
        results["missing traces"] = len(errors) - len(given)
    results["answers with problems"] = sum(row["problems"] > 0 for row in rows)
    return results


def _box_results(rows: Sequence[Row]) -> dict[str, Result]:
    roles = _roles(rows, "iou")
    found = {role: _pairs(rows, _key("iou", role)) for role in roles}
    pooled = [pair for pairs in found.values() for pair in pairs]
    if not pooled:
        return {}
    results: dict[str, Result] = {f"box IoU@{IOU}": _share(pooled, lambda iou: iou >= IOU)}
    for role in roles[:0] if len(roles) == 1 else roles:
        results[f"box IoU@{IOU}, {role}"] = _share(found[role], lambda iou: iou >= IOU)
    results["mean IoU"] = _mean(pooled)
    return results


def _point_results(rows: Sequence[Row]) -> dict[str, Result]:
    results: dict[str, Result] = {}
    for role in _roles(rows, "point_error_px"):
        words = f" {role}" if role else ""
        errors = [value for value, _ in _pairs(rows, _key("point_error_px", role))]
        results[f"median{words} point error, px at 224"] = (
            round(float(np.median(errors)), 2) if errors else UNKNOWN
        )
        results[f"missing{words} points"] = int(np.isinf(errors).sum())
        if inside := _pairs(rows, _key("point_in_box", role)):
            results[f"{role or 'a'} point in its box"] = _share(inside, bool)
    return results


def _key(name: str, role: str) -> str:
    return f"{name}_{role}" if role else name


def _roles(rows: Sequence[Row], name: str) -> list[str]:
    """Of a measure, in the order of their appearance."""
    keys = dict.fromkeys(key for row in rows for key in row if key.startswith(name))
    return [key[len(name) :].removeprefix("_") for key in keys]


def _pairs(rows: Sequence[Row], key: str) -> list[tuple[float, str]]:
    """The known values of a measure, each with its group."""
    found = [(float(row[key]), str(row["group"])) for row in rows if key in row]
    return [(value, group) for value, group in found if not np.isnan(value)]


def _mean(pairs: Sequence[tuple[float, str]]) -> Estimate:
    return estimate([value for value, _ in pairs], [group for _, group in pairs])


def _share(pairs: Sequence[tuple[float, str]], right: Callable[[float], bool]) -> Proportion:
    return Proportion(sum(right(value) for value, _ in pairs), len(pairs))


def _overlap(truth: Array, boxes: Sequence[Box], i: int) -> float:
    """IoU of the i-th box with the true one; 0 where it is missing, NaN where nothing is seen."""
    if not np.isfinite(truth).all():
        return UNKNOWN
    return boxes[i].iou(Box(*truth)) if i < len(boxes) else 0.0


def _distance(truth: Array, found: Array, i: int, scale: Array) -> float:
    if not np.isfinite(truth).all():
        return UNKNOWN
    return float(np.linalg.norm((found[i] - truth) * scale)) if i < len(found) else MISSING


def _inside(box: Array, found: Array, i: int) -> float:
    """1 or 0 of a point; NaN where the box is not known."""
    if not np.isfinite(box).all():
        return UNKNOWN
    return float(i < len(found) and bool(((found[i] >= box[:2]) & (found[i] <= box[2:])).all()))


def _region_scores(region: Mask, answer: SpatialAnswer) -> Row:
    """The share of the answer's points that lie in a region, and whether the first one does.

    Without points, a box stands for all of its pixels, and its middle for the first point.
    """
    if answer.points:
        inside = [_holds(region, point.x, point.y) for point in answer.points]
        return {"in_region_share": float(np.mean(inside)), "in_region_hit": float(inside[0])}
    if not answer.boxes:
        return {"in_region_share": 0.0, "in_region_hit": 0.0}
    box = answer.boxes[0]
    rows, columns = (
        slice(int(box.y1), int(np.ceil(box.y2))),
        slice(int(box.x1), int(np.ceil(box.x2))),
    )
    covered = region[rows, columns]
    share = float(covered.mean()) if covered.size else 0.0
    return {"in_region_share": share, "in_region_hit": float(_holds(region, *box.centre))}


def _holds(region: Mask, x: float, y: float) -> bool:
    height, width = region.shape
    return 0 <= x < width and 0 <= y < height and bool(region[int(y), int(x)])
