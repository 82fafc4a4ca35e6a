"""Spatial answers drawn into pictures, antialiased."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from internvla_ros.spatial.types import Box, Point, SpatialAnswer, Trace

Colour = tuple[int, int, int]

AMBER: Colour = (255, 179, 0)
CYAN: Colour = (0, 200, 230)
MAGENTA: Colour = (236, 64, 160)
LIME: Colour = (140, 210, 60)
VIOLET: Colour = (160, 120, 255)
PALETTE: tuple[Colour, ...] = (AMBER, CYAN, LIME, MAGENTA, VIOLET)
TRACE_COLOURS: tuple[Colour, Colour] = ((255, 255, 255), MAGENTA)
INK: Colour = (18, 20, 24)
PAPER: Colour = (250, 250, 250)
SUPERSAMPLING = 3
_FINE_ENOUGH = 400  # px; pictures at least this high and wide need less supersampling
_REACH = 24  # px of a 320x240 picture that labels, rings and arrow heads reach beyond their pixels


def annotate(
    image: NDArray[np.uint8],
    answer: SpatialAnswer | None = None,
    *,
    boxes: Sequence[Box] = (),
    points: Sequence[Point] = (),
    traces: Sequence[Trace] = (),
    caption: str = "",
    status: str = "",
) -> NDArray[np.uint8]:
    """A copy of a picture with what was predicted drawn into it.

    The first box and point are what to grasp (amber, a ring with a cross), the second where to put
    it (cyan, a diamond); traces run from white (now) to magenta (the end).

    Args:
        image: uint8[h, w, 3] RGB.
        answer: drawn whole, before what is given one by one; its pixels are those of `image`.
        boxes, points, traces: drawn besides.
        caption: a bar at the bottom, wrapped; "" for none.
        status: a few words at the right end of the bar.

    Returns:
        uint8[h, w, 3].
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"a picture to draw on must be uint8[h, w, 3], not {image.dtype}{list(image.shape)}"
        )
    if answer is not None:
        boxes = (*answer.boxes, *boxes)
        points = (*answer.points, *points)
        traces = (*answer.traces, *traces)
    size = (image.shape[1], image.shape[0])
    drawn = SpatialAnswer(tuple(boxes), tuple(points), tuple(traces))
    return blend(image, *marks(size, drawn), *bar(size, caption, status))


@dataclass(frozen=True, eq=False)
class Patch:
    """A drawn rectangle, to be laid over pictures as often as they come.

    Attributes:
        x, y: px of its upper left corner.
        colour: uint8[h, w, 3], already weighed by its opacity.
        keep: uint8[h, w, 3], 0..255: how much of the picture below remains.
    """

    x: int
    y: int
    colour: NDArray[np.uint8]
    keep: NDArray[np.uint8]


def blend(image: NDArray[np.uint8], *patches: Patch) -> NDArray[np.uint8]:
    """A copy of a picture uint8[h, w, 3] with patches made for its size laid over it, in order."""
    drawn = image.copy()
    for patch in patches:
        height, width, _ = patch.colour.shape
        below = drawn[patch.y : patch.y + height, patch.x : patch.x + width]
        below[...] = cv2.add(cv2.multiply(below, patch.keep, scale=1 / 255), patch.colour)
    return drawn


def marks(size: tuple[int, int], answer: SpatialAnswer, trace_strength: float = 1.0) -> list[Patch]:
    """An answer's boxes, points and traces as `annotate` draws them: a patch for each that is
    seen, as a layer over all of them would be mostly empty.

    Args:
        size: (width, height) px of the pictures that it will be laid over.
        trace_strength: 0..1, opacity of the traces: they may fade as they grow old.
    """
    patches = [
        _patch(size, trace.points, partial(_Canvas.trace, trace=trace, strength=trace_strength))
        for trace in answer.traces
    ]
    for index, box in enumerate(answer.boxes):
        draw = partial(_Canvas.box, box=box, colour=PALETTE[index % len(PALETTE)])
        patches.append(_patch(size, _extent(size, box), draw))
    for index, point in enumerate(answer.points):
        draw = partial(_Canvas.mark, point=point, index=index)
        patches.append(_patch(size, np.array([[point.x, point.y]]), draw))
    return [patch for patch in patches if patch is not None]


