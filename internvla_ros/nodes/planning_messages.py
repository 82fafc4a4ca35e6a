"""Requests to move_group as messages, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import Pose as PoseMessage
from shape_msgs.msg import SolidPrimitive
from std_msgs.msg import Header

from internvla_ros.motion.backends.planning import GROUP, PlanGoal
from internvla_ros.motion.se3 import Pose
from internvla_ros.nodes.converters import pose_message
from internvla_ros.nodes.optional import optional_module


class PlanningMessages:
    """Makes goals of moveit_msgs/action/MoveGroup."""

    def __init__(self) -> None:
        """
        Raises:
            BackendError: moveit_msgs is not installed.
        """
        purpose = "planned motion"
        self._messages: Any = optional_module("moveit_msgs.msg", purpose, "moveit-msgs")
        self.action: Any = optional_module("moveit_msgs.action", purpose, "moveit-msgs").MoveGroup

    def goal(self, plan: PlanGoal, header: Header) -> Any:
        """A goal that plans from where the arm is, in the scene as it is, and moves.

        Args:
            header: stamp, and the robot's base frame.
        """
        goal = self.action.Goal()
        request = goal.request
        request.group_name = GROUP
        request.planner_id = plan.planner
        request.num_planning_attempts = plan.attempts
        request.allowed_planning_time = plan.time
        request.max_velocity_scaling_factor = plan.speed
        request.max_acceleration_scaling_factor = plan.speed
        request.workspace_parameters.header = header
        # An empty state that is not a difference would be taken for the arm's own.
        request.start_state.is_diff = True
        request.goal_constraints = [self._constraints(plan, header)]
        goal.planning_options.planning_scene_diff.is_diff = True
        goal.planning_options.planning_scene_diff.robot_state.is_diff = True
        goal.planning_options.plan_only = False
        return goal

    def _constraints(self, plan: PlanGoal, header: Header) -> Any:
        constraints = self._messages.Constraints()
        if plan.pose is None:
            constraints.joint_constraints = [
                self._messages.JointConstraint(
                    joint_name=name,
                    position=position,
                    tolerance_above=plan.joint_tolerance,
                    tolerance_below=plan.joint_tolerance,
                    weight=1.0,
                )
                for name, position in plan.joints.items()
            ]
            return constraints
        constraints.position_constraints = [self._place(plan, plan.pose, header)]
        constraints.orientation_constraints = [self._direction(plan, plan.pose, header)]
        return constraints

    def _place(self, plan: PlanGoal, pose: Pose, header: Header) -> Any:
        """Within a small ball about the pose."""
        constraint = self._messages.PositionConstraint(header=header, link_name=plan.tip)
        ball = SolidPrimitive(type=SolidPrimitive.SPHERE, dimensions=[plan.position_tolerance])
        at = PoseMessage()
        at.position.x, at.position.y, at.position.z = (float(v) for v in pose.position)
        constraint.constraint_region.primitives = [ball]
        constraint.constraint_region.primitive_poses = [at]
        constraint.weight = 1.0
        return constraint

    def _direction(self, plan: PlanGoal, pose: Pose, header: Header) -> Any:
        constraint = self._messages.OrientationConstraint(header=header, link_name=plan.tip)
        constraint.orientation = pose_message(pose, header).pose.orientation
        constraint.parameterization = self._messages.OrientationConstraint.ROTATION_VECTOR
        constraint.absolute_x_axis_tolerance = plan.rotation_tolerance
        constraint.absolute_y_axis_tolerance = plan.rotation_tolerance
        constraint.absolute_z_axis_tolerance = plan.rotation_tolerance
        constraint.weight = 1.0
        return constraint


def pose_of(message: PoseMessage) -> Pose | None:
    """A pose [m], or None where the message holds none (its quaternion has no length)."""
    at, turn = message.position, message.orientation
    quaternion = np.array([turn.x, turn.y, turn.z, turn.w])
    numbers = np.concatenate([quaternion, [at.x, at.y, at.z]])
    if not np.isfinite(numbers).all() or np.linalg.norm(quaternion) < 0.5:
        return None
    return Pose.from_quaternion([at.x, at.y, at.z], quaternion)
