"""From action chunks to a continuous stream of tip setpoints.

A chunk says how to move on from what was seen at its observation stamp, but it arrives later and
while an older one is being executed. Its deltas are therefore laid from the pose at its stamp,
the part of it that has been lived through meanwhile is skipped, and what is left of the
difference to the running motion fades out. "Lived through" is counted in executed time: an arm
that stood still while the policy was thinking starts a chunk at its first step.

Executed time is also the clock of the paths. It runs slower than real time on request, and
whenever the arm, within its limits, falls behind its setpoints: the way is then gone along more
slowly, and no corner of it is cut.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from internvla_ros.control import ensemble
from internvla_ros.control.chunk import Chunk, Path, fault, integrate, shortened
from internvla_ros.control.gripper import GripperLatch
from internvla_ros.motion.limits import Limit
from internvla_ros.motion.se3 import Pose, distance, interpolate, matrix_to_rotvec, rotvec_to_matrix
from internvla_ros.robots.embodiment import ActionConvention

Array = NDArray[np.float64]

_SLOWING = 0.3  # s from full speed to a standstill at the end of a path
_FADE = 0.15  # s in which the difference between two paths fades out, at least
_FADE_SPEED, _FADE_TURN = 0.3, 1.5  # m/s and rad/s that the fading adds to the motion, at most
_LAG = (0.005, 0.04)  # m and rad that the arm may be behind its setpoint at full speed
_LOST = (0.025, 0.20)  # m and rad behind it at which the path waits
_OF_PLACE = {Limit.TARGET, Limit.REACH, Limit.WORKSPACE, Limit.POSITION, Limit.CLEARANCE}
_MOMENT = 1e-3  # s over which a velocity is measured
_AHEAD = 0.1  # s by which a stamp may be ahead of the clock or of the newest recorded pose
_HISTORY = 5.0  # s of recorded poses


class State(Enum):
    """What the executor is doing."""

    IDLE = "idle"  # no chunk since the reset
    RUNNING = "running"
    HOLDING = "holding"  # slowing down or standing still: chunks ran out, or hold was called


class ExecutorError(RuntimeError):
    """The executor was asked for a setpoint before it knew where the arm is."""


@dataclass(frozen=True)
class Verdict:
    """Whether a chunk was accepted, and why not; how many of its steps had to be shortened."""

    accepted: bool
    reason: str = ""
    shortened: int = 0


class Setpoint(NamedTuple):
    """Where the tip should be now.

    Args:
        pose: tip pose in the base frame.
        gripper: target, 0 closed or 1 open.
        state: what the executor is doing.
        chunk_age: seconds since the newest accepted observation, None without one.
    """

    pose: Pose
    gripper: float
    state: State
    chunk_age: float | None


class _Record(NamedTuple):
    """A moment of the past: poses, and how much motion had been executed by then (s)."""

    t: float
    commanded: Pose
    measured: Pose
    progress: float


@dataclass(frozen=True, eq=False)
class _Fade:
    """What is left of the difference to the motion before: it starts at that motion's pose and
    velocity and ends on the new path, at the path's own.

    Offsets are [6], metres and radians; their rates are per second.
    """

    since: float
    offset: Array
    rate: Array

    @cached_property
    def duration(self) -> float:
        """Seconds it lasts; its fastest is 1.5 times its mean speed."""
        metres, radians = _length(self.offset[:3]), _length(self.offset[3:])
        return max(_FADE, 1.5 * metres / _FADE_SPEED, 1.5 * radians / _FADE_TURN)

    def at(self, t: float) -> Array:
        """The offset [6] that is left at time t."""
        x = min(max((t - self.since) / self.duration, 0.0), 1.0)
        left = 1.0 - x * x * (3.0 - 2.0 * x)
        swing = x * (1.0 - x) ** 2 * self.duration
        return left * self.offset + swing * self.rate


@dataclass(frozen=True, eq=False)
class _Motion:
    """A path being followed.

    Since `since` its clock, which stood at `clock` then, has run at `rate` seconds a second; from
    `brake` on it runs ever slower, to a standstill `_SLOWING` seconds later.
    """

    path: Path
    since: float
    clock: float
    rate: float
    brake: float
    fade: _Fade

    def executed(self, t: float) -> float:
        """The time on the path's clock at time t: seconds of motion since the reset."""
        x = min(max(t - self.brake, 0.0), _SLOWING)
        passed = min(t, self.brake) - self.since + x - x * x / (2.0 * _SLOWING)
        return self.clock + self.rate * passed

    def end(self) -> float:
        """When to brake so as to come to rest at the path's end; never while it stands still."""
        left = self.path.end - 0.5 * _SLOWING * self.rate - self.clock
        return self.since + left / self.rate if self.rate > 0.0 else math.inf

    def pose(self, t: float) -> Pose:
        """The setpoint at time t."""
        on_path = self.path.pose(self.executed(t))
        if t - self.fade.since >= self.fade.duration:
            return on_path
        left = self.fade.at(t)
        turned = rotvec_to_matrix(left[3:]).dot(on_path.rotation)
        return Pose.of(on_path.position + left[:3], turned)


