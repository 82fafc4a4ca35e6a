"""The random streams of a process, saved and restored, and those that batches are drawn from.

What a step draws follows from the run's seed and the step's number alone, so that a run that goes
on, or one that is spread over processes, draws what an uninterrupted one in one process would.
The process's own streams matter to what draws from them by itself, such as dropout.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch


def stream(seed: int, *numbers: int) -> np.random.Generator:
    """The generator of a run's seed and of numbers such as a purpose, a step and a sample."""
    return np.random.default_rng(np.random.SeedSequence((seed, *numbers)))


def seed_process(seed: int, rank: int) -> None:
    """Start Python's, numpy's and torch's own streams; each process has others."""
    words = np.random.SeedSequence((seed, rank)).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]))


def save_streams(path: Path) -> None:
    """Write Python's, numpy's and torch's streams (every GPU's too) to a file."""
    version, words, position = random.getstate()
    kind, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)
    state = {
        "python": {"version": version, "words": list(words), "gauss": position},
        "numpy": {
            "kind": kind,
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "place": int(place),
            "has_gauss": int(has_gauss),
            "gauss": float(gauss),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    torch.save(state, path)


def restore_streams(path: Path) -> None:
    """Go on where `save_streams` was called; raises OSError, RuntimeError, KeyError."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    python, numpy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"]), python["gauss"]))
    np.random.set_state(
        (
            numpy["kind"],
            numpy["keys"].numpy().astype(np.uint32),
            numpy["place"],
            numpy["has_gauss"],
            numpy["gauss"],
        )
    )
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
