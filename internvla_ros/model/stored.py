"""Tensors in a file: what they are and where their bytes lie, read only when they are wanted.

Reading goes through ordinary file reads into memory that the tensor keeps. A mapped file would be
counted twice, once as the mapping and once as the tensor, and a copy of it would have to be made
before the file may change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

CHUNK = 64 * 2**20
"""Bytes read at a time; what a change of type or device needs on top of the tensor itself."""


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, incomplete, corrupt, or made for another network."""


@dataclass(frozen=True)
class StoredTensor:
    """A contiguous tensor of `shape` whose bytes begin `offset` bytes into the file `path`."""

    path: Path
    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in the file, in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def rows(self, start: int, stop: int) -> StoredTensor:
        """Rows [start, stop) of the first dimension, which lie together in the file."""
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        return replace(
            self, offset=self.offset + start * row, shape=(stop - start, *self.shape[1:])
        )

    def read(
        self,
        dtype: torch.dtype | None = None,
        device: str | torch.device = "cpu",
        progress: Callable[[int], object] | None = None,
        staging: Tensor | None = None,
    ) -> Tensor:
        """The tensor in memory of its own; floating-point ones as `dtype`, where one is given.

        `progress` is called with the bytes of every chunk that was read. `staging`, which
        `staging_area` makes, spares many reads their own: memory between tensors that stay is not
        given back. Raises `CheckpointError` where the file ends too soon.
        """
        wanted = dtype if dtype is not None and self.dtype.is_floating_point else self.dtype
        tensor = torch.empty(self.shape, dtype=wanted, device=device)
        direct = wanted == self.dtype and tensor.device.type == "cpu"
        flat = tensor.view(-1)
        area = torch.empty(0) if direct else staging if staging is not None else staging_area()
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.offset)
            for start, stop in self._chunks():
                part = flat[start:stop]
                target = part if direct else self._within(area, stop - start)
                self._fill(target, file)
                if not direct:
                    part.copy_(target)
                if progress is not None:
                    progress((stop - start) * self.dtype.itemsize)
        return tensor

    def mapped(self) -> Tensor:
        """The tensor as the file's own pages, for passing it on without a copy in memory."""
        if not self.nbytes:
            return torch.empty(self.shape, dtype=self.dtype)
        data = np.memmap(self.path, np.uint8, "c", self.offset, (self.nbytes,))
        return torch.from_numpy(data).view(self.dtype).view(self.shape)

    def _chunks(self) -> Iterator[tuple[int, int]]:
        size, step = math.prod(self.shape), CHUNK // self.dtype.itemsize
        for start in range(0, size, step):
            yield start, min(start + step, size)

    def _within(self, area: Tensor, count: int) -> Tensor:
        return area[: count * self.dtype.itemsize].view(self.dtype)

    def _fill(self, target: Tensor, file: BinaryIO) -> None:
        view = target.view(torch.uint8).numpy().data
        while view.nbytes:
            count = file.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise CheckpointError(
                    f"{self.path} is truncated: it ends {view.nbytes} bytes early"
                )
            view = view[count:]


def staging_area() -> Tensor:
    """Memory for one chunk, on its way to another type or device."""
    return torch.empty(CHUNK, dtype=torch.uint8)
