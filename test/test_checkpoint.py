"""Reading and writing weights: shards, types, parts, networks without memory, and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from integration.random_policy import save_random_policy
from integration.small_release import write_release
from torch import nn

from internvla_ros.model import stored
from internvla_ros.model.checkpoint import (
    CheckpointError,
    load_weights,
    open_weights,
    read_checkpoint,
    save_checkpoint,
)
from internvla_ros.model.convert import hollow_policy
from internvla_ros.model.policy import Policy
from internvla_ros.model.shards import INDEX, WEIGHTS, read_safetensors
from internvla_ros.model.stored import StoredTensor
from internvla_ros.model.weights import WeightsOnMeta, tied_entries

NANO = Path(__file__).resolve().parents[1] / "checkpoints" / "nano"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_policy(tmp_path_factory.mktemp("checkpoint"))


def save_again(source: Path, target: Path, shard_bytes: int) -> Policy:
    """Save the policy of one folder in another, in shards of at most `shard_bytes`."""
    checkpoint = read_checkpoint(source)
    policy = Policy.from_pretrained(source)
    save_checkpoint(
        target,
        policy,
        checkpoint.config,
        checkpoint.tokenizer,
        checkpoint.statistics,
        "A card.\n",
        source=checkpoint,
        shard_bytes=shard_bytes,
    )
    return policy


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
@given(chunk=st.integers(8, 64), shape=st.lists(st.integers(0, 5), max_size=3).map(tuple))
def test_chunks_make_the_tensor(
    tmp_path_factory: pytest.TempPathFactory,
    dtype: torch.dtype,
    chunk: int,
    shape: tuple[int, ...],
) -> None:
    path = tmp_path_factory.mktemp("stored") / "file"
    tensor = (torch.rand(shape) * 4).to(dtype)
    content = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    path.write_bytes(b"front" + content + b"back")
    entry = StoredTensor(path, 5, dtype, tuple(shape))
    seen: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored, "CHUNK", chunk)
        assert torch.equal(entry.read(progress=seen.append), tensor)
        wanted = torch.float64 if dtype.is_floating_point else dtype
        assert torch.equal(entry.read(torch.float64), tensor.to(wanted))
    assert sum(seen) == entry.nbytes == len(content)
    assert torch.equal(entry.mapped(), tensor)
    if shape and shape[0]:
        assert torch.equal(entry.rows(1, shape[0]).read(), tensor[1:])


def test_a_file_that_ends_too_soon_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(10))
    with pytest.raises(CheckpointError, match="truncated"):
        StoredTensor(tmp_path / "file", 4, torch.float32, (2,)).read()


def test_large_weights_go_into_shards(folder: Path, tmp_path: Path) -> None:
    policy = save_again(folder, tmp_path, 2_000_000)
    shards = sorted(path.name for path in tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2 and shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    assert not (tmp_path / WEIGHTS).exists()
    again = Policy.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(again[name], value) for name, value in policy.state_dict().items())


def test_an_older_checkpoint_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    for shard_bytes in (10**9, 2_000_000, 1_000_000, 10**9):
        save_again(folder, tmp_path, shard_bytes)
        names = {path.name for path in tmp_path.iterdir() if path.name.startswith("model")}
        located = {entry.path.name for entry in open_weights(tmp_path).entries.values()}
        assert names - {INDEX} == located
        assert (INDEX in names) == (len(located) > 1)


@pytest.mark.parametrize("fault", ["gone", "truncated", "elsewhere", "disagree", "no index"])
def test_faulty_shards_are_named(folder: Path, tmp_path: Path, fault: str) -> None:
    save_again(folder, tmp_path, 2_000_000)
    shard, index = next(iter(sorted(tmp_path.glob("model-*.safetensors")))), tmp_path / INDEX
    content = json.loads(index.read_text())
    name = next(iter(content["weight_map"]))
    if fault == "gone":
        shard.unlink()
    elif fault == "truncated":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif fault == "no index":
        content = {}
    else:
        content["weight_map"][name] = "../x" if fault == "elsewhere" else "model-00002-of-00002"
        content["weight_map"]["extra"] = shard.name
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"model(-0000\d)?.*"):
        read_checkpoint(tmp_path)


def test_a_failed_write_leaves_the_old_checkpoint(folder: Path, tmp_path: Path) -> None:
    policy = save_again(folder, tmp_path, 10**9)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    checkpoint = read_checkpoint(tmp_path)
    broken = {"widowx": object()}
    with pytest.raises(AttributeError):
        save_checkpoint(
            tmp_path,
            policy,
            checkpoint.config,
            checkpoint.tokenizer,
            broken,
            "Another card.",  # type: ignore[arg-type]
        )
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_networks_without_memory_become_ordinary_ones(
    folder: Path, dtype: torch.dtype | None
) -> None:
    checkpoint = read_checkpoint(folder)
    ordinary = Policy(checkpoint.config, checkpoint.tokenizer, checkpoint.statistics).eval()
    load_weights(ordinary, checkpoint.weights)
    for parameter in ordinary.parameters():
        parameter.data = parameter.data.to(dtype or parameter.dtype)
    hollow = hollow_policy(checkpoint)
    assert any(parameter.is_meta for parameter in hollow.parameters())
    load_weights(hollow, checkpoint.weights, dtype=dtype)
    one, other = dict(ordinary.named_buffers()), dict(hollow.named_buffers())
    one |= dict(ordinary.state_dict())
    other |= dict(hollow.state_dict())
    assert one.keys() == other.keys() and any(name.endswith("inv_freq") for name in one)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]) and tensor.dtype == other[name].dtype
    assert torch.equal(ordinary.actor.schedule.alphas_cumprod, hollow.actor.schedule.alphas_cumprod)
    assert tied_entries(ordinary) == tied_entries(hollow) != {}
    images = [[np.full((48, 64, 3), 90, np.uint8)] * 2]
    plans = [network.eval().plan(images, ["warm up"]) for network in (ordinary, hollow)]
    assert torch.equal(plans[0].hidden_states, plans[1].hidden_states)


def test_networks_with_memory_keep_their_parameters(folder: Path) -> None:
    """An optimizer that already holds them must go on holding them."""
    checkpoint = read_checkpoint(folder)
    policy = Policy(checkpoint.config, checkpoint.tokenizer, checkpoint.statistics)
    before = {name: id(parameter) for name, parameter in policy.named_parameters()}
    load_weights(policy.actor, checkpoint.weights, "actor.")
    assert {name: id(parameter) for name, parameter in policy.named_parameters()} == before
    stored_weight = checkpoint.weights.read("actor.dit.final.weight")
    assert torch.equal(policy.actor.dit.final.weight, stored_weight)


def test_what_would_stay_without_memory_is_an_error(tmp_path: Path) -> None:
    class Unfilled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.register_buffer("table", torch.empty(3), persistent=False)

    from safetensors.torch import save_file

    save_file(nn.Linear(2, 2).state_dict(), tmp_path / WEIGHTS)
    entries = {f"linear.{n}": e for n, e in read_safetensors(tmp_path / WEIGHTS).items()}
    with WeightsOnMeta():
        network = Unfilled()
    with pytest.raises(CheckpointError, match="table"):
        load_weights(network, replace(open_weights(tmp_path), entries=entries))


def test_faults_are_counted_and_named(folder: Path) -> None:
    checkpoint = read_checkpoint(folder)
    entries = dict(checkpoint.weights.entries)
    network = hollow_policy(checkpoint)
    gone = [name for name in network.state_dict() if name.startswith("actor.qformer.")][:7]
    for name in gone:
        del entries[name]
    entries["planted"] = entries["actor.dit.final.bias"]
    entries["actor.dit.final.bias"] = entries["actor.dit.final.weight"]
    with pytest.raises(CheckpointError) as caught:
        load_weights(network, replace(checkpoint.weights, entries=entries))
    said = str(caught.value)
    assert f"missing (7): {', '.join(gone[:5])} and 2 more" in said
    assert "unexpected (1): planted" in said
    assert "other shape (1): actor.dit.final.bias (file (7, 128), network (7,))" in said


def test_the_shipped_checkpoint_loads() -> None:
    policy = Policy.from_pretrained(NANO)
    assert not any(parameter.is_meta for parameter in policy.parameters())


MEASURE = """
import sys, torch
from internvla_ros.model.checkpoint import load_weights, read_checkpoint
from internvla_ros.model.convert import hollow_policy

