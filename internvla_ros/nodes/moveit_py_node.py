"""The MoveGroup action served by moveit_py, where no move_group runs.

In a process of its own: MoveItPy takes the default rclpy context down with it (moveit2 issue 3839).
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from typing import Any

from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node

from internvla_ros.motion.backend import BackendError
from internvla_ros.motion.backends.planning import GROUP, SUCCESS
from internvla_ros.nodes.optional import optional_module
from internvla_ros.nodes.parameters import declare, setting
from internvla_ros.nodes.planning_messages import PlanningMessages
from internvla_ros.nodes.runner import run
from internvla_ros.robots.embodiment import load_embodiment
from internvla_ros.robots.moveit import moveit_settings, robot_model

_PLANNING_FAILED, _CONTROL_FAILED, _PREEMPTED = -1, -4, -7


@dataclass(frozen=True)
class MoveItPyConfig:
    """Parameters of moveit_py_node."""

    robot: str = setting("widowx_250s", "the robot's name, or the path of its YAML file")


def moveit_config(robot: str, use_sim_time: bool) -> dict[str, Any]:
    """What MoveItPy reads as its parameters, from config/moveit/ROBOT.

    `use_sim_time` has to be among them (moveit2 issue 2906).
    """
    return {
        "use_sim_time": use_sim_time,
        **robot_model(robot),
        "planning_pipelines": {"pipeline_names": ["ompl"]},
        "ompl": moveit_settings(robot, "ompl_planning"),
        "plan_request_params": {"planning_pipeline": "ompl"},
        **moveit_settings(robot, "moveit_controllers"),
    }


class MoveItPyPlanner:
    """Plans and executes requests of move_group's action with moveit_py.

    Raises:
        BackendError: moveit_py is not installed.
    """

    def __init__(self, robot: str, use_sim_time: bool) -> None:
        planning: Any = optional_module("moveit.planning", "planning in Python", "moveit-py")
        self._parameters = planning.PlanRequestParameters
        config = moveit_config(robot, use_sim_time)
        self._moveit = planning.MoveItPy(node_name="moveit_py", config_dict=config)
        self._cancelled = False

    def move(self, goal: Any) -> tuple[int, str]:
        """Plan and execute a MoveGroup goal; a MoveItErrorCodes value and a line of text."""
        self._cancelled = False
        request = goal.request
        component = self._moveit.get_planning_component(request.group_name or GROUP)
        component.set_start_state_to_current_state()
        component.set_goal_state(motion_plan_constraints=list(request.goal_constraints))
        plan = component.plan(single_plan_parameters=self._plan_parameters(request))
        if not plan:
            code = int(plan.error_code.val)
            return code if code != SUCCESS else _PLANNING_FAILED, "no path"
        if goal.planning_options.plan_only:
            return SUCCESS, ""
        if self._cancelled:
            return _PREEMPTED, "cancelled"
        done = self._moveit.execute(plan.trajectory, controllers=[])
        if self._cancelled:
            return _PREEMPTED, "cancelled"
        return (SUCCESS, "") if done else (_CONTROL_FAILED, "the controller failed")

    def cancel(self) -> None:
        """Stop what is being executed, or what is going to be."""
        self._cancelled = True
        self._moveit.get_trajectory_execution_manager().stop_execution()

    def _plan_parameters(self, request: Any) -> Any:
        parameters = self._parameters(self._moveit, "")
        parameters.planning_pipeline = "ompl"
        parameters.planner_id = request.planner_id
        parameters.planning_attempts = request.num_planning_attempts
        parameters.planning_time = request.allowed_planning_time
        parameters.max_velocity_scaling_factor = request.max_velocity_scaling_factor
        parameters.max_acceleration_scaling_factor = request.max_acceleration_scaling_factor
        return parameters


class MoveItPyNode(Node):
    """Serves `move_action`, one goal at a time, each in a thread of its own."""

    def __init__(self) -> None:
        """
        Raises:
            BackendError: moveit_py is not installed, or the node is in a namespace: moveit_py reads
                its parameters as a node outside of any.
        """
        super().__init__("move_group_py")
        if self.get_namespace() != "/":
            raise BackendError(
                f"moveit_py_node is in namespace {self.get_namespace()}, which moveit_py cannot be "
                "in; plan with move_group there"
            )
        config = declare(self, MoveItPyConfig)
        messages = PlanningMessages()
        self._action = messages.action
        simulated = bool(self.get_parameter("use_sim_time").value)
        self._planner = MoveItPyPlanner(load_embodiment(config.robot).name, simulated)
        self._busy = threading.Lock()
        self._server = ActionServer(
            self,
            self._action,
            "move_action",
            execute_callback=lambda handle: self._result(handle, _PLANNING_FAILED, ""),
            handle_accepted_callback=self._on_goal,
            cancel_callback=self._on_cancel,
        )

    def _on_goal(self, handle: ServerGoalHandle) -> None:
        threading.Thread(target=self._serve, args=(handle,), daemon=True).start()

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        self._planner.cancel()
        return CancelResponse.ACCEPT

    def _serve(self, handle: ServerGoalHandle) -> None:
        """Plan and move; the result is sent from the node's own thread."""
        with self._busy:
            code, text = self._planner.move(handle.request)
        handle.execute(lambda ended: self._result(ended, code, text))

    def _result(self, handle: ServerGoalHandle, code: int, text: str) -> Any:
        result = self._action.Result()
        result.error_code.val, result.error_code.message = code, text
        if handle.is_cancel_requested:
            handle.canceled()
        elif code == SUCCESS:
            handle.succeed()
        else:
            handle.abort()
        return result


def main() -> int:
    """Run moveit_py_node."""
    return run(MoveItPyNode)


if __name__ == "__main__":
    sys.exit(main())
