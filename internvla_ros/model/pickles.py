"""State dicts in PyTorch's own files, from which only tensors are ever taken.

Such a file is a zip of a pickle and the tensors' bytes, and a pickle may ask for any function to be
called. `torch.load` with `weights_only=True` builds tensors and plain containers and refuses the
rest, so that nothing of the file is executed. Here it moreover builds tensors without memory, which
know where in the file their bytes are.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from internvla_ros.model.stored import CheckpointError, StoredTensor

NESTED = ("state_dict", "model")
"""Under which some trainers keep the state dict, beside other things."""


def read_pickle(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a state dict written by `torch.save`, in stored order.

    Raises:
        CheckpointError: no such file, truncated, with anything in it but tensors and plain
            containers, or without a state dict.
    """
    _check_archive(path)
    try:
        with FakeTensorMode():
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors, and loading it could run code of its maker; refused. "
            f"Save its state dict alone, or as safetensors ({_reason(error)})"
        ) from error
    except Exception as error:  # torch.load documents no types
        raise CheckpointError(f"{path} is corrupt or unreadable: {_first_line(error)}") from error
    state = _state_dict(path, content)
    size = path.stat().st_size
    return {name: _stored(path, name, tensor, size) for name, tensor in state.items()}


def _check_archive(path: Path) -> None:
    """Refuse what is no zip, or one whose bytes can't be taken as they lie in the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [i.filename for i in archive.infolist() if i.compress_type]
    except (OSError, zipfile.BadZipFile) as error:
        what = "is no PyTorch file, or truncated" if path.is_file() else "cannot be read"
        raise CheckpointError(f"{path} {what}: {error}") from error
    if packed:
        raise CheckpointError(
            f"{path} is compressed ({packed[0]}), which PyTorch's files never are"
        )


def _state_dict(path: Path, content: Any) -> Mapping[str, Tensor]:
    for key in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path} holds no state dict but a {type(content).__name__}")
    others = [k for k, v in content.items() if not (isinstance(k, str) and isinstance(v, Tensor))]
    if others:
        raise CheckpointError(
            f"{path} holds no state dict: {len(others)} of its {len(content)} entries are no "
            f"tensors, such as {others[0]!r}"
        )
    return content


def _stored(path: Path, name: str, tensor: Tensor, size: int) -> StoredTensor:
    if tensor.layout != torch.strided or not tensor.is_contiguous():
        raise CheckpointError(f"{path}: {name} is not stored contiguously")
    start = tensor.untyped_storage()._checkpoint_offset
    if start is None:
        raise CheckpointError(f"{path}: {name} lies nowhere in the file")
    offset = start + int(tensor.storage_offset()) * tensor.element_size()
    stored = StoredTensor(path, offset, tensor.dtype, tuple(tensor.shape))
    if offset + stored.nbytes > size:
        raise CheckpointError(f"{path} is truncated: {name} lies beyond its end")
    return stored


def _reason(error: Exception) -> str:
    """What torch.load says about the content; the rest of its message is advice to run it."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line.startswith("WeightsUnpickler error")]
    return (said or lines or [""])[0]


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
