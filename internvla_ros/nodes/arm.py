"""Moving one arm by action chunks: the whole of arm_node but its messages."""

from __future__ import annotations

import math
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from internvla_ros.control.chunk import Chunk
from internvla_ros.control.executor import ChunkExecutor, Setpoint, State
from internvla_ros.control.safety import Event, Safety, SafetyConfig
from internvla_ros.motion.backend import JointCommand
from internvla_ros.motion.clearance import Room
from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.motion.se3 import Pose, distance
from internvla_ros.motion.servo import EmbeddedServo, ServoError
from internvla_ros.nodes.joints import JointReading
from internvla_ros.robots.embodiment import Embodiment

_AT_REST = 1e-6  # rad/s, joints slower than this have stopped
_DISPLACED = 0.05  # rad, an arm at rest this far from its last setpoint was moved by others


class ArmState(Enum):
    """What the arm is doing; values and names are those of ExecutionState."""

    IDLE = 0
    RUNNING = 1
    HOLDING = 2
    STOPPED = 3
    FAULT = 4


class Report(NamedTuple):
    """One control cycle.

    Attributes:
        state, reason: what the arm does, and why where that needs saying.
        command: where the joints should be at the cycle's end; None: nothing is to be sent.
        gripper: the opening wanted, 0 closed or 1 open.
        commanded, measured: tip poses; None before the first joint state.
        chunk_sequence: of the chunk in execution, 0 without one.
        chunk_age: s, -1 without a chunk.
        chunk_progress: s of the chunk that are executed, -1 without a chunk.
        first_of_chunk: s from a chunk's stamp to this setpoint, when it is the chunk's first.
        speed: share of full speed.
    """

    state: ArmState
    reason: str = ""
    command: JointCommand | None = None
    gripper: float = 1.0
    commanded: Pose | None = None
    measured: Pose | None = None
    chunk_sequence: int = 0
    chunk_age: float = -1.0
    chunk_progress: float = -1.0
    first_of_chunk: float | None = None
    speed: float = 1.0

    @property
    def tracking_error(self) -> float:
        """m between the commanded and the measured tip; 0 before the first joint state."""
        if self.commanded is None or self.measured is None:
            return 0.0
        return distance(self.commanded, self.measured)[0]