def bar(size: tuple[int, int], caption: str, status: str) -> list[Patch]:
    """The dark bar at the bottom with a caption and a status: one patch, or none."""
    return [_bar(size, caption, status)] if caption or status else []


@lru_cache(maxsize=16)
def _bar(size: tuple[int, int], caption: str, status: str) -> Patch:
    strip = _Canvas(size, (0, size[1] - min(round(48 * _unit(size)), size[1]), *size))
    strip.caption(caption, status)
    return strip.finish()


def _patch(
    size: tuple[int, int], places: NDArray[np.float64], draw: Callable[[_Canvas], None]
) -> Patch | None:
    """What is drawn around places [n, 2] (px) in a picture; None: it lies outside."""
    reach = _REACH * _unit(size)
    x1, y1 = (max(int(v), 0) for v in places.min(axis=0) - reach)
    ends = np.ceil(places.max(axis=0) + reach)
    x2, y2 = (min(int(v), limit) for v, limit in zip(ends, size, strict=True))
    if x1 >= x2 or y1 >= y2:
        return None
    canvas = _Canvas(size, (x1, y1, x2, y2))
    draw(canvas)
    return canvas.finish()


def _extent(size: tuple[int, int], box: Box) -> NDArray[np.float64]:
    """[2, 2] px: upper left and lower right corner of a box and of its label's plate."""
    length = _font(round(9 * _unit(size))).getlength(_label(box)) + 6 * _unit(size)
    left = max(min(box.x1, size[0] - length), 0)
    return np.array([[min(box.x1, left), box.y1], [max(box.x2, left + length), box.y2]])


def _label(box: Box) -> str:
    """A box's label, with its score where it states one."""
    words = box.label[:80]
    return words if not words or box.score >= 1 else f"{words} {box.score:.2f}"


def _unit(size: tuple[int, int]) -> float:
    """The scale of line widths and letters, 1 for a 320x240 picture."""
    return max(min(size) / 240, 0.6)


