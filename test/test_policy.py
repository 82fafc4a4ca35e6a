"""The policy on random weights: shapes, batching, seeds, checkpoints and their errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from integration.random_policy import save_random_policy

from internvla_ros.model.checkpoint import CheckpointError
from internvla_ros.model.policy import Policy

INSTRUCTIONS = [
    "put the red cube in the blue bowl",
    "take the green ball and place it on the red plate",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_policy(tmp_path_factory.mktemp("policy"), silent=False)


@pytest.fixture(scope="module")
def policy(folder: Path) -> Policy:
    return Policy.from_pretrained(folder)


def views(seed: int, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """A front and a wrist view of noise."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(2)]


def observation(policy: Policy, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """States and points of a batch."""
    rng = np.random.default_rng(1)
    return rng.normal(size=(batch, policy.config.actor.state_dim)), rng.random((batch, 2, 2))


def test_padded_batch_gives_what_single_calls_give(policy: Policy) -> None:
    images = [views(0), views(1, (120, 90))]
    states, points = observation(policy, 2)
    together = policy.act(images, policy.plan(images, INSTRUCTIONS), states, points)
    for row in range(2):
        one = slice(row, row + 1)
        alone = policy.act(
            images[one], policy.plan(images[one], INSTRUCTIONS[one]), states[one], points[one]
        )
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5)


def test_without_noise_the_likeliest_chunk_is_made_whatever_the_seed(folder: Path) -> None:
    policy = Policy.from_pretrained(folder)
    states, points = observation(policy, 1)

    def chunk(scale: float, seed: int) -> np.ndarray:
        policy.actor.config = replace(policy.config, noise_scale=scale)
        return policy.act([[]], None, states, points, seed=seed)

    np.testing.assert_array_equal(chunk(0.0, 1), chunk(0.0, 2))
    assert np.abs(chunk(1.0, 1) - chunk(1.0, 2)).max() > 1e-4
    quiet, loud = (np.abs(chunk(s, 1) - chunk(0.0, 1)).mean() for s in (0.1, 1.0))
    assert quiet < loud


def test_looking_in_a_batch_says_what_single_looks_say(policy: Policy) -> None:
    images = [views(0), views(1)]
    _, together = policy.look(images, INSTRUCTIONS, trace=True)
    for row in range(2):
        one = slice(row, row + 1)
        _, alone = policy.look(images[one], INSTRUCTIONS[one], trace=True)
        assert alone[0].text == together[row].text
        assert len(alone[0].text) > 20


def test_drafts_do_not_change_the_answer(policy: Policy) -> None:
    drafts: dict[str, list[int]] = {}
    for seed in (0, 0, 1):
        _, drafted = policy.look([views(seed)], INSTRUCTIONS[:1], drafts=drafts)
        _, plain = policy.look([views(seed)], INSTRUCTIONS[:1])
        assert drafted[0].text == plain[0].text
    assert set(drafts) == {"boxes", "points"}


def test_noise_depends_on_the_seed_alone(policy: Policy) -> None:
    images, (states, points) = [views(0)], observation(policy, 1)
    plan = policy.plan(images, INSTRUCTIONS[:1])
    first = policy.act(images, plan, states, points, seed=3)
    torch.manual_seed(99)
    np.testing.assert_array_equal(first, policy.act(images, plan, states, points, seed=3))
    assert not np.allclose(first, policy.act(images, plan, states, points, seed=4))
    assert first.shape == (1, policy.config.actor.chunk_size, 7)
    assert set(np.unique(first[..., 6])) <= {0.0, 1.0}


def test_steps_and_guidance_are_honoured_at_every_call(policy: Policy) -> None:
    with torch.no_grad():  # fresh actors end in zeros: nothing would depend on anything
        policy.actor.dit.final.weight.normal_(std=0.05)
    images, (states, points) = [views(0)], observation(policy, 1)
    plan = policy.plan(images, INSTRUCTIONS[:1])

    def act(**options: float) -> np.ndarray:
        return policy.act(images, plan, states, points, **options)[..., :6]  # type: ignore[arg-type]

    usual = act()
    assert not np.allclose(usual, act(num_ddim_steps=5), atol=1e-7)
    assert not np.allclose(usual, act(guidance=3.0), atol=1e-9)
    np.testing.assert_array_equal(usual, act(num_ddim_steps=10, guidance=1.0))
    withheld = policy.act([[]], None, states, points)[..., :6]
    np.testing.assert_allclose(withheld, act(guidance=0.0), atol=1e-6)


def test_wrong_input_is_refused_in_words(policy: Policy) -> None:
    states, points = observation(policy, 1)
    plan = policy.plan([views(0)], INSTRUCTIONS[:1])
    with pytest.raises(ValueError, match="uint8"):
        policy.plan([[np.zeros((4, 4))]], INSTRUCTIONS[:1])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="2 views"):
        policy.act([views(0)[:1]], plan, states, points)
    with pytest.raises(ValueError, match="state"):
        policy.act([views(0)], plan, states[:, :3], points)
    with pytest.raises(ValueError, match="points must be"):
        policy.act([views(0)], plan, states, points[:, :1])
    with pytest.raises(CheckpointError, match="no statistics named 'mars'"):
        policy.act([views(0)], plan, states, points, unnorm_key="mars")


def test_checkpoint_faults_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        Policy.from_pretrained(tmp_path / "none")
    with pytest.raises(CheckpointError, match="lacks"):
        Policy.from_pretrained(tmp_path)
    for name in ("truncated", "reshaped", "unknown entry"):
        broken = tmp_path / name
        broken.mkdir()
        for path in folder.iterdir():
            (broken / path.name).write_bytes(path.read_bytes())
        weights, config = broken / "model.safetensors", broken / "config.json"
        if name == "truncated":
            weights.write_bytes(weights.read_bytes()[:-1000])
        elif name == "reshaped":
            config.write_text(config.read_text().replace('"chunk_size": 16', '"chunk_size": 8'))
        else:
            config.write_text(config.read_text().replace('"guidance"', '"guidence"'))
        expected = {"truncated": "corrupt", "reshaped": "other shape", "unknown entry": "guidence"}
        with pytest.raises(CheckpointError, match=expected[name]):
            Policy.from_pretrained(broken)
