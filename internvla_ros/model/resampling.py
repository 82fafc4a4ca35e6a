"""Antialiased image resizing in torch, equal bit for bit to Pillow's on 8-bit images.

The method: each side is resampled on its own, in the order of Pillow 13 (`_height_first`; older
releases always begin with the width). Output pixel i looks at the input around (i + 1/2) * scale
with a kernel that is widened by the scale when shrinking; its weights sum to one and are rounded to
22 fractional bits; the weighted sum is rounded and clipped to 8 bits after each of the two passes.
A side that keeps its size is left alone.

The sums are exact, in float32 and on any device: weights are split into digits of at most 8 bits
(the highest has 14), so that every sum of digit * pixel is a whole number below 2^24, and each sum
hands its carry to the next digit's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Kernel = Literal["bicubic", "bilinear"]

FRACTION_BITS = 22
"""32 bits less 8 for the pixel and 2 for weights beyond 0..1."""
TOP_BITS = 14
LOW_BITS = 8


def resample(images: Tensor, size: tuple[int, int], kernel: Kernel = "bicubic") -> Tensor:
    """Resize uint8 images [N, h, w, C] to `size` (width, height), whatever the aspect ratio.

    Runs on the images' device. Raises ValueError for other types and shapes, for sizes below one
    pixel, and for a side of which one pixel would take in more than 32768.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or 0 in images.shape:
        raise ValueError(
            "images to resize must be uint8 [count, height, width, channels], "
            f"got {images.dtype} {list(images.shape)}"
        )
    if min(size) < 1:
        raise ValueError(f"an image cannot be resized to {size[0]}x{size[1]} pixels")
    width, height = size
    if _height_first((images.shape[2], images.shape[1]), size):
        return _resize_width(_resize_height(images, height, kernel), width, kernel)
    return _resize_height(_resize_width(images, width, kernel), height, kernel)


def _height_first(before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Whether the height loses pixels, and more than twice as many as the width does.

    The order shows in the last bit, for what lies between the passes is rounded.
    """
    lost = before[1] - after[1]
    return lost > 0 and lost > 2 * (before[0] - after[0])


@dataclass(frozen=True)
class _Taps:
    """How a side is resampled: per output pixel the input `pixels` and their weights' digits.

    pixels: int64 [after, taps]. digits: float32 [after, taps] each, lowest first, every one worth
    2^`bits` of the one before; the highest counts in 2^-`top_bits`.
    """

    pixels: Tensor
    digits: tuple[Tensor, ...]
    bits: int
    top_bits: int


def _resize_width(images: Tensor, after: int, kernel: Kernel) -> Tensor:
    count, height, width, channels = images.shape
    if width == after:
        return images
    # Pixel columns become rows that are contiguous: [w, C * N * h].
    columns = images.reshape(count * height, width * channels).t().contiguous()
    taps = _taps(width, after, kernel, images.device)
    resized = _weighted_sums(columns.view(width, -1), taps, 1)
    rows = resized.view(after * channels, count * height).t().contiguous()
    return rows.view(count, height, after, channels)


def _resize_height(images: Tensor, after: int, kernel: Kernel) -> Tensor:
    count, height, width, channels = images.shape
    if height == after:
        return images
    rows = images.reshape(count * height, width * channels)
    taps = _taps(height, after, kernel, images.device)
    return _weighted_sums(rows, taps, count).view(count, after, width, channels)


def _weighted_sums(rows: Tensor, taps: _Taps, count: int) -> Tensor:
    """uint8 rows [count * before, K] -> [count * after, K], each of `count` images on its own."""
    source = rows.float()
    first = torch.arange(count, device=rows.device) * (len(rows) // count)
    pixels = (first[:, None, None] + taps.pixels).flatten(0, 1)

    def sums(digit: Tensor) -> Tensor:
        weights = digit.repeat(count, 1)
        return F.embedding_bag(pixels, source, mode="sum", per_sample_weights=weights)

    total = sums(taps.digits[0])
    for digit in taps.digits[1:]:
        carry = total.mul_(2.0**-taps.bits).floor_()
        total = carry.add_(sums(digit))
    # The cut to uint8 rounds down, so halves go up.
    return total.mul_(2.0**-taps.top_bits).add_(0.5).clamp_(0.0, 255.0).to(torch.uint8)


@lru_cache(maxsize=256)
def _taps(before: int, after: int, kernel: Kernel, device: torch.device) -> _Taps:
    start, weights = _weights(before, after, kernel)
    taps = weights.shape[1]
    # taps * 2^bits <= 2^16 keeps a digit's sum with its carry below 2^24.
    bits = min(LOW_BITS, 16 - (taps - 1).bit_length())
    if bits < 1:
        raise ValueError(f"a side of {before} px cannot be shrunk to {after} px in one step")
    digits: list[NDArray[np.int64]] = []
    top_bits = FRACTION_BITS
    while top_bits > TOP_BITS:
        half = 1 << (bits - 1)
        digits.append((weights + half) % (1 << bits) - half)
        weights = (weights - digits[-1]) >> bits
        top_bits -= bits
    digits.append(weights)
    # Beyond the edge weights are zero.
    pixels = np.minimum(start[:, None] + np.arange(taps), before - 1)
    return _Taps(
        torch.from_numpy(pixels).to(device),
        tuple(torch.from_numpy(digit).to(device, torch.float32) for digit in digits),
        bits,
        top_bits,
    )


def _weights(
    before: int, after: int, kernel: Kernel
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Per output pixel its first input pixel [after] and the weights [after, taps] from there on.

    Weights count in 2^-22; those of pixels beyond the kernel or the image are zero.
    """
    function, radius = _KERNELS[kernel]
    scale = before / after
    widening = max(scale, 1.0)
    centre = (np.arange(after) + 0.5) * scale
    start = np.maximum(np.trunc(centre - radius * widening + 0.5), 0.0).astype(np.int64)
    stop = np.minimum(np.trunc(centre + radius * widening + 0.5), before).astype(np.int64)
    pixel = start[:, None] + np.arange((stop - start).max())
    distance = (pixel - centre[:, None] + 0.5) * (1.0 / widening)
    values = np.where(pixel < stop[:, None], function(distance), 0.0)
    # One after the other, as a plain loop adds them: another order may change the last bit.
    values /= np.add.accumulate(values, axis=1)[:, -1:]
    counts = np.trunc(values * (1 << FRACTION_BITS) + np.copysign(0.5, values))
    return start, counts.astype(np.int64)


def _bicubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution with a = -1/2."""
    a = -0.5
    x = np.abs(distance)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _bilinear(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1.0 - np.abs(distance), 0.0)


_KERNELS: dict[Kernel, tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], float]] = {
    "bicubic": (_bicubic, 2.0),
    "bilinear": (_bilinear, 1.0),
}
"""Kernel and the distance from which on it is zero."""
