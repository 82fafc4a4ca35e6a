"""Scaling actions and states to -1..1 by a dataset's quantiles, and back.

The file is that of the released checkpoints, dataset_statistics.json:

    {"<dataset>": {"action": {"mean", "std", "min", "max", "q01", "q99": [D], "mask": [D]},
                   "state": {...}, "num_transitions": N, "num_trajectories": M}}

One entry is our own, and absent where it says "quantiles": "bounds" of a block, "extremes" where
-1 and 1 stand for min and max instead of q01 and q99, as in the released LIBERO runs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

GRIPPER = 6
GRIPPER_THRESHOLD = 0.5
CONSTANT_RANGE = 1e-4
Bounds = Literal["quantiles", "extremes"]
_ROWS = ("mean", "std", "min", "max", "q01", "q99")


class StatisticsError(ValueError):
    """Statistics that are missing, damaged, or do not fit the data."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """How the D components of an action or a state are spread.

    Attributes:
        mean, std, min, max, q01, q99: float64[D].
        mask: bool[D]; components that are False are never scaled.
        binary: components that are 0 or 1: un-normalising thresholds them.
        bounds: what -1 and 1 stand for: q01 and q99, or min and max.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    q01: NDArray[np.float64]
    q99: NDArray[np.float64]
    mask: NDArray[np.bool_]
    binary: tuple[int, ...] = ()
    bounds: Bounds = "quantiles"

    def __post_init__(self) -> None:
        for name in (*_ROWS, "mask"):
            row = getattr(self, name)
            if row.shape != self.mask.shape or row.ndim != 1:
                raise StatisticsError(
                    f"{name} must have shape {list(self.mask.shape)}, not {list(row.shape)}"
                )

    @property
    def size(self) -> int:
        """D."""
        return len(self.mask)

    @property
    def low(self) -> NDArray[np.float64]:
        """What -1 stands for, float64[D]."""
        return self.q01 if self.bounds == "quantiles" else self.min

    @property
    def high(self) -> NDArray[np.float64]:
        """What 1 stands for, float64[D]."""
        return self.q99 if self.bounds == "quantiles" else self.max

    def normalise(self, values: ArrayLike) -> NDArray[np.float64]:
        """float[..., D] in SI units to -1..1: 2 (x - low) / (high - low) - 1, clipped.

        Components that hardly vary (by less than 0.1 mm, 0.1 mrad) become 0; masked ones stay.
        """
        x = self._checked(values).astype(np.float64)
        span = self.high - self.low
        varies = span >= CONSTANT_RANGE
        scaled = 2.0 * (x - self.low) / np.where(varies, span, 1.0) - 1.0
        scaled = np.where(varies, np.clip(scaled, -1.0, 1.0), 0.0)
        return np.where(self.mask, scaled, x)

    def unnormalise(self, values: ArrayLike) -> NDArray[np.float64]:
        """float[..., D] in -1..1 (clipped to it) back to SI units; binary components to 0 or 1.

        Single-precision values are scaled to 0..1 in single precision, as in the released code.
        """
        x = np.clip(self._checked(values), -1.0, 1.0)
        for index in self.binary:
            x[..., index] = x[..., index] >= GRIPPER_THRESHOLD
        scaled = 0.5 * (x + 1.0) * (self.high - self.low) + self.low
        return np.where(self.mask, scaled, x).astype(np.float64, copy=False)

    def _checked(self, values: ArrayLike) -> NDArray[np.floating[Any]]:
        x = np.asarray(values)
        if not np.issubdtype(x.dtype, np.floating):
            x = x.astype(np.float64)
        if x.shape[-1:] != self.mask.shape:
            raise StatisticsError(
                f"values of shape {list(x.shape)} do not end in the {self.size} components "
                "of these statistics"
            )
        return x


@dataclass(frozen=True, eq=False)
class DatasetStatistics:
    """The statistics of one dataset.

    Attributes:
        action: of the actions; the gripper (component 6) is binary.
        state: of the proprioception, where the dataset has it.
        num_transitions, num_trajectories: frames and episodes that were counted.
    """

    action: Statistics
    state: Statistics | None = None
    num_transitions: int = 0
    num_trajectories: int = 0


