"""Reads datasets with LeRobot's own reader: python lerobot_reader.py VERSION OUT DATASET...

Each is written to OUT/NAME.npz.

Runs in the environment of scripts/setup_lerobot.sh. Pictures are decoded by PyAV here, at the times
that the reader asks for and within the tolerance that it allows: torchvision has lost its video
reader, and torchcodec needs FFmpeg's libraries.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

VERSION, OUT, *ROOTS = sys.argv[1:]
if VERSION == "v2.1":
    sys.path.insert(0, str(Path(sys.prefix) / "v2.1"))
os.environ["HF_HUB_OFFLINE"] = "1"

import av  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

# PyPI's torchvision is built for CUDA: beside a torch without it, its operators do not load, but it
# insists that two of them are declared.
OPERATORS = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    OPERATORS.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lerobot.datasets import lerobot_dataset  # noqa: E402


def decoded(path: Any, times: list[float], tolerance: float, *_: Any) -> torch.Tensor:
    """The frames at these seconds of a file, float[n, 3, h, w] in 0..1, as the reader expects."""
    with av.open(str(path)) as container:
        frames = [(f.time, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    apart = np.abs(np.array([time for time, _ in frames])[:, None] - np.array(times))
    if (apart.min(axis=0) >= tolerance).any():
        raise lerobot_dataset.FrameTimestampError(f"{path}: no frame at {times}")
    images = np.stack([frames[index][1] for index in apart.argmin(axis=0)])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def read(root: Path) -> dict[str, np.ndarray]:
    """Every item's numbers, pictures and words, and what the reader says of the whole."""
    dataset = lerobot_dataset.LeRobotDataset(
        "local/set", root=root, delta_timestamps={"action": [0.0, 0.2, 0.4]}
    )
    items = [dataset[index] for index in range(len(dataset))]
    out = {
        name: np.stack([np.asarray(item[name]) for item in items])
        for name, value in items[0].items()
        if isinstance(value, torch.Tensor)
    }
    out["task"] = np.array([item["task"] for item in items])
    out["episodes"] = np.array(dataset.num_episodes)
    for name, values in dataset.meta.stats.items():
        out |= {f"stats/{name}/{what}": np.asarray(values[what]) for what in ("mean", "std")}
    return out


assert lerobot_dataset.CODEBASE_VERSION == VERSION
lerobot_dataset.decode_video_frames = decoded
for path in map(Path, ROOTS):
    np.savez(Path(OUT) / f"{path.name}.npz", **read(path))
