"""Planned motions, without ROS: what is asked of MoveIt's move_group, and what its answers mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from internvla_ros.motion.se3 import Pose
from internvla_ros.robots.embodiment import Embodiment

GROUP = "arm"
"""The planning group of every robot in config/moveit."""
SUCCESS = 1

_JOINT_TOLERANCE = 0.005  # rad
_POSITION_TOLERANCE = 0.002  # m, radius
_ROTATION_TOLERANCE = 0.02  # rad about each axis
_RETREAT = 0.05  # m, the way up out of trouble
_LEAST_SPEED = 1e-3  # a share of it must not be rounded to 0, which MoveIt takes for full speed
_RECOVERY_SPEED = 0.3  # share of the speed asked for

_MEANING = {
    1: "done",
    99999: "move_group failed without saying why",
    -1: "no path was found",
    -2: "the path found is not valid any more",
    -4: "the controller failed to follow the path",
    -6: "planning or execution took too long",
    -7: "it was interrupted",
    -10: "the arm touches something where it stands",
    -12: "the goal touches something",
    -21: "the pose's frame cannot be transformed",
    -31: "no joint positions reach the pose",
}


class PlanningError(ValueError):
    """A motion that cannot be asked for."""


class Target(Enum):
    """Where a planned motion leads; values are those of the action MoveTo."""

    READY = 0
    POSE = 1
    RECOVER = 2


@dataclass(frozen=True, eq=False)
class PlanGoal:
    """One request to move_group.

    Attributes:
        frame, tip: base frame, and the link to be placed.
        joints: name -> rad (or m) to reach; empty for a pose.
        pose: of the tip in the base frame; None for joints.
        speed: share of the joints' velocity and acceleration limits, above 0 (which MoveIt would
            take for 1) and at most 1.
        planner: of OMPL; "": the default of the configuration.
        attempts, time: of planning, the latter in s.
        joint_tolerance, position_tolerance, rotation_tolerance: rad, m, rad.
    """

    frame: str
    tip: str
    joints: dict[str, float]
    pose: Pose | None
    speed: float
    planner: str = ""
    attempts: int = 4
    time: float = 3.0
    joint_tolerance: float = _JOINT_TOLERANCE
    position_tolerance: float = _POSITION_TOLERANCE
    rotation_tolerance: float = _ROTATION_TOLERANCE


def plan_goals(
    robot: Embodiment, target: Target, pose: Pose | None, here: Pose | None, speed: float
) -> list[PlanGoal]:
    """What to ask for, one after the other, until one works (for a retreat: whether it works or
    not).

    Recovery first goes straight up a little, out of whatever the arm touches, then to the ready
    pose, and there tries a second planner with more time. It goes slower.

    Args:
        pose: the goal of POSE, in the base frame.
        here: where the tip is; None: unknown.
        speed: share of the limits.
    Raises:
        PlanningError: the pose or the speed is missing or impossible.
    """
    if not _LEAST_SPEED <= speed <= 1.0:
        raise PlanningError(f"speed is {speed:g}; it must be {_LEAST_SPEED:g} at least, 1 at most")
    ready = dict(zip(robot.joints, robot.ready.tolist(), strict=True))
    to_ready = PlanGoal(robot.base_frame, robot.tip_frame, ready, None, speed)
    if target is Target.READY:
        return [to_ready]
    if target is Target.POSE:
        return [replace(to_ready, joints={}, pose=_reachable(robot, pose))]
    slow = replace(to_ready, speed=_RECOVERY_SPEED * speed)
    thorough = replace(slow, planner="BKPIECEkConfigDefault", attempts=8, time=10.0)
    if here is None:
        return [slow, thorough]
    up = Pose(here.position + np.array([0.0, 0.0, _RETREAT]), here.rotation)
    return [replace(slow, joints={}, pose=up), slow, thorough]


def meaning(code: int, message: str = "") -> str:
    """What a MoveItErrorCodes value says, with MoveIt's own message where there is one."""
    known = _MEANING.get(code, f"move_group answered with code {code}")
    return f"{known} ({message})" if message and code != SUCCESS else known


def _reachable(robot: Embodiment, pose: Pose | None) -> Pose:
    """The pose, if it is one and inside the workspace."""
    if pose is None or not pose.is_valid():
        raise PlanningError("the pose is not a finite, rigid one")
    lower, upper = robot.workspace
    if (pose.position < lower).any() or (pose.position > upper).any():
        raise PlanningError(
            f"the pose at {_numbers(pose.position)} m is outside the workspace "
            f"{_numbers(lower)}..{_numbers(upper)}"
        )
    return pose


def _numbers(values: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{value:.3f}" for value in values) + ")"
