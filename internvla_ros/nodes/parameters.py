"""Node parameters as frozen dataclasses: one field a parameter, with its range and description."""

from __future__ import annotations

from dataclasses import MISSING, Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.lifecycle import LifecycleNodeMixin

if TYPE_CHECKING:
    from rclpy.node import Node

Config = TypeVar("Config")


class ParameterError(ValueError):
    """A parameter has a value that the node cannot work with."""


@dataclass(frozen=True)
class Limits:
    """What a parameter may be: a closed range, or one of some choices."""

    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()


def setting(
    default: Any,
    description: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A field of a node's parameter dataclass.

    Args:
        default: the value without configuration; tuples become ROS arrays.
        description: unit and meaning, shown by `ros2 param describe`.
        minimum, maximum: closed range of a number (both or neither).
        choices: the values that a string may have.
    """
    limits = Limits(minimum, maximum, choices)
    return field(default=default, metadata={"description": description, "limits": limits})


def declare(node: Node, config: type[Config]) -> Config:
    """Declare every field of `config` as a parameter of `node`, where it is none yet; read them.

    They are read-only, except that managed nodes (see `managed`) let them be changed while
    unconfigured, and read them again.

    Raises:
        ParameterError: a value has the wrong type, is out of range, or none of the choices.
    """
    values: dict[str, Any] = {}
    read_only = not isinstance(node, LifecycleNodeMixin)
    for each in fields(config):  # type: ignore[arg-type]
        try:
            value = _value(node, each, read_only)
        except ParameterException as error:
            where = f"parameter '{each.name}' of {node.get_name()}"
            raise ParameterError(f"{where}: {error}") from error
        choices = each.metadata["limits"].choices
        if choices and value not in choices:
            raise ParameterError(
                f"parameter '{each.name}' of {node.get_name()} is '{value}'; "
                f"it must be one of {', '.join(choices)}"
            )
        values[each.name] = tuple(value) if isinstance(each.default, tuple) else value
    return config(**values)


def _value(node: Node, each: Field[Any], read_only: bool) -> Any:
    """What the parameter for a field is, which is declared if it was not."""
    if node.has_parameter(each.name):
        return node.get_parameter(each.name).value
    default = list(each.default) if isinstance(each.default, tuple) else each.default
    return node.declare_parameter(each.name, default, _descriptor(each, read_only)).value


def _descriptor(each: Field[Any], read_only: bool) -> ParameterDescriptor:
    """The ROS descriptor of one field."""
    if each.default is MISSING:
        raise TypeError(f"{each.name}: a node parameter needs a default")
    limits: Limits = each.metadata["limits"]
    descriptor = ParameterDescriptor(description=each.metadata["description"], read_only=read_only)
    if limits.choices:
        descriptor.additional_constraints = f"one of {', '.join(limits.choices)}"
    if limits.minimum is not None and limits.maximum is not None:
        low, high = limits.minimum, limits.maximum
        if isinstance(each.default, int):
            descriptor.integer_range = [
                IntegerRange(from_value=int(low), to_value=int(high), step=1)
            ]
        else:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high))
            ]
    return descriptor
