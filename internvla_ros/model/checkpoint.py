"""Checkpoints on disk: weights (safetensors), configuration, statistics, tokenizer, model card."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from internvla_ros.data.normalisation import DatasetStatistics, read_statistics, write_statistics
from internvla_ros.model.config import ConfigError, PolicyConfig

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
STATISTICS = "dataset_statistics.json"
TOKENIZER = "tokenizer.json"


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, incomplete, corrupt, or made for another network."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything but the weights, which are loaded into the network once it is built."""

    folder: Path
    config: PolicyConfig
    tokenizer: PreTrainedTokenizerBase
    statistics: Mapping[str, DatasetStatistics]


def find_checkpoint(name: str | Path) -> Path:
    """A local folder as it is, or the local copy of a Hugging Face hub repository `owner/name`."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    text = str(name)
    if text.count("/") != 1 or text.startswith((".", "/", "~")):
        raise CheckpointError(f"no checkpoint folder at {folder}; train one with `internvla train`")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(text))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"{text} is neither a local folder nor to be had from the Hugging Face hub: {error}"
        ) from error


def read_checkpoint(name: str | Path) -> Checkpoint:
    """Configuration, tokenizer, statistics; `CheckpointError` says what is wrong and where."""
    folder = find_checkpoint(name)
    missing = [f for f in (CONFIG, WEIGHTS, STATISTICS, TOKENIZER) if not (folder / f).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} is not a complete checkpoint: it lacks {', '.join(missing)}"
        )
    try:
        config = PolicyConfig.from_file(folder / CONFIG)
        statistics = read_statistics(folder / STATISTICS)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder}: {error}") from error
    return Checkpoint(folder, config, tokenizer, statistics)


def load_weights(network: nn.Module, folder: Path, part: str = "") -> None:
    """Load strictly; one error names what is missing, unexpected or of another shape.

    With a `part`, `network` is that part of the policy: entries so prefixed are loaded.
    """
    path = folder / WEIGHTS
    try:
        stored = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is corrupt or unreadable: {error}") from error
    weights = {k.removeprefix(part): v for k, v in stored.items() if k.startswith(part)}
    own = network.state_dict()
    shared = shared_entries(network)
    missing = [k for k in own if k not in weights and k not in shared]
    unexpected = [k for k in weights if k not in own]
    shapes = [
        f"{k} (file {tuple(weights[k].shape)}, network {tuple(own[k].shape)})"
        for k in own
        if k in weights and weights[k].shape != own[k].shape
    ]
    faults = [
        f"{what}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("other shape", shapes),
        )
        if names
    ]
    if faults:
        raise CheckpointError(f"{path} does not fit its configuration; {'; '.join(faults)}")
    network.load_state_dict(weights, strict=False)


def save_checkpoint(
    folder: Path,
    network: nn.Module,
    config: PolicyConfig,
    tokenizer: PreTrainedTokenizerBase,
    statistics: Mapping[str, DatasetStatistics],
    card: str,
) -> None:
    """Write every file under a temporary name first, so that no half-written one is ever seen."""
    folder.mkdir(parents=True, exist_ok=True)
    shared = shared_entries(network)
    weights: dict[str, Tensor] = {
        k: v.detach().cpu().contiguous() for k, v in network.state_dict().items() if k not in shared
    }
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as scratch:
        temporary = Path(scratch)
        tokenizer.save_pretrained(str(temporary))
        save_file(weights, str(temporary / WEIGHTS), metadata={"format": "pt"})
        (temporary / CONFIG).write_text(config.to_json() + "\n")
        write_statistics(temporary / STATISTICS, statistics)
        (temporary / "README.md").write_text(card)
        for path in temporary.iterdir():
            path.chmod(0o644)  # safetensors writes for the owner alone
            os.replace(path, folder / path.name)


def shared_entries(network: nn.Module) -> set[str]:
    """State entries that are another entry's tensor (tied embeddings), kept only once on disk."""
    seen: dict[int, str] = {}
    shared: set[str] = set()
    for name, tensor in network.state_dict(keep_vars=True).items():
        if tensor.data_ptr() in seen and tensor.numel():
            shared.add(name)
        else:
            seen[tensor.data_ptr()] = name
    return shared
