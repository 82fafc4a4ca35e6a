"""Networks and their parts built from a checkpoint, with no memory for more than their weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from internvla_ros.model.checkpoint import Checkpoint
from internvla_ros.model.weights import WeightsOnMeta, load_weights

N = TypeVar("N", bound=nn.Module)


def load_part(
    build: Callable[[], N],
    checkpoint: Checkpoint,
    part: str = "",
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    watch: Callable[[float], object] | None = None,
) -> N:
    """What `build` makes, in eval mode, with a checkpoint's weights whose names begin with `part`.

    `dtype` None: as stored on a GPU, and float32 on a CPU, which computes bfloat16 slowly. Raises
    `CheckpointError` where weights and configuration differ. `watch` is called with the share of
    the weights that is read, up to 1.
    """
    wanted = torch.float32 if dtype is None and torch.device(device).type == "cpu" else dtype
    with WeightsOnMeta():
        network = build()
    load_weights(network, checkpoint.weights, part, wanted, device, watch=watch)
    return network.eval()
