"""Where a run computes: one process, or several by `accelerate launch` (DDP, FSDP, DeepSpeed)."""

from __future__ import annotations

import logging

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType

from internvla_ros.train.settings import Precision

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)


def accelerator(precision: Precision, accumulate: int, device: str = "auto") -> Accelerator:
    """The processes and the precision of a run; `device` is "auto" or "cpu"."""
    AcceleratorState._reset_state()  # another stage's precision may be another
    # Tied weights are saved once and tied again on loading: nothing to warn about at each save.
    logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)
    found = Accelerator(
        cpu=device == "cpu",
        mixed_precision=chosen_precision(precision, device),
        gradient_accumulation_steps=accumulate,
        # Where nothing is withheld or said, some parameters have no part in a step's loss.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    if found.distributed_type == DistributedType.DEEPSPEED:
        # It asks for a batch size, which it cannot see, for its own statistics.
        found.state.deepspeed_plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = 1
    return found


def chosen_precision(precision: Precision, device: str = "auto") -> str:
    """ "bf16" or "no" (float32)."""
    if precision != "auto":
        return precision
    fast = device != "cpu" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bf16" if fast else "no"


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether a process holds only a part of the weights or of the optimizer."""
    return accelerator.distributed_type in SHARDED
