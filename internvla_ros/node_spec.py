"""One node as data, and the command line that runs it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from internvla_ros.resources import PACKAGE, resource

ParameterValue = bool | int | float | str | tuple[str, ...] | tuple[float, ...]


@dataclass(frozen=True)
class NodeSpec:
    """One node, which is one process.

    Attributes:
        name: its name in the graph.
        executable: the program, in lib/internvla_ros and as module internvla_ros.nodes.EXECUTABLE,
            or in lib/PACKAGE of another package, or on PATH.
        parameters: set over those of its file; "a.b" is b within a.
        remappings: topic or service -> its other name.
        respawn: start it again when it dies.
        niceness: how much it gives way to the others when processors are scarce; the nodes that
            keep a pace do not.
        package: that has the program; "": it is no node of ROS, but a program on PATH.
        arguments: of the program, before those of ROS.
        vital: the graph is of no use without it; those that only listen are not.
        once: it does its work and ends, with status 0 when all went well.
        file: of parameters, relative to the package's share folder; "" is
            config/nodes/EXECUTABLE.yaml for our own nodes, none for others.
    """

    name: str
    executable: str
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    remappings: Mapping[str, str] = field(default_factory=dict)
    respawn: bool = False
    niceness: int = 0
    package: str = PACKAGE
    arguments: tuple[str, ...] = ()
    vital: bool = True
    once: bool = False
    file: str = ""

    @property
    def parameter_file(self) -> str:
        """The file of its parameters, relative to the package's share folder; "": it has none."""
        own = f"config/nodes/{self.executable}.yaml" if self.package == PACKAGE else ""
        return self.file or own


def program(package: str, executable: str) -> Path | None:
    """A program of an installed ROS package, or on PATH for package ""; None: not installed."""
    if not package:
        found = shutil.which(executable)
        return Path(found) if found else None
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        path = Path(prefix) / "lib" / package / executable
        if prefix and path.is_file():
            return path
    return None


def command(spec: NodeSpec, namespace: str = "") -> tuple[str, ...]:
    """The command line that runs one node, those of ours with this Python."""
    words = [sys.executable, "-m", f"internvla_ros.nodes.{spec.executable}"]
    if spec.package != PACKAGE:
        words = [str(program(spec.package, spec.executable) or spec.executable)]
    words += spec.arguments
    if not spec.package:
        return tuple(words)
    words += ["--ros-args", "-r", f"__node:={spec.name}"]
    if namespace:
        words += ["-r", f"__ns:={namespace}"]
    for topic, other in spec.remappings.items():
        words += ["-r", f"{topic}:={other}"]
    if spec.parameter_file:
        words += ["--params-file", str(resource(spec.parameter_file))]
    for name, value in spec.parameters.items():
        words += ["-p", f"{name}:={_yaml(value)}"]
    return tuple(words)


def _yaml(value: ParameterValue) -> str:
    """A parameter's value as ROS reads it on a command line: JSON is YAML."""
    return json.dumps(list(value) if isinstance(value, tuple) else value)
