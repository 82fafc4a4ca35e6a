"""Blending overlapping chunks: several predictions of the same moment become one action.

Actions are blended, not poses: each chunk's deltas were predicted from another anchor, but all of
them say how to move at a given moment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from internvla_ros.motion.se3 import (
    matrix_to_rotvec,
    matrix_to_rpy,
    rotvec_to_matrix,
    rpy_to_matrix,
)
from internvla_ros.robots.embodiment import ENSEMBLES

Array = NDArray[np.float64]

METHODS = ENSEMBLES

_TEMPORAL_DECAY = 0.01  # a chunk: how much less a newer chunk weighs than the one before it
_ADAPTIVE_GAIN = 0.1  # how much agreement with the newest chunk counts
_NO_STEP = 1e-6  # steps that do not count


class EnsembleError(ValueError):
    """An unknown way of blending, or a horizon that holds no chunk."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """One chunk on the common time line: its first step starts at `start` (s), [T, 7] actions.

    Common to predictions is the time that the arm has spent in motion: a pause, or a path that is
    followed more slowly than it was meant, moves the steps of all of them alike.
    """

    start: float
    dt: float
    actions: Array


def check(method: str, horizon: int) -> None:
    """Refuse a method or a horizon that cannot be used, with an EnsembleError."""
    if method not in METHODS:
        raise EnsembleError(f"unknown blending {method!r}; known: {', '.join(METHODS)}")
    if horizon < 1:
        raise EnsembleError(f"the blending horizon is {horizon}; it must be at least 1 chunk")


def blend(predictions: Sequence[Prediction], method: str, rotation: str) -> Array:
    """The actions [T, 7] of the newest prediction, blended with the older ones.

    Args:
        predictions: oldest first; the last one gives the steps. An older one counts in the steps
            that it still covers.
        method: "latest": the newest alone. "temporal": weights exp(-0.01 i), i = 0 for the oldest.
            "adaptive": weights exp(0.1 cos), cos between an older action and the newest. "rtc":
            the newest alone, as its sender has made it to go on from the older ones.
            "open-loop": the newest alone, as there is no other one.
        rotation: convention of the three angles, "rpy" or "rotvec"; they are averaged as rotation
            vectors.
    """
    newest = predictions[-1]
    if method not in ("temporal", "adaptive") or len(predictions) == 1:
        return newest.actions
    blended = np.empty_like(newest.actions)
    for step in range(len(newest.actions)):
        found = [_at(p, newest.start + step * newest.dt, newest.dt, rotation) for p in predictions]
        actions = np.array([action for action in found if action is not None])
        weights = _weights(actions, method)
        blended[step] = weights @ actions
        blended[step, 3:6] = _angles(blended[step, 3:6], rotation)
    return blended


def _at(prediction: Prediction, t: float, dt: float, rotation: str) -> Array | None:
    """What a prediction says of the `dt` seconds from t on, angles as a rotation vector.

    Where they begin within one of its own steps, the motion in them is parts of two steps. None
    where the prediction does not cover them.
    """
    past = (t - prediction.start) / prediction.dt
    first, last = past + _NO_STEP, past + dt / prediction.dt - _NO_STEP
    if first < 0.0 or last > len(prediction.actions):
        return None
    action = np.zeros(7)
    for step in range(math.floor(first), math.floor(last) + 1):
        share = min(step + 1, past + dt / prediction.dt) - max(step, past)
        action[:6] += share * _vectors(prediction.actions[step], rotation)[:6]
    middle = math.floor(past + 0.5 * dt / prediction.dt)
    action[6] = prediction.actions[middle][6]  # an opening is no amount of motion
    return action


def _vectors(action: Array, rotation: str) -> Array:
    """The action with its turn as a rotation vector."""
    if rotation != "rpy":
        return action
    return np.concatenate([action[:3], matrix_to_rotvec(rpy_to_matrix(action[3:6])), action[6:]])


def _angles(rotvec: Array, rotation: str) -> Array:
    return matrix_to_rpy(rotvec_to_matrix(rotvec)) if rotation == "rpy" else rotvec


def _weights(actions: Array, method: str) -> Array:
    """[n] weights of n actions [n, 7], oldest first, that add up to one."""
    if method == "temporal":
        weights = np.exp(-_TEMPORAL_DECAY * np.arange(len(actions)))
    else:
        newest = actions[-1]
        lengths = np.linalg.norm(actions, axis=1) * np.linalg.norm(newest)
        cosine = (actions @ newest) / np.maximum(lengths, 1e-12)
        weights = np.exp(_ADAPTIVE_GAIN * cosine)
    normalised: Array = weights / weights.sum()
    return normalised
