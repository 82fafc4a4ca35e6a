"""Parameters of all nodes: described, bounded, the same in config/nodes, guarded by the node."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy")
pytest.importorskip("internvla_ros.msg")

import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from internvla_ros.bringup import Options, graph
from internvla_ros.nodes.parameters import Limits, ParameterError, declare
from internvla_ros.resources import resource

NODES = Path(__file__).resolve().parent.parent / "internvla_ros" / "nodes"
BACKENDS = ("backends", "gripper_output", "interbotix_backend", "moveit_backend", "servo_backend")
"""Modules whose parameters are arm_node's too."""
FROM_BRINGUP = {"robot", "checkpoint", "seed", "robot_state"}
"""Parameters that the graph sets, whatever the node's file says."""


@dataclass(frozen=True)
class Group:
    """A dataclass of parameters, and the program that declares them."""

    executable: str
    config: type

    def __str__(self) -> str:
        return f"{self.executable}-{self.config.__name__}"


def groups() -> Iterator[Group]:
    for path in sorted(NODES.glob("*.py")):
        for name in re.findall(r"^class (\w+Config)\b", path.read_text(), re.MULTILINE):
            module = importlib.import_module(f"internvla_ros.nodes.{path.stem}")
            executable = "arm_node" if path.stem in BACKENDS else path.stem
            yield Group(executable, getattr(module, name))


GROUPS = list(groups())
SETTINGS = [
    pytest.param(group, each, id=f"{group}-{each.name}")
    for group in GROUPS
    for each in fields(group.config)
]
each_group = pytest.mark.parametrize("group", GROUPS, ids=str)
each_setting = pytest.mark.parametrize(("group", "setting"), SETTINGS)


def file_of(executable: str) -> Path:
    return resource(f"config/nodes/{executable}.yaml")


def values_in(executable: str) -> dict[str, Any]:
    values = yaml.safe_load(file_of(executable).read_text())["/**"]["ros__parameters"]
    assert isinstance(values, dict)
    return values


def test_there_is_a_file_for_every_node() -> None:
    executables = {group.executable for group in GROUPS}
    assert executables == {path.stem for path in resource("config/nodes").glob("*.yaml")}
    assert executables == {path.stem for path in NODES.glob("*_node.py")} - {"demo_node"}


@pytest.mark.parametrize("executable", sorted({group.executable for group in GROUPS}))
def test_a_file_has_the_parameters_of_its_node(executable: str) -> None:
    declared = {
        each.name: each.default
        for group in GROUPS
        if group.executable == executable
        for each in fields(group.config)
    }
    values = values_in(executable)
    assert values.keys() <= declared.keys()
    assert declared.keys() - values.keys() <= FROM_BRINGUP
    for name, value in values.items():
        assert type(value) is type(declared[name])
        assert value == declared[name]


@pytest.mark.parametrize("executable", sorted({group.executable for group in GROUPS}))
def test_a_file_explains_its_values(executable: str) -> None:
    first, *lines = file_of(executable).read_text().splitlines()
    assert first.startswith(f"# {executable}: ")
    for line in lines:
        if re.match(r" {4}\w+:", line):
            assert "#" in line, line


@each_setting
def test_a_parameter_is_described_and_bounded(group: Group, setting: Field[Any]) -> None:
    limits: Limits = setting.metadata["limits"]
    assert len(setting.metadata["description"]) >= 10
    if isinstance(setting.default, bool | str):
        assert limits.minimum is None and limits.maximum is None
        assert not limits.choices or setting.default in limits.choices
    elif isinstance(setting.default, int | float):
        assert limits.minimum is not None and limits.maximum is not None
        assert limits.minimum <= setting.default <= limits.maximum


@pytest.mark.parametrize("node", graph(Options(checkpoint="/x", record="x")), ids=lambda n: n.name)
def test_the_graph_sets_parameters_that_are_there(node: Any) -> None:
    declared = {
        each.name for g in GROUPS if g.executable == node.executable for each in fields(g.config)
    }
    assert node.parameters.keys() - {"use_sim_time"} <= declared


@pytest.fixture(scope="module", autouse=True)
def ros() -> Iterator[None]:
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    yield
    rclpy.try_shutdown()


def make_node(*overrides: Parameter) -> Node:
    return Node("some_node", parameter_overrides=list(overrides), start_parameter_services=False)


@each_group
def test_parameters_are_declared_with_descriptors_and_stay(group: Group) -> None:
    node = make_node()
    try:
        declare(node, group.config)
        for each in fields(group.config):
            descriptor = node.describe_parameter(each.name)
            assert descriptor.description == each.metadata["description"]
            assert descriptor.read_only
            (result,) = node.set_parameters([Parameter(each.name, value=each.default)])
            assert not result.successful
            assert "read-only" in result.reason
    finally:
        node.destroy_node()


def bad_values(setting: Field[Any]) -> Iterator[Any]:
    """Values of the wrong type, out of range, or none of the choices."""
    limits: Limits = setting.metadata["limits"]
    yield 3 if isinstance(setting.default, str) else "three"
    if limits.choices:
        yield "none of them"
    if limits.minimum is not None and limits.maximum is not None:
        kind = type(setting.default)
        yield kind(limits.minimum - 1)
        if limits.maximum < 2**62:  # ROS compares floats with a tolerance
            yield kind(2 * limits.maximum + 1)


@each_setting
def test_a_bad_value_is_refused_with_a_reason(group: Group, setting: Field[Any]) -> None:
    for value in bad_values(setting):
        node = make_node(Parameter(setting.name, value=value))
        try:
            with pytest.raises(ParameterError, match=rf"'{setting.name}' of some_node.*\w+"):
                declare(node, group.config)
        finally:
            node.destroy_node()
