"""Released checkpoints: read in all their forms, refused where faulty, and written again."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from integration.small_release import State, run_config, state_dict, statistics, write_release

from internvla_ros.data.normalisation import read_statistics
from internvla_ros.model.actor import Actor
from internvla_ros.model.checkpoint import CheckpointError, load_weights, read_checkpoint
from internvla_ros.model.config import PolicyConfig
from internvla_ros.model.convert import convert, hollow_policy
from internvla_ros.model.hub import older_steps
from internvla_ros.model.policy import Policy
from internvla_ros.model.released import newest, read_released, released_state_dict_shapes
from internvla_ros.model.released_config import qwen_config
from internvla_ros.model.released_names import in_stored_order, to_ours, to_released
from internvla_ros.model.released_writing import save_released

FIXTURE = Path(__file__).resolve().parents[2] / "shared" / "parity" / "fixture_dev"
recorded = pytest.mark.skipif(
    not FIXTURE.is_dir(), reason="the recorded reference lies outside the repository and is absent"
)
EMBEDDING = "planner.vlm.model.language_model.embed_tokens.weight"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("released") / "run")


def state_of(run: Path) -> State:
    """The state dict as anyone would load it."""
    loaded: State = torch.load(newest(run), weights_only=True)
    return loaded


def same_tensors(one: State, other: State) -> bool:
    """Same names in the same order, and the same types and bits."""
    return list(one) == list(other) and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def test_configuration_comes_from_run_base_and_weights(run: Path) -> None:
    config = read_checkpoint(run).config
    assert config.planner.image_size == (56, 56)
    assert config.planner.qwen["text_config"]["num_hidden_layers"] == 2
    assert config.planner.qwen["text_config"]["rope_parameters"]["mrope_section"] == [1, 1, 2]
    assert config.vision.dinov2["num_hidden_layers"] == 1
    assert (config.qformer.start_layer, config.qformer.end_layer) == (1, 3)
    assert (config.actor.hidden_dim, config.actor.depth, config.actor.num_heads) == (384, 6, 4)
    assert (config.actor.chunk_size, config.actor.action_dim, config.actor.history) == (8, 7, True)
    assert config.prompt == "Your task is {instruction}."
    assert PolicyConfig.from_dict(json.loads(config.to_json())) == config


def test_a_policy_acts_on_released_weights(run: Path) -> None:
    policy = Policy.from_pretrained(run)
    state = state_of(run)
    fused = state["dino_encoder.body.blocks.0.attn.qkv.weight"].float()
    attention = policy.actor.vision_expert.body.encoder.layer[0].attention
    parts = [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
    assert torch.equal(torch.cat(parts), fused)
    assert policy.planner.vlm.lm_head.weight is (
        policy.planner.vlm.model.language_model.embed_tokens.weight
    )
    image = np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    actions = policy.predict([[image]], ["Put the cube down"], unnorm_key="with_mask")
    assert actions.shape == (1, 8, 7) and np.isfinite(actions).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"model": state, "step": 20},
        lambda state: {"state_dict": state},
        lambda state: state_dict(old_names=True),
    ],
    ids=["wrapped", "under model", "under state_dict", "old names"],
)
def test_every_way_of_saving_reads_the_same(
    run: Path, tmp_path: Path, change: Callable[[State], Any]
) -> None:
    ours = read_checkpoint(run).weights
    other = read_checkpoint(write_release(tmp_path / "run", change=change))
    assert set(other.weights.names()) == set(ours.names())
    assert all(torch.equal(other.weights.read(n), ours.read(n)) for n in ours.names())
    convert(other, tmp_path / "ours", "internvla")
    convert(read_checkpoint(tmp_path / "ours"), tmp_path / "back", "released")
    state = change(state_of(run))
    flat = state.get("model", state.get("state_dict", state))
    assert same_tensors(state_of(tmp_path / "back"), flat)


def test_newest_step_unless_told(run: Path, tmp_path: Path) -> None:
    write_release(tmp_path / "run", step=9)
    write_release(tmp_path / "run", step=100)
    assert newest(tmp_path / "run").name == "steps_100_pytorch_model.pt"
    older = tmp_path / "run" / "checkpoints" / "steps_9_pytorch_model.pt"
    checkpoint = read_checkpoint(older)
    assert checkpoint.origin is not None and checkpoint.origin.step == 9
    assert checkpoint.weights.path == older
    files = [f"checkpoints/steps_{n}_pytorch_model.pt" for n in (9, 100)]
    assert older_steps(["config.yaml", *files]) == files[:1]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("datasets.vla_data.image_size", None, ("planner", "image_size", None)),
        ("datasets.vla_data.CoT_prompt", None, (None, "prompt", "{instruction}")),
        ("datasets.vla_data.image_size", 56, ("planner", "image_size", (56, 56))),
        ("datasets.vla_data.data_mix", "libero_all", (None, "cameras", ("front", "wrist"))),
        ("datasets.vla_data.obs", ["a", "b", "c"], (None, "cameras", ("a", "b", "c"))),
        ("framework.action_model.future_action_window_size", 15, ("actor", "chunk_size", 16)),
        ("framework.action_model.action_model_type", "DiT-L", ("actor", "depth", 24)),
        ("framework.dino.dino_backbone", "dinov2_vitg14", ("vision", "dinov2", 24)),
    ],
)
def test_configuration_variants(
    tmp_path: Path, path: str, value: Any, expected: tuple[str | None, str, Any]
) -> None:
    checkpoint = read_checkpoint(write_release(tmp_path / "run", configure=setting(path, value)))
    part, name, wanted = expected
    found = getattr(getattr(checkpoint.config, part) if part else checkpoint.config, name)
    assert (found["num_attention_heads"] if name == "dinov2" else found) == wanted
    again = PolicyConfig.from_dict(json.loads(checkpoint.config.to_json()))
    assert again == checkpoint.config


def setting(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of a configuration: set the entry at a dotted path, or remove it (None)."""
    *sections, key = path.split(".")

    def change(config: dict[str, Any]) -> None:
        for section in sections:
            config = config[section]
        config[key] = value
        if value is None:
            del config[key]

    return change