def compute(values: ArrayLike, mask: Sequence[bool] | None = None) -> Statistics:
    """Statistics of float[N, D], N >= 1; all components are scaled unless `mask` says other."""
    x = np.asarray(values, np.float64)
    if x.ndim != 2 or len(x) == 0:
        raise StatisticsError(f"statistics need values [N >= 1, D], not {list(x.shape)}")
    q01, q99 = np.quantile(x, [0.01, 0.99], axis=0)
    chosen = np.ones(x.shape[1], bool) if mask is None else np.array(mask, bool)
    return Statistics(x.mean(axis=0), x.std(axis=0), x.min(axis=0), x.max(axis=0), q01, q99, chosen)


def action_statistics(actions: ArrayLike) -> Statistics:
    """Statistics of actions float[N, 7], with the gripper left unscaled and binary."""
    size = np.shape(actions)[-1]
    statistics = compute(actions, [index != GRIPPER for index in range(size)])
    return replace(statistics, binary=(GRIPPER,))


def read_statistics(path: str | Path) -> dict[str, DatasetStatistics]:
    """Read dataset_statistics.json: dataset name -> statistics.

    Raises:
        StatisticsError: the file is missing or damaged; names the file, dataset and entry.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StatisticsError(f"{path} cannot be read: {error}") from error
    return parse_statistics(content, str(path))


def parse_statistics(content: Any, source: str) -> dict[str, DatasetStatistics]:
    """The statistics in what such a file holds; `source` is for messages."""
    if not isinstance(content, dict) or not content:
        raise StatisticsError(f"{source} must map dataset names to their statistics")
    return {name: _read_dataset(f"{source}: {name}", block) for name, block in content.items()}


def _read_dataset(where: str, block: Any) -> DatasetStatistics:
    if not isinstance(block, dict) or "action" not in block:
        raise StatisticsError(f"{where} has no block named 'action'")
    action = _read_block(f"{where}.action", block["action"])
    binary = (GRIPPER,) if action.size > GRIPPER else ()
    return DatasetStatistics(
        action=replace(action, binary=binary),
        state=_read_block(f"{where}.state", block["state"]) if "state" in block else None,
        num_transitions=int(block.get("num_transitions", 0)),
        num_trajectories=int(block.get("num_trajectories", 0)),
    )


def _read_block(where: str, block: Any) -> Statistics:
    """One block; a missing mask scales everything."""
    missing = [row for row in _ROWS if not isinstance(block, dict) or row not in block]
    if missing:
        raise StatisticsError(f"{where} lacks {', '.join(missing)}")
    try:
        rows = [np.array(block[row], np.float64) for row in _ROWS]
        mean, std, low, high, q01, q99 = rows
        mask = np.array(block.get("mask", np.ones_like(q01)), bool)
        bounds = block.get("bounds", "quantiles")
        if bounds not in get_args(Bounds):
            raise ValueError(f"bounds {bounds!r} are none of {get_args(Bounds)}")
        statistics = Statistics(mean, std, low, high, q01, q99, mask, bounds=bounds)
    except (TypeError, ValueError) as error:
        raise StatisticsError(f"{where} cannot be used: {error}") from error
    broken = [name for name, row in zip(_ROWS, rows, strict=True) if not np.isfinite(row).all()]
    if broken:
        raise StatisticsError(f"{where}: {', '.join(broken)} must be finite")
    return statistics


def write_statistics(path: str | Path, statistics: Mapping[str, DatasetStatistics]) -> None:
    """Write dataset_statistics.json, whole or not at all."""
    path = Path(path)
    content = {name: plain_statistics(dataset) for name, dataset in statistics.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    os.replace(temporary, path)


def plain_statistics(dataset: DatasetStatistics) -> dict[str, Any]:
    """One dataset's block of such a file."""
    content: dict[str, Any] = {"action": _block(dataset.action)}
    if dataset.state is not None:
        content["state"] = _block(dataset.state)
    content["num_transitions"] = dataset.num_transitions
    content["num_trajectories"] = dataset.num_trajectories
    return content


def _block(statistics: Statistics) -> dict[str, Any]:
    block = {row: getattr(statistics, row).tolist() for row in (*_ROWS, "mask")}
    return block if statistics.bounds == "quantiles" else {**block, "bounds": statistics.bounds}
