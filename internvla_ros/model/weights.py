"""From a file's tensors to a network's: built without memory, checked, read one by one.

A network is built with its weights on the meta device, so that the only memory ever taken is that
of the weights as they are read: its own size and one chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from tqdm import tqdm

from internvla_ros.model.stored import CheckpointError, StoredTensor, staging_area

SHOWN = 5
"""Names of each kind in an error."""


class WeightsOnMeta(TorchFunctionMode):
    """Within it, what layers make by `torch.empty`, that is their weights, is on the meta device.

    Tensors that are computed, such as rotary frequencies and diffusion schedules, stay real: no
    checkpoint holds them, so that on the meta device they would be lost.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `func`, and `torch.empty` with the meta device where none was asked for."""
        options = dict(kwargs or {})
        if func is torch.empty and options.get("device") is None:
            options["device"] = "meta"
        return func(*args, **options)


@dataclass(frozen=True)
class WeightSource:
    """The weights of a checkpoint of either layout, by this package's names; nothing is loaded."""

    path: Path
    """File or folder, for messages."""
    entries: Mapping[str, StoredTensor]
    name_in_file: Callable[[str], str] = str
    """This package's name to the file's, for messages."""

    def names(self) -> list[str]:
        """All entries."""
        return list(self.entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an entry."""
        return self.entries[name].shape

    def dtype(self, name: str) -> torch.dtype:
        """Type of an entry as stored."""
        return self.entries[name].dtype

    def read(
        self, name: str, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
    ) -> Tensor:
        """One entry in memory of its own; floating-point ones as `dtype`, where one is given."""
        return self.entries[name].read(dtype, device)


def load_weights(
    network: nn.Module,
    source: WeightSource,
    part: str = "",
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    progress: bool | None = None,
    watch: Callable[[float], object] | None = None,
) -> None:
    """Load strictly; one error names what is missing, unexpected or of another shape.

    With a `part` ("actor."), `network` is that part of the policy and only the entries so prefixed
    are read. A network built within `WeightsOnMeta` gets its weights on `device` and as `dtype`, or
    as they are stored; one that has memory keeps its own device and type. `progress`: a bar of the
    bytes read; None: only on a terminal. `watch` is called with the share of them, up to 1.
    """
    own = network.state_dict(keep_vars=True)
    ties = tied_entries(network)
    hollow = any(tensor.is_meta for tensor in own.values())
    check_weights(network, source, part)
    total = sum(source.entries[part + name].nbytes for name in own if name not in ties)
    bar = tqdm(
        total=total,
        unit="B",
        unit_scale=True,
        desc=f"loading {part.rstrip('.') or 'policy'}",
        disable=None if progress is None else not progress,
    )
    staging = staging_area()
    done = 0

    def read(count: int) -> None:
        nonlocal done
        done += count
        bar.update(count)
        if watch is not None:
            watch(done / total)

    with bar, torch.no_grad():
        for name, tensor in own.items():
            entry = source.entries.get(part + name)
            if name in ties or entry is None:
                continue
            if hollow:
                _put(network, name, entry.read(dtype, device, read, staging))
            else:
                tensor.copy_(entry.read(tensor.dtype, tensor.device, read, staging))
    if hollow:
        for name, first in ties.items():
            _tie(network, name, first)
        _finish(network, torch.device(device))


def tied_entries(network: nn.Module) -> dict[str, str]:
    """State entries that are another entry's tensor (tied embeddings), and that other's name."""
    seen: dict[int, str] = {}
    ties: dict[str, str] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        if id(tensor) in seen:
            ties[name] = seen[id(tensor)]
        else:
            seen[id(tensor)] = name
    return ties


def check_weights(network: nn.Module, source: WeightSource, part: str = "") -> None:
    """Raise `CheckpointError` where `source` has not exactly what `load_weights` needs."""
    own, ties = network.state_dict(keep_vars=True), tied_entries(network)
    stored = {n.removeprefix(part): e for n, e in source.entries.items() if n.startswith(part)}

    def called(name: str) -> str:
        return source.name_in_file(part + name)

    missing = [called(n) for n in own if n not in stored and n not in ties]
    unexpected = [called(n) for n in stored if n not in own]
    misshaped = {called(n) for n in own if n in stored and stored[n].shape != tuple(own[n].shape)}
    shapes = _whole_shapes(own.keys() & stored.keys(), called, own, stored)
    wrong = [
        f"{name} (file {shapes[name][1]}, network {shapes[name][0]})"
        for name in dict.fromkeys(called(n) for n in own)
        if name in misshaped
    ]
    faults = [
        _listing(what, list(dict.fromkeys(names)))
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("other shape", wrong),
        )
        if names
    ]
    if faults:
        raise CheckpointError(f"{source.path} does not fit its configuration; {'; '.join(faults)}")
    for name, first in ties.items():
        if name in stored and not _equal(stored[name], stored[first]):
            raise CheckpointError(
                f"{source.path}: {called(name)} differs from {called(first)}, to which its "
                "configuration ties it"
            )


def _whole_shapes(
    names: Iterable[str],
    called: Callable[[str], str],
    own: Mapping[str, Tensor],
    stored: Mapping[str, StoredTensor],
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Shapes (network, file) by the file's names, of which one may be several rows of ours."""
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    for name in names:
        both = (tuple(own[name].shape), stored[name].shape)
        if called(name) in shapes:
            both = tuple(  # type: ignore[assignment]
                (a[0] + b[0], *a[1:]) for a, b in zip(shapes[called(name)], both, strict=True)
            )
        shapes[called(name)] = both
    return shapes


def _listing(what: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{what} ({len(names)}): {', '.join(names[:SHOWN])}{more}"


def _equal(one: StoredTensor, other: StoredTensor) -> bool:
    if (one.path, one.offset, one.shape) == (other.path, other.offset, other.shape):
        return True
    return one.shape == other.shape and torch.equal(one.mapped(), other.mapped())


def _put(network: nn.Module, name: str, tensor: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    module = network.get_submodule(owner)
    module.load_state_dict({leaf: tensor}, strict=False, assign=True)


def _tie(network: nn.Module, name: str, first: str) -> None:
    owner, _, leaf = name.rpartition(".")
    network.get_submodule(owner)._parameters[leaf] = network.get_parameter(first)


def _finish(network: nn.Module, device: torch.device) -> None:
    """Move what was computed beside the weights, and make sure that nothing is without memory."""
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if tensor.is_meta:
            raise CheckpointError(f"{name} is neither in a checkpoint nor computed when built")
    network.to(device)
