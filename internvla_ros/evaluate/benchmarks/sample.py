"""One question about a picture with its true answer, and what a benchmark of them offers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from internvla_ros.data.images import ImageError, read_image

Array = NDArray[np.float64]
Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]


class BenchmarkError(ValueError):
    """A benchmark that is missing or damaged; names the file and the entry."""


@dataclass(frozen=True, eq=False)
class Truth:
    """Where things are, in pixels of the first view; None for what is not asked about.

    Attributes:
        boxes: [n, 4] x1 y1 x2 y2; NaN where the thing is not seen.
        points: [n, 2], likewise.
        trace: [m, 2], the path that is ahead.
        within: [n, 4] boxes that the n points should lie in; NaN where one is not known.
        region: reads the pixels [h, w] that a point may lie on.
        roles: names of the n boxes and points; "" where there is one.
    """

    boxes: Array | None = None
    points: Array | None = None
    trace: Array | None = None
    within: Array | None = None
    region: Callable[[], Mask] | None = None
    roles: tuple[str, ...] = ("",)


@dataclass(frozen=True, eq=False)
class Sample:
    """A question.

    Attributes:
        name: where it stands, for reports and errors.
        group: what it shares with others that must not count as independent of it: the picture,
            or the episode.
        views: reads the pictures, uint8 [h, w, 3]; raises BenchmarkError.
        question: as asked about the first view; of a `task`, the instruction.
        truth: the answer.
        task: the policy is asked about the whole task at once, as when it acts.
    """

    name: str
    group: str
    views: Callable[[], list[Image]]
    question: str
    truth: Truth
    task: bool = False


class Benchmark(Protocol):
    """Questions by number; an entry is looked at when it is asked for, not before."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """One; raises BenchmarkError where its entry is damaged."""
        ...


def picture(path: Path, where: str) -> Callable[[], list[Image]]:
    """Reads the one view in a file, when it is wanted."""

    def read() -> list[Image]:
        try:
            return [read_image(path)]
        except ImageError as error:
            raise BenchmarkError(f"{where}: {error}") from error

    return read


def read_json(path: Path) -> Any:
    """The content of a JSON file, or of one with a JSON value a line (.jsonl).

    Raises:
        BenchmarkError: it cannot be read; names the line of a .jsonl.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"{path} cannot be read: {error}") from error
    if path.suffix == ".jsonl":
        lines = enumerate(text.splitlines(), start=1)
        return [_json(line, f"{path}:{number}") for number, line in lines if line.strip()]
    return _json(text, str(path))


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BenchmarkError(f"{where} is not JSON: {error}") from error


def entry(value: Any, where: str) -> dict[str, Any]:
    """A value that must be a mapping."""
    if not isinstance(value, dict):
        raise BenchmarkError(f"{where} must be a mapping, not {type(value).__name__}")
    return value


def field(found: dict[str, Any], name: str, kind: type, where: str) -> Any:
    """A field of an entry that must be there and of a kind."""
    value = found.get(name)
    if not isinstance(value, kind):
        said = "is missing" if value is None else f"is {value!r:.40}"
        raise BenchmarkError(f"{where}: {name} {said}, not a {kind.__name__}")
    return value


def numbers(value: Any, shape: tuple[int, ...], what: str, where: str) -> Array:
    """Finite numbers of a shape, -1 in it standing for any length."""
    try:
        array = np.asarray(value, np.float64).reshape(shape)
    except (TypeError, ValueError):
        raise BenchmarkError(f"{where}: {what} is {value!r:.60}, not numbers {shape}") from None
    if not np.isfinite(array).all():
        raise BenchmarkError(f"{where}: {what} has numbers that are not finite")
    return array


def box_xyxy(value: Any, what: str, where: str) -> Array:
    """[1, 4] of a box given by two corners, the first one above and left of the second."""
    box = numbers(value, (1, 4), what, where)
    if (box[0, 2:] <= box[0, :2]).any():
        raise BenchmarkError(f"{where}: {what} {box[0].tolist()} has no area")
    return box


def box_xywh(value: Any, what: str, where: str) -> Array:
    """[1, 4] x1 y1 x2 y2 of a box given by a corner, its width and its height."""
    box = numbers(value, (1, 4), what, where)
    box[:, 2:] += box[:, :2]
    return box_xyxy(box, what, where)
