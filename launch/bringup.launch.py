"""The graph of one robot for `ros2 launch`; what is in it is said in internvla_ros/bringup.py.

ros2 launch internvla_ros bringup.launch.py robot:=widowx_250s sim:=mujoco checkpoint:=DIR
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from internvla_ros.bringup import NodeSpec, Options, environment, graph
from internvla_ros.nodes.preflight import check_policy
from internvla_ros.resources import PACKAGE, resource

if TYPE_CHECKING:
    from launch import LaunchContext, LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """One launch argument for each field of Options.

    Raises:
        RuntimeError: the launch packages of a full ROS installation are not here.
    """
    try:
        from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable

        from launch import LaunchDescription
    except ImportError as error:
        raise RuntimeError(
            "launch files need the packages launch and launch_ros of a full ROS 2 installation; "
            "without them use: internvla up"
        ) from error
    arguments = [
        DeclareLaunchArgument(field.name, default_value=_text(field.default))
        for field in fields(Options)
    ]
    variables = [SetEnvironmentVariable(name, value) for name, value in environment().items()]
    return LaunchDescription([*arguments, *variables, OpaqueFunction(function=_nodes)])


def _nodes(context: LaunchContext) -> list[Any]:
    """The nodes for the launch arguments as they were given."""
    from launch.substitutions import LaunchConfiguration

    given = {
        field.name: type(field.default)(
            _value(LaunchConfiguration(field.name).perform(context), field.default)
        )
        for field in fields(Options)
    }
    given["checkpoint"] = check_policy(given["robot"], given["policy"], given["checkpoint"])
    options = Options(**given)
    return [_action(node, options.namespace) for node in graph(options)]


def _action(node: NodeSpec, namespace: str) -> Any:
    from launch_ros.actions import Node

    own = [str(resource(node.parameter_file))] if node.package == PACKAGE else []
    return Node(
        package=node.package,
        executable=node.executable,
        name=node.name,
        namespace=namespace,
        parameters=[*own, dict(node.parameters)],
        arguments=list(node.arguments),
        remappings=list(node.remappings.items()),
        respawn=node.respawn,
        prefix=f"nice -n {node.niceness}" if node.niceness else None,
        output="screen",
    )


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _value(text: str, default: object) -> object:
    """A launch argument in the type of its option."""
    return text.lower() in ("true", "1") if isinstance(default, bool) else text
