"""The policy as its users use it, on a small run in the released layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from integration.small_release import write_release
from PIL import Image

from internvla_ros.model.acceleration import Compiled, CudaGraphs, runner, signature
from internvla_ros.model.actor import Actor
from internvla_ros.model.planner import Planner
from internvla_ros.model.policy import PROMPT_BLOCK, Policy
from internvla_ros.model.quantise import Int8Linear, quantise
from internvla_ros.spatial.types import Turn

KEY = "with_mask"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("released") / "run")


@pytest.fixture
def policy(run: Path) -> Policy:
    return Policy.from_pretrained(run)


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_parts_alone_do_what_the_whole_does(policy: Policy, run: Path) -> None:
    planner, actor = Planner.from_pretrained(run), Actor.from_pretrained(run)
    assert not any("vlm" in name for name, _ in actor.named_parameters())
    assert not any("dit" in name for name, _ in planner.named_parameters())
    images = [[picture(80, 60)]]
    apart = actor.act(images, planner.plan(images, ["Pick"]), unnorm_key=KEY)
    np.testing.assert_array_equal(apart, policy.predict(images, ["Pick"], unnorm_key=KEY))
    assert apart.shape == (1, 8, 7)


@pytest.mark.parametrize("views", [1, 2, 3])
def test_any_number_of_views(policy: Policy, views: int) -> None:
    images = [[picture(64, 48, seed) for seed in range(views)]]
    tokens = policy.plan(images, ["pick"]).hidden_states.shape[2]
    one = policy.plan([images[0][:1]], ["pick"]).hidden_states.shape[2]
    assert tokens == one + (views - 1) * (4 + 2)  # 56 px are 2 x 2 merged tokens, and two brackets
    assert policy.predict(images, ["pick"], unnorm_key=KEY).shape == (1, 8, 7)


def test_numpy_pil_and_tensors_are_the_same_image(policy: Policy) -> None:
    array = picture(90, 70)
    forms = [array, Image.fromarray(array), torch.from_numpy(array).permute(2, 0, 1)]
    first, *others = [policy.predict([[f]], ["pick"], unnorm_key=KEY) for f in forms]
    for other in others:
        np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize("image_size", [(56, 56), None])
def test_a_batch_of_any_shapes_gives_what_single_calls_give(
    policy: Policy, image_size: tuple[int, int] | None
) -> None:
    config = replace(policy.config, planner=replace(policy.config.planner, image_size=image_size))
    policy.planner.policy_config, policy.planner.config = config, config.planner
    policy.actor.config = config
    images = [[picture(120, 60)], [picture(56, 84), picture(70, 70)]]
    words = ["pick up the cup", "pick"]
    together = policy.predict(images, words, unnorm_key=KEY)
    for row in range(2):
        alone = policy.predict(images[row : row + 1], words[row : row + 1], unnorm_key=KEY)
        np.testing.assert_allclose(together[row], alone[0], atol=2e-5)


def test_the_instruction_is_lower_cased_and_the_template_is_not(policy: Policy) -> None:
    assert policy.planner.prompt("Put the CUP") == "Your task is put the cup."
    images = [[picture(56, 56)]]
    loud, quiet = (policy.plan(images, [w]).hidden_states for w in ("PICK IT", "pick it"))
    assert torch.equal(loud, quiet)


def test_equal_seeds_give_equal_chunks_and_samplers_differ(policy: Policy) -> None:
    images = [[picture(56, 56)]]
    plan = policy.plan(images, ["pick"])

    def act(**options: object) -> np.ndarray:
        return policy.act(images, plan, unnorm_key=KEY, **options)

    np.testing.assert_array_equal(act(seed=1), act(seed=1))
    for other in (
        {"seed": 2},
        {"num_ddim_steps": 3},
        {"guidance": 3.0},
        {"sampler": "dpm-solver++"},
    ):
        assert not np.allclose(act(seed=1), act(**{"seed": 1, **other}), atol=1e-9)
    with pytest.raises(ValueError, match="no sampler 'euler'"):
        act(sampler="euler")
    with pytest.raises(ValueError, match="noise must be"):
        act(noise=torch.zeros(1, 8, 6))
    with pytest.raises(ValueError, match="a plan of 1 samples"):
        policy.act(images * 2, plan, unnorm_key=KEY)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("size", [(56, 56), (97, 61), (40, 230), (500, 41)])
def test_answers_are_in_pixels_of_the_image_given(
    policy: Policy, native: bool, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A box in the model's own pixels comes back at the same share of the image."""
    planner = policy.planner
    planner.config = replace(planner.config, native_answers=native)
    text = '[{"bbox_2d": [7, 7, 21, 28], "label": "cup"}]'
    said = planner.chat_format.tokenizer.encode(text, add_special_tokens=False)
    monkeypatch.setattr("internvla_ros.model.planner.greedy", lambda *_: [said])
    (box,) = policy.ground(picture(*size), "cup").boxes
    rows, columns = planner.grid(size, None if native else (56, 56))
    assert (box.x1, box.x2) == pytest.approx(
        (size[0] * 7 / (14 * columns), size[0] * 21 / (14 * columns))
    )
    assert (box.y1, box.y2) == pytest.approx(
        (size[1] * 7 / (14 * rows), size[1] * 28 / (14 * rows))
    )


