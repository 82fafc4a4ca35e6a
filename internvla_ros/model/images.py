"""Camera views as network inputs: reading, resizing, normalisation and patches, all in torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from internvla_ros.model.image_sizes import (
    MAX_PIXELS,
    MIN_PIXELS,
    Size,
    expert_path,
    smart_size,
)
from internvla_ros.model.resampling import Kernel, resample

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

AnyImage = NDArray[np.uint8] | Image.Image | Tensor


def as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Check that `image` is uint8 [h, w, 3] with a positive size; raises ValueError otherwise."""
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(
            f"an image must be uint8 [height, width, 3], got {array.dtype} {array.shape}"
        )
    return array


def to_tensor(image: AnyImage, device: torch.device | str | None = None) -> Tensor:
    """One picture as uint8 [h, w, 3] on `device` (None: where it is); may share its memory.

    image: numpy uint8 [h, w, 3]; a PIL image of any 8-bit mode, converted to RGB (transparency is
    dropped, EXIF orientation is not applied); or a tensor [h, w, 3] or [3, h, w] (the former if
    both fit), uint8 or floating point in 0..1, which is rounded to 8 bits.
    Raises ValueError for anything else: other types and shapes, no pixels, NaN, values outside.
    """
    if isinstance(image, Image.Image):
        return torch.from_numpy(np.array(_pil_rgb(image))).to(device)
    if isinstance(image, Tensor):
        return _tensor_rgb(image).to(device)
    if not isinstance(image, np.ndarray):
        raise ValueError(f"an image must be an array, a PIL image or a tensor, got {type(image)}")
    # A tensor can share neither read-only memory nor memory that is walked backwards.
    shared = image.flags.writeable and min(image.strides, default=0) >= 0
    return torch.from_numpy(as_rgb(image if shared else image.copy())).to(device)


def _pil_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        raise ValueError(
            f"a PIL image of mode {image.mode} has no 8-bit colours; scale it to 0..255 first"
        )
    if 0 in image.size:
        raise ValueError(f"an image must have at least one pixel, got {image.size}")
    return image.convert("RGB")


def _tensor_rgb(image: Tensor) -> Tensor:
    if image.ndim != 3 or 3 not in (image.shape[0], image.shape[2]) or 0 in image.shape:
        raise ValueError(
            "an image tensor must be [height, width, 3] or [3, height, width], "
            f"got {list(image.shape)}"
        )
    pixels = image if image.shape[2] == 3 else image.permute(1, 2, 0)
    if pixels.dtype == torch.uint8:
        return pixels
    if not pixels.is_floating_point():
        raise ValueError(f"an image tensor must be uint8 or floating point, got {pixels.dtype}")
    values = pixels.detach().float()
    if not bool(((values >= 0) & (values <= 1)).all()):  # NaN compares as false
        raise ValueError("a floating-point image must lie in 0..1 and hold no NaN")
    return (values * 255).round().to(torch.uint8)


