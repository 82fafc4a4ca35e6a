"""What a run says about itself: metrics.jsonl, pictures, and TensorBoard where it is wanted."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from internvla_ros.data.images import encode_jpeg
from internvla_ros.train.errors import TrainingError

METRICS = "metrics.jsonl"
PICTURES = "pictures"
TENSORBOARD = "tensorboard"


class Journal:
    """The record of one stage, in its folder; lines after `step` are those of a run cut short."""

    def __init__(self, folder: Path, step: int, tensorboard: bool = False) -> None:
        self.folder = folder
        self.path = folder / METRICS
        folder.mkdir(parents=True, exist_ok=True)
        self._rewind(step)
        self._board = _board(folder / TENSORBOARD, step) if tensorboard else None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line; numbers as they are, so that runs can be compared bit by bit."""
        with self.path.open("a") as stream:
            stream.write(json.dumps({"step": step, **values}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def picture(self, step: int, image: NDArray[np.uint8]) -> Path:
        """Keep a picture uint8[h, w, 3] of a step."""
        path = self.folder / PICTURES / f"step_{step:08d}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_jpeg(image))
        if self._board is not None:
            self._board.add_image("predictions", image, step, dataformats="HWC")
        return path

    def close(self) -> None:
        """Flush what TensorBoard holds back."""
        if self._board is not None:
            self._board.close()

    def _rewind(self, step: int) -> None:
        """Drop the lines after `step`, and one that was cut in the middle."""
        if not self.path.is_file():
            return
        kept = []
        for line in self.path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):
                continue
        temporary = self.path.with_name(METRICS + ".writing")
        temporary.write_text("".join(kept))
        os.replace(temporary, self.path)


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError(
            "--tensorboard needs TensorBoard: pip install 'internvla_ros[tensorboard]'"
        ) from error
    return SummaryWriter(str(folder), purge_step=step + 1)
