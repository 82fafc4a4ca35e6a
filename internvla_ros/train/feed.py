"""Batches made ahead of the training step, in processes of their own."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

AHEAD = 4
"""Batches that each process keeps ready."""

Self = TypeVar("Self")


class Batch(Protocol):
    """What one process computes at once."""

    @property
    def counts(self) -> Mapping[str, float]:
        """Of each loss, over how many elements it is summed."""
        ...

    def to(self: Self, device: torch.device) -> Self:
        """The same on a device."""
        ...

    def pin_memory(self: Self) -> Self:
        """The same where a GPU can fetch it while it computes."""
        ...


class Batches(Protocol):
    """All batches of a run by number: batch `number` is always the same one."""

    def __getitem__(self, number: int) -> Any:
        """A `Batch`."""
        ...


class Feed:
    """An endless row of batches from number `first` on, with the time that was waited for them."""

    def __init__(self, batches: Batches, first: int, end: int, workers: int, pinned: bool) -> None:
        self.waited = 0.0
        loader: DataLoader[Any] = DataLoader(
            _Numbered(batches),
            sampler=range(first, end),
            batch_size=None,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=pinned,
            prefetch_factor=AHEAD if workers else None,
            worker_init_fn=_leave_signals if workers else None,
            # Its own, so that starting a loader takes nothing from the process's stream.
            generator=torch.Generator(),
        )
        self._rest: Iterator[Any] = iter(loader)

    def __next__(self) -> Any:
        """The next batch."""
        start = time.monotonic()
        try:
            return next(self._rest)
        finally:
            self.waited += time.monotonic() - start


class _Numbered(Dataset[Any]):
    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __getitem__(self, number: int) -> Any:
        return self.batches[number]


def _as_it_is(batch: Any) -> Any:
    return batch


def _leave_signals(worker: int) -> None:
    """Ctrl-C is the run's own affair: it ends its workers when it is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
