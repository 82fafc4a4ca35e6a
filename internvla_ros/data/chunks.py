"""Chunks of actions out of episodes: held past the end, and never begun in a pause."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from internvla_ros.data.episode import ACTION_DIM
from internvla_ros.data.normalisation import GRIPPER


@dataclass(frozen=True)
class ActionLayout:
    """Which numbers of an action are what.

    Attributes:
        size: D.
        gripper: components that say how far the gripper is to be open.
        absolute: the others are poses or joint positions; False: they are deltas.
    """

    size: int = ACTION_DIM
    gripper: tuple[int, ...] = (GRIPPER,)
    absolute: bool = False

    def __post_init__(self) -> None:
        if not all(0 <= index < self.size for index in self.gripper):
            raise ValueError(f"gripper components {self.gripper} are not within {self.size}")

    @property
    def motion(self) -> NDArray[np.bool_]:
        """bool[D]: the components that move the arm."""
        chosen = np.ones(self.size, bool)
        chosen[list(self.gripper)] = False
        return chosen

    def held(self, actions: NDArray[np.floating]) -> NDArray[np.floating]:
        """float[..., D]: what keeps pose and gripper where these actions [..., D] leave them."""
        if self.absolute:
            return actions.copy()
        return np.where(self.motion, np.zeros((), actions.dtype), actions)

    def steps(self, actions: ArrayLike) -> NDArray[np.float64]:
        """float[T, D]: by how much each action moves the arm and changes the gripper.

        The first action's gripper, and pose where absolute, count as no change.
        """
        x = np.asarray(actions, np.float64)
        if x.ndim != 2 or x.shape[1] != self.size:
            raise ValueError(f"actions must be [T, {self.size}], not {list(x.shape)}")
        changes = np.diff(x, axis=0, prepend=x[:1])
        return changes if self.absolute else np.where(self.motion, x, changes)


DELTAS = ActionLayout()
"""The project's own: dx dy dz droll dpitch dyaw, gripper."""


def chunks(
    actions: NDArray[np.floating], rows: ArrayLike, length: int, layout: ActionLayout = DELTAS
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """The next `length` actions from each of some frames on.

    Past the episode's end pose and gripper are held: deltas are zero and the gripper keeps its last
    value; absolute actions repeat the last one. (Zeros would teach to close the gripper.)

    Args:
        actions: float[T, D] of one episode, T >= 1.
        rows: int[B], frames of it.
        length: L >= 1.
        layout: what the numbers are.

    Returns:
        float[B, L, D], and bool[B, L]: True where the action was recorded, False where held.

    Raises:
        IndexError: a row is not a frame of the episode.
    """
    first = np.asarray(rows, np.int64)
    if length < 1:
        raise ValueError(f"a chunk has at least one action, not {length}")
    if ((first < 0) | (first >= len(actions))).any():
        raise IndexError(f"frames {first.min()} to {first.max()} of an episode of {len(actions)}")
    steps = first[:, None] + np.arange(length)
    recorded = steps < len(actions)
    chosen = actions[np.minimum(steps, len(actions) - 1)]
    return np.where(recorded[..., None], chosen, layout.held(actions[-1])), recorded


@dataclass(frozen=True)
class PauseFilter:
    """Which frames are pauses, at which no chunk is to begin.

    A frame is one if its action moves the arm by no more than both thresholds and leaves the
    gripper as it is. The recorded frames themselves stay: chunks that begin before a pause go
    through it. The released training leaves out frames by translation alone, at 5e-4 m.

    Attributes:
        translation: m (of components 0 to 2).
        rotation: rad (of components 3 to 5); infinite: rotation does not count as motion.
        gripper: the smallest change of the gripper that counts as one.
    """

    translation: float = 5e-4
    rotation: float = 5e-3
    gripper: float = 1e-3

    def pauses(self, actions: ArrayLike, layout: ActionLayout = DELTAS) -> NDArray[np.bool_]:
        """bool[T]: the frames of one episode's actions [T, D] that are pauses."""
        steps = layout.steps(actions)
        motion = steps[:, layout.motion]
        still = np.linalg.norm(motion[:, :3], axis=1) <= self.translation
        still &= np.linalg.norm(motion[:, 3:], axis=1) <= self.rotation
        changes = np.abs(steps[:, list(layout.gripper)])
        return still & (changes < self.gripper).all(axis=1)