def resident(field):
    with open("/proc/self/status") as status:
        return next(int(l.split()[1]) * 1024 for l in status if l.startswith(field + ":"))

checkpoint = read_checkpoint(sys.argv[1])
network = hollow_policy(checkpoint)
dtype = getattr(torch, sys.argv[2])
load_weights(hollow_policy(checkpoint).actor, checkpoint.weights, "actor.")  # pages in the code
before = resident("VmRSS")
load_weights(network, checkpoint.weights, dtype=dtype)
size = sum(p.numel() * p.element_size() for p in network.parameters())
print((resident("VmHWM") - before) / size, size)
"""


@pytest.fixture(scope="module")
def large_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A released checkpoint of 0.55 GB, most of which is one embedding."""
    vocabulary = 8_000_000

    def enlarge(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        embedding = torch.zeros(vocabulary, 32, dtype=torch.bfloat16)
        tied = ("embed_tokens.weight", "lm_head.weight")
        return {name: embedding if name.endswith(tied) else state[name] for name in state}

    run = write_release(tmp_path_factory.mktemp("large") / "run", change=enlarge)
    base = run.parent / "tiny_qwen" / "config.json"
    base.write_text(json.dumps(json.loads(base.read_text()) | {"vocab_size": vocabulary}))
    return run


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory needs /proc")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_loading_takes_the_weights_own_size(large_run: Path, dtype: str) -> None:
    """And a tenth, beside one chunk, which a policy of billions of parameters hides."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(large_run), dtype],
        capture_output=True,
        text=True,
        check=True,
    )
    ratio, size = map(float, done.stdout.split())
    assert size > 5e8 and ratio < 1.1 + stored.CHUNK / size
