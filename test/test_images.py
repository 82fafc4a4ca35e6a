"""Views as network inputs: what may come in, the released processors' numbers, pixel mapping."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as released

from internvla_ros.model.image_sizes import (
    MAX_PIXELS,
    MIN_PIXELS,
    ResizePath,
    expert_path,
    planner_path,
    smart_size,
)
from internvla_ros.model.images import (
    CLIP_MEAN,
    CLIP_STD,
    at_image_size,
    expert_pixels,
    normalise,
    planner_pixels,
    qwen_patches,
    resize,
    to_tensor,
)

FIXTURE = Path(__file__).resolve().parents[2] / "shared" / "parity" / "fixture_dev"
SIDES = st.integers(1, 2000)
SMALL = st.integers(20, 300)

recorded = pytest.mark.skipif(
    not FIXTURE.is_dir(), reason="the recorded reference lies outside the repository and is absent"
)


def noise(width: int, height: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=generator)


# The released processors' numbers


@pytest.fixture(scope="module")
def hashes() -> dict[str, Any]:
    """What was recorded of each sample's inputs."""
    return json.loads((FIXTURE / "reference.json").read_text())


def sample_views(number: int) -> tuple[list[Tensor], tuple[int, int] | None]:
    sample = json.loads((FIXTURE / "samples.json").read_text())["samples"][number]
    size = sample["image_size"]
    views = [to_tensor(Image.open(FIXTURE / path)) for path in sample["images"]]
    return views, None if size is None else (size[0], size[1])


def sha256(values: Tensor) -> str:
    assert values.dtype == torch.float32
    return hashlib.sha256(values.contiguous().numpy().astype("<f4").tobytes()).hexdigest()


@recorded
@pytest.mark.parametrize("number", range(5))
def test_planner_input_is_bit_exact(hashes: dict[str, Any], number: int) -> None:
    views, size = sample_views(number)
    patches, grid = planner_pixels(views, size)
    expected = np.load(FIXTURE / "reference.npz")[f"s{number}.image_grid_thw"]
    np.testing.assert_array_equal(grid.numpy(), expected)
    assert sha256(patches) == hashes[f"s{number}"]["pixel_values_sha256"]


@recorded
@pytest.mark.parametrize("number", range(5))
def test_expert_input_is_bit_exact(hashes: dict[str, Any], number: int) -> None:
    views, size = sample_views(number)
    assert sha256(expert_pixels(views, size)) == hashes[f"s{number}"]["dino_input_sha256"]


@given(SMALL, SMALL, st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_any_size_gives_the_released_processors_patches(width: int, height: int, seed: int) -> None:
    view = noise(width, height, seed)
    processor = released.Qwen2VLImageProcessorPil()
    processor.size = {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS}
    theirs = processor([Image.fromarray(view.numpy())], return_tensors="pt")
    patches, grid = planner_pixels([view], None)
    assert torch.equal(grid, theirs["image_grid_thw"])
    assert torch.equal(patches, theirs["pixel_values"])


# Views of several sizes


def test_views_of_several_sizes_keep_their_order() -> None:
    views = [noise(100, 60, 1), noise(56, 84, 2), noise(100, 60, 3)]
    patches, grid = planner_pixels(views, None)
    alone = [planner_pixels([view], None) for view in views]
    assert torch.equal(patches, torch.cat([rows for rows, _ in alone]))
    assert torch.equal(grid, torch.cat([one for _, one in alone]))
    assert grid.tolist() == [[1, 4, 8], [1, 6, 4], [1, 4, 8]]


def test_a_common_size_makes_one_batch_of_several_cameras() -> None:
    views = [noise(320, 240, 1), noise(200, 200, 2), noise(320, 240, 3)]
    pixels = expert_pixels(views, (224, 224))
    assert pixels.shape == (3, 3, 224, 224)
    for view, row in zip(views, pixels, strict=True):
        assert torch.equal(expert_pixels([view], (224, 224))[0], row)


def test_the_shared_step_can_be_taken_once() -> None:
    views = [noise(320, 240, 1), noise(200, 200, 2)]
    once = at_image_size(views, (190, 200))
    assert torch.equal(planner_pixels(once, None)[0], planner_pixels(views, (190, 200))[0])
    assert torch.equal(expert_pixels(once, None), expert_pixels(views, (190, 200)))


def test_expert_views_must_come_out_at_one_size() -> None:
    with pytest.raises(ValueError, match="224x224, 294x224"):
        expert_pixels([noise(320, 240), noise(200, 200)], None)


@pytest.mark.parametrize("size", [(320, 240), (240, 320), (100, 61), (31, 500)])
def test_any_aspect_ratio_gives_whole_expert_patches(size: tuple[int, int]) -> None:
    pixels = expert_pixels([noise(*size)], None)
    assert min(pixels.shape[2:]) == 224
    assert pixels.shape[2] % 14 == pixels.shape[3] % 14 == 0
    assert (pixels.shape[3] > pixels.shape[2]) == (size[0] > size[1])


def test_no_views_and_raw_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="no views"):
        planner_pixels([], (224, 224))
    with pytest.raises(ValueError, match="no views"):
        expert_pixels([], (224, 224))
    with pytest.raises(ValueError, match="float32"):
        planner_pixels([torch.zeros(4, 4, 3)], (224, 224))


