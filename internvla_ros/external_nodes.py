"""Nodes of other packages that a graph may need: MoveIt, Gazebo and the like, as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from internvla_ros.node_spec import NodeSpec, ParameterValue
from internvla_ros.real_hardware import controllers_file
from internvla_ros.resources import resource
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import Embodiment
from internvla_ros.robots.moveit import moveit_settings, robot_model

WORLD = "worlds/tabletop.sdf"
"""Its table's top is at height 0, and things to grasp lie about its origin."""

_BRIDGED = (
    ("image_raw", "sensor_msgs/msg/Image[gz.msgs.Image"),
    ("camera_info", "sensor_msgs/msg/CameraInfo[gz.msgs.CameraInfo"),
)
_GROUP = "arm"


def robot_state_publisher(
    robot: Embodiment, use_sim_time: bool, description: Mapping[str, str]
) -> NodeSpec:
    """Robot description and frames.

    Args:
        robot: whose.
        use_sim_time: follow /clock.
        description: arguments of the robot's xacro file.
    """
    parameters: dict[str, ParameterValue] = {
        "robot_description": urdf(robot.name, **description),
        "use_sim_time": use_sim_time,
    }
    package = "robot_state_publisher"
    return NodeSpec(package, package, parameters, respawn=True, package=package)


def move_group(robot: Embodiment, use_sim_time: bool) -> NodeSpec:
    """MoveIt's planner and executor."""
    settings = {
        **robot_model(robot.name),
        "planning_pipelines": ["ompl"],
        "default_planning_pipeline": "ompl",
        "ompl": moveit_settings(robot.name, "ompl_planning"),
        **moveit_settings(robot.name, "moveit_controllers"),
        "publish_robot_description_semantic": True,
        # For Servo and RViz, which see the scene as it publishes it.
        "publish_planning_scene": True,
        "publish_geometry_updates": True,
        "publish_state_updates": True,
        "publish_transforms_updates": True,
        "use_sim_time": use_sim_time,
    }
    return NodeSpec(
        "move_group", "move_group", dict(_flat(settings)), package="moveit_ros_move_group"
    )


def servo(robot: Embodiment, use_sim_time: bool) -> NodeSpec:
    """MoveIt Servo. Its smoothing asks for two parameters of its own."""
    period = servo_settings(robot)["publish_period"]
    settings = {
        **robot_model(robot.name),
        "update_period": period,
        "planning_group_name": _GROUP,
        "use_sim_time": use_sim_time,
    }
    return NodeSpec(
        "servo_node",
        "servo_node",
        dict(_flat(settings)),
        package="moveit_servo",
        file=f"config/moveit/{robot.name}/servo.yaml",
    )


def servo_settings(robot: Embodiment) -> dict[str, Any]:
    """The parameters of MoveIt Servo in config/moveit."""
    return moveit_settings(robot.name, "servo")["/**"]["ros__parameters"]["moveit_servo"]


def gazebo(robot: Embodiment, namespace: str, window: bool) -> Iterator[NodeSpec]:
    """Gazebo with the table-top world, the robot put into it, and its cameras and clock in ROS.

    Args:
        robot: its description is taken from the topic robot_description.
        namespace: of the graph, "" or "/something".
        window: show Gazebo's window.
    """
    unseen = () if window else ("-s", "--headless-rendering")
    world = ("sim", "-r", *unseen, str(resource(WORLD)))
    yield NodeSpec("gazebo", "gz", package="", arguments=world)
    x, y, z = gazebo_position(robot)
    yield NodeSpec(
        "spawn",
        "create",
        {"topic": "robot_description", "name": robot.name, "x": x, "y": y, "z": z},
        package="ros_gz_sim",
        once=True,
    )
    cameras = (
        f"{namespace}/{camera.name}/{kind}@{types}"
        for camera in robot.cameras
        for kind, types in _BRIDGED
    )
    clock = "/clock@rosgraph_msgs/msg/Clock[gz.msgs.Clock"
    yield NodeSpec(
        "bridge",
        "parameter_bridge",
        respawn=True,
        package="ros_gz_bridge",
        arguments=(clock, *cameras),
    )


def gazebo_position(robot: Embodiment) -> tuple[float, float, float]:
    """Where in WORLD (m) a robot's base stands for the things there to lie on its own table."""
    table = robot.tabletop
    return (-sum(table.x) / 2, -sum(table.y) / 2, -table.height)


def gazebo_description(robot: Embodiment, namespace: str) -> dict[str, str]:
    """The arguments of a robot's xacro file for Gazebo."""
    file = str(resource(controllers_file(robot)))
    return {"hardware": "gz", "controllers": file, "namespace": namespace}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, ParameterValue]]:
    """Nested parameters as ROS names them: "a.b" is b within a."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", tuple(value) if isinstance(value, list) else value
