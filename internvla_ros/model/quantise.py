"""Weight-only int8 for the planner on a CPU: a quarter of float32's memory, no calibration.

Every row of a weight has its own scale (Dettmers et al. 2022, vector-wise), so that the largest
error is 1/254 of the row's largest weight. Activations keep their type.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST = 127


class Int8Linear(nn.Module):
    """A linear layer whose weight int8 [out, in] is scaled by float [out]."""

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        largest = linear.weight.detach().abs().amax(dim=1).clamp(min=1e-12)
        scale = largest.float() / LARGEST
        rounded = (linear.weight.detach() / scale[:, None].to(linear.weight.dtype)).round()
        weight = rounded.clamp(-LARGEST, LARGEST).to(torch.int8)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.to(linear.weight.dtype))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        product = F.linear(x, self.weight.to(x.dtype)) * self.scale
        return product if self.bias is None else product + self.bias


def quantise(module: nn.Module) -> int:
    """Replace every linear layer below `module`, in place; returns the bytes saved."""
    saved = 0
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            saved += child.weight.numel() * (child.weight.element_size() - 1)
            setattr(module, name, Int8Linear(child))
        else:
            saved += quantise(child)
    return saved
