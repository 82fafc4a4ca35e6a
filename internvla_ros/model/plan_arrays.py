"""Plans as plain arrays, the form in which they travel between processes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from internvla_ros.model.policy import Plan


class PlanError(ValueError):
    """Arrays that are not a plan."""


def plan_to_arrays(plan: Plan) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Hidden states [L, S, C] and attention mask [S] of a plan of one sample."""
    states = plan.hidden_states[:, 0].detach().float().cpu().numpy()
    return states, plan.attention_mask[0].bool().cpu().numpy()


def plan_from_arrays(
    hidden_states: NDArray[np.float32], attention_mask: NDArray[np.bool_], instruction: str
) -> Plan:
    """A plan of one sample from hidden states [L, S, C] and an attention mask [S].

    Raises:
        PlanError: the shapes do not fit together.
    """
    if hidden_states.ndim != 3 or attention_mask.shape != hidden_states.shape[1:2]:
        raise PlanError(
            f"a plan has hidden states [L, S, C] and a mask [S], got {list(hidden_states.shape)} "
            f"and {list(attention_mask.shape)}"
        )
    states = torch.from_numpy(np.array(hidden_states, dtype=np.float32))
    mask = torch.from_numpy(np.array(attention_mask, dtype=np.int64))
    return Plan(states[:, None], mask[None], (instruction,))
