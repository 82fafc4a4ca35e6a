"""The latent plan, and the plain arrays in which it travels between processes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class PlanError(ValueError):
    """Arrays that are not a plan."""


@dataclass(frozen=True)
class Plan:
    """What the planner's used layers hold after reading views and prompt."""

    hidden_states: Tensor
    """[L, B, S, C]."""
    attention_mask: Tensor | None
    """[B, S], nonzero where a token is real; None where all are."""
    instructions: tuple[str, ...]


def plan_to_arrays(plan: Plan) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Hidden states [L, S, C] and attention mask [S] of a plan of one sample.

    Every bfloat16 and float16 is a float32 too, so that nothing is lost on the way.
    """
    states, mask = batch_to_arrays(plan)
    return states[:, 0], mask[0]


def batch_to_arrays(plan: Plan) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Hidden states [L, B, S, C] and attention mask [B, S] of a plan, as `plan_to_arrays`."""
    states = plan.hidden_states.detach().float().cpu().numpy()
    if plan.attention_mask is None:
        return states, np.ones(states.shape[1:3], dtype=np.bool_)
    return states, plan.attention_mask.bool().cpu().numpy()


def plan_from_arrays(
    hidden_states: NDArray[np.float32], attention_mask: NDArray[np.bool_], instruction: str
) -> Plan:
    """A plan of one sample from hidden states [L, S, C] and an attention mask [S].

    Raises:
        PlanError: the shapes do not fit together, or no token is real.
    """
    if hidden_states.ndim != 3 or attention_mask.shape != hidden_states.shape[1:2]:
        raise PlanError(
            f"a plan has hidden states [L, S, C] and a mask [S], got {list(hidden_states.shape)} "
            f"and {list(attention_mask.shape)}"
        )
    if not attention_mask.any():
        raise PlanError("a plan needs at least one token that is not padding")
    return batch_from_arrays(hidden_states[:, None], attention_mask[None], (instruction,))


def batch_from_arrays(
    hidden_states: NDArray[np.float32],
    attention_mask: NDArray[np.bool_],
    instructions: tuple[str, ...],
) -> Plan:
    """A plan from hidden states [L, B, S, C] and an attention mask [B, S] that fit together."""
    states = torch.from_numpy(np.array(hidden_states, dtype=np.float32))
    if attention_mask.all():
        return Plan(states, None, instructions)
    return Plan(states, torch.from_numpy(np.array(attention_mask, dtype=np.int64)), instructions)
