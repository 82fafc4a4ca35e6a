"""The sizes through which a view goes on its way into a network, and pixels mapped along it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Size = tuple[int, int]
"""(width, height) in pixels."""

MIN_PIXELS = 56 * 56
MAX_PIXELS = 16384 * 28 * 28
"""Qwen2.5-VL's published bounds on width * height."""
MAX_ASPECT = 200


@dataclass(frozen=True)
class ResizePath:
    """The sizes of a view: as taken, then after every step; the last is what the network sees.

    Pixel coordinates are continuous, with the image's edges at 0 and at its width or height, so
    that pixel i covers [i, i + 1]. Every step scales each axis about 0 and nothing else. Both
    directions are exact (1e-9 of the size). Coordinates that were rounded to whole pixels of the
    network's image are off by up to half a pixel of that image, and map back with that error.
    """

    sizes: tuple[Size, ...]

    def __post_init__(self) -> None:
        if not self.sizes or min(map(min, self.sizes)) < 1:
            raise ValueError(f"every size of a view must be at least 1x1 px, got {self.sizes}")

    @property
    def original(self) -> Size:
        """Size as taken."""
        return self.sizes[0]

    @property
    def model(self) -> Size:
        """Size that the network sees."""
        return self.sizes[-1]

    def to_model(self, points: ArrayLike) -> NDArray[np.float64]:
        """Pixels (x, y) [..., 2] of the original as pixels of the network's image."""
        return _scaled(points, self.original, self.model)

    def to_original(self, points: ArrayLike) -> NDArray[np.float64]:
        """Pixels (x, y) [..., 2] of the network's image as pixels of the original."""
        return _scaled(points, self.model, self.original)


def planner_path(
    size: Size,
    image_size: Size | None,
    factor: int = 28,
    min_pixels: int = MIN_PIXELS,
    max_pixels: int = MAX_PIXELS,
) -> ResizePath:
    """To exactly `image_size` if there is one, then to `smart_size`; ValueError as there."""
    steps = _first_steps(size, image_size)
    return ResizePath((*steps, smart_size(*steps[-1], factor, min_pixels, max_pixels)))


def expert_path(
    size: Size, image_size: Size | None, shorter: int = 224, patch: int = 14
) -> ResizePath:
    """To exactly `image_size` if there is one, then the shorter side to `shorter` px.

    The longer side keeps the aspect ratio, cut to whole pixels as torchvision's `Resize` does,
    then goes to the nearest multiple of `patch` (halves up), where the released code fails unless
    it is one. Raises ValueError for a `shorter` that is no multiple and for aspect ratios over 200.
    """
    if shorter < 1 or shorter % patch:
        raise ValueError(f"the shorter side must be a multiple of {patch} px, got {shorter}")
    steps = _first_steps(size, image_size)
    width, height = steps[-1]
    _check_aspect(width, height)
    longer = int(shorter * max(width, height) / min(width, height))
    longer = (longer + patch // 2) // patch * patch
    return ResizePath((*steps, (shorter, longer) if width <= height else (longer, shorter)))


def smart_size(
    width: int,
    height: int,
    factor: int = 28,
    min_pixels: int = MIN_PIXELS,
    max_pixels: int = MAX_PIXELS,
) -> Size:
    """Qwen2.5-VL's size (width, height) for a view: whole merged patches, few enough of them.

    Each side goes to the nearest multiple of `factor` (halves to the even one). If their product
    leaves the bounds, both original sides are first scaled alike to meet the bound, then cut
    (above; never below one `factor`) or raised (below) to multiples. Raises ValueError for sides
    below 1 px, aspect ratios over 200 and bounds that are no range.
    """
    if min(width, height) < 1:
        raise ValueError(f"an image must have at least one pixel, got {width}x{height}")
    if factor < 1 or not 1 <= min_pixels <= max_pixels:
        raise ValueError(
            f"factor {factor}, min_pixels {min_pixels} and max_pixels {max_pixels} "
            "must be positive, min_pixels not above max_pixels"
        )
    _check_aspect(width, height)
    sides = (round(width / factor) * factor, round(height / factor) * factor)
    if sides[0] * sides[1] > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        return (
            max(factor, math.floor(width / shrink / factor) * factor),
            max(factor, math.floor(height / shrink / factor) * factor),
        )
    if sides[0] * sides[1] < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        return (
            math.ceil(width * grow / factor) * factor,
            math.ceil(height * grow / factor) * factor,
        )
    return sides


def _first_steps(size: Size, image_size: Size | None) -> tuple[Size, ...]:
    return (size,) if image_size is None else (size, image_size)


def _check_aspect(width: int, height: int) -> None:
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(
            f"a view of {width}x{height} px is too narrow: its sides differ more than "
            f"{MAX_ASPECT} times; crop it, or set image_size"
        )


def _scaled(points: ArrayLike, before: Size, after: Size) -> NDArray[np.float64]:
    return np.asarray(points, np.float64) * (np.array(after) / np.array(before))
