"""The graph as data: which nodes run, with which parameters and remappings.

The launch file and the command line both read it; nothing here needs ROS.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from internvla_ros.resources import PACKAGE, resource
from internvla_ros.robots.embodiment import load_embodiment

ParameterValue = bool | int | float | str | tuple[str, ...]

SIMULATORS = ("mujoco", "none")
RVIZ_FAMILIES = ("franka", "widowx", "google_robot")
"""Families of arms, one layout in config/rviz each."""


class BringupError(ValueError):
    """A graph that cannot be brought up as asked for."""


@dataclass(frozen=True)
class NodeSpec:
    """One node, which is one process.

    Attributes:
        name: its name in the graph.
        executable: the program, in lib/internvla_ros and as module internvla_ros.nodes.EXECUTABLE,
            or in lib/PACKAGE of another package.
        parameters: set over those of config/nodes/NAME.yaml.
        remappings: topic or service -> its other name.
        respawn: start it again when it dies.
        niceness: how much it gives way to the others when processors are scarce; the nodes that
            keep a pace do not.
        package: that has the program.
        arguments: of the program, before those of ROS.
        vital: the graph is of no use without it; those that only listen are not.
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

    @property
    def parameter_file(self) -> str:
        """The file of parameters of one of our nodes, relative to the package's share folder."""
        return f"config/nodes/{self.executable}.yaml"


@dataclass(frozen=True)
class Options:
    """What a user chooses.

    Attributes:
        robot: a robot's name or the path of its YAML file.
        sim: "mujoco": simulate the robot and its cameras; "none": drivers run elsewhere.
        policy: "local": planner and actor run the checkpoint themselves; ws://host:port: they ask
            that server, and the checkpoint is the server's.
        checkpoint: folder of the local policy.
        namespace: of all nodes, "" or "/something".
        seed: of the first scene and of the actor's noise, >= 0.
        real_time_factor: simulated seconds a second, > 0.
        respawn: start nodes again that die, where that is safe.
        markers: show what the robot thinks, as pictures and markers.
        rviz: start RViz with the layout for the robot.
        record: folder for a bag and a film of every task; "" for none.
        dashboard: offer the web page.
        dashboard_host: address that it listens on; on others than loopback it asks for a token.
        dashboard_port: its port, or the next one that is free; 0: any.
    """

    robot: str = "widowx_250s"
    sim: str = "mujoco"
    policy: str = "local"
    checkpoint: str = ""
    namespace: str = ""
    seed: int = 0
    real_time_factor: float = 1.0
    respawn: bool = True
    markers: bool = True
    rviz: bool = False
    record: str = ""
    dashboard: bool = False
    dashboard_host: str = "127.0.0.1"
    dashboard_port: int = 8080


def graph(options: Options) -> tuple[NodeSpec, ...]:
    """The nodes of a robot, in the order in which to start them.

    Raises:
        BringupError: the simulator is unknown, or RViz or the dashboard is asked for and what it
            needs is not installed.
    """
    if options.sim not in SIMULATORS:
        raise BringupError(
            f"unknown simulator '{options.sim}'; choose one of {', '.join(SIMULATORS)}"
        )
    common: dict[str, ParameterValue] = {
        "robot": options.robot,
        "use_sim_time": options.sim != "none",
    }
    policy = {**common, "policy": options.policy, "checkpoint": options.checkpoint}
    seeded = {**policy, "seed": options.seed}
    nodes = (
        NodeSpec("planner", "planner_node", policy, respawn=options.respawn, niceness=4),
        NodeSpec("actor", "actor_node", seeded, respawn=options.respawn, niceness=2),
        NodeSpec("arm", "arm_node", common),
        NodeSpec("camera", "camera_node", common, respawn=options.respawn),
        NodeSpec("task", "task_node", common, respawn=options.respawn),
        *_onlookers(options, common),
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


def _onlookers(options: Options, common: Mapping[str, ParameterValue]) -> Iterator[NodeSpec]:
    """The nodes that only listen."""
    if options.markers:
        # A driver publishes its robot's description and frames itself.
        parameters = {**common, "robot_state": options.sim != "none"}
        yield NodeSpec(
            "markers",
            "marker_node",
            parameters,
            respawn=options.respawn,
            niceness=5,
            vital=False,
        )
    if options.record:
        parameters = {**common, "folder": str(Path(options.record).expanduser().absolute())}
        yield NodeSpec("record", "record_node", parameters, niceness=3, vital=False)
    if options.dashboard:
        yield _dashboard(options)
    if options.rviz:
        yield _rviz(options, common)


def has_dashboard() -> bool:
    """Whether what the dashboard needs is installed."""
    return importlib.util.find_spec("viser") is not None


def _dashboard(options: Options) -> NodeSpec:
    if not has_dashboard():
        raise BringupError(
            "the dashboard needs viser, which is not installed here: "
            "pip install 'internvla_ros[dashboard]'"
        )
    parameters: dict[str, ParameterValue] = {
        "robot": options.robot,
        "host": options.dashboard_host,
        "port": options.dashboard_port,
    }
    return NodeSpec(
        "dashboard",
        "dashboard_node",
        parameters,
        respawn=options.respawn,
        niceness=5,
        vital=False,
    )


def _rviz(options: Options, common: Mapping[str, ParameterValue]) -> NodeSpec:
    layout = resource(rviz_layout(options.robot))
    if program("rviz2", "rviz2") is None:
        raise BringupError(
            "rviz needs rviz2, which is not installed here: install ros-jazzy-rviz2 of a full "
            f"ROS 2, or open {layout} in RViz on another machine of the network"
        )
    frame = load_embodiment(options.robot).base_frame
    arguments = ("-d", str(layout), "-f", frame)
    clock = {"use_sim_time": common["use_sim_time"]}
    return NodeSpec(
        "rviz", "rviz2", clock, niceness=5, package="rviz2", arguments=arguments, vital=False
    )


def rviz_layout(robot: str) -> str:
    """The RViz layout for a robot, by the family that its name begins with: a share-folder path.

    Raises:
        BringupError: there is none.
    """
    name = load_embodiment(robot).name
    for family in RVIZ_FAMILIES:
        if name.startswith(family):
            return f"config/rviz/{family}.rviz"
    raise BringupError(f"there is no RViz layout for robot '{name}'; make one of {RVIZ_FAMILIES}")


def program(package: str, executable: str) -> Path | None:
    """A program of an installed ROS package; None: it is not installed."""
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
    words += [*spec.arguments, "--ros-args", "-r", f"__node:={spec.name}"]
    if namespace:
        words += ["-r", f"__ns:={namespace}"]
    for topic, other in spec.remappings.items():
        words += ["-r", f"{topic}:={other}"]
    if spec.package == PACKAGE:
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