class _Canvas:
    """A transparent layer over a part of a picture, several times as fine.

    Later strokes replace earlier ones. Coordinates are px of the whole picture.
    """

    def __init__(self, size: tuple[int, int], region: tuple[int, int, int, int]) -> None:
        """
        Args:
            size: (width, height) px of the picture.
            region: x1 y1 x2 y2 px of the part that can be drawn on.
        """
        x1, y1, x2, y2 = region
        self.unit = _unit(size)
        self.scale = SUPERSAMPLING if min(size) < _FINE_ENOUGH else SUPERSAMPLING - 1
        self.origin = (x1, y1)
        self.layer = Image.new("RGBA", ((x2 - x1) * self.scale, (y2 - y1) * self.scale))
        self.edges = self._fine(0, 0, *size)
        self.draw = ImageDraw.Draw(self.layer)

    def finish(self) -> Patch:
        """What was drawn."""
        fine = np.asarray(self.layer)
        opacity = fine[..., 3]
        weights = cv2.merge([opacity, opacity, opacity, np.full_like(opacity, 255)])
        weighed = cv2.multiply(fine, weights, scale=1 / 255)
        size = (self.layer.width // self.scale, self.layer.height // self.scale)
        pixels = cv2.resize(weighed, size, interpolation=cv2.INTER_AREA)
        keep = cv2.merge([255 - pixels[..., 3]] * 3)
        return Patch(*self.origin, np.ascontiguousarray(pixels[..., :3]), keep)

    def box(self, box: Box, colour: Colour) -> None:
        """A box's outline with a dark edge, so that it stands out on any ground, and its label."""
        corners = self._fine(box.x1, box.y1, box.x2, box.y2)
        self.draw.rectangle(corners, fill=(*colour, 26))
        radius = self._size(2.5)
        self.draw.rounded_rectangle(
            _grown(corners, self._size(0.8)), radius, outline=(*INK, 150), width=self._size(3.4)
        )
        self.draw.rounded_rectangle(corners, radius, outline=(*colour, 255), width=self._size(1.8))
        self._tag(box, colour)

    def _tag(self, box: Box, colour: Colour) -> None:
        """A box's label on a plate above it, or inside it where there is no room."""
        words = _label(box)
        if not words:
            return
        font = _font(self._size(9))
        pad = self._size(2.5)
        left, top, right, bottom = font.getbbox(words)
        width, height = right - left + 2 * pad, bottom - top + 2 * pad
        x_min, y_min, x_max, y_max = self.edges
        x, low, _, high = self._fine(box.x1, box.y1, box.x2, box.y2)
        y = low - height - self._size(2)
        if y < y_min:
            y = min(high + self._size(2), y_max - height)
        x = max(min(x, x_max - width), x_min)
        plate = (x, y, x + width, y + height)
        self.draw.rounded_rectangle(plate, self._size(2.5), fill=(*colour, 235))
        self.draw.text((x + pad - left, y + pad - top), words, font=font, fill=(*INK, 255))

    def mark(self, point: Point, index: int) -> None:
        """A ring with a cross for the first point, a diamond for all others."""
        colour = PALETTE[index % len(PALETTE)]
        x, y = self._fine(point.x, point.y)
        for grow, tint in ((self._size(1.1), (*INK, 190)), (0, (*colour, 255))):
            if index == 0:
                self._ring(x, y, grow, tint)
            else:
                self._diamond(x, y, grow, tint)
        dot = self._size(1.3)
        self.draw.ellipse((x - dot, y - dot, x + dot, y + dot), fill=(*PAPER, 255))

    def _ring(self, x: float, y: float, grow: float, tint: tuple[int, int, int, int]) -> None:
        radius, inner, outer = self._size(5), self._size(3), self._size(8.5)
        width = self._size(1.6)
        circle = _grown((x - radius, y - radius, x + radius, y + radius), grow)
        self.draw.ellipse(circle, outline=tint, width=round(width + 2 * grow))
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            start = (x + dx * inner, y + dy * inner)
            end = (x + dx * (outer + grow), y + dy * (outer + grow))
            self.draw.line((*start, *end), fill=tint, width=round(width + 2 * grow))

    def _diamond(self, x: float, y: float, grow: float, tint: tuple[int, int, int, int]) -> None:
        radius = self._size(6.5) + 1.4 * grow
        corners = [(x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y)]
        self.draw.polygon(corners, fill=tint)

    def trace(self, trace: Trace, strength: float = 1.0) -> None:
        """A line from white to magenta that thins and fades towards the end, with an arrow."""
        points = (_smooth(trace.points) - self.origin) * self.scale
        steps = len(points) - 1
        for grow, shade in ((self._size(1.2), 0.55), (0, 1.0)):
            for step in range(steps):
                share = step / steps
                colour = INK if grow else _blend(*TRACE_COLOURS, share)
                alpha = round(255 * strength * shade * (1 - 0.45 * share))
                radius = self._size(1.3 - 0.5 * share) + grow
                self._stroke(points[step], points[step + 1], radius, (*colour, alpha))
        for x, y in (trace.points[1:-1] - self.origin) * self.scale:
            dot = self._size(1.2)
            self.draw.ellipse(
                (x - dot, y - dot, x + dot, y + dot), fill=(*PAPER, round(255 * strength))
            )
        self._arrow_head(points, strength)

    def _stroke(
        self,
        start: NDArray[np.float64],
        end: NDArray[np.float64],
        radius: float,
        tint: tuple[int, int, int, int],
    ) -> None:
        self.draw.line((*start, *end), fill=tint, width=max(round(2 * radius), 1))
        x, y = end
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tint)

    def _arrow_head(self, points: NDArray[np.float64], strength: float) -> None:
        """A filled triangle at the end, along the path's last stretch."""
        tip = points[-1]
        length = self._size(8)
        far = np.linalg.norm(points - tip, axis=1) > length
        if not far.any():
            return
        heading = tip - points[np.flatnonzero(far)[-1]]
        heading /= np.linalg.norm(heading)
        side = np.array([-heading[1], heading[0]]) * 0.45 * length
        base = tip - heading * length
        corners = [tuple(tip), tuple(base + side), tuple(base - side)]
        self.draw.polygon(
            corners,
            fill=(*MAGENTA, round(255 * strength)),
            outline=(*INK, round(200 * strength)),
        )

    def caption(self, words: str, status: str) -> None:
        """A dark, translucent bar at the bottom."""
        font = _font(self._size(11))
        pad, width, height = self._size(6), self.layer.width, self.layer.height
        small = _font(self._size(9))
        taken = small.getlength(status) + 2 * pad if status else 0
        lines = _wrap(words, font, width - 2 * pad - taken)
        rise, drop = font.getmetrics()
        pitch = rise + drop
        top = height - pitch * max(len(lines), 1) - 1.2 * pad
        self.draw.rectangle((0, top, width, height), fill=(*INK, 190))
        self.draw.rectangle((0, top, self._size(2.5), height), fill=(*AMBER, 255))
        for number, line in enumerate(lines):
            place: tuple[float, float] = (pad + self._size(2), top + 0.6 * pad + number * pitch)
            self.draw.text(place, line, font=font, fill=(*PAPER, 255))
        if status:
            place = (width - pad - small.getlength(status), top + 0.6 * pad + self._size(1))
            self.draw.text(place, status, font=small, fill=(*CYAN, 255))

    def _size(self, pixels: float) -> int:
        """Pixels of a 320x240 picture in those of the layer."""
        return max(round(pixels * self.unit * self.scale), 1)

    def _fine(self, *values: float) -> tuple[float, ...]:
        """Coordinates x, y, x, y ... of the picture in those of the layer."""
        x, y = self.origin
        return tuple(
            (value - (y if index % 2 else x)) * self.scale for index, value in enumerate(values)
        )


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("this Pillow was built without FreeType: install the wheel from PyPI")
    return font


