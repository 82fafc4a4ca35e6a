"""Moving one arm by action chunks: the whole of arm_node but its messages."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from internvla_ros.control.chunk import Chunk
from internvla_ros.control.executor import ChunkExecutor, Setpoint, State
from internvla_ros.motion.backend import JointCommand
from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.motion.se3 import Pose, distance
from internvla_ros.motion.servo import EmbeddedServo, ServoError
from internvla_ros.nodes.joints import JointReading
from internvla_ros.robots.embodiment import Embodiment

_AT_REST = 1e-3  # rad/s, joints slower than this have stopped
_DISPLACED = 0.05  # rad, an arm at rest this far from its last setpoint was moved by others
_LOST = 0.5  # rad, a moving arm this far from its setpoint does not follow


class ArmState(Enum):
    """What the arm is doing; values and names are those of ExecutionState."""

    IDLE = 0
    RUNNING = 1
    HOLDING = 2
    STOPPED = 3
    FAULT = 4


@dataclass(frozen=True, eq=False)
class Report:
    """One control cycle.

    Attributes:
        state, reason: what the arm does, and why where that needs saying.
        command: where the joints should be at the cycle's end; None: nothing is to be sent.
        gripper: the opening wanted, 0 closed or 1 open.
        gripper_changed: it differs from what was sent last and is to be sent.
        commanded, measured: tip poses; None before the first joint state.
        chunk_sequence: of the chunk in execution, 0 without one.
        chunk_age: s, -1 without a chunk.
        first_of_chunk: s from a chunk's stamp to this setpoint, when it is the chunk's first.
    """

    state: ArmState
    reason: str = ""
    command: JointCommand | None = None
    gripper: float = 1.0
    gripper_changed: bool = False
    commanded: Pose | None = None
    measured: Pose | None = None
    chunk_sequence: int = 0
    chunk_age: float = -1.0
    first_of_chunk: float | None = None

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
    brakes and then sends nothing more, so that others may move the arm.
    """

    def __init__(
        self,
        embodiment: Embodiment,
        kinematics: Kinematics,
        *,
        chunk_timeout: float,
        joint_timeout: float,
    ) -> None:
        """
        Args:
            embodiment, kinematics: of the same arm.
            chunk_timeout: s after an observation for which its chunk is followed.
            joint_timeout: s without a joint reading after which the arm stops.
        """
        ensemble = embodiment.ensemble
        self._kinematics = kinematics
        self._servo = EmbeddedServo(embodiment, kinematics)
        self._executor = ChunkExecutor(
            embodiment.action, ensemble.name, ensemble.horizon, chunk_timeout
        )
        self._joint_timeout = joint_timeout
        self._period = 1.0 / embodiment.control_rate
        self._due: Pose | None = None  # where the tip should be at the present cycle's start
        self._reading: JointReading | None = None
        self._reading_at = 0.0
        self._instruction = ""
        self._state = ArmState.IDLE
        self._command: JointCommand | None = None
        self._gripper_sent: float | None = None
        self._chunk: Chunk | None = None
        self._chunk_is_new = False
        self.refused = 0
        """Chunks that were refused."""

    def joints(self, reading: JointReading, now: float) -> None:
        """Take in where the joints are, as told at time `now` (s)."""
        self._reading, self._reading_at = reading, now

    def instruct(self, instruction: str, now: float) -> None:
        """Accept chunks for this instruction only; "" stops the arm."""
        if instruction == self._instruction:
            return
        self._instruction = instruction
        if self._state in (ArmState.RUNNING, ArmState.HOLDING):
            self._executor.hold(now)
            self._state = ArmState.STOPPED

    def expects(self, instruction: str) -> bool:
        """Whether chunks for an instruction are wanted at all."""
        return bool(self._instruction) and instruction == self._instruction

    def add(self, chunk: Chunk, instruction: str, now: float) -> str:
        """Take in a chunk made for an instruction; why it was refused, or an empty text."""
        reason = self._refusal(chunk, instruction, now)
        if not reason:
            verdict = self._executor.add(chunk, now)
            reason = verdict.reason
        if reason:
            self.refused += 1
            return reason
        self._chunk, self._chunk_is_new = chunk, True
        self._state = ArmState.RUNNING
        return ""

    def cycle(self, now: float) -> Report:
        """One control cycle at time `now` (s)."""
        reading = self._reading
        if reading is None:
            return Report(ArmState.IDLE, "no joint states yet")
        measured = self._kinematics.forward(reading.positions)
        if now - self._reading_at > self._joint_timeout:
            return self._stop(now, measured, ArmState.FAULT, "joint states stopped coming")
        if self._state is ArmState.FAULT:
            self._state = ArmState.STOPPED
        if self._state in (ArmState.IDLE, ArmState.STOPPED):
            return self._rest(now, reading, measured)
        return self._move(now, reading, measured)

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

    def _move(self, now: float, reading: JointReading, measured: Pose) -> Report:
        """Follow the chunks, or hold after the last."""
        last = self._command
        if last is not None and np.abs(last.positions - reading.positions).max() > _LOST:
            self._executor.hold(now)
            reason = f"the arm is over {_LOST} rad away from where it was sent"
            return self._stop(now, measured, ArmState.STOPPED, reason)
        if self._due is not None:
            self._executor.record(now, self._due, measured)
        setpoint = self._executor.setpoint(now + self._period)
        command = self._servo.setpoint(setpoint.pose, now + self._period)
        self._due = command.tip if command.limited else setpoint.pose
        running = setpoint.state is State.RUNNING
        self._state = ArmState.RUNNING if running else ArmState.HOLDING
        self._command = command
        changed = setpoint.gripper != self._gripper_sent
        self._gripper_sent = setpoint.gripper
        reason = command.reason if running else "chunks stopped coming"
        return self._report(now, reason, command, measured, setpoint, changed)

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
        """Where to start from [n]: the last setpoint, unless the arm is elsewhere by now."""
        last = self._command
        if last is None or np.abs(last.positions - reading.positions).max() > _DISPLACED:
            self._gripper_sent = None
            return reading.positions
        return last.positions

    def _stop(self, now: float, measured: Pose, state: ArmState, reason: str) -> Report:
        """Brake as fast as the limits allow, then send nothing more."""
        self._state = state
        if not self._servo.started:
            return Report(state, reason, measured=measured)
        command = self._servo.stop(now + self._period)
        self._command, self._due = command, command.tip
        return Report(
            state,
            reason,
            command=command if self._moving() else None,
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
        gripper_changed: bool,
    ) -> Report:
        chunk = self._chunk
        first = now - chunk.stamp if chunk is not None and self._chunk_is_new else None
        self._chunk_is_new = False
        return Report(
            self._state,
            reason,
            command=command,
            gripper=setpoint.gripper,
            gripper_changed=gripper_changed,
            commanded=command.tip,
            measured=measured,
            chunk_sequence=chunk.sequence if chunk is not None else 0,
            chunk_age=now - chunk.stamp if chunk is not None else -1.0,
            first_of_chunk=first,
        )
