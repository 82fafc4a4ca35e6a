"""Our way of computing Qwen2.5-VL and DINOv2 against transformers' own, on random weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    RepetitionPenaltyLogitsProcessor,
)

from internvla_ros.model.config import VisionExpertConfig
from internvla_ros.model.decoding import penalised
from internvla_ros.model.language_model import KeyValueCache, hidden_states
from internvla_ros.model.reader import rotary_positions
from internvla_ros.model.vision_expert import VisionExpert, resampled_positions
from internvla_ros.model.vision_tower import VisionTower, window_order

IMAGE = 60
SPECIAL = {"image_token_id": IMAGE, "video_token_id": 61, "vision_start_token_id": 62}


@pytest.fixture(scope="module")
def vlm() -> Qwen2_5_VLForConditionalGeneration:
    """A very small Qwen2.5-VL."""
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 64,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "initializer_range": 0.2,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [1, 1, 2],
            },
        },
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 32,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "window_size": 112,
            "initializer_range": 0.2,
            "fullatt_block_indexes": [1],
        },
        **SPECIAL,
    )
    return Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation="sdpa")


GRIDS = st.tuples(st.integers(1, 6), st.integers(1, 6)).map(lambda g: (2 * g[0], 2 * g[1]))


@given(st.lists(GRIDS, min_size=1, max_size=3))
@settings(max_examples=25, deadline=None)
def test_vision_tower_for_any_sizes(
    vlm: Qwen2_5_VLForConditionalGeneration, grids: list[tuple[int, int]]
) -> None:
    generator = torch.Generator().manual_seed(1)
    count = sum(rows * columns for rows, columns in grids)
    patches = torch.randn(count, 3 * 2 * 14 * 14, generator=generator)
    grid = torch.tensor([(1, *g) for g in grids])
    with torch.no_grad():
        theirs = vlm.model.visual(patches, grid_thw=grid).pooler_output
        ours = VisionTower(vlm.model.visual)(patches, tuple(grids))
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_layouts_made_at_inference_serve_training(vlm: Qwen2_5_VLForConditionalGeneration) -> None:
    tower, patches = VisionTower(vlm.model.visual), torch.randn(16, 1176)
    with torch.inference_mode():
        tower(patches, ((4, 4),))
    tower(patches, ((4, 4),)).sum().backward()
    assert vlm.model.visual.blocks[0].attn.qkv.weight.grad is not None
    vlm.zero_grad()


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5))
def test_windows_hold_every_group_once(rows: int, columns: int, side: int) -> None:
    order, sizes = window_order(rows, columns, side)
    assert sorted(order.tolist()) == list(range(rows * columns))
    assert sum(sizes) == rows * columns
    assert max(sizes) <= side * side


@pytest.mark.parametrize("padding", [0, 3])
def test_language_model_at_every_depth(
    vlm: Qwen2_5_VLForConditionalGeneration, padding: int
) -> None:
    model = vlm.model.language_model
    torch.manual_seed(2)
    embeds = torch.randn(2, 10, 32)
    positions = torch.arange(10).expand(3, 2, -1)
    mask = torch.ones(2, 10, dtype=torch.long)
    mask[0, :padding] = 0
    with torch.no_grad():
        theirs = model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            output_hidden_states=True,
        ).hidden_states
        ours = hidden_states(model, embeds, positions, mask if padding else None, range(4))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine[mask.bool()], other[mask.bool()], atol=1e-5, rtol=1e-4)
        assert bool(mine.isfinite().all())


def test_layers_above_the_wanted_ones_are_not_run(
    vlm: Qwen2_5_VLForConditionalGeneration, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = vlm.model.language_model
    monkeypatch.setattr(model.layers[2], "self_attn", None)  # would fail if it were used
    with torch.no_grad():
        (state,) = hidden_states(
            model, torch.randn(1, 4, 32), torch.arange(4).expand(3, 1, -1), wanted=[2]
        )
    assert state.shape == (1, 4, 32)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_reading_in_pieces_is_reading_at_once(
    vlm: Qwen2_5_VLForConditionalGeneration, pieces: list[int], forgotten: int
) -> None:
    model = vlm.model.language_model
    generator = torch.Generator().manual_seed(3)
    embeds = torch.randn(1, sum(pieces), 32, generator=generator)
    positions = torch.arange(sum(pieces)).expand(3, 1, -1)
    cache, start, parts = KeyValueCache(), 0, []
    with torch.no_grad():
        (whole,) = hidden_states(model, embeds, positions, wanted=[3])
        for length in pieces:
            stop = start + length
            if start and forgotten:  # a wrong guess, read and taken back
                noise = torch.randn(1, forgotten, 32, generator=generator)
                places = torch.arange(start, start + forgotten).expand(3, 1, -1)
                hidden_states(model, noise, places, wanted=[3], cache=cache)
                cache.forget(forgotten)
            (part,) = hidden_states(
                model, embeds[:, start:stop], positions[..., start:stop], None, [3], cache
            )
            parts.append(part)
            start = stop
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-4)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=3),
    st.integers(1, 3),
    st.integers(0, 3),
)
@settings(max_examples=30, deadline=None)
def test_rotary_positions(
    vlm: Qwen2_5_VLForConditionalGeneration, grids: list[tuple[int, int]], before: int, after: int
) -> None:
    ids = [5] * before
    for rows, columns in grids:
        ids += [62, *([IMAGE] * rows * columns), 63]
    ids += [7] * after
    tokens = torch.tensor([ids])
    theirs, _ = vlm.model.get_rope_index(
        tokens,
        mm_token_type_ids=(tokens == IMAGE).int(),
        image_grid_thw=torch.tensor([(1, 2 * rows, 2 * columns) for rows, columns in grids]),
        attention_mask=torch.ones_like(tokens),
    )
    assert torch.equal(rotary_positions(ids, IMAGE, grids), theirs[:, 0])


@pytest.mark.parametrize(
    "grids", [[], [(1, 1)], [(1, 3)], [(1, 2), (1, 1)]], ids=["none", "fewer", "more", "another"]
)
def test_image_tokens_must_fit_the_views(grids: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="image tokens"):
        rotary_positions([1, IMAGE, IMAGE, 2], IMAGE, grids)


def test_repetition_penalty() -> None:
    generator = torch.Generator().manual_seed(4)
    logits, seen = torch.randn(2, 20, generator=generator), torch.tensor([[1, 2, 2], [3, 3, 19]])
    theirs = RepetitionPenaltyLogitsProcessor(1.3)(seen, logits.clone())
    torch.testing.assert_close(penalised(logits, seen, 1.3), theirs)
    assert torch.equal(penalised(logits, seen, 1.0), logits)


def test_dinov2_at_its_own_size() -> None:
    """Where no position is resampled, transformers' DINOv2 is the original."""
    torch.manual_seed(5)
    config = {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
    }
    expert = VisionExpert(VisionExpertConfig(config, 56), 8).eval()
    pixels = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        theirs = expert.body(pixels).last_hidden_state[:, 1:]
        torch.testing.assert_close(expert.patch_tokens(pixels), theirs, atol=1e-5, rtol=1e-4)
    assert isinstance(expert.body, Dinov2Model)
    assert isinstance(expert.body.config, Dinov2Config)


@given(st.integers(2, 12), st.integers(2, 12))
@settings(max_examples=20, deadline=None)
def test_resampled_positions_keep_what_is_constant(rows: int, columns: int) -> None:
    table = torch.cat([torch.zeros(1, 1, 3), torch.full((1, 49, 3), 0.5)], dim=1)
    resampled = resampled_positions(table, rows, columns)
    assert resampled.shape == (1, 1 + rows * columns, 3)
    torch.testing.assert_close(resampled[:, 1:], torch.full((1, rows * columns, 3), 0.5))
