"""How an Interbotix X-series arm is set up for streaming, without ROS.

The driver's default is a profile of 2 s for every move of the arm and a gripper in PWM mode. For a
stream of setpoints the motors must follow within two control periods, and the gripper must take
positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

_REPLY_TIME = 3.0  # s that setting a mode may take: the motors are written one after the other
ARM, GRIPPER = "arm", "gripper"
"""Names of the group and of the joint, in the driver's own words."""


@dataclass(frozen=True)
class Mode:
    """Fields of interbotix_xs_msgs/srv/OperatingModes; profiles in ms."""

    cmd_type: str
    name: str
    mode: str
    profile_velocity: int
    profile_acceleration: int
    profile_type: str = "time"


def streaming_modes(period: float) -> tuple[Mode, ...]:
    """What to set for setpoints that come once a `period` (s).

    The gripper's position is the distance between its fingers (m), reached within half a second.
    """
    profile = max(2, round(2000 * period))
    return (
        Mode("group", ARM, "position", profile, profile // 2),
        Mode("single", GRIPPER, "linear_position", 500, 100),
    )


class Phase(Enum):
    """Where the set-up stands."""

    ABSENT = "absent"
    SETTING = "setting"
    READY = "ready"


class InterbotixSession:
    """Sets the modes one after the other whenever the driver appears."""

    def __init__(self, namespace: str, modes: tuple[Mode, ...]) -> None:
        """`namespace`: of the driver, for messages."""
        self._name = f"the Interbotix driver in {namespace}"
        self._modes = modes
        self._index = 0
        self._since = 0.0
        self.phase = Phase.ABSENT

    @property
    def fault(self) -> str:
        """Why the arm cannot be used now; empty when it can."""
        if self.phase is Phase.ABSENT:
            return f"{self._name} is not there: start xsarm_control, or name it rightly"
        if self.phase is Phase.SETTING:
            return f"{self._name} is being set to {self._modes[self._index].mode} mode"
        return ""

    def tick(self, t: float, present: bool) -> Mode | None:
        """The mode to set at time t (s), if any; `present`: the driver's service is there."""
        if not present:
            self.phase = Phase.ABSENT
            return None
        if self.phase is Phase.ABSENT:
            self._index = 0
            return self._set(t)
        overdue = self.phase is Phase.SETTING and t - self._since > _REPLY_TIME
        return self._set(t) if overdue else None

    def answered(self, mode: Mode, t: float) -> Mode | None:
        """The driver has set a mode; the next one to set, if any."""
        if self.phase is not Phase.SETTING or mode != self._modes[self._index]:
            return None
        if self._index + 1 == len(self._modes):
            self.phase = Phase.READY
            return None
        self._index += 1
        return self._set(t)

    def _set(self, t: float) -> Mode:
        self.phase, self._since = Phase.SETTING, t
        return self._modes[self._index]
