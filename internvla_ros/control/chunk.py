"""Action chunks: what a policy sends, and the path of poses that it means."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from internvla_ros.motion.se3 import Pose, matrix_to_rotvec, rotvec_to_matrix, rpy_to_matrix
from internvla_ros.robots.embodiment import ActionConvention

Array = NDArray[np.float64]

_LARGEST_SHIFT = 0.25  # m in one step: more is a broken policy, not a motion
_LARGEST_TURN = math.pi / 2  # rad in one step
_LARGEST_GRIP = 10.0  # far beyond what any convention of grippers uses


@dataclass(frozen=True, eq=False)
class Chunk:
    """Actions for T steps after one observation.

    Args:
        stamp: when the observation was made, s.
        dt: seconds a step.
        actions: [T, 7] dx dy dz (m), droll dpitch dyaw (rad), gripper target (0 closed, 1 open).
        sequence: number given by the sender, rising by one each chunk.
    """

    stamp: float
    dt: float
    actions: Array
    sequence: int

    @property
    def duration(self) -> float:
        """Seconds from the observation to the end of the last step."""
        return self.dt * len(self.actions)


def fault(chunk: Chunk) -> str:
    """What makes a chunk unfit to be executed by any robot, empty when nothing does."""
    actions = np.asarray(chunk.actions)
    if not math.isfinite(chunk.stamp):
        return f"the observation stamp is {chunk.stamp}"
    if not (math.isfinite(chunk.dt) and chunk.dt > 0.0):
        return f"the step time is {chunk.dt} s"
    if actions.ndim != 2 or actions.shape[0] < 1 or actions.shape[1] != 7:
        return f"the actions have shape {actions.shape}, not [T, 7]"
    if not np.isfinite(actions).all():
        return f"step {int(np.argmin(np.isfinite(actions).all(axis=1)))} is not finite"
    shifts = np.linalg.norm(actions[:, :3], axis=1)
    if shifts.max() > _LARGEST_SHIFT:
        return f"step {int(shifts.argmax())} moves {shifts.max():.2f} m, over {_LARGEST_SHIFT} m"
    grips = np.abs(actions[:, 6])
    if grips.max() > _LARGEST_GRIP:
        return f"step {int(grips.argmax())} has a gripper number of {grips.max():.3g}"
    turns = np.linalg.norm(actions[:, 3:6], axis=1)
    if turns.max() > _LARGEST_TURN:
        return f"step {int(turns.argmax())} turns {turns.max():.2f} rad, over {_LARGEST_TURN:.2f}"
    return ""


def shortened(chunk: Chunk, shift: float, turn: float) -> tuple[Chunk, int]:
    """The chunk with steps of at most `shift` (m) and `turn` (rad), and how many were longer.

    A step that is too long keeps its direction.
    """
    actions = np.array(chunk.actions, dtype=np.float64)
    excess = np.ones(len(actions))
    for columns, most in ((slice(0, 3), shift), (slice(3, 6), turn)):
        lengths = np.linalg.norm(actions[:, columns], axis=1)
        share = np.minimum(1.0, most / np.maximum(lengths, 1e-300))
        actions[:, columns] *= share[:, None]
        excess = np.minimum(excess, share)
    return replace(chunk, actions=actions), int((excess < 1.0).sum())


def integrate(anchor: Pose, actions: Array, convention: ActionConvention) -> list[Pose]:
    """The T + 1 poses that actions [T, 7] lead through, the anchor first.

    In the base frame translations add along the base's axes and rotations multiply from the left
    (R' = dR R); in the tip's frame both are seen from the tip (p' = p + R d, R' = R dR).
    """
    poses = [anchor]
    to_matrix = rpy_to_matrix if convention.rotation == "rpy" else rotvec_to_matrix
    for action in actions:
        last = poses[-1]
        shift = convention.translation_scale * action[:3]
        turn = to_matrix(convention.rotation_scale * action[3:6])
        if convention.delta_frame == "tip":
            poses.append(Pose(last.position + last.rotation @ shift, last.rotation @ turn))
        else:
            poses.append(Pose(last.position + shift, turn @ last.rotation))
    return poses


class Path:
    """The path of one chunk over time, its corners rounded.

    Between the poses that the actions lead through the path is straight; half a step before and
    after each of them the velocity changes evenly, so that it never jumps on the way.

    Args:
        start: time of the anchor, s.
        dt: seconds a step.
        poses: [T + 1] the anchor and the pose after each step.
        grippers: [T] target of each step, 0..1.
    """

    def __init__(self, start: float, dt: float, poses: list[Pose], grippers: Array) -> None:
        self.start, self.dt = start, dt
        self._positions = np.array([pose.position for pose in poses])
        self._rotations = np.array([pose.rotation for pose in poses])
        self._grippers = np.asarray(grippers, dtype=np.float64)
        steps = len(poses) - 1
        self.end = start + dt * steps
        # Linear and angular displacement of each step, and none before and after them all.
        moves = np.zeros((steps, 6))
        moves[:, :3] = np.diff(self._positions, axis=0)
        for i in range(steps):
            moves[i, 3:] = matrix_to_rotvec(self._rotations[i + 1] @ self._rotations[i].T)
        self._moves = moves.tolist()

    def pose(self, t: float) -> Pose:
        """Where the path is at time t (s); before it the anchor, after it the last pose."""
        u = min(max((t - self.start) / self.dt, 0.0), float(len(self._moves)))
        knot = round(u)
        into = u - knot  # steps past the nearest knot, -0.5 .. 0.5
        before = self._moves[max(knot - 1, 0)]
        after = self._moves[min(knot, len(self._moves) - 1)]
        if knot == 0:
            before = after
        elif knot == len(self._moves):
            after = before
        # 0.5 (before + after) into + 0.5 (after - before) (into^2 + 0.25), sorted by the two
        even, bent = 0.5 * into, 0.5 * (into * into + 0.25)
        x, y, z, *turn = [
            (even - bent) * a + (even + bent) * b for a, b in zip(before, after, strict=True)
        ]
        return Pose.of(
            self._positions[knot] + (x, y, z), rotvec_to_matrix(turn).dot(self._rotations[knot])
        )

    def gripper(self, t: float) -> float:
        """The gripper target of the step that time t (s) falls in."""
        step = math.floor((t - self.start) / self.dt + 1e-9)
        return float(self._grippers[min(max(step, 0), len(self._grippers) - 1)])
