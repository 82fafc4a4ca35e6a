"""A graph of bringup.py as a description for `ros2 launch`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from internvla_ros.bringup import BringupError, Options, environment, require_programs
from internvla_ros.node_spec import NodeSpec
from internvla_ros.nodes.preflight import check_policy
from internvla_ros.resources import resource
from internvla_ros.respawn import Respawn

if TYPE_CHECKING:
    from launch import LaunchContext, LaunchDescription

OTHER_NAMES = {"checkpoint": "model"}
"""Launch arguments that are not called as their options are."""

_WORDS = {"true": True, "false": False}


def describe(
    make: Callable[[Options], Sequence[NodeSpec]],
    names: Iterable[str] = (),
    defaults: Options | None = None,
    *,
    policy: bool = True,
) -> LaunchDescription:
    """Launch arguments for options, and the nodes that `make` makes of them.

    Args:
        make: the graph for options.
        names: the options that are launch arguments; none: all of them.
        defaults: what they are when they are not given; default: those of Options.
        policy: the graph has a policy, which is checked before anything starts.

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
    start = defaults or Options()
    chosen = tuple(names) or tuple(each.name for each in fields(Options))
    arguments = [
        DeclareLaunchArgument(
            OTHER_NAMES.get(each.name, each.name),
            default_value=_text(getattr(start, each.name)),
            description=each.metadata["description"],
            choices=_choices(each.default, each.metadata["choices"]),
        )
        for each in fields(Options)
        if each.name in chosen
    ]

    def nodes(context: LaunchContext) -> list[Any]:
        given = {name: _given(context, name, getattr(start, name)) for name in chosen}
        options = replace(start, **given)
        if policy:
            checkpoint = check_policy(options.robot, options.policy, options.checkpoint)
            options = replace(options, checkpoint=checkpoint)
        made = make(options)
        require_programs(made)
        return [_action(node, options.namespace) for node in made]

    variables = [SetEnvironmentVariable(name, value) for name, value in environment().items()]
    return LaunchDescription([*arguments, *variables, OpaqueFunction(function=nodes)])


def _given(context: LaunchContext, name: str, default: object) -> Any:
    """A launch argument as it was given, in the type of its option.

    Raises:
        BringupError: it cannot be read as that.
    """
    from launch.substitutions import LaunchConfiguration

    argument = OTHER_NAMES.get(name, name)
    text = LaunchConfiguration(argument).perform(context)
    kind: Any = type(default)
    try:
        return _WORDS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError) as error:
        raise BringupError(f"{argument} is '{text}', which is no {kind.__name__}") from error


def _action(node: NodeSpec, namespace: str, respawn: Respawn | None = None) -> Any:
    """What starts one node, and starts it again. The launch ends when one dies for good that the
    others need. An action is carried out once, so that each start is one of its own; `respawn`
    knows of those before."""
    from launch.actions import ExecuteProcess
    from launch_ros.actions import Node

    respawn = respawn or (Respawn() if node.respawn else None)
    common: dict[str, Any] = {
        "name": node.name,
        "output": "screen",
        "prefix": f"nice -n {node.niceness}" if node.niceness else None,
        "on_exit": _ending(node, namespace, respawn),
    }
    if not node.package:
        return ExecuteProcess(cmd=[node.executable, *node.arguments], **common)
    file = [str(resource(node.parameter_file))] if node.parameter_file else []
    values = {name: _value(value) for name, value in node.parameters.items()}
    return Node(
        package=node.package,
        executable=node.executable,
        namespace=namespace,
        parameters=[*file, *([values] if values else [])],
        arguments=list(node.arguments),
        remappings=list(node.remappings.items()),
        **common,
    )


def _ending(
    node: NodeSpec, namespace: str, respawn: Respawn | None
) -> Callable[[Any, LaunchContext], Any]:
    """What is done when a node's process ends: it is started again, or the others end too."""
    from launch.actions import LogInfo, Shutdown, TimerAction

    began = time.monotonic()

    def ended(event: Any, context: LaunchContext) -> Any:
        if context.is_shutdown or (node.once and event.returncode == 0):
            return None
        reason = f"{node.name} ended with status {event.returncode}"
        ran = time.monotonic() - began
        wait = respawn.died(event.returncode, ran) if respawn is not None else None
        if wait is not None:
            again = TimerAction(period=wait, actions=[_action(node, namespace, respawn)])
            return [LogInfo(msg=f"{reason}; starting it again in {wait:g} s"), again]
        if node.vital:
            return [LogInfo(msg=reason), Shutdown(reason=reason)]
        return [LogInfo(msg=f"{reason}; the others go on without it")]

    return ended


def _value(value: Any) -> Any:
    """A parameter as launch_ros takes it: text as it is, although it may look like YAML."""
    from launch_ros.parameter_descriptions import ParameterValue

    if isinstance(value, tuple):
        return list(value)
    return ParameterValue(value, value_type=str) if isinstance(value, str) else value


def _choices(default: object, choices: tuple[str, ...]) -> list[str] | None:
    return list(_WORDS) if isinstance(default, bool) else list(choices) or None


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