def test_both_spellings_of_the_output_width_are_read(tmp_path: Path) -> None:
    def respell(config: dict[str, Any]) -> None:
        section = config["framework"]["layer_qformer"]
        section["output_dim"] = section.pop("ouptput_dim")

    checkpoint = read_checkpoint(write_release(tmp_path / "run", configure=respell))
    assert checkpoint.config.qformer.hidden_dim == 384


def test_json_alone_will_do(run: Path, tmp_path: Path) -> None:
    other = write_release(tmp_path / "run")
    (other / "config.yaml").unlink()
    assert read_checkpoint(other).config == read_checkpoint(run).config


def test_libero_scales_by_extremes(tmp_path: Path) -> None:
    libero = setting("datasets.vla_data.data_mix", "libero_all")
    checkpoint = read_checkpoint(write_release(tmp_path / "run", configure=libero))
    raw = statistics()["with_mask"]["action"]
    middle = checkpoint.statistics["with_mask"].action.unnormalise(np.zeros(7))
    np.testing.assert_allclose(middle[:6], (np.add(raw["min"], raw["max"]) / 2)[:6], atol=1e-12)
    convert(checkpoint, tmp_path / "ours", "internvla")
    ours = read_checkpoint(tmp_path / "ours")
    np.testing.assert_array_equal(
        ours.statistics["with_mask"].action.unnormalise(np.zeros(7)), middle
    )
    convert(ours, tmp_path / "back", "released")
    assert json.loads((tmp_path / "back" / "dataset_statistics.json").read_text()) == statistics()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("framework.action_model.action_model_type", "DiT-XL", "DiT-XL"),
        ("framework.dino.dino_backbone", "dinov2_vits14_reg", "dinov2_vits14_reg"),
        ("framework.layer_qformer.qformer_start_layer", None, "qformer_start_layer is missing"),
        ("framework.action_model.action_dim", "seven", "action_dim must be of type int"),
        ("framework.qwenvl.base_vlm", None, "base_vlm is missing"),
        ("framework.qwenvl.base_vlm", "./elsewhere/none", "base_vlm"),
    ],
)
def test_unusable_configurations_are_named(
    tmp_path: Path, path: str, value: Any, said: str
) -> None:
    faulty = write_release(tmp_path / "run", configure=setting(path, value))
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(faulty)


def test_all_faults_in_one_error_by_released_names(tmp_path: Path) -> None:
    def spoil(state: State) -> State:
        for number in range(6):
            del state[f"action_model.net.blocks.{number}.mlp.fc1.bias"]
        state["dino_encoder.body.blocks.0.attn.qkv.weight"] = torch.zeros(1153, 384)
        state["planted.weight"] = torch.zeros(3)
        return state

    faulty = read_checkpoint(write_release(tmp_path / "run", change=spoil))
    with pytest.raises(CheckpointError) as caught:
        load_weights(hollow_policy(faulty), faulty.weights)
    said = str(caught.value)
    assert "missing (6): action_model.net.blocks.0.mlp.fc1.bias" in said and "and 1 more" in said
    assert "unexpected (1): planted.weight" in said
    shape = "dino_encoder.body.blocks.0.attn.qkv.weight (file (1153, 384), network (1152, 384))"
    assert f"other shape (1): {shape}" in said