class ChunkExecutor:
    """Executes the newest chunks of one policy on one arm.

    Args:
        convention: what the numbers of an action mean.
        blend: one of `ensemble.METHODS`. "open-loop" executes each chunk to its end.
        horizon: most chunks that are blended.
        timeout: seconds after an observation at which its chunk is not followed any further.
        step_speed, step_turn: m/s and rad/s; steps that ask for more are shortened.
        opening: 0..1, how far an open gripper is open.

    Times are seconds on one clock, the one of the observation stamps. Call `record`, `setpoint`
    and `followed` once a control period.

    Raises:
        EnsembleError: unknown blending or horizon below 1.
        ValueError: a timeout that is not positive.
    """

    def __init__(
        self,
        convention: ActionConvention,
        blend: str = "adaptive",
        horizon: int = 4,
        timeout: float = 1.0,
        *,
        step_speed: float = math.inf,
        step_turn: float = math.inf,
        opening: float = 1.0,
    ) -> None:
        ensemble.check(blend, horizon)
        if not timeout > 0.0:
            raise ValueError(f"executor: the timeout is {timeout} s; it must be above 0")
        self._convention = convention
        self._blend, self._horizon, self._timeout = blend, horizon, timeout
        self._step_speed = step_speed / convention.translation_scale
        self._step_turn = step_turn / convention.rotation_scale
        self._gripper = GripperLatch(convention, opening)
        self._home: Pose | None = None
        self._speed = 1.0
        self._clear()

    def _clear(self) -> None:
        self._history: deque[_Record] = deque()
        self._predictions: list[ensemble.Prediction] = []
        self._motion: _Motion | None = None
        self._newest: Chunk | None = None
        self._not_before = -math.inf
        self._pace = 1.0

    def reset(self, pose: Pose, gripper: float) -> None:
        """Forget everything; the setpoint is `pose`, the gripper's target its opening 0..1."""
        self._clear()
        self._home = pose
        self._gripper.reset(gripper)

    def record(self, t: float, commanded: Pose, measured: Pose) -> None:
        """Remember where the tip was commanded to be and where it was at time t.

        Times that do not advance and poses that are not finite are ignored.
        """
        if not (math.isfinite(t) and commanded.is_valid() and measured.is_valid()):
            return
        if self._history and t <= self._history[-1].t:
            return
        self._history.append(_Record(t, commanded, measured, self._executed(t)))
        while self._history[0].t < t - _HISTORY:
            self._history.popleft()

    def add(self, chunk: Chunk, now: float) -> Verdict:
        """Take a chunk that arrived at time `now`; a refused one changes nothing."""
        reason = fault(chunk) or self._untimely(chunk, now)
        if reason:
            return Verdict(False, f"chunk {chunk.sequence}: {reason}")
        seen = self._at(chunk.stamp, now)
        lived = self._executed(now) - seen.progress
        if lived > chunk.duration - 0.5 * _SLOWING:
            late = f"late: {lived:.2f} s of its {chunk.duration:.2f} s are past"
            return Verdict(False, f"chunk {chunk.sequence}: {late}")
        within, shortened_steps = shortened(
            chunk, self._step_speed * chunk.dt, self._step_turn * chunk.dt
        )
        self._follow(within, seen, now)
        return Verdict(True, shortened=shortened_steps)

    def progress(self, now: float) -> tuple[int, float] | None:
        """The chunk being executed, by its sequence, and how many seconds of it are past at `now`.

        None before the first chunk.
        """
        motion = self._motion
        if motion is None or self._newest is None:
            return None
        return self._newest.sequence, motion.executed(now) - motion.path.start

    def set_speed(self, share: float, now: float) -> None:
        """Go on along the path at a share of its own speed, >= 0, from time `now` on.

        An abrupt change makes the velocity jump; change it little by little.
        """
        self._speed = share
        self._run(now)

    def followed(
        self, setpoint: Setpoint, reached: Pose, limits: Sequence[Limit], t: float
    ) -> Pose:
        """Let the path go on as fast as the arm keeps up with it.

        Args:
            setpoint: of time t.
            reached: the tip as commanded for time t, within the robot's limits.
            limits: that kept it from the setpoint. Where one of them is of place, not of speed,
                waiting would not help.
            t: s.

        Returns:
            The tip as commanded, for `record`: the setpoint, as long as the arm will get there.
        """
        blocked = not _OF_PLACE.isdisjoint(limits)
        behind = zip(distance(setpoint.pose, reached), _LAG, _LOST, strict=True)
        room = min((lost - lag) / (lost - near) for lag, near, lost in behind)
        self._pace = 1.0 if blocked else min(max(room, 0.0), 1.0)
        self._run(t)
        return reached if blocked else setpoint.pose

    @property
    def _rate(self) -> float:
        """Seconds of its path that the arm goes along in a second."""
        return self._speed * self._pace

    def _run(self, now: float) -> None:
        """Let the path's clock run at the present rate from time `now` on."""
        motion, rate = self._motion, self._rate
        if motion is None or now >= motion.brake or self._newest is None or rate == motion.rate:
            return
        clock = motion.executed(now)
        changed = _Motion(motion.path, now, clock, rate, motion.brake, motion.fade)
        self._motion = self._until(changed, self._newest, now)

    def hold(self, now: float) -> None:
        """Slow down and hold, and refuse every chunk observed before `now`."""
        self._not_before = now
        self._predictions.clear()
        motion = self._motion
        if motion is not None and motion.brake > now:
            self._motion = replace(motion, brake=now)

    def setpoint(self, now: float) -> Setpoint:
        """The setpoint at time `now`.

        Raises:
            ExecutorError: `reset` has not been called.
        """
        if self._home is None:
            raise ExecutorError("executor: reset(pose, gripper) must come before setpoint")
        motion = self._motion
        if motion is None:
            return Setpoint(self._home, self._gripper.target, State.IDLE, None)
        assert self._newest is not None
        running = now < motion.brake
        if running:
            value = motion.path.gripper(motion.executed(now))
            self._gripper.update(value, now, motion.path.dt)
        else:
            self._predictions.clear()
        return Setpoint(
            motion.pose(now),
            self._gripper.target,
            State.RUNNING if running else State.HOLDING,
            now - self._newest.stamp,
        )

    def _follow(self, chunk: Chunk, seen: _Record, now: float) -> None:
        """Switch to a chunk whose first step begins at the moment `seen`.

        Where deltas add to the measured pose, the path yet begins at the commanded one, which the
        arm trails: it must not be called back by as much with every chunk.
        """
        if self._motion is None or now >= self._motion.brake:
            self._predictions.clear()
        self._predictions.append(
            ensemble.Prediction(seen.progress, chunk.dt, np.array(chunk.actions, dtype=np.float64))
        )
        del self._predictions[: -self._horizon]
        actions = ensemble.blend(self._predictions, self._blend, self._convention.rotation)
        measured = self._convention.anchor == "measured"
        anchor = seen.measured if measured else seen.commanded
        _, *poses = integrate(anchor, actions, self._convention)
        path = Path(seen.progress, chunk.dt, [seen.commanded, *poses], actions[:, 6])
        clock = self._executed(now)
        motion = _Motion(path, now, clock, self._rate, math.inf, self._fade(path, clock, now))
        self._motion = self._until(motion, chunk, now)
        self._newest = chunk

    def _until(self, motion: _Motion, chunk: Chunk, now: float) -> _Motion:
        """The motion, ending with its path or with the chunk's time."""
        brake = max(now, min(motion.end(), chunk.stamp + self._timeout))
        return _Motion(motion.path, motion.since, motion.clock, motion.rate, brake, motion.fade)

    def _fade(self, path: Path, clock: float, now: float) -> _Fade:
        """From the motion under way to a path whose clock shows `clock`."""
        assert self._home is not None
        old, soon = self._motion, now + _MOMENT
        here, next_here = (self._home,) * 2 if old is None else (old.pose(now), old.pose(soon))
        there, next_there = path.pose(clock), path.pose(clock + self._rate * _MOMENT)
        rate = (_between(here, next_here) - _between(there, next_there)) / _MOMENT
        return _Fade(now, _between(there, here), rate)

    def _untimely(self, chunk: Chunk, now: float) -> str:
        """Why a chunk does not fit in at this time, empty when it does."""
        if not math.isfinite(now) or self._home is None or not self._history:
            return "the pose of the arm is not known yet"
        newest = self._newest
        if self._blend == "open-loop" and self._motion is not None and now < self._motion.brake:
            return "another chunk is being executed in open loop"
        if newest is not None and chunk.stamp <= newest.stamp:
            same = chunk.sequence == newest.sequence
            return "duplicate" if same else f"out of order: chunk {newest.sequence} is newer"
        if chunk.stamp <= self._not_before:
            return "observed before the hold"
        if chunk.stamp > now + _AHEAD:
            return f"observed {chunk.stamp - now:.2f} s in the future: clocks differ"
        if now - chunk.stamp > self._timeout:
            return f"late: observed {now - chunk.stamp:.2f} s ago, over {self._timeout:.2f} s"
        if chunk.stamp < self._history[0].t - _AHEAD:
            return "observed before the first recorded pose"
        if chunk.stamp > self._history[-1].t + _AHEAD:
            return "no pose recorded at its stamp: is the arm's state coming in?"
        return ""

    def _executed(self, t: float) -> float:
        return 0.0 if self._motion is None else self._motion.executed(t)

    def _at(self, t: float, now: float) -> _Record:
        """The recorded moment t, between two records, or the nearest end."""
        after = bisect_right(self._history, t, key=lambda record: record.t)
        if after == 0:
            return self._history[0]
        if after == len(self._history):
            last = self._history[-1]
            return _Record(t, last.commanded, last.measured, self._executed(min(t, now)))
        a, b = self._history[after - 1], self._history[after]
        s = (t - a.t) / (b.t - a.t)
        return _Record(
            t,
            interpolate(a.commanded, b.commanded, s),
            interpolate(a.measured, b.measured, s),
            a.progress + s * (b.progress - a.progress),
        )


def _between(a: Pose, b: Pose) -> Array:
    """[6] from pose a to pose b along the base's axes: metres and a rotation vector."""
    return np.concatenate([b.position - a.position, matrix_to_rotvec(b.rotation @ a.rotation.T)])


def _length(v: Array) -> float:
    return math.sqrt(float(v @ v))
