"""What motion backends decide, without ROS: gripper ways, trajectories, planned goals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvla_ros.motion.backends.interbotix import InterbotixSession, streaming_modes
from internvla_ros.motion.backends.planning import PlanningError, Target, meaning, plan_goals
from internvla_ros.motion.backends.trajectory import GripperMotion
from internvla_ros.motion.se3 import Pose
from internvla_ros.robots.embodiment import load_embodiment

ROBOT = load_embodiment("widowx_250s")
MOVES = st.lists(st.tuples(st.floats(0.001, 1.0), st.floats(0.0, 1.0)), min_size=1, max_size=20)


@given(MOVES)
def test_fingers_are_never_asked_for_more_than_their_speed(
    moves: list[tuple[float, float]],
) -> None:
    """Each way, from wherever the fingers have got to, takes as long as they need."""
    gripper, motion, t = ROBOT.gripper, GripperMotion(ROBOT.gripper), 0.0
    position, goal, end = gripper.closed, gripper.closed, 0.0
    for wait, opening in moves:
        left = max(end - t, 0.0)
        t += wait
        share = 1.0 if wait >= left else wait / left
        position += share * (goal - position)
        point = motion.change(opening, t)
        if point is None:
            assert goal == pytest.approx(gripper.position(opening))
            continue
        goal, end = float(point.positions[0]), t + point.time
        assert goal == pytest.approx(gripper.position(opening))
        assert abs(goal - position) / point.time <= gripper.velocity * (1.0 + 1e-6)


def test_the_same_opening_is_sent_once_until_it_is_forgotten() -> None:
    motion = GripperMotion(ROBOT.gripper)
    assert motion.change(1.0, 0.0) is not None
    assert motion.change(1.0, 0.1) is None
    motion.forget()
    assert motion.change(1.0, 0.2) is not None


@given(st.one_of(st.floats(0.0, 1.0), st.floats(allow_nan=True, allow_infinity=True)))
def test_a_speed_is_a_share_of_the_limits(speed: float) -> None:
    """0 above all is refused, and what rounds to it: MoveIt takes it for full speed."""
    if 1e-3 <= speed <= 1.0:
        goals = plan_goals(ROBOT, Target.RECOVER, None, None, speed)
        assert all(0.0 < goal.speed < speed for goal in goals)
    else:
        with pytest.raises(PlanningError, match="speed"):
            plan_goals(ROBOT, Target.READY, None, None, speed)


def test_recovery_goes_up_before_anything_else() -> None:
    here = Pose(np.array([0.3, 0.0, 0.02]), np.eye(3))
    up, ready, thorough = plan_goals(ROBOT, Target.RECOVER, None, here, 1.0)
    assert up.pose is not None
    assert up.pose.position[2] == pytest.approx(0.07)
    assert list(ready.joints) == list(ROBOT.joints)
    assert thorough.time > ready.time


def test_codes_have_meanings() -> None:
    assert meaning(1, "ignored") == "done"
    assert meaning(-12, "link_3") == "the goal touches something (link_3)"
    assert "code -77" in meaning(-77)


def test_an_interbotix_driver_that_comes_back_is_set_up_again() -> None:
    arm, gripper = streaming_modes(0.02)
    assert (arm.profile_velocity, arm.profile_acceleration) == (40, 20)
    session = InterbotixSession("/wx250s", (arm, gripper))
    assert session.tick(0.0, True) == arm
    assert session.tick(1.0, True) is None
    assert session.tick(4.0, True) == arm, "asked again when it is not answered"
    assert session.answered(gripper, 4.1) is None, "not what was asked for"
    assert session.answered(arm, 4.2) == gripper
    assert session.answered(gripper, 4.3) is None
    assert session.fault == ""
    assert session.tick(5.0, False) is None
    assert "not there" in session.fault
    assert session.tick(6.0, True) == arm
