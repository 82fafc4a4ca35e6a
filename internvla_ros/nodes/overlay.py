"""What is drawn into camera pictures, kept drawn for as long as it stays the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from internvla_ros.spatial.draw import Patch, bar, blend, marks
from internvla_ros.spatial.types import SpatialAnswer, Trace

_SHADES = 5  # steps in which a trace fades


@dataclass(frozen=True, eq=False)
class _Seen:
    """What was predicted in one camera's picture of a size, and when (s)."""

    answer: SpatialAnswer
    size: tuple[int, int]
    at: float


class Overlay:
    """Predictions by camera, and how they look now.

    A prediction is shown until a newer one comes or it is too old. Traces come more rarely: the
    last one stays and fades.
    """

    def __init__(self, max_age: float, trace_fade: float) -> None:
        """
        Args:
            max_age: s for which a prediction is shown.
            trace_fade: s in which a trace fades away.
        """
        self._max_age, self._trace_fade = max_age, trace_fade
        self._seen: dict[str, _Seen] = {}
        self._traces: dict[str, tuple[tuple[Trace, ...], float]] = {}
        self._drawn: dict[str, tuple[object, list[Patch]]] = {}

    def clear(self) -> None:
        """Forget all predictions: the instruction is another one."""
        self._seen.clear()
        self._traces.clear()

    def add(self, camera: str, answer: SpatialAnswer, size: tuple[int, int], now: float) -> None:
        """Take in a prediction for a camera; its pixels are those of a picture (width, height)."""
        self._seen[camera] = _Seen(answer, size, now)
        if answer.traces:
            self._traces[camera] = (answer.traces, now)

    def answer(self, camera: str, now: float) -> SpatialAnswer | None:
        """What is shown for a camera now, with its last traces; None: nothing."""
        seen = self._seen.get(camera)
        if seen is None or not 0.0 <= now - seen.at <= self._max_age:
            return None
        traces, strength = self._trace(camera, now)
        return SpatialAnswer(
            seen.answer.boxes, seen.answer.points, traces if strength > 0.0 else ()
        )

    def draw(
        self,
        camera: str,
        picture: NDArray[np.uint8],
        caption: str,
        status: str,
        now: float,
    ) -> NDArray[np.uint8]:
        """A copy of a picture uint8 [h, w, 3] RGB with what is predicted in it and a caption."""
        size = (picture.shape[1], picture.shape[0])
        return blend(picture, *self._patches(camera, size, now), *bar(size, caption, status))

    def _patches(self, camera: str, size: tuple[int, int], now: float) -> list[Patch]:
        """The traces, which change rarely, and over them the boxes and points."""
        answer = self.answer(camera, now)
        if answer is None:
            return []
        seen = self._seen[camera]
        traces, strength = self._trace(camera, now)
        scale = (size[0] / max(seen.size[0], 1), size[1] / max(seen.size[1], 1))
        way = SpatialAnswer(traces=answer.traces).scaled(*scale)
        things = SpatialAnswer(answer.boxes, answer.points).scaled(*scale)
        return [
            *self._kept(f"{camera} traces", (traces, strength, size), way, strength),
            *self._kept(f"{camera} things", (answer.boxes, answer.points, size), things),
        ]

    def _kept(
        self, name: str, key: tuple[object, ...], answer: SpatialAnswer, strength: float = 1.0
    ) -> list[Patch]:
        """An answer drawn for `key`, which ends with the size: drawn anew for another key only."""
        known = self._drawn.get(name)
        if known is None or known[0] != key:
            size = key[-1]
            assert isinstance(size, tuple)
            known = self._drawn[name] = (key, marks(size, answer, strength))
        return known[1]

    def _trace(self, camera: str, now: float) -> tuple[tuple[Trace, ...], float]:
        """The last traces and their strength 0..1, which falls in steps."""
        traces, at = self._traces.get(camera, ((), now))
        left = 1.0 - max(now - at, 0.0) / self._trace_fade
        return traces, max(np.ceil(left * _SHADES), 0.0) / _SHADES
