"""The latent plan of a batch as plain arrays, for those who send it on without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class PlanArraysError(ValueError):
    """Arrays that are no plan."""


@dataclass(frozen=True, eq=False)
class PlanArrays:
    """What `internvla_ros.model.plan.Plan` holds.

    Attributes:
        hidden_states: float32 [L, B, S, C].
        attention_mask: bool [B, S], true where a token is real, which one at least is.
        instructions: of each sample.

    Raises:
        PlanArraysError: the shapes or types do not fit together, or a sample has no real token.
    """

    hidden_states: NDArray[np.float32]
    attention_mask: NDArray[np.bool_]
    instructions: tuple[str, ...]

    def __post_init__(self) -> None:
        states, mask = self.hidden_states, self.attention_mask
        if states.dtype != np.float32 or mask.dtype != np.bool_:
            raise PlanArraysError(f"a plan is float32 and bool, not {states.dtype}, {mask.dtype}")
        if states.ndim != 4 or mask.shape != states.shape[1:3]:
            raise PlanArraysError(
                f"a plan has hidden states [L, B, S, C] and a mask [B, S], got "
                f"{list(states.shape)} and {list(mask.shape)}"
            )
        if len(self.instructions) != len(mask):
            raise PlanArraysError(f"{len(self.instructions)} instructions for {len(mask)} plans")
        if not mask.any(axis=1).all():
            raise PlanArraysError("a plan needs at least one token that is not padding")

    @classmethod
    def of_one(
        cls, hidden_states: NDArray[np.float32], attention_mask: NDArray[np.bool_], instruction: str
    ) -> PlanArrays:
        """The plan of one sample, from hidden states [L, S, C] and a mask [S]."""
        return cls(hidden_states[:, None], attention_mask[None], (instruction,))
