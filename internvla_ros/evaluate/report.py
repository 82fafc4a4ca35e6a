"""What a benchmark found: counts with their uncertainty, as JSON and as a printed table."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import internvla_ros

Z95 = 1.959963984540054  # two-sided 95 %

_PACKAGES = ("numpy", "mujoco", "pin", "ruckig", "torch", "transformers")


class ReportError(ValueError):
    """Counts that cannot be, or a report that cannot be written."""


@dataclass(frozen=True)
class Proportion:
    """Successes among trials, with the 95 % Wilson interval.

    Raises:
        ReportError: more successes than trials, or a negative number.
    """

    successes: int
    trials: int

    def __post_init__(self) -> None:
        if not 0 <= self.successes <= self.trials:
            raise ReportError(f"{self.successes} successes in {self.trials} trials cannot be")

    @property
    def rate(self) -> float:
        """Share of successes 0..1; NaN without trials."""
        return self.successes / self.trials if self.trials else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of the 95 % Wilson interval, 0..1."""
        return wilson(self.successes, self.trials)

    def to_json(self) -> dict[str, Any]:
        """Successes, trials, rate and interval; null for what is unknown."""
        low, high = self.interval
        rate = None if math.isnan(self.rate) else round(self.rate, 4)
        return {
            "successes": self.successes,
            "trials": self.trials,
            "rate": rate,
            "wilson95": [round(low, 4), round(high, 4)],
        }

    def __str__(self) -> str:
        if not self.trials:
            return "0/0"
        low, high = self.interval
        counts = f"{self.successes}/{self.trials}"
        return f"{counts} = {100 * self.rate:.1f} % (95 % {100 * low:.1f}..{100 * high:.1f})"


def wilson(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """The Wilson score interval of a proportion; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    p = successes / trials
    scale = 1.0 + z * z / trials
    middle = p + z * z / (2 * trials)
    half = z * math.sqrt(p * (1.0 - p) / trials + z * z / (4.0 * trials * trials))
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


@dataclass(frozen=True)
class Estimate:
    """A mean with a 95 % bootstrap interval.

    Attributes:
        mean, low, high: NaN without values.
        count: number of values.
        groups: number of groups that were drawn from.
    """

    mean: float
    low: float
    high: float
    count: int
    groups: int

    def to_json(self) -> dict[str, Any]:
        """Mean, interval, number of values and of groups; null for what is unknown."""
        return {
            "mean": _plain(self.mean),
            "bootstrap95": [_plain(self.low), _plain(self.high)],
            "count": self.count,
            "groups": self.groups,
        }

    def __str__(self) -> str:
        if not self.count:
            return "unknown, no values"
        spread = f"{self.low:.3g}..{self.high:.3g}"
        return f"{self.mean:.3g} (95 % {spread}, n = {self.count} in {self.groups} groups)"


def estimate(values: Sequence[float], groups: Sequence[str], draws: int = 2000) -> Estimate:
    """The mean of values and its interval, whole groups being drawn again and again.

    Frames of one episode are alike: drawn one by one they would seem to say more than they do.

    Args:
        values: what is averaged, finite.
        groups: of each value, what it shares with others.
        draws: of the bootstrap, with a seed of its own.
    """
    names, index = np.unique(np.asarray(groups, str), return_inverse=True)
    if not len(values):
        return Estimate(math.nan, math.nan, math.nan, 0, 0)
    sums, counts = np.bincount(index, np.asarray(values, np.float64)), np.bincount(index)
    rng = np.random.default_rng(0)
    means = []
    for _ in range(draws):
        drawn = rng.integers(len(names), size=len(names))
        means.append(sums[drawn].sum() / counts[drawn].sum())
    low, high = np.quantile(means, (0.025, 0.975))
    mean = float(sums.sum() / counts.sum())
    return Estimate(mean, float(low), float(high), len(values), len(names))


@dataclass(frozen=True)
class Report:
    """The outcome of one benchmark run.

    Attributes:
        benchmark: its name.
        settings: everything that it was run with, seeds too.
        results: headline name -> count or mean with interval, or a number with its unit in the
            name.
        rows: one mapping a trial.
        seconds: wall time.
        complete: all trials were run; false when it was interrupted.
    """

    benchmark: str
    settings: Mapping[str, Any]
    results: Mapping[str, Proportion | Estimate | float | int | str]
    rows: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    seconds: float = 0.0
    complete: bool = True

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        results = {
            name: value.to_json() if isinstance(value, Proportion | Estimate) else _plain(value)
            for name, value in self.results.items()
        }
        return {
            "benchmark": self.benchmark,
            "complete": self.complete,
            "settings": _plain(self.settings),
            "results": results,
            "seconds": round(self.seconds, 1),
            "versions": versions(),
            "trials": [_plain(row) for row in self.rows],
        }

    def write(self, path: str | Path) -> None:
        """Write the JSON, whole or not at all.

        Raises:
            ReportError: the file cannot be written.
        """
        target = Path(path)
        temporary = target.with_name(target.name + ".part")
        text = json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, target)
        except OSError as error:
            raise ReportError(f"cannot write the report {target}: {error.strerror}") from error

    def table(self) -> str:
        """The settings and results as lines of text in two columns."""
        title = self.benchmark + ("" if self.complete else " (interrupted: part of the trials)")
        lines = [title]
        pairs = [*self.settings.items(), *self.results.items()]
        width = max((len(name) for name, _ in pairs), default=0)
        lines += [f"  {name:<{width}}  {_words(value)}" for name, value in pairs]
        return "\n".join(lines)


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of those its figures depend on."""
    found = {"python": platform.python_version(), "internvla_ros": internvla_ros.__version__}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _words(value: Any) -> str:
    if isinstance(value, float):
        return "unknown" if math.isnan(value) else f"{value:.3g}"
    return str(value)


def _plain(value: Any) -> Any:
    """A value made of JSON's own kinds; numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Path):
        return str(value)
    number = float(value)
    return round(number, 6) if math.isfinite(number) else None
