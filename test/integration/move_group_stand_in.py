"""A node that keeps move_group's written contract, for where MoveIt is not at hand.

It refuses what MoveIt would misread: a start state or scene that is not a difference, a speed of 0
(which MoveIt takes for 1), a group it does not know. It "moves" for some tenths of a second, then
publishes joint states at the goal. Poses beyond 0.6 m have NO_IK_SOLUTION. Where the parameter
`stuck` is set, only a pose can be planned (START_STATE_IN_COLLISION), and frees it. With `slow` it
takes the first goal after as many seconds.

With the parameter `robot_description`, as a graph starts move_group, it moves a robot's joints
through its joint_trajectory_controller (`robot` is its name), and is done when the joint states say
that they are there. It has one planner, and no scene.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

import numpy as np
import rclpy
from moveit_msgs.action import MoveGroup
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.task import Future
from sensor_msgs.msg import JointState

CYCLES = 15
MOST_CYCLES = 500
DURATION = 1.0  # s, of every motion of a robot's
NEAR = 0.02  # rad
SUCCESS, NO_IK, STUCK, PREEMPTED, INVALID_PLAN, CONTROL_FAILED = 1, -31, -10, -7, -2, -4


class MoveGroupStandIn(Node):
    def __init__(self) -> None:
        super().__init__("move_group", automatically_declare_parameters_from_overrides=True)
        self.stuck = self.has_parameter("stuck") and bool(self.get_parameter("stuck").value)
        self.slow = float(self.get_parameter("slow").value) if self.has_parameter("slow") else 0.0
        self.arm: Any = None
        if self.has_parameter("robot_description"):
            from arm_stand_in import ArmStandIn  # takes its time to import

            self.arm = ArmStandIn(self, "joint_states", "arm_controller/joint_trajectory")
        self.joints = self.create_publisher(JointState, "joint_states", 10)
        kept = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.requests = self.create_publisher(JointState, "~/requests", kept)
        self.ending: Future | None = None
        self.create_timer(0.02, self.end_cycle)
        self.server = ActionServer(
            self,
            MoveGroup,
            "move_action",
            execute_callback=self.execute,
            goal_callback=self.take,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
        )

    def take(self, goal: MoveGroup.Goal) -> GoalResponse:
        time.sleep(self.slow)
        self.slow = 0.0
        return GoalResponse.ACCEPT

    async def execute(self, handle: ServerGoalHandle) -> MoveGroup.Result:
        goal = handle.request
        request, result = goal.request, MoveGroup.Result()
        self.tell(request)
        result.error_code.val = self.verdict(goal)
        if result.error_code.val != SUCCESS:
            handle.abort()
            return result
        while self.arm is not None and self.arm.measured is None:
            await self.cycle()  # as move_group waits for the current state
        goal_joints = self.depart(request.goal_constraints[0])
        for cycle in range(MOST_CYCLES):
            handle.publish_feedback(MoveGroup.Feedback(state="MONITOR"))
            if handle.is_cancel_requested:
                self.halt()
                result.error_code.val = PREEMPTED
                handle.canceled()
                return result
            if self.is_there(goal_joints, cycle):
                break
            await self.cycle()
        else:
            result.error_code.val = CONTROL_FAILED
            handle.abort()
            return result
        self.stuck = False
        self.arrive(request.goal_constraints[0])
        handle.succeed()
        return result

    def depart(self, constraints: Any) -> np.ndarray | None:
        """Begin the motion; where the joints will be, None without a robot."""
        if self.arm is None:
            return None
        if constraints.joint_constraints:
            goal = np.array([each.position for each in constraints.joint_constraints])
        else:
            goal = self.arm.reach(
                constraints.position_constraints[0].constraint_region.primitive_poses[0],
                constraints.orientation_constraints[0].orientation,
            )
        self.arm.send([(DURATION, goal, np.zeros(len(goal)))])
        return goal

    def is_there(self, goal: np.ndarray | None, cycle: int) -> bool:
        if goal is None:
            return cycle >= CYCLES
        return bool(np.abs(self.arm.measured - goal).max() < NEAR)

    def halt(self) -> None:
        """Stay where the arm is."""
        if self.arm is not None:
            here = self.arm.measured
            self.arm.send([(0.1, here, np.zeros(len(here)))])

    def cycle(self) -> Future:
        """The end of the present cycle."""
        if self.ending is None or self.ending.done():
            self.ending = Future()
        return self.ending

    def end_cycle(self) -> None:
        if self.ending is not None:
            self.ending.set_result(None)

    def verdict(self, goal: MoveGroup.Goal) -> int:
        request, options = goal.request, goal.planning_options
        scene = options.planning_scene_diff
        asked_rightly = (
            request.group_name == "arm"
            and request.start_state.is_diff
            and scene.is_diff
            and scene.robot_state.is_diff
            and 0.0 < request.max_velocity_scaling_factor <= 1.0
            and 0.0 < request.max_acceleration_scaling_factor <= 1.0
            and request.allowed_planning_time > 0.0
            and len(request.goal_constraints) == 1
        )
        if not asked_rightly:
            return INVALID_PLAN
        place = request.goal_constraints[0].position_constraints
        if self.stuck and not place:
            return STUCK
        if place:
            at = place[0].constraint_region.primitive_poses[0].position
            return NO_IK if at.x**2 + at.y**2 + at.z**2 > 0.36 else SUCCESS
        return SUCCESS

    def tell(self, request: object) -> None:
        """What was asked for: a name a constraint, and the speed."""
        constraints = request.goal_constraints[0]
        names = [each.joint_name for each in constraints.joint_constraints]
        names += [each.link_name for each in constraints.position_constraints]
        message = JointState(name=[*names, request.planner_id])
        message.position = [request.max_velocity_scaling_factor]
        self.requests.publish(message)

    def arrive(self, constraints: Any) -> None:
        if self.arm is not None:
            return
        names = [each.joint_name for each in constraints.joint_constraints]
        message = JointState(name=[*names, "left_finger"])
        message.position = [each.position for each in constraints.joint_constraints] + [0.037]
        if names:
            self.joints.publish(message)


def main() -> None:
    rclpy.init()
    node = MoveGroupStandIn()
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)
    node.destroy_node()


if __name__ == "__main__":
    main()