def test_weights_that_contradict_their_tie_are_refused(tmp_path: Path) -> None:
    def untie(state: State) -> State:
        name = "qwen_vl_interface.model.lm_head.weight"
        return state | {name: state[name] + 1}

    faulty = write_release(tmp_path / "run", change=untie)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs from .*embed_tokens"):
        Policy.from_pretrained(faulty)


class Planted:
    """What a malicious file would hold: unpickled naively, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    made = tmp_path / "made"
    faulty = write_release(tmp_path / "run", change=lambda state: {**state, "x": Planted(made)})
    with pytest.raises(CheckpointError, match="refused"):
        read_checkpoint(faulty)
    assert not made.exists()
    torch.load(newest(faulty), weights_only=False)  # the trap does work
    assert made.exists()


@pytest.mark.parametrize(
    "content", [[torch.zeros(1)], {}, {"a": 1}, {1: torch.zeros(1)}, torch.zeros(2), {"model": {}}]
)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    faulty = write_release(tmp_path / "run", change=lambda state: content)
    with pytest.raises(CheckpointError, match="no state dict"):
        read_checkpoint(faulty)


@pytest.mark.parametrize("fault", ["truncated", "text", "empty", "compressed", "old pickle"])
def test_damaged_files_are_refused(tmp_path: Path, fault: str) -> None:
    faulty = write_release(tmp_path / "run")
    file = newest(faulty)
    whole = file.read_bytes()
    if fault == "compressed":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", b"anything")
    elif fault == "old pickle":
        torch.save({"a": torch.zeros(1)}, file, _use_new_zipfile_serialization=False)
    else:
        file.write_bytes({"truncated": whole[:-1000], "text": b"hello", "empty": b""}[fault])
    with pytest.raises(CheckpointError, match=file.name):
        read_checkpoint(faulty)


def test_round_trip_is_bit_identical(run: Path, tmp_path: Path) -> None:
    convert(read_checkpoint(run), tmp_path / "ours", "internvla")
    assert not list((tmp_path / "ours").glob("*.pt"))
    convert(read_checkpoint(tmp_path / "ours"), tmp_path / "back", "released")
    assert same_tensors(state_of(tmp_path / "back"), state_of(run))
    for file in ("config.json", "dataset_statistics.json"):
        assert json.loads((tmp_path / "back" / file).read_text()) == json.loads(
            (run / file).read_text()
        )
    assert yaml.safe_load((tmp_path / "back" / "config.yaml").read_text()) == run_config()
    assert (tmp_path / "back" / "base_vlm" / "preprocessor_config.json").is_file()
    assert read_checkpoint(tmp_path / "back").config == read_checkpoint(run).config


def test_names_of_the_other_family_can_be_asked_for(run: Path, tmp_path: Path) -> None:
    convert(read_checkpoint(run), tmp_path / "old", "released", family="old")
    assert list(state_of(tmp_path / "old")) == list(state_dict(old_names=True))
    convert(read_checkpoint(tmp_path / "old"), tmp_path / "new", "released", family="new")
    assert same_tensors(state_of(tmp_path / "new"), state_of(run))


def test_a_policy_of_ours_becomes_a_release(run: Path, tmp_path: Path) -> None:
    """Without the unused history embedder, for which the released code yet has a place."""
    source = read_checkpoint(run)
    config = replace(source.config, actor=replace(source.config.actor, history=False))
    torch.manual_seed(0)
    policy = Policy(config, source.tokenizer, source.statistics)
    save_released(tmp_path / "run", policy, config, source.tokenizer, source.statistics, step=3)
    written = read_checkpoint(tmp_path / "run")
    assert list(state_of(tmp_path / "run")) == list(state_of(run))
    again = Policy.from_pretrained(tmp_path / "run").state_dict()
    assert all(torch.equal(again[name], value) for name, value in policy.state_dict().items())
    section = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["framework"]
    assert section["layer_qformer"]["ouptput_dim"] == section["layer_qformer"]["output_dim"] == 384
    assert replace(written.config, name=config.name, actor=config.actor) == config


def test_what_the_released_layout_cannot_say_is_refused(tmp_path: Path) -> None:
    nano = Path(__file__).resolve().parents[1] / "checkpoints" / "nano"
    with pytest.raises(CheckpointError, match=r"no place for .*robot's state"):
        convert(read_checkpoint(nano), tmp_path / "out", "released")
    assert not (tmp_path / "out").exists()


def test_conversion_overwrites_nothing(run: Path) -> None:
    with pytest.raises(CheckpointError, match="not empty"):
        convert(read_checkpoint(run), run, "internvla")


def test_an_actor_reads_its_own_entries_only(run: Path) -> None:
    checkpoint = read_checkpoint(run)
    entries = {
        name: replace(entry, path=Path("/nowhere")) if name.startswith("planner.") else entry
        for name, entry in checkpoint.weights.entries.items()
    }
    weights = replace(checkpoint.weights, entries=entries)
    actor = Actor(checkpoint.config, checkpoint.statistics)
    load_weights(actor, weights, "actor.")
    stored = state_of(run)["action_model.net.x_embedder.linear.weight"]
    assert torch.equal(actor.dit.x_embedder.weight, stored.float())


SEGMENT = st.from_regex(r"[a-z0-9_]{1,6}(\.[a-z0-9_]{1,6}){0,2}", fullmatch=True)
BEGINNINGS = (
    "qwen_vl_interface.model.lm_head.",
    "layer_qformer.",
    "action_model.net.blocks.",
    "action_model.net.z_embedder.linear.",
    "dino_encoder.body.blocks.{n}.attn.qkv.",
    "dino_encoder.body.blocks.{n}.mlp.w12.",
    "dino_encoder.body.blocks.{n}.norm1.",
    "dino_encoder.body.norm.",
    "dino_pro.",
)
LANGUAGE = {
    "new": ("model.visual.", "model.language_model."),
    "old": ("visual.", "model."),
}


@given(
    family=st.sampled_from(["new", "old"]),
    which=st.integers(0, 10),
    n=st.integers(0, 99),
    rest=SEGMENT,
)
def test_names_go_there_and_back(family: Any, which: int, n: int, rest: str) -> None:
    language = [f"qwen_vl_interface.model.{beginning}" for beginning in LANGUAGE[family]]
    name = [*language, *BEGINNINGS][which].format(n=n) + rest
    ours = to_ours(name, family)
    assert ours and {to_released(part, family) for part in ours} == {name}
    assert in_stored_order([name, name], family) == [name]
    assert not to_ours(f"other.{name}", family) and to_released(f"other.{ours[0]}") is None


@recorded
def test_recorded_names_shapes_and_order() -> None:
    config = read_checkpoint(FIXTURE / "run").config
    keys = json.loads((FIXTURE / "state_dict_keys.json").read_text())
    assert list(released_state_dict_shapes(config).items()) == [(k, tuple(s)) for k, s, _ in keys]


@recorded
@pytest.mark.parametrize(
    ("family", "column"), [("new", "key"), ("old", "key_with_transformers_le_4_51")]
)
def test_real_size_names_and_shapes(family: Any, column: str) -> None:
    keys = FIXTURE / "keys"
    entries = json.loads((keys / "real_size_state_dict.json").read_text())
    qwen = json.loads((keys / "qwen2.5-vl-3b_config_values_used.json").read_text())
    small = read_checkpoint(FIXTURE / "run").config
    config = replace(
        PolicyConfig(small.planner, small.vision, type(small.qformer)(), type(small.actor)()),
        planner=replace(small.planner, qwen=qwen_config(qwen, "the base model")),
        vision=replace(small.vision, dinov2={**small.vision.dinov2, "num_hidden_layers": 12}),
    )
    assert len(entries) == 1127
    assert list(released_state_dict_shapes(config, family).items()) == [
        (entry[column], tuple(entry["shape"])) for entry in entries
    ]


@recorded
def test_recorded_run_round_trip(tmp_path: Path) -> None:
    run = FIXTURE / "run"
    convert(read_checkpoint(run), tmp_path / "ours", "internvla", shard_bytes=5_000_000)
    assert len(list((tmp_path / "ours").glob("model-*.safetensors"))) > 3
    convert(read_checkpoint(tmp_path / "ours"), tmp_path / "back", "released")
    assert same_tensors(state_of(tmp_path / "back"), state_of(run))


@recorded
@pytest.mark.parametrize("masked", [True, False])
def test_recorded_unnormalised_actions(masked: bool, tmp_path: Path) -> None:
    content = json.loads((FIXTURE / "run" / "dataset_statistics.json").read_text())
    if not masked:
        del content["oxe_bridge"]["action"]["mask"]
    (tmp_path / "statistics.json").write_text(json.dumps(content))
    action = read_statistics(tmp_path / "statistics.json")["oxe_bridge"].action
    with np.load(FIXTURE / "reference.npz") as reference:
        output = reference[f"unnorm.oxe_bridge.output{'' if masked else '_without_mask'}"]
        np.testing.assert_allclose(
            action.unnormalise(reference["unnorm.input"]), output, rtol=0, atol=1e-12
        )


def test_reading_takes_no_weights_into_memory(run: Path) -> None:
    source = read_released(run).weights
    assert source.shape(EMBEDDING) == (640, 32) and source.dtype(EMBEDDING) == torch.bfloat16
    assert EMBEDDING in source.names()
    assert source.read(EMBEDDING, torch.float32).dtype == torch.float32
