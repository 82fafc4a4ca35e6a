"""Numbers recorded from the released code, and the program that compares with them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from integration.small_release import write_release
from PIL import Image

from internvla_ros.model.parity import ParityError, Reference, numbers
from internvla_ros.model.parity_report import Row, compare
from internvla_ros.model.policy import Policy

ROOT = Path(__file__).resolve().parents[1]
FIXTURE = ROOT.parent / "shared" / "parity" / "fixture_dev"


@pytest.mark.skipif(
    not FIXTURE.is_dir(), reason="the recorded reference lies outside the repository and is absent"
)
def test_the_released_numbers_are_reproduced() -> None:
    rows = {row.name: row for row in compare(FIXTURE)}
    assert [row for row in rows.values() if not row.passed] == []
    for name in ("s*.cfg15_ddim10.normalized_actions", "s*.hidden_states", "s*.dino_features"):
        assert rows[name].count == 5
    assert rows["real_size_keys"].count == rows["real_size_keys_before_4.52"].count == 1127
    assert "train_grad_l2" in rows
    assert "batch.one_by_one.normalized_actions" in rows


def record(folder: Path) -> Path:
    """A reference of a small random run, recorded from this implementation.

    One view at image_size 190, two layers for the QFormer, chunks of 8, two datasets: it shows that
    the program goes by what a reference holds, and that it sees what is changed.
    """
    write_release(folder / "run")
    (folder / "inputs").mkdir()
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
    Image.fromarray(picture).save(folder / "inputs" / "view.png")
    prompt = "Your task is {instruction}."
    sample = {"images": ["inputs/view.png"], "instruction": "Put the CUP", "cot_prompt": prompt}
    samples = [
        {"id": "s0", **sample, "image_size": [190, 190]},
        {"id": "s1", **sample, "cot_prompt": None, "image_size": 190},
    ]
    (folder / "samples.json").write_text(json.dumps({"samples": samples}))
    facts = {
        "batch": {"samples": ["s0", "s1"], "cot_prompt": prompt, "image_size": [190, 190]},
        "chat": {"image": "inputs/view.png", "question": "Where?", "max_new_tokens": 4},
        "train": {
            "sample": "s0",
            "instruction_not_lowercased": "Put the CUP",
            "repeated_diffusion_steps": 2,
            "cot_prompt": prompt,
        },
        "train_grad_l2": {"dino_pro.bias": 0.0},
        "train_no_grad": ["dino_encoder.body.mask_token"],
    }
    (folder / "reference.json").write_text(json.dumps(facts))
    np.savez(folder / "reference.npz", **_inputs(rng))
    for _ in range(2):  # some numbers are computed from recorded ones
        reference = Reference.read(folder)
        computed = dict(numbers(Policy.from_pretrained(folder / "run"), reference))
        facts["train_grad_l2"] = {"dino_pro.bias": float(computed.pop("train_grad_l2")[0])}
        computed.pop("train_no_grad")
        (folder / "reference.json").write_text(json.dumps(facts))
        np.savez(folder / "reference.npz", **{**reference.arrays, **computed})
    return folder


def _inputs(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The given arrays, and names of wanted ones with values to be replaced."""

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    given = {
        "unnorm.input": rng.uniform(-2, 2, (5, 7)).astype(np.float32),
        "schedule.timestep_embedding_t": np.array([0, 50]),
        "schedule.ddim5.timestep_map": np.zeros(1),
        "dino.pos_embed_interpolated_14x14": np.zeros(1),
        "batch.noise": normal(2, 8, 7),
        "train.actions": normal(9, 7),
        "train.noise": normal(2, 8, 7),
        "train.timesteps": np.array([3, 80]),
        "train.cond_drop.uniform_draws": np.array([0.05, 0.5], np.float32),
        "train.f32.x_t": normal(2, 8, 7),
        "train.f32.grad.dino_pro.bias": np.zeros(1),
    }
    for sample in ("s0", "s1"):
        given |= {
            f"{sample}.noise": normal(1, 8, 7),
            f"{sample}.pixel_values_row_index": np.array([0, 7]),
            f"{sample}.dit_eps_t37": np.zeros(1),
            f"{sample}.cfg20_ddim5.x": np.zeros(1),
            f"{sample}.qformer_out": normal(1, 8, 384),
        }
    return given


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("reference"))


def program(*arguments: object) -> subprocess.CompletedProcess[str]:
    """bench/parity.py in a process of its own."""
    return subprocess.run(
        [sys.executable, "bench/parity.py", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def failing(rows: list[Row]) -> set[str]:
    return {row.name for row in rows if not row.passed}


def test_any_reference_of_the_layout_is_compared(recorded: Path) -> None:
    result = program(recorded)
    assert result.returncode == 0, result.stdout + result.stderr
    for name in (
        "s*.cfg20_ddim5.actions.without_mask",
        "unnorm.with_mask.output",
        "chat.input_ids",
    ):
        assert name in result.stdout
    with np.load(recorded / "reference.npz") as arrays:
        assert arrays["s0.hidden_states"].shape[0] == 3
        assert arrays["s0.image_grid_thw"].tolist() == [[1, 14, 14]]
        assert arrays["s0.cfg20_ddim5.x"].shape == (6, 1, 8, 7)


def test_a_changed_number_is_found(recorded: Path, tmp_path: Path) -> None:
    changed = _copy(recorded, tmp_path)
    with np.load(recorded / "reference.npz") as stored:
        arrays = dict(stored)
    arrays["s1.hidden_states"][1, 0, 3, 5] += 2e-4
    arrays["schedule.betas"][7] += 1e-11
    arrays["s0.input_ids"] = arrays["s0.input_ids"][:, 1:]
    arrays["s0.cfg20_ddim5.pred_xstart"][:] = np.nan
    np.savez(changed / "reference.npz", **arrays)
    assert failing(compare(changed)) == {
        "s*.hidden_states",
        "schedule.betas",
        "s*.input_ids",
        "s*.cfg20_ddim5.pred_xstart",
    }
    assert "s1.hidden_states" in failing(compare(changed, verbose=True))
    result = program(changed)
    assert result.returncode == 1
    assert "FAILED shape" in result.stdout


def test_changed_weights_are_found(recorded: Path, tmp_path: Path) -> None:
    changed = _copy(recorded, tmp_path)
    path = next((changed / "run" / "checkpoints").glob("*.pt"))
    state = torch.load(path, weights_only=True)
    state["layer_qformer.proj.bias"] += 0.01
    torch.save(state, path)
    failed = failing(compare(changed))
    assert "s*.qformer_out" in failed
    assert "s*.hidden_states" not in failed


def test_an_array_that_is_not_computed_fails() -> None:
    row = Row("s0.new", 1, float("inf"), 1.0, problem="not computed")
    assert not row.passed
    assert not replace(row, problem="").passed


def test_what_is_no_reference_is_refused(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"lacks.*reference\.npz"):
        Reference.read(tmp_path)
    result = program(tmp_path)
    assert result.returncode == 2
    assert "no recorded reference" in result.stderr
    broken = _copy(recorded, tmp_path / "broken")
    (broken / "reference.npz").write_bytes(b"not an archive")
    with pytest.raises(ParityError, match="broken"):
        Reference.read(broken)


def _copy(source: Path, target: Path) -> Path:
    for path in source.rglob("*"):
        if path.is_file():
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (target / path.relative_to(source)).write_bytes(path.read_bytes())
    return target
