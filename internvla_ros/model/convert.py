"""A checkpoint of one layout written in the other, entry by entry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from internvla_ros.data.normalisation import write_statistics
from internvla_ros.model.checkpoint import (
    PROCESSOR_FILES,
    STATISTICS,
    TOKENIZER_FILES,
    Checkpoint,
    carry,
    copy_files,
    write_checkpoint,
)
from internvla_ros.model.policy import Policy
from internvla_ros.model.released_names import Family
from internvla_ros.model.released_writing import write_released
from internvla_ros.model.shards import SHARD_BYTES
from internvla_ros.model.stored import CheckpointError, StoredTensor
from internvla_ros.model.weights import WeightsOnMeta, check_weights, tied_entries

Layout = Literal["internvla", "released"]


def convert(
    source: Checkpoint,
    target: Path,
    layout: Layout,
    *,
    family: Family | None = None,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: bool | None = None,
) -> None:
    """Write `source` in `layout` into the folder `target`, which is new or empty.

    family: of the released names, None: those that it once had; dtype: of the weights, None: as
    they are, whereby no more than a shard is in memory; progress: a bar, None: on a terminal only.
    Raises `CheckpointError`.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target} exists and is not empty; name a new folder")
    network = hollow_policy(source)
    check_weights(network, source.weights)
    ties = tied_entries(network)
    entries = {n: source.weights.entries[n] for n in network.state_dict() if n not in ties}
    tensors = {name: _made(entry, dtype) for name, entry in entries.items()}
    sizes = {name: _bytes(entry, dtype) for name, entry in entries.items()}
    names = (*TOKENIZER_FILES, *PROCESSOR_FILES)
    hidden = None if progress is None else not progress
    with tqdm(
        total=sum(sizes.values()), unit="B", unit_scale=True, desc="writing", disable=hidden
    ) as bar:
        if layout == "released":
            write_released(
                target,
                source.config,
                source.statistics,
                tensors,
                lambda folder: copy_files(source.base_folder, folder, names),
                source.origin,
                0 if source.origin is None else source.origin.step,
                family,
                bar.update,
            )
            return

        def others(folder: Path) -> None:
            write_statistics(folder / STATISTICS, source.statistics)
            carry(source, folder, names)

        write_checkpoint(
            target,
            source.config,
            model_card(source),
            tensors,
            sizes,
            others,
            shard_bytes=shard_bytes,
            progress=bar.update,
        )


def hollow_policy(source: Checkpoint) -> Policy:
    """The policy of a checkpoint without memory for its weights."""
    with WeightsOnMeta():
        return Policy(source.config, source.tokenizer, source.statistics)


def model_card(source: Checkpoint) -> str:
    """The README of a converted checkpoint: its own, where it has one."""
    own = source.folder / "README.md"
    if source.origin is None and own.is_file():
        return own.read_text()
    actor = source.config.actor
    step = f", step {source.origin.step}" if source.origin is not None else ""
    return (
        f"# {source.config.name}\n\nInternVLA-M1, converted from the released layout "
        f"({source.folder.name}{step}).\n\n"
        f"Chunks of {actor.chunk_size} actions of {actor.action_dim} numbers; statistics: "
        f"{', '.join(sorted(source.statistics))}.\n\n"
        "Load it with `internvla_ros.model.policy.Policy.from_pretrained`.\n"
    )


def _made(entry: StoredTensor, dtype: torch.dtype | None) -> Callable[[], Tensor]:
    return entry.mapped if dtype is None else lambda: entry.read(dtype)


def _bytes(entry: StoredTensor, dtype: torch.dtype | None) -> int:
    if dtype is None or not entry.dtype.is_floating_point:
        return entry.nbytes
    return entry.nbytes // entry.dtype.itemsize * dtype.itemsize