def resize(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Bicubic, antialiased, to exactly `size` (width, height), whatever the aspect ratio."""
    array = as_rgb(image)
    if (array.shape[1], array.shape[0]) == size:
        return array
    return resample(to_tensor(array)[None], size)[0].numpy()


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 [N, h, w, 3] -> float32 [N, 3, h, w], zero mean and unit variance per channel."""
    return _normalised(images.permute(0, 3, 1, 2).contiguous(), tuple(mean), tuple(std))


def _normalised(planes: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Channel-first uint8 [N, 3, ...] as float32.

    Divided, shifted, divided, in this order and in float32: so the reference's processors round.
    """
    shape = (-1, *[1] * (planes.ndim - 2))
    shift, scale = _constant(mean, planes.device), _constant(std, planes.device)
    # A device divides by a number through its reciprocal, but by a tensor exactly.
    values = planes.float().div_(_constant((255.0,), planes.device))
    return values.sub_(shift.view(shape)).div_(scale.view(shape))


@lru_cache(maxsize=64)
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


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
    tiles = images.reshape(count, rows // merge, merge, patch, columns // merge, merge, patch, 3)
    # n, block row, block column, row, column, c, y, x
    tiles = tiles.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(-1, 3, patch, patch)
    pixels = _normalised(tiles, CLIP_MEAN, CLIP_STD)
    pixels = pixels.unsqueeze(2).expand(-1, -1, temporal, -1, -1)
    grid = torch.tensor([[1, rows, columns]], device=images.device).expand(count, -1)
    return pixels.reshape(count * rows * columns, -1), grid


def planner_pixels(
    images: Sequence[Tensor],
    image_size: Size | None,
    *,
    patch: int = 14,
    merge: int = 2,
    temporal: int = 2,
    min_pixels: int = MIN_PIXELS,
    max_pixels: int = MAX_PIXELS,
) -> tuple[Tensor, Tensor]:
    """Views as the planner's patch rows and grid (see `qwen_patches`), in the views' order.

    images: uint8 [h, w, 3] on one device, sizes may differ. Each goes, bicubic, along its
    `planner_path`, to `image_size` (width, height) if given and to whole merged patches. Returns
    rows [sum of gh * gw, 3 * temporal * patch * patch] and the grid [N, 3]. Raises ValueError for
    no views and for sizes that `smart_size` refuses.
    """
    images = at_image_size(images, image_size)
    sizes = [smart_size(*_size(image), patch * merge, min_pixels, max_pixels) for image in images]
    views = _resized(images, sizes, "bicubic")
    if len(set(sizes)) == 1:
        return qwen_patches(torch.stack(views), patch, merge, temporal)
    rows, grids = zip(
        *(qwen_patches(view[None], patch, merge, temporal) for view in views), strict=True
    )
    return torch.cat(rows), torch.cat(grids)


def expert_pixels(
    images: Sequence[Tensor], image_size: Size | None, *, shorter: int = 224, patch: int = 14
) -> Tensor:
    """Views as the vision expert's input, float32 [N, 3, h, w], in the views' order.

    images: uint8 [h, w, 3] on one device. Each goes along its `expert_path`: bicubic to
    `image_size` (width, height) if given, then antialiased bilinear until its shorter side is
    `shorter` px. Raises ValueError for no views, for sizes that `expert_path` refuses, and for
    views that come out at different sizes: pass those in calls of their own.
    """
    images = at_image_size(images, image_size)
    sizes = [expert_path(_size(image), None, shorter, patch).model for image in images]
    if len(set(sizes)) > 1:
        found = ", ".join(f"{width}x{height}" for width, height in sorted(set(sizes)))
        raise ValueError(f"views of one call must come out at one size, not at {found} px")
    views = torch.stack(_resized(images, sizes, "bilinear"))
    return normalise(views, IMAGENET_MEAN, IMAGENET_STD)


def at_image_size(images: Sequence[Tensor], image_size: Size | None) -> list[Tensor]:
    """The step that both networks share: views [h, w, 3], bicubic to `image_size` unless None.

    Who feeds both takes it once and passes them its result with None. Raises ValueError for no
    views and for what is no uint8 [h, w, 3].
    """
    if not images:
        raise ValueError("there are no views")
    sizes = [image_size or _size(image) for image in images]
    return _resized(images, sizes, "bicubic")


def _size(image: Tensor) -> Size:
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(
            f"a view must be uint8 [height, width, 3], got {image.dtype} {list(image.shape)}"
        )
    return image.shape[1], image.shape[0]


def _resized(images: Sequence[Tensor], sizes: Sequence[Size], kernel: Kernel) -> list[Tensor]:
    """Each view at its size; those that go the same way go as one batch."""
    result = list(images)
    ways: dict[tuple[Size, Size], list[int]] = {}
    for index, (image, size) in enumerate(zip(images, sizes, strict=True)):
        if _size(image) != tuple(size):
            ways.setdefault((_size(image), size), []).append(index)
    for (_, size), members in ways.items():
        batch = resample(torch.stack([images[i] for i in members]), size, kernel)
        for index, view in zip(members, batch, strict=True):
            result[index] = view
    return result
