"""QFormer, diffusion transformer and sampler against numbers recorded from the released code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from internvla_ros.model.config import ActorConfig, QFormerConfig
from internvla_ros.model.diffusion import Schedule, ddim_sample
from internvla_ros.model.dit import DiT
from internvla_ros.model.guidance import NoisePredictor
from internvla_ros.model.qformer import LayerwiseQFormer

FIXTURE = Path(__file__).resolve().parents[2] / "shared" / "parity" / "fixture_dev"
SAMPLES = ("s0", "s1", "s2", "s3", "s4")

pytestmark = pytest.mark.skipif(
    not FIXTURE.is_dir(), reason="the recorded reference lies outside the repository and is absent"
)


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    """The recorded arrays."""
    return dict(np.load(FIXTURE / "reference.npz"))


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """The recorded checkpoint in float32."""
    path = FIXTURE / "run" / "checkpoints" / "steps_1_pytorch_model.pt"
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {name: value.float() for name, value in state.items()}


@pytest.fixture(scope="module")
def actor(weights: dict[str, Tensor]) -> DiT:
    """Our diffusion transformer with the recorded weights."""
    renamed = {}
    for name, value in weights.items():
        if not name.startswith("action_model.net.") or "history_embedder" in name:
            continue
        for theirs, ours in (
            ("action_model.net.", ""),
            ("x_embedder.linear", "x_embedder"),
            ("t_embedder.mlp", "t_embedder"),
            ("z_embedder.linear", "plan_embedder"),
            ("z_embedder.uncondition", "uncondition"),
            ("final_layer.linear", "final"),
        ):
            name = name.replace(theirs, ours)
        renamed[name] = value
    network = DiT(ActorConfig(hidden_dim=384, depth=6, num_heads=4), 64, 384)
    network.load_state_dict(renamed)
    return network.eval()


def close(ours: Tensor, theirs: np.ndarray, tolerance: float = 2e-5) -> None:
    """Largest difference within the tolerance."""
    assert float((ours.detach() - torch.from_numpy(theirs)).abs().max()) < tolerance


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("timestep", [0, 37, 90, 99])
def test_noise_prediction(
    actor: DiT, reference: dict[str, np.ndarray], sample: str, timestep: int
) -> None:
    noise = torch.from_numpy(reference[f"{sample}.noise"])
    plan = torch.from_numpy(reference[f"{sample}.qformer_out"])
    with torch.no_grad():
        predicted = actor(noise, torch.tensor([timestep]), plan)
    close(predicted, reference[f"{sample}.dit_eps_t{timestep}"])


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize(
    ("name", "steps", "scale"), [("cfg15_ddim10", 10, 1.5), ("nocfg_ddim5", 5, 1.0)]
)
def test_sampled_actions(
    actor: DiT, reference: dict[str, np.ndarray], sample: str, name: str, steps: int, scale: float
) -> None:
    plan = torch.from_numpy(reference[f"{sample}.qformer_out"])
    with torch.no_grad():
        predictor = NoisePredictor(actor, plan, None, None, scale=scale, steps=100)
        actions = ddim_sample(
            predictor,
            torch.from_numpy(reference[f"{sample}.noise"]),
            Schedule.squared_cosine(100),
            steps,
        )
    close(actions, reference[f"{sample}.{name}.normalized_actions"], 5e-5)


def test_schedule(reference: dict[str, np.ndarray]) -> None:
    schedule = Schedule.squared_cosine(100)
    np.testing.assert_allclose(
        schedule.alphas_cumprod.numpy(), reference["schedule.alphas_cumprod"], atol=1e-12
    )
    for steps in (1, 2, 4, 5, 10, 20, 50):
        assert schedule.sampling_timesteps(steps) == (
            reference[f"schedule.ddim{steps}.timestep_map"].tolist()
        )


def test_qformer(weights: dict[str, Tensor], reference: dict[str, np.ndarray]) -> None:
    prefix = "layer_qformer."
    config = QFormerConfig(3, 4, 64, input_dim=64, hidden_dim=384, num_heads=8)
    network = LayerwiseQFormer(config)
    network.load_state_dict(
        {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    )
    network.eval()
    sample = json.loads((FIXTURE / "reference.json").read_text())["s0"]
    assert sample["dino_projected_token_step"] == 1  # every vision token of this sample is stored
    hidden = torch.from_numpy(reference["s0.hidden_states"][3:4])
    vision = torch.from_numpy(reference["s0.dino_projected"])
    with torch.no_grad():
        close(network(hidden, vision, None), reference["s0.qformer_out"])
