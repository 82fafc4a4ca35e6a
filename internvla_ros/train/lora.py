"""Low-rank adapters (Hu et al. 2021) in the planner's language model, and their merging.

The language model's own weights and the vision tower then stay as they are; what is exported has
the adapters added to the weights, so that a checkpoint is loaded as any other.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from internvla_ros.model.policy import Policy
from internvla_ros.train.errors import TrainingError

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ADAPTER = "default"
_BASE, _DOWN, _UP = ".base_layer.weight", f".lora_A.{ADAPTER}.weight", f".lora_B.{ADAPTER}.weight"


def add_adapters(policy: Policy, rank: int, alpha: int) -> None:
    """Put adapters of that rank beside all linear layers of the language model."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise TrainingError("lora_rank needs peft: pip install 'internvla_ros[lora]'") from error
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(TARGETS), lora_dropout=0.0)
    inject_adapter_in_model(config, policy.planner.vlm.model.language_model, ADAPTER)


def adapter_parameters(policy: Policy) -> list[torch.nn.Parameter]:
    """Those of the adapters; none where there are no adapters."""
    return [p for name, p in policy.planner.named_parameters() if ".lora_" in name]


def merged(entries: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Weights by the names they have without adapters; `scale` is alpha over the rank."""
    found: dict[str, Tensor] = {}
    for name, tensor in entries.items():
        if name.endswith(_BASE):
            stem = name.removesuffix(_BASE)
            down, up = entries[stem + _DOWN].float(), entries[stem + _UP].float()
            found[stem + ".weight"] = (tensor.float() + scale * up @ down).to(tensor.dtype)
        elif ".lora_" not in name:
            found[name.replace(".base_layer.", ".")] = tensor
    return found
