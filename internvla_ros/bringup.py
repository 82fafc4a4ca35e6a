"""The graph as data: which nodes run, with which parameters and remappings.

The launch file and the command line both read it; nothing here needs ROS.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from internvla_ros.resources import resource

ParameterValue = bool | int | float | str | tuple[str, ...]

SIMULATORS = ("mujoco", "none")


class BringupError(ValueError):
    """A graph that cannot be brought up as asked for."""


@dataclass(frozen=True)
class NodeSpec:
    """One node, which is one process.

    Attributes:
        name: its name in the graph.
        executable: the program, in lib/internvla_ros and as module internvla_ros.nodes.EXECUTABLE.
        parameters: set over those of config/nodes/NAME.yaml.
        remappings: topic or service -> its other name.
        respawn: start it again when it dies.
        niceness: how much it gives way to the others when processors are scarce; the nodes that
            keep a pace do not.
    """

    name: str
    executable: str
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    remappings: Mapping[str, str] = field(default_factory=dict)
    respawn: bool = False
    niceness: int = 0

    @property
    def parameter_file(self) -> str:
        """The node's file of parameters, relative to the package's share folder."""
        return f"config/nodes/{self.executable}.yaml"


@dataclass(frozen=True)
class Options:
    """What a user chooses.

    Attributes:
        robot: a robot's name or the path of its YAML file.
        sim: "mujoco": simulate the robot and its cameras; "none": drivers run elsewhere.
        checkpoint: folder of the policy.
        namespace: of all nodes, "" or "/something".
        seed: of the first scene and of the actor's noise, >= 0.
        real_time_factor: simulated seconds a second, > 0.
        respawn: start nodes again that die, where that is safe.
    """

    robot: str = "widowx_250s"
    sim: str = "mujoco"
    checkpoint: str = ""
    namespace: str = ""
    seed: int = 0
    real_time_factor: float = 1.0
    respawn: bool = True


def graph(options: Options) -> tuple[NodeSpec, ...]:
    """The nodes of a robot, in the order in which to start them.

    Raises:
        BringupError: the simulator is unknown.
    """
    if options.sim not in SIMULATORS:
        raise BringupError(
            f"unknown simulator '{options.sim}'; choose one of {', '.join(SIMULATORS)}"
        )
    common: dict[str, ParameterValue] = {
        "robot": options.robot,
        "use_sim_time": options.sim != "none",
    }
    policy = {**common, "checkpoint": options.checkpoint}
    seeded = {**policy, "seed": options.seed}
    nodes = (
        NodeSpec("planner", "planner_node", policy, respawn=options.respawn, niceness=4),
        NodeSpec("actor", "actor_node", seeded, respawn=options.respawn, niceness=2),
        NodeSpec("arm", "arm_node", common),
        NodeSpec("camera", "camera_node", common, respawn=options.respawn),
        NodeSpec("task", "task_node", common, respawn=options.respawn),
    )
    if options.sim == "none":
        return nodes
    simulator = NodeSpec(
        "sim",
        "sim_node",
        {
            "robot": options.robot,
            "seed": options.seed,
            "real_time_factor": options.real_time_factor,
        },
    )
    return (*nodes, simulator)


def command(spec: NodeSpec, namespace: str = "") -> tuple[str, ...]:
    """The command line that runs one node with this Python."""
    words = [sys.executable, "-m", f"internvla_ros.nodes.{spec.executable}", "--ros-args"]
    words += ["-r", f"__node:={spec.name}"]
    if namespace:
        words += ["-r", f"__ns:={namespace}"]
    for topic, other in spec.remappings.items():
        words += ["-r", f"{topic}:={other}"]
    words += ["--params-file", str(resource(spec.parameter_file))]
    for name, value in spec.parameters.items():
        words += ["-p", f"{name}:={_yaml(value)}"]
    return tuple(words)


def environment() -> dict[str, str]:
    """Variables that every node should run with."""
    profiles = str(resource("config/fastdds.xml"))
    return {
        "FASTRTPS_DEFAULT_PROFILES_FILE": profiles,  # older and newer name of the same thing
        "FASTDDS_DEFAULT_PROFILES_FILE": profiles,
        "RCUTILS_CONSOLE_OUTPUT_FORMAT": "{severity}: {message}",
        "RCUTILS_COLORIZED_OUTPUT": "0",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "LP_NUM_THREADS": "1",
    }


def absolute_checkpoint(checkpoint: str | Path) -> str:
    """The checkpoint's folder as an absolute path, so that every node finds it."""
    return str(Path(checkpoint).expanduser().absolute())


def _yaml(value: ParameterValue) -> str:
    """A parameter's value as ROS reads it on a command line: JSON is YAML."""
    return json.dumps(list(value) if isinstance(value, tuple) else value)
