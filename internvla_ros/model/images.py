"""Camera views as network inputs: resizing, normalisation and patches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Check that `image` is uint8 [h, w, 3] with a positive size; raises ValueError otherwise."""
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(
            f"an image must be uint8 [height, width, 3], got {array.dtype} {array.shape}"
        )
    return array


def resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Bicubic, antialiased, to exactly `size` (width, height), whatever the aspect ratio."""
    array = as_rgb(image)
    if (array.shape[1], array.shape[0]) == size:
        return array
    return np.asarray(Image.fromarray(array).resize(size, Image.Resampling.BICUBIC))


def stack(images: Sequence[NDArray[np.uint8]], size: tuple[int, int]) -> Tensor:
    """Resized images as one uint8 tensor [N, h, w, 3]."""
    return torch.from_numpy(np.stack([resize(image, size) for image in images]))


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 [N, h, w, 3] -> float32 [N, 3, h, w], zero mean and unit variance per channel."""
    scale = images.new_tensor([255.0 * s for s in std], dtype=torch.float32)
    shift = images.new_tensor([m / s for m, s in zip(mean, std, strict=True)], dtype=torch.float32)
    return (images.float() / scale - shift).permute(0, 3, 1, 2).contiguous()


def qwen_patches(images: Tensor, patch: int, merge: int, temporal: int) -> tuple[Tensor, Tensor]:
    """Patch rows in Qwen2.5-VL's order and their grid.

    images: uint8 [N, h, w, 3], h and w multiples of patch * merge. Returns float32 rows
    [N * gh * gw, 3 * temporal * patch * patch] (merged groups stay together; a still image is
    repeated `temporal` times) and the grid [N, 3] of (1, gh, gw).
    """
    count, height, width = images.shape[:3]
    if height % (patch * merge) or width % (patch * merge):
        raise ValueError(f"image size {width}x{height} is no multiple of {patch * merge} px")
    rows, columns = height // patch, width // patch
    pixels = normalise(images, CLIP_MEAN, CLIP_STD)
    tiles = pixels.view(count, 3, rows // merge, merge, patch, columns // merge, merge, patch)
    tiles = tiles.permute(
        0, 2, 5, 3, 6, 1, 4, 7
    )  # n, block row, block column, row, column, c, y, x
    tiles = tiles.unsqueeze(6).expand(*tiles.shape[:6], temporal, patch, patch)
    grid = torch.tensor([[1, rows, columns]], device=images.device).expand(count, -1)
    return tiles.reshape(count * rows * columns, -1), grid