def test_grounding_and_chat_stop_and_go_on(policy: Policy) -> None:
    image = picture(56, 56)
    with pytest.raises(ValueError, match="kind 'circle'"):
        policy.ground(image, "cup", "circle")  # type: ignore[arg-type]
    whole = policy.planner.chat_ids([image], "Where?", max_tokens=12)
    assert whole == policy.planner.chat_ids([image], "Where?", max_tokens=12)
    assert policy.planner.chat_ids([image], "Where?", max_tokens=5) == whole[:5]
    text = policy.chat([image], "Where?", max_tokens=12, repetition_penalty=1e6)
    stop = text[len(text) // 2]
    stopped = policy.chat([image], "Where?", stop=[stop], repetition_penalty=1e6)
    assert stopped == text.split(stop)[0]
    assert policy.chat([], "Where?", history=[Turn("What?", "a cup")], max_tokens=3) is not None
    with pytest.raises(ValueError, match="at least one token"):
        policy.chat([image], "Where?", max_tokens=0)


def test_a_conversation_is_written_as_the_model_was_taught(policy: Policy) -> None:
    chat = policy.planner.chat_format
    ids = chat.conversation([Turn("What?", "a cup"), Turn("Where?", "")], [2])
    assert chat.tokenizer.decode(ids) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|image_pad|><|vision_end|>What?<|im_end|>\n"
        "<|im_start|>assistant\na cup<|im_end|>\n"
        "<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_repetition_penalty_forbids_what_was_said(policy: Policy) -> None:
    ids = policy.planner.chat_ids(
        [picture(56, 56)], "Where?", max_tokens=20, repetition_penalty=1e6
    )
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_plans_pass_through_arrays_unchanged(run: Path, dtype: torch.dtype) -> None:
    from internvla_ros.model.plan import plan_from_arrays, plan_to_arrays

    policy = Policy.from_pretrained(run, dtype=dtype)
    images = [[picture(64, 48)]]
    plan = policy.plan(images, ["pick"])
    assert plan.hidden_states.dtype == dtype
    there_and_back = plan_from_arrays(*plan_to_arrays(plan), "pick")
    np.testing.assert_array_equal(
        policy.act(images, plan, unnorm_key=KEY),
        policy.act(images, there_and_back, unnorm_key=KEY),
    )


def test_prompts_padded_for_static_shapes_change_nothing(policy: Policy) -> None:
    images = [[picture(56, 56)]]
    plain = policy.predict(images, ["pick"], unnorm_key=KEY)
    policy.planner.length_multiple = PROMPT_BLOCK
    plan = policy.plan(images, ["pick"])
    assert plan.hidden_states.shape[2] % PROMPT_BLOCK == 0
    np.testing.assert_allclose(policy.act(images, plan, unnorm_key=KEY), plain, atol=2e-5)


def test_cuda_graphs_need_a_gpu_and_signatures_tell_shapes_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="NVIDIA"):
        CudaGraphs()
    assert isinstance(runner(compiled=True), Compiled)
    one = torch.zeros(2, 3)
    assert signature(one) == signature(one + 1)
    for other in (torch.zeros(3, 2), one.double(), None, 1.5):
        assert signature(one) != signature(other)
    with pytest.raises(TypeError, match="hashable"):
        signature([one])


def test_warming_up_needs_no_robot(policy: Policy) -> None:
    policy.warm_up(views=2, size=(48, 64))


@given(st.integers(0, 2**31), st.floats(1e-6, 1e3))
@settings(max_examples=30, deadline=None)
def test_int8_weights_are_near(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    linear = torch.nn.Linear(16, 5)
    linear.weight.data = torch.randn(5, 16, generator=generator) * scale
    x = torch.randn(3, 16, generator=generator)
    bound = linear.weight.abs().amax(dim=1) / 254 * 1.001 * x.abs().sum(dim=1, keepdim=True)
    with torch.no_grad():
        error = (Int8Linear(linear)(x) - linear(x)).abs()
    assert bool((error <= bound + 1e-5 * scale).all())


def test_int8_replaces_the_language_model_and_keeps_its_sense(policy: Policy) -> None:
    images, language = [[picture(56, 56)]], policy.planner.vlm.model.language_model
    before = policy.plan(images, ["pick"]).hidden_states
    saved = quantise(language)
    after = policy.plan(images, ["pick"]).hidden_states
    assert saved == 3 * sum(
        m.weight.numel() for m in language.modules() if isinstance(m, Int8Linear)
    )
    assert torch.nn.functional.cosine_similarity(before, after, dim=-1).min() > 0.999