def test_patches_hold_the_view_pixel_for_pixel() -> None:
    image = noise(56, 84)
    patches, grid = qwen_patches(image[None], 14, 2, 2)
    pixels = normalise(image[None], CLIP_MEAN, CLIP_STD)[0]
    assert grid.tolist() == [[1, 6, 4]]
    tiles = patches.view(3, 2, 2, 2, 3, 2, 14, 14)
    for block_row, block_column, row, column in np.ndindex(3, 2, 2, 2):
        y, x = 14 * (2 * block_row + row), 14 * (2 * block_column + column)
        tile = tiles[block_row, block_column, row, column]
        assert torch.equal(tile[:, 0], pixels[:, y : y + 14, x : x + 14])
        assert torch.equal(tile[:, 1], tile[:, 0])


# What may come in


def test_every_kind_of_image_is_the_same_tensor() -> None:
    array = noise(7, 5).numpy()
    frozen = array.copy()
    frozen.flags.writeable = False
    tensor = torch.from_numpy(array)
    for image in (
        array,
        frozen,
        array[::-1].copy()[::-1],
        Image.fromarray(array),
        tensor,
        tensor.permute(2, 0, 1),
        tensor.double() / 255,
        tensor.permute(2, 0, 1).float() / 255,
    ):
        assert torch.equal(to_tensor(image, "cpu"), tensor)


def test_pil_modes_become_rgb() -> None:
    grey = Image.fromarray(np.full((2, 3), 77, np.uint8))
    assert bool((to_tensor(grey) == 77).all())
    assert to_tensor(grey).shape == (2, 3, 3)
    clear = Image.new("RGBA", (3, 2), (10, 20, 30, 0))
    assert to_tensor(clear)[0, 0].tolist() == [10, 20, 30]
    for mode in ("1", "P", "CMYK", "LA"):
        assert to_tensor(Image.new(mode, (3, 2))).shape == (2, 3, 3)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 4, 3)), "uint8"),
        (np.zeros((4, 4), np.uint8), "height, width, 3"),
        (np.zeros((0, 4, 3), np.uint8), "height, width, 3"),
        (np.zeros((), np.uint8), "height, width, 3"),
        (torch.zeros(4, 4, 4, dtype=torch.uint8), "height, width, 3"),
        (torch.zeros(3, 0, 4, dtype=torch.uint8), "height, width, 3"),
        (torch.zeros(4, 4, 3, dtype=torch.int64), "int64"),
        (torch.full((4, 4, 3), torch.nan), "NaN"),
        (torch.full((4, 4, 3), 255.0), r"0\.\.1"),
        (torch.full((4, 4, 3), -0.1), r"0\.\.1"),
        (Image.new("I;16", (4, 4)), "I;16"),
        (Image.new("F", (4, 4)), "mode F"),
        (Image.new("RGB", (0, 4)), "one pixel"),
        ("view.png", "PIL image"),
    ],
)
def test_other_inputs_are_refused_with_words(image: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        to_tensor(image)


def test_arrays_are_resized_as_pillow_does() -> None:
    array = noise(64, 48).numpy()
    expected = np.asarray(Image.fromarray(array).resize((28, 28)))
    np.testing.assert_array_equal(resize(array, (28, 28)), expected)


# Sizes


@given(SIDES, SIDES, st.sampled_from([14, 28, 32]), st.integers(1, 10**6), st.integers(1, 10**6))
@settings(max_examples=300, deadline=None)
def test_smart_size_is_the_released_processors(
    width: int, height: int, factor: int, low: int, high: int
) -> None:
    assume(max(width, height) <= 200 * min(width, height))
    low, high = min(low, high), max(low, high)
    theirs = released.smart_resize(height, width, factor, low, high)
    assert smart_size(width, height, factor, low, high) == (theirs[1], theirs[0])


@given(SIDES, SIDES)
@settings(max_examples=200, deadline=None)
def test_smart_size_keeps_its_bounds(width: int, height: int) -> None:
    assume(max(width, height) <= 200 * min(width, height))
    size = smart_size(width, height)
    assert size[0] % 28 == size[1] % 28 == 0
    assert MIN_PIXELS <= size[0] * size[1] <= MAX_PIXELS


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 10), "at least one pixel"),
        ((2010, 10), "200 times"),
        ((10, 10, 28, 100, 50), "min_pixels"),
        ((10, 10, 0), "factor"),
    ],
)
def test_impossible_sizes_are_refused(arguments: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        smart_size(*arguments)


def test_expert_sizes() -> None:
    assert expert_path((640, 480), None).model == (294, 224)
    assert expert_path((480, 640), None).model == (224, 294)
    assert expert_path((640, 480), (190, 190)).sizes == ((640, 480), (190, 190), (224, 224))
    with pytest.raises(ValueError, match="multiple of 14"):
        expert_path((640, 480), None, shorter=225)
    with pytest.raises(ValueError, match="200 times"):
        expert_path((640, 3), None)


def test_planner_sizes() -> None:
    assert planner_path((640, 480), None).model == (644, 476)
    assert planner_path((640, 480), (224, 224)).model == (224, 224)
    assert planner_path((640, 480), (190, 190)).sizes == ((640, 480), (190, 190), (196, 196))


# Pixels of the original image


@st.composite
def paths(draw: st.DrawFn, sides: st.SearchStrategy[int] = SIDES) -> ResizePath:
    """The way of a view of any size into either network, with or without a first resize."""
    size = (draw(sides), draw(sides))
    first = draw(st.none() | st.tuples(st.integers(28, 400), st.integers(28, 400)))
    narrow = first or size
    assume(max(narrow) <= 200 * min(narrow))
    return planner_path(size, first) if draw(st.booleans()) else expert_path(size, first)


POINTS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8)


