"""Weights in safetensors: one file, or shards with an index where they are large.

The names are those that the Hugging Face tools use: `model.safetensors`, or
`model-00001-of-0000N.safetensors` and `model.safetensors.index.json`, which maps entries to files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from internvla_ros.model.stored import CheckpointError, StoredTensor

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 4 * 10**9

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}


def has_weights(folder: Path) -> bool:
    """Whether `folder` holds safetensors, whole or in shards."""
    return (folder / WEIGHTS).is_file() or (folder / INDEX).is_file()


def read_shards(folder: Path) -> dict[str, StoredTensor]:
    """All entries of a folder's safetensors.

    Raises:
        CheckpointError: a file is missing, corrupt or truncated, or the index contradicts it.
    """
    if (folder / WEIGHTS).is_file():
        return read_safetensors(folder / WEIGHTS)
    located = _read_index(folder / INDEX)
    entries: dict[str, StoredTensor] = {}
    for shard in dict.fromkeys(located.values()):
        entries |= read_safetensors(folder / shard)
    wrong = [n for n, shard in located.items() if n not in entries or entries[n].path.name != shard]
    wrong += [n for n in entries if n not in located]
    if wrong:
        raise CheckpointError(
            f"{folder / INDEX} and the shards disagree on {len(wrong)} entries, such as {wrong[0]}"
        )
    return entries


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """The entries of one file, in its header's order."""
    try:
        with safe_open(str(path), framework="pt"):
            pass  # the library checks the header against the file's length
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is corrupt or unreadable: {error}") from error
    header.pop("__metadata__", None)
    entries = {}
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES:
            raise CheckpointError(f"{path}: {name} is of unknown type {entry['dtype']}")
        offset, shape = 8 + length + entry["data_offsets"][0], tuple(entry["shape"])
        entries[name] = StoredTensor(path, offset, DTYPES[entry["dtype"]], shape)
    return entries


def _read_index(path: Path) -> dict[str, str]:
    try:
        located = json.loads(path.read_text())["weight_map"]
        if not isinstance(located, dict) or not located:
            raise ValueError("it maps no entry to a file")
        outside = [file for file in located.values() if Path(file).name != file]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from error
    if outside:
        raise CheckpointError(f"{path} names a file outside its folder: {outside[0]}")
    return located


def write_shards(
    folder: Path,
    tensors: Mapping[str, Callable[[], Tensor]],
    sizes: Mapping[str, int],
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Write entries, made one shard at a time, of the given sizes in bytes into `folder`."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name in tensors:
        if shards[-1] and filled + sizes[name] > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += sizes[name]
    located: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = WEIGHTS if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file({n: tensors[n]() for n in names}, folder / file, metadata={"format": "pt"})
        located |= dict.fromkeys(names, file)
        if progress is not None:
            progress(sum(sizes[name] for name in names))
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": located}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def remove_weights(folder: Path, keep: set[str]) -> None:
    """Remove the weights of an earlier checkpoint in `folder`, but for the files named."""
    for path in [*folder.glob("model*.safetensors"), folder / INDEX]:
        if path.name not in keep and path.is_file():
            os.remove(path)