class ArmController:
    """Chunks and joint readings in, one report a control cycle out.

    A cycle decides where the arm should be at its end, one control period later.
    It never moves before it has a joint reading, an instruction and a chunk made for that
    instruction. When chunks stop it slows down and holds; when the instruction is taken back it
    brakes and then sends nothing more, so that others may move the arm. When safety forbids
    motion it brakes and is at fault until that has passed.
    """

    def __init__(
        self,
        embodiment: Embodiment,
        kinematics: Kinematics,
        *,
        chunk_timeout: float,
        safety: SafetyConfig,
        room: Room | None = None,
    ) -> None:
        """
        Args:
            embodiment, kinematics: of the same arm.
            chunk_timeout: s after an observation for which its chunk is followed.
            safety: how patient safety is.
            room: around the arm; None: nothing is known that it could hit.
        """
        ensemble, tip = embodiment.ensemble, embodiment.tip_limits
        self._kinematics = kinematics
        self._servo = EmbeddedServo(embodiment, kinematics, room)
        self._executor = ChunkExecutor(
            embodiment.action,
            ensemble.name,
            ensemble.horizon,
            chunk_timeout,
            step_speed=tip.speed,
            step_turn=tip.turn,
            opening=embodiment.tabletop.opening,
        )
        self.safety = Safety(safety)
        """Stops, speed, and counts of what was prevented."""
        self._period = 1.0 / embodiment.control_rate
        self._due: Pose | None = None  # where the tip should be at the present cycle's start
        self._reading: JointReading | None = None
        self._reading_at = 0.0
        self._instruction = ""
        self._state = ArmState.IDLE
        self._command: JointCommand | None = None
        self._command_due = -math.inf  # s
        self._gripper_sent: float | None = None
        self._chunk: Chunk | None = None
        self._chunk_is_new = False
        self.refused = 0
        """Chunks that were refused."""
        self.limited = 0
        """Setpoints that a limit altered."""
        self.robot_fault = ""
        """What the robot complains of, empty when nothing; to be kept up to date."""

    def joints(self, reading: JointReading, now: float) -> None:
        """Take in where the joints are, as told at time `now` (s)."""
        self._reading, self._reading_at = reading, now

    def instruct(self, instruction: str, now: float) -> None:
        """Accept chunks for this instruction only; "" stops the arm."""
        if instruction == self._instruction:
            return
        self._instruction = instruction
        self.safety.begin()
        if self._state in (ArmState.RUNNING, ArmState.HOLDING):
            self._executor.hold(now)
            self._state = ArmState.STOPPED

    def expects(self, instruction: str) -> bool:
        """Whether chunks for an instruction are wanted at all."""
        return bool(self._instruction) and instruction == self._instruction

    def add(
        self, chunk: Chunk, instruction: str, now: float, plan_stamp: float | None = None
    ) -> str:
        """Take in a chunk made for an instruction; why it was refused, or an empty text.

        `plan_stamp`: s, when what its plan was made from was seen; None without a plan.
        """
        stale = plan_stamp is not None and not now - plan_stamp <= self.safety.config.plan_timeout
        if stale:
            self.safety.counts[Event.PLAN.value] += 1
            reason = f"chunk {chunk.sequence}: its plan is {now - (plan_stamp or 0.0):.1f} s old"
        else:
            reason = self._refusal(chunk, instruction, now) or self._follow(chunk, now)
        if reason:
            self.safety.counts[Event.CHUNK.value] += 1
            self.refused += 1
            return reason
        self._chunk, self._chunk_is_new = chunk, True
        self._state = ArmState.RUNNING
        return ""

    def _follow(self, chunk: Chunk, now: float) -> str:
        verdict = self._executor.add(chunk, now)
        self.safety.counts[Event.STEPS.value] += verdict.shortened
        return verdict.reason

    def cycle(self, now: float) -> Report:
        """One control cycle at time `now` (s)."""
        reading = self._reading
        if reading is None:
            return Report(ArmState.IDLE, "no joint states yet")
        measured = self._kinematics.forward(reading.positions)
        halt = self.safety.check(now - self._reading_at, self._astray(reading), self.robot_fault)
        speed = self.safety.speed(now)
        self._executor.set_speed(speed, now)
        self._servo.speed = speed
        if halt is not None:
            self._executor.hold(now)
            return self._stop(now, measured, ArmState.FAULT, halt[1])
        if self._state is ArmState.FAULT:
            self._state = ArmState.STOPPED
        if self._state in (ArmState.IDLE, ArmState.STOPPED):
            return self._rest(now, reading, measured)
        return self._move(now, measured)

    def _astray(self, reading: JointReading) -> float:
        """The largest distance (rad or m) of a joint from where it was sent while it moves."""
        if self._command is None or self._state not in (ArmState.RUNNING, ArmState.HOLDING):
            return 0.0
        return max(map(abs, (self._command.positions - reading.positions).tolist()))

    def _refusal(self, chunk: Chunk, instruction: str, now: float) -> str:
        """Why a chunk must not even be looked at."""
        if self._reading is None:
            return "no joint states have arrived yet"
        if not self.expects(instruction):
            return f"chunk {chunk.sequence} is not for the present instruction"
        if self._state is ArmState.FAULT:
            return "the arm is at fault"
        if self._state is ArmState.STOPPED and self._moving():
            return "the arm is coming to a stop"
        return "" if self._servo.started else "the arm is not ready yet"

    def _moving(self) -> bool:
        """Whether the last setpoint was one of motion."""
        last = self._command
        return last is not None and bool(np.abs(last.velocities).max() > _AT_REST)

    def _move(self, now: float, measured: Pose) -> Report:
        """Follow the chunks, or hold after the last."""
        if self._due is not None:
            self._executor.record(now, self._due, measured)
        setpoint = self._executor.setpoint(now + self._period)
        due = now + self._period
        command = self._servo.setpoint(setpoint.pose, due)
        self._due = self._executor.followed(setpoint, command.tip, command.limits, due)
        running = setpoint.state is State.RUNNING
        self._count(command, was_running=self._state is ArmState.RUNNING, runs=running)
        self._state = ArmState.RUNNING if running else ArmState.HOLDING
        self._command, self._command_due = command, due
        self._gripper_sent = setpoint.gripper
        reason = command.reason if running else "chunks stopped coming"
        return self._report(now, reason, command, measured, setpoint)

    def _count(self, command: JointCommand, was_running: bool, runs: bool) -> None:
        counts = self.safety.counts
        self.limited += command.limited
        for limit in command.limits:
            counts[limit.value] += 1
        if was_running and not runs:
            counts[Event.SILENCE.value] += 1

    def _rest(self, now: float, reading: JointReading, measured: Pose) -> Report:
        """Without anything to do: come to a stop, then be ready to start from where the arm is."""
        if self._moving():
            return self._stop(now, measured, self._state, "")
        start = self._start_from(reading)
        try:
            command = self._servo.start(start, now + self._period)
        except ServoError as error:
            return Report(ArmState.FAULT, str(error), measured=measured)
        pose = self._kinematics.forward(start)
        gripper = self._gripper_sent
        self._executor.reset(pose, reading.gripper if gripper is None else gripper)
        self._executor.record(now - 1.0, pose, measured)
        self._executor.record(now, pose, measured)
        self._command, self._chunk, self._due = command, None, pose
        return Report(
            self._state,
            gripper=reading.gripper if gripper is None else gripper,
            commanded=pose,
            measured=measured,
        )

    def _start_from(self, reading: JointReading) -> NDArray[np.float64]:
        """Where to start from [n]: the last setpoint, unless the arm is elsewhere by now.

        What was told before that setpoint was due says nothing of where the arm has gone since.
        """
        last = self._command
        if last is not None:
            away = np.abs(last.positions - reading.positions).max() > _DISPLACED
            if not away or self._reading_at < self._command_due:
                return last.positions
        self._gripper_sent = None
        return reading.positions

    def _stop(self, now: float, measured: Pose, state: ArmState, reason: str) -> Report:
        """Brake as fast as the limits allow, then send nothing more."""
        self._state = state
        if not self._servo.started:
            return Report(state, reason, measured=measured)
        was_moving = self._moving()
        command = self._servo.stop(now + self._period)
        self._command, self._due = command, command.tip
        if was_moving:
            self._command_due = now + self._period
        return Report(
            state,
            reason,
            command=command if was_moving else None,
            gripper=self._gripper_sent if self._gripper_sent is not None else 1.0,
            commanded=command.tip,
            measured=measured,
        )

    def _report(
        self,
        now: float,
        reason: str,
        command: JointCommand,
        measured: Pose,
        setpoint: Setpoint,
    ) -> Report:
        chunk = self._chunk
        first = now - chunk.stamp if chunk is not None and self._chunk_is_new else None
        self._chunk_is_new = False
        return Report(
            self._state,
            reason,
            command=command,
            gripper=setpoint.gripper,
            commanded=command.tip,
            measured=measured,
            chunk_sequence=chunk.sequence if chunk is not None else 0,
            chunk_age=now - chunk.stamp if chunk is not None else -1.0,
            chunk_progress=self._progress(now),
            first_of_chunk=first,
            speed=self._servo.speed,
        )

    def _progress(self, now: float) -> float:
        progress = self._executor.progress(now)
        return -1.0 if progress is None else progress[1]
