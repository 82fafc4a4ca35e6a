"""The conversation with MoveIt Servo, without ROS: what to ask of it, and when to trust it.

Servo starts without a type of command, obeys none while it is paused, halts by itself when
commands are older than its time-out, and says why it does not move on its status topic alone:
after INVALID or a halt it publishes nothing. A session therefore goes

    ABSENT -> SWITCHING (to POSE, verified) -> PAUSED -> RESUMING -> STREAMING -> PAUSING -> PAUSED

and a halt leads through PAUSING and a rest back to SWITCHING, so that each motion starts with a
Servo known to be well. An arm that holds still for a while is paused as well, so that it neither
drifts nor halts meanwhile, and resumed with its next motion. Times are seconds of a clock that
never stands still.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from internvla_ros.motion.backend import BackendError

_REPLY_TIME = 1.0  # s that a service may take
_SILENCE = 0.5  # s without a status after which Servo is taken for dead
_PATIENCE = 0.2  # s for which Servo may report that it does not move
_REST = 1.0  # s of pause after a fault
_HOLD = 1.0  # s at rest after which a hold is a pause; until then Servo may be on its way


class Status(IntEnum):
    """moveit_msgs/msg/ServoStatus.code."""

    INVALID = -1
    NO_WARNING = 0
    DECELERATE_FOR_APPROACHING_SINGULARITY = 1
    HALT_FOR_SINGULARITY = 2
    DECELERATE_FOR_LEAVING_SINGULARITY = 3
    DECELERATE_FOR_COLLISION = 4
    HALT_FOR_COLLISION = 5
    JOINT_BOUND = 6


_HALTS = {
    Status.INVALID: "takes the command for invalid (out of reach, wrong frame or not finite)",
    Status.HALT_FOR_SINGULARITY: "halted before a singularity",
    Status.HALT_FOR_COLLISION: "halted before a collision",
}
_SLOWED = {
    Status.DECELERATE_FOR_APPROACHING_SINGULARITY: "slows down towards a singularity",
    Status.DECELERATE_FOR_LEAVING_SINGULARITY: "slows down, leaving a singularity",
    Status.DECELERATE_FOR_COLLISION: "slows down near a collision",
    Status.JOINT_BOUND: "is held by a joint's bound",
}


class Phase(Enum):
    """Where a session stands."""

    ABSENT = "absent"
    SWITCHING = "switching"
    PAUSING = "pausing"
    RESTING = "resting"
    PAUSED = "paused"
    RESUMING = "resuming"
    STREAMING = "streaming"


class Ask(Enum):
    """A service to be called."""

    SWITCH_TO_POSE = "switch_command_type"
    PAUSE = "pause_servo(true)"
    RESUME = "pause_servo(false)"


@dataclass(frozen=True)
class Request:
    """One call of a service; `number` comes back with its reply."""

    ask: Ask
    number: int


_PHASE_OF = {
    Ask.SWITCH_TO_POSE: Phase.SWITCHING,
    Ask.PAUSE: Phase.PAUSING,
    Ask.RESUME: Phase.RESUMING,
}


class ServoSession:
    """Decides what to ask of one Servo node. Call `tick` some ten times a second or more."""

    def __init__(self, node_name: str) -> None:
        """`node_name`: of Servo, for messages."""
        self._name = f"MoveIt Servo ({node_name})"
        self.phase = Phase.ABSENT
        self._fault = ""
        self._number = 0
        self._since = 0.0  # when the phase began, or was last asked for
        self._heard = 0.0  # when a status came
        self._status = Status.NO_WARNING
        self._status_since = 0.0
        self._moved = 0.0  # when a command moved the arm, or the motion began
        self._holds = False  # paused for a hold, not by a stop

    @property
    def fault(self) -> str:
        """Why Servo cannot be used now; empty when it can."""
        if self.phase is Phase.ABSENT:
            return f"{self._name} is not there: start servo_node, or name it rightly"
        if self._fault:
            return self._fault
        return f"{self._name} is being switched to poses" if self.phase is Phase.SWITCHING else ""

    @property
    def notice(self) -> str:
        """What keeps Servo from full speed; empty when nothing does."""
        slowed = _SLOWED.get(self._status)
        streaming = self.phase is Phase.STREAMING
        return f"{self._name} {slowed}" if streaming and slowed is not None else ""

    def tick(self, t: float, present: bool) -> Request | None:
        """What to ask at time t, if anything; `present`: all of Servo's services are there."""
        if not present:
            self.phase = Phase.ABSENT
            return None
        if self.phase is Phase.ABSENT:
            return self._ask(Ask.SWITCH_TO_POSE, t)
        if self.phase in _PHASE_OF.values() and t - self._since > _REPLY_TIME:
            return self._unanswered(t)
        if self.phase is Phase.RESTING and t - self._since > _REST:
            return self._ask(Ask.SWITCH_TO_POSE, t)
        if self.phase is Phase.STREAMING:
            return self._watch(t)
        return None

    def start(self, t: float) -> Request:
        """Commands follow from now on.

        Raises:
            BackendError: Servo is not ready.
        """
        if self.fault:
            raise BackendError(self.fault)
        self._moved, self._holds = t, False
        return self._ask(Ask.RESUME, t)

    def command(self, moves: bool, t: float) -> Request | None:
        """A command is about to be sent, one of motion or one to stay; what to ask before it."""
        if moves:
            self._moved = t
            return self.start(t) if self._holds and not self.fault else None
        if self.phase is not Phase.STREAMING or t - self._moved < _HOLD:
            return None
        self._holds = True
        return self._ask(Ask.PAUSE, t)

    def stop(self, t: float) -> Request | None:
        """No commands follow until the next start."""
        self._holds = False
        moving = self.phase in (Phase.RESUMING, Phase.STREAMING)
        return self._ask(Ask.PAUSE, t) if moving else None

    def reply(self, number: int, success: bool, t: float) -> None:
        """A service has answered; answers to anything but the newest request say nothing."""
        if number != self._number or self.phase not in _PHASE_OF.values():
            return
        if not success:
            self._fault = f"{self._name} refused {self._asked().value}; asking again"
            return
        self._since = t
        if self.phase is Phase.SWITCHING:
            self.phase, self._fault = Phase.PAUSED, ""
        elif self.phase is Phase.PAUSING:
            self.phase = Phase.RESTING if self._fault else Phase.PAUSED
        elif self.phase is Phase.RESUMING:
            self.phase, self._heard = Phase.STREAMING, t
            self._status, self._status_since = Status.NO_WARNING, t

    def status(self, code: int, t: float) -> None:
        """Servo has told its status; a code that is not known counts as invalid."""
        known = code in Status.__members__.values()
        status = Status(code) if known else Status.INVALID
        if status is not self._status:
            self._status, self._status_since = status, t
        self._heard = t

    def _ask(self, ask: Ask, t: float) -> Request:
        self.phase, self._since = _PHASE_OF[ask], t
        self._number += 1
        return Request(ask, self._number)

    def _asked(self) -> Ask:
        """What the present phase waits for."""
        return next(ask for ask, phase in _PHASE_OF.items() if phase is self.phase)

    def _unanswered(self, t: float) -> Request:
        """Ask again; a Servo that could not be resumed starts from the beginning."""
        asked = self._asked()
        if not self._fault:
            self._fault = f"{self._name} does not answer {asked.value} within {_REPLY_TIME} s"
        return self._ask(Ask.PAUSE if asked is Ask.RESUME else asked, t)

    def _watch(self, t: float) -> Request | None:
        """Whether Servo, which is being sent commands, does what it is told."""
        if t - self._heard > _SILENCE:
            return self._halt(f"{self._name} has told no status for {_SILENCE} s: is it alive?", t)
        halt = _HALTS.get(self._status)
        if halt is not None and t - self._status_since > _PATIENCE:
            return self._halt(f"{self._name} {halt}", t)
        return None

    def _halt(self, reason: str, t: float) -> Request:
        self._fault, self._holds = reason, False
        return self._ask(Ask.PAUSE, t)
