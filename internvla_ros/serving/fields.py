"""Reading a request's fields: each has the type that is asked for, or an error names it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Batch = tuple[tuple[Image, ...], ...]

LARGEST_SIDE = 8192
"""Pixels of a view, each way."""
LONGEST_TEXT = 4096
"""Characters of an instruction or a question."""


class RequestError(ValueError):
    """A request that is not understood, or cannot be met; the message is for who sent it."""


class Fields:
    """The fields of one request by name."""

    def __init__(self, content: Any) -> None:
        """`content`: the map that they stand in."""
        if not isinstance(content, Mapping):
            raise RequestError(f"a payload is a map, not {_kind(content)}")
        self._content = content

    def has(self, *names: str) -> bool:
        """Whether one of these fields is there."""
        return any(self._content.get(name) is not None for name in names)

    def text(self, name: str) -> str:
        """A text."""
        return _text(name, self._content.get(name))

    def optional_text(self, name: str) -> str | None:
        """A text, where it is given."""
        return self.text(name) if self.has(name) else None

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self._content.get(name)
        if not isinstance(value, list):
            raise RequestError(f"'{name}' must be a list of texts, not {_kind(value)}")
        return tuple(_text(name, text) for text in value)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = _plain(self._content.get(name))
        if value is None:
            return default
        if not isinstance(value, bool):
            raise RequestError(f"'{name}' must be true or false, not {_kind(value)}")
        return value

    def integer(self, name: str, low: int, high: int) -> int | None:
        """A whole number in a closed range, where it is given."""
        value = _plain(self._content.get(name))
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise RequestError(f"'{name}' must be a whole number in {low}..{high}")
        return value

    def number(self, name: str) -> float | None:
        """A finite number, where it is given."""
        value = _plain(self._content.get(name))
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RequestError(f"'{name}' must be a number, not {_kind(value)}")
        if not math.isfinite(value):
            raise RequestError(f"'{name}' must be finite")
        return float(value)

    def numbers(
        self, name: str, dimensions: int, *, gaps: bool = False
    ) -> NDArray[np.float64] | None:
        """An array of so many dimensions, where it is given; with `gaps` NaN may stand in it."""
        value = self._content.get(name)
        if value is None:
            return None
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise RequestError(f"'{name}' is no array: its rows differ in length") from error
        if array.ndim != dimensions or array.dtype.kind not in "iuf":
            raise RequestError(
                f"'{name}' must be numbers in {dimensions} dimensions, "
                f"got {list(array.shape)} of {array.dtype}"
            )
        array = array.astype(np.float64)
        if np.isinf(array).any() or (not gaps and np.isnan(array).any()):
            raise RequestError(f"'{name}' must be finite")
        return array

    def array(self, name: str, kind: type[np.generic]) -> NDArray[Any]:
        """An array of exactly this type."""
        value = self._content.get(name)
        if not isinstance(value, np.ndarray) or value.dtype != kind:
            raise RequestError(f"'{name}' must be an array of {kind.__name__}")
        return value

    def image(self, name: str, value: Any) -> Image:
        """A picture that stands in a field."""
        if not isinstance(value, np.ndarray) or value.dtype != np.uint8:
            raise RequestError(f"'{name}' must hold arrays of uint8 [height, width, 3]")
        fits = value.ndim == 3 and value.shape[2] == 3
        if not fits or not all(1 <= side <= LARGEST_SIDE for side in value.shape[:2]):
            raise RequestError(
                f"'{name}' must hold views [height, width, 3] of at most {LARGEST_SIDE} pixels a "
                f"side, got {list(value.shape)}"
            )
        return value

    def views(self, name: str) -> tuple[Image, ...]:
        """A list of pictures, at least one."""
        return self._views(name, self._content.get(name))

    def batch(self, name: str, *, blind: bool = False) -> Batch:
        """For every sample the list of its views, which may be empty for who looks at none."""
        value: Any = self._content.get(name)
        if not _is_sequence(value) or len(value) == 0:
            raise RequestError(f"'{name}' must be a list of lists of views, one list a sample")
        return tuple(self._views(name, views, blind) for views in value)

    def _views(self, name: str, value: Any, blind: bool = False) -> tuple[Image, ...]:
        if not _is_sequence(value) or (len(value) == 0 and not blind):
            raise RequestError(f"'{name}' must be a list of views, at least one")
        return tuple(self.image(name, view) for view in value)

    def drafts(self, name: str) -> dict[str, list[int]] | None:
        """Token ids by kind of answer, where they are given."""
        value = self._content.get(name)
        if value is None:
            return None
        fits = isinstance(value, dict) and all(
            isinstance(kind, str)
            and isinstance(ids, list)
            and all(type(i) is int and i >= 0 for i in ids)
            for kind, ids in value.items()
        )
        if not fits:
            raise RequestError(f"'{name}' must hold lists of token ids by name")
        return dict(value)


def _is_sequence(value: Any) -> bool:
    """A list, or an array of at least one dimension."""
    return isinstance(value, list) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _plain(value: Any) -> Any:
    """A numpy scalar as a plain value."""
    return value.item() if isinstance(value, np.generic) else value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise RequestError(f"'{name}' must be a text, not {_kind(value)}")
    if len(value) > LONGEST_TEXT:
        raise RequestError(f"'{name}' has {len(value)} characters, more than {LONGEST_TEXT}")
    return value


def _kind(value: Any) -> str:
    return "missing" if value is None else type(value).__name__
