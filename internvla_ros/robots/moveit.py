"""What MoveIt has to be told of a robot, from config/moveit/ROBOT."""

from __future__ import annotations

from typing import Any

import yaml

from internvla_ros.resources import resource
from internvla_ros.robots.description import urdf


def moveit_settings(robot: str, name: str) -> dict[str, Any]:
    """One file of config/moveit/ROBOT, e.g. "kinematics".

    Raises:
        ResourceError: there is none.
    """
    return yaml.safe_load(resource(f"config/moveit/{robot}/{name}.yaml").read_text())


def robot_model(robot: str) -> dict[str, Any]:
    """The parameters that each of MoveIt's nodes builds its model of the robot from.

    Raises:
        ResourceError: config/moveit has no such robot.
    """
    return {
        "robot_description": urdf(robot),
        "robot_description_semantic": resource(f"config/moveit/{robot}/{robot}.srdf").read_text(),
        "robot_description_kinematics": moveit_settings(robot, "kinematics"),
        "robot_description_planning": moveit_settings(robot, "joint_limits"),
    }
