"""Resizing in torch against Pillow, bit for bit."""

from __future__ import annotations

import numpy as np
import PIL
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from internvla_ros.model.resampling import Kernel, resample

FILTERS: dict[Kernel, Image.Resampling] = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
KERNELS = st.sampled_from(sorted(FILTERS))
SIDES = st.integers(1, 120)

pillow_13 = pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 13,
    reason="before Pillow 13 some sizes went through the two passes in the other order",
)


def random_images(seed: int, count: int, height: int, width: int) -> NDArray[np.uint8]:
    """Noise in all 256 values or, for odd seeds, in the two extremes, which overshoot most."""
    images = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)
    return np.where(images > 127, 255, 0).astype(np.uint8) if seed % 2 else images


def by_pillow(
    images: NDArray[np.uint8], size: tuple[int, int], kernel: Kernel
) -> NDArray[np.uint8]:
    return np.stack([np.asarray(Image.fromarray(i).resize(size, FILTERS[kernel])) for i in images])


def by_torch(images: NDArray[np.uint8], size: tuple[int, int], kernel: Kernel) -> NDArray[np.uint8]:
    return resample(torch.from_numpy(images), size, kernel).numpy()


@pillow_13
@given(SIDES, SIDES, SIDES, SIDES, KERNELS, st.integers(0, 2**31))
@settings(max_examples=300, deadline=None)
def test_every_size_equals_pillow(
    width: int, height: int, new_width: int, new_height: int, kernel: Kernel, seed: int
) -> None:
    images = random_images(seed, 2, height, width)
    size = (new_width, new_height)
    np.testing.assert_array_equal(by_torch(images, size, kernel), by_pillow(images, size, kernel))


@pytest.mark.parametrize("kernel", sorted(FILTERS))
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((640, 480), (224, 224)),
        ((1280, 720), (224, 224)),
        ((256, 256), (224, 224)),
        ((320, 240), (308, 224)),
        ((96, 96), (224, 224)),
        ((150, 150), (140, 140)),
    ],
)
def test_camera_sizes_equal_pillow(
    before: tuple[int, int], after: tuple[int, int], kernel: Kernel
) -> None:
    images = random_images(4, 2, before[1], before[0])
    np.testing.assert_array_equal(by_torch(images, after, kernel), by_pillow(images, after, kernel))


@pytest.mark.parametrize("kernel", sorted(FILTERS))
@pytest.mark.parametrize("width", [300, 2500, 20000])
def test_wide_kernels_stay_exact(width: int, kernel: Kernel) -> None:
    """The more pixels go into one, the narrower the digits must be."""
    images = random_images(1, 1, 4, width)
    np.testing.assert_array_equal(
        by_torch(images, (3, 4), kernel), by_pillow(images, (3, 4), kernel)
    )


@given(SIDES, SIDES, SIDES, SIDES, KERNELS, st.integers(0, 255))
@settings(max_examples=50, deadline=None)
def test_an_even_colour_stays(
    width: int, height: int, new_width: int, new_height: int, kernel: Kernel, value: int
) -> None:
    images = torch.full((1, height, width, 3), value, dtype=torch.uint8)
    assert bool((resample(images, (new_width, new_height), kernel) == value).all())


def test_memory_order_does_not_matter() -> None:
    images = torch.from_numpy(random_images(0, 2, 48, 64))
    planar = images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert torch.equal(resample(planar, (28, 28)), resample(images, (28, 28)))


def test_the_same_size_is_the_same_image() -> None:
    images = torch.from_numpy(random_images(0, 1, 5, 7))
    assert torch.equal(resample(images, (7, 5)), images)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(1, 4, 4, 3),
        torch.zeros(4, 4, 3, dtype=torch.uint8),
        torch.zeros(1, 0, 4, 3, dtype=torch.uint8),
        torch.zeros(0, 4, 4, 3, dtype=torch.uint8),
    ],
)
def test_other_inputs_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="uint8"):
        resample(images, (2, 2))


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="0x2"):
        resample(torch.zeros(1, 4, 4, 3, dtype=torch.uint8), (0, 2))
    with pytest.raises(ValueError, match="40000 px cannot be shrunk to 1 px"):
        resample(torch.zeros(1, 1, 40000, 3, dtype=torch.uint8), (1, 1))