@given(paths(), POINTS)
@settings(max_examples=300, deadline=None)
def test_coordinates_survive_the_way_there_and_back(
    path: ResizePath, fractions: list[tuple[float, float]]
) -> None:
    points = np.array(fractions) * path.original
    np.testing.assert_allclose(path.to_original(path.to_model(points)), points, rtol=0, atol=1e-9)
    corners = [[0, 0], path.original]
    np.testing.assert_allclose(path.to_model(corners), [[0, 0], path.model], rtol=0, atol=1e-9)


@given(paths(), POINTS)
@settings(max_examples=300, deadline=None)
def test_whole_pixels_cost_half_a_pixel_of_the_networks_image(
    path: ResizePath, fractions: list[tuple[float, float]]
) -> None:
    points = np.array(fractions) * path.original
    back = path.to_original(np.round(path.to_model(points)))
    one_pixel = np.array(path.original) / path.model
    assert bool((np.abs(back - points) <= 0.5 * one_pixel + 1e-9).all())


def blob(width: int, height: int, centre: np.ndarray, radius: float) -> Tensor:
    """A soft white spot on black; `centre` (x, y) in pixels with edges at 0."""
    x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    squares = (x - centre[0]) ** 2 + (y - centre[1]) ** 2
    bright = np.exp(-squares / (2 * radius**2)) * 255
    return torch.from_numpy(np.repeat(np.round(bright)[..., None], 3, 2).astype(np.uint8))


def centroid(bright: np.ndarray) -> np.ndarray:
    height, width = bright.shape
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    return np.array([bright.sum(0) @ x, bright.sum(1) @ y]) / bright.sum()


@given(SMALL, SMALL, st.none() | st.tuples(SMALL, SMALL), st.floats(0.4, 0.6), st.floats(0.4, 0.6))
@settings(max_examples=40, deadline=None)
def test_a_spot_moves_as_the_mapping_says(
    width: int, height: int, first: tuple[int, int] | None, right: float, down: float
) -> None:
    spot = np.array([width * right, height * down])
    view = blob(width, height, spot, min(width, height) / 12)

    patches, grid = planner_pixels([view], first)
    rows, columns = grid[0, 1:].tolist()
    tiles = patches.view(rows // 2, columns // 2, 2, 2, 3, 2, 14, 14)[..., 0, 0, :, :]
    planner_view = tiles.permute(0, 2, 4, 1, 3, 5).reshape(14 * rows, 14 * columns)
    expert_view = expert_pixels([view], first)[0, 0]

    for path, seen in (
        (planner_path((width, height), first), planner_view),
        (expert_path((width, height), first), expert_view),
    ):
        bright = seen.double().numpy()
        assert bright.shape == path.model[::-1]
        moved = centroid(bright - bright.min()) - path.to_model(spot)
        assert float(np.abs(moved).max()) < 0.5


def test_paths_without_pixels_are_refused() -> None:
    for sizes in ((), ((0, 3),)):
        with pytest.raises(ValueError, match="at least 1x1"):
            ResizePath(sizes)