def _wrap(words: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Break a text into at most two lines; what is left over becomes an ellipsis."""
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
        if len(lines) > 2:
            lines = [lines[0], f"{lines[1]}..."]
            break
    return [_shortened(line, font, width) for line in lines]


def _shortened(line: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The line itself, or as much of it as fits before an ellipsis."""
    line = line[:400]
    if font.getlength(line) <= width:
        return line
    kept = line.removesuffix("...")
    while kept and font.getlength(kept + "...") > width:
        kept = kept[:-1]
    return kept + "..."


def _grown(corners: tuple[float, ...], by: float) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = corners
    return x1 - by, y1 - by, x2 + by, y2 + by


def _blend(start: Colour, end: Colour, share: float) -> Colour:
    mixed = [round(a + (b - a) * share) for a, b in zip(start, end, strict=True)]
    return mixed[0], mixed[1], mixed[2]


def _smooth(points: NDArray[np.float64], pieces: int = 6) -> NDArray[np.float64]:
    """A Catmull-Rom curve through the waypoints, `pieces` segments between each two."""
    ends = np.concatenate([points[:1], points, points[-1:]])
    share = np.linspace(0, 1, pieces, endpoint=False)[:, None]
    curve = [
        0.5
        * (
            2 * b
            + (c - a) * share
            + (2 * a - 5 * b + 4 * c - d) * share**2
            + (3 * b - a - 3 * c + d) * share**3
        )
        for a, b, c, d in zip(ends, ends[1:], ends[2:], ends[3:], strict=False)
    ]
    return np.concatenate([*curve, points[-1:]])
