"""Checkpoints on disk, in our layout or the released one.

Ours is one folder: weights (safetensors, in shards where they are large), configuration,
statistics, tokenizer and processor files and a model card. `released.json` is there where it came
from a released run, and holds what that run says beyond our configuration.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from internvla_ros.data.normalisation import DatasetStatistics, read_statistics, write_statistics
from internvla_ros.model.config import ConfigError, PolicyConfig
from internvla_ros.model.hub import download, is_repository
from internvla_ros.model.released import Origin, is_released, read_released
from internvla_ros.model.shards import (
    SHARD_BYTES,
    has_weights,
    read_shards,
    remove_weights,
    write_shards,
)
from internvla_ros.model.shards import WEIGHTS as WEIGHTS
from internvla_ros.model.stored import CheckpointError as CheckpointError
from internvla_ros.model.weights import WeightsOnMeta as WeightsOnMeta
from internvla_ros.model.weights import WeightSource, tied_entries
from internvla_ros.model.weights import load_weights as load_weights
from internvla_ros.model.writing import written_whole
from internvla_ros.resources import DEFAULT_CHECKPOINT, resource

CONFIG = "config.json"
STATISTICS = "dataset_statistics.json"
TOKENIZER = "tokenizer.json"
ORIGIN = "released.json"
CARD = "README.md"

TOKENIZER_FILES = (
    TOKENIZER,
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
PROCESSOR_FILES = (
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
    "chat_template.json",
    "chat_template.jinja",
)


@dataclass(frozen=True)
class Checkpoint:
    """Everything but the weights, which are read into the network once it is built."""

    folder: Path
    config: PolicyConfig
    tokenizer: PreTrainedTokenizerBase
    statistics: Mapping[str, DatasetStatistics]
    weights: WeightSource
    base_folder: Path
    """Where the tokenizer and processor files are: `folder`, or a released run's base model."""
    origin: Origin | None = None
    """What a released run says beyond our configuration; None: it was trained by this package."""


def find_checkpoint(name: str | Path) -> Path:
    """A local folder or `.pt` file as it is, the policy that ships by its name, or the local copy
    of a hub repository."""
    path = Path(name).expanduser()
    if path.is_dir() or is_released(path):
        return path
    if str(name) == DEFAULT_CHECKPOINT:
        return resource(DEFAULT_CHECKPOINT)
    if not is_repository(str(name)):
        raise CheckpointError(f"no checkpoint folder at {path}; train one with `internvla train`")
    return download(str(name))


def read_checkpoint(name: str | Path) -> Checkpoint:
    """Read all but the weights, of either layout; `CheckpointError` says what is wrong."""
    path = find_checkpoint(name)
    if not is_released(path):
        return _read_ours(path)
    run = read_released(path)
    tokenizer = _read_tokenizer(run.base_folder)
    return Checkpoint(
        run.folder, run.config, tokenizer, run.statistics, run.weights, run.base_folder, run.origin
    )


def open_weights(folder: Path) -> WeightSource:
    """The weights of a checkpoint in our layout."""
    return WeightSource(folder, read_shards(folder))


def _read_ours(folder: Path) -> Checkpoint:
    missing = [f for f in (CONFIG, STATISTICS, TOKENIZER) if not (folder / f).is_file()]
    if not has_weights(folder):
        missing.insert(0, WEIGHTS)
    if missing:
        raise CheckpointError(
            f"{folder} is not a complete checkpoint: it lacks {', '.join(missing)}"
        )
    try:
        config = PolicyConfig.from_file(folder / CONFIG)
        statistics = read_statistics(folder / STATISTICS)
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    except ValueError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    tokenizer, weights = _read_tokenizer(folder), open_weights(folder)
    origin = Origin.from_file(folder / ORIGIN)
    return Checkpoint(folder, config, tokenizer, statistics, weights, folder, origin)


def _read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder}: {error}") from error


def save_checkpoint(
    folder: Path,
    network: nn.Module,
    config: PolicyConfig,
    tokenizer: PreTrainedTokenizerBase,
    statistics: Mapping[str, DatasetStatistics],
    card: str,
    *,
    source: Checkpoint | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a network in our layout.

    source: the checkpoint that the network came from, if any; its processor files, and what a
    released run said beyond our configuration, go along.
    """
    ties = tied_entries(network)
    tensors = {k: deferred(v) for k, v in network.state_dict().items() if k not in ties}
    sizes = {k: v.nbytes for k, v in network.state_dict().items() if k not in ties}

    def others(temporary: Path) -> None:
        tokenizer.save_pretrained(str(temporary))
        write_statistics(temporary / STATISTICS, statistics)
        if source is not None:
            carry(source, temporary, PROCESSOR_FILES)

    write_checkpoint(folder, config, card, tensors, sizes, others, shard_bytes=shard_bytes)


def write_checkpoint(
    folder: Path,
    config: PolicyConfig,
    card: str,
    tensors: Mapping[str, Callable[[], Tensor]],
    sizes: Mapping[str, int],
    others: Callable[[Path], None],
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Write every file under a temporary name first, so that no half-written one is ever seen.

    tensors, sizes: the entries, made when their shard is written, and their bytes; others: writes
    the remaining files into the folder that it is given.
    """
    with written_whole(folder) as temporary:
        others(temporary)
        write_shards(temporary, tensors, sizes, shard_bytes, progress)
        (temporary / CONFIG).write_text(config.to_json() + "\n")
        (temporary / CARD).write_text(card)
        written = {path.name for path in temporary.iterdir()}
    remove_weights(folder, keep=written)


def carry(source: Checkpoint, folder: Path, names: Sequence[str]) -> None:
    """Copy those of the named files that there are, and what a released run said."""
    copy_files(source.base_folder, folder, names)
    if source.origin is not None:
        (folder / ORIGIN).write_text(source.origin.to_json() + "\n")


def copy_files(source: Path, target: Path, names: Sequence[str]) -> None:
    """Copy those of the named files that there are from one folder to another."""
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def deferred(tensor: Tensor) -> Callable[[], Tensor]:
    """The tensor as it is to be stored, made when it is called for."""
    return lambda: tensor.detach().cpu().contiguous()
