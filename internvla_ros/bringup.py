"""The graph as data: which nodes run, with which parameters and remappings.

The launch file and the command line both read it; nothing here needs ROS.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from internvla_ros import external_nodes, real_hardware
from internvla_ros.node_spec import NodeSpec, ParameterValue, command, program
from internvla_ros.resources import PACKAGE, resource
from internvla_ros.robots.embodiment import Embodiment, load_embodiment, robot_choices

__all__ = ["NodeSpec", "Options", "command", "environment", "graph", "program"]

SIMULATORS = ("mujoco", "gazebo", "none")
MOTIONS = ("embedded", "moveit_servo", "moveit", "interbotix")
"""How setpoints reach a robot: arm_node's parameter `motion`."""
CLOCKS = ("auto", "true", "false")
GLOBAL_TOPICS = ("/tf", "/tf_static")
"""Topics that are one for all robots; in a namespace they are the robot's own."""
RVIZ_FAMILIES = ("franka", "widowx", "google_robot")
"""Families of arms, one layout in config/rviz each."""


class BringupError(ValueError):
    """A graph that cannot be brought up as asked for."""


def option(default: Any, description: str, choices: tuple[str, ...] = (), metavar: str = "") -> Any:
    """A field of Options.

    Args:
        default: what it is when nobody chooses.
        description: for `--help` and `--show-args`.
        choices: the values that it may have.
        metavar: what stands for the value in `--help`.
    """
    metadata = {"description": description, "choices": choices, "metavar": metavar}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Options:
    """What a user chooses, on the command line of `internvla up` or as launch arguments."""

    robot: str = option("widowx_250s", robot_choices())
    sim: str = option(
        "mujoco",
        "simulate the robot and its cameras: mujoco here, gazebo where ros_gz is installed; "
        "none: drivers run elsewhere",
        SIMULATORS,
    )
    motion: str = option(
        "embedded", "how setpoints reach the robot; moveit_servo and moveit start MoveIt", MOTIONS
    )
    policy: str = option(
        "local",
        "local, or ws://host:port of 'internvla serve', rather than a checkpoint in this machine",
        metavar="URL",
    )
    checkpoint: str = option("", "folder of the local policy; default: the one shipped", (), "DIR")
    cameras: str = option(
        "",
        "where drivers publish a camera, as front=/d435/color,wrist=/hand; "
        "default: under its own name",
        metavar="NAME=TOPIC,...",
    )
    namespace: str = option("", "of all nodes, e.g. /left")
    hardware: str = option(
        "none",
        "what moves the robot and is to be started here: ros2_control with mock, real (the "
        "maker's plugin) or the name of a plugin; libfranka or trossen_arm without it; none: it "
        "runs elsewhere",
    )
    robot_ip: str = option(
        "", "address of the robot's control unit, for hardware that needs it", metavar="ADDRESS"
    )
    arm_controller: str = option(
        "arm_controller", "name of the arm's joint_trajectory_controller", metavar="NAME"
    )
    gripper_action: str = option(
        "",
        "name of the gripper's GripperCommand action, as franka_gripper/gripper_action; "
        "default: the gripper has a trajectory controller, or the hardware's own action",
        metavar="NAME",
    )
    use_sim_time: str = option("auto", "follow /clock; auto: when a simulator is started", CLOCKS)
    seed: int = option(0, "of the first scene and of the policy")
    real_time_factor: float = option(1.0, "of the simulator mujoco: simulated seconds a second")
    respawn: bool = option(True, "start nodes again that die, where that is safe")
    autostart: bool = option(True, "configure and activate planner, actor and arm by themselves")
    markers: bool = option(True, "show what the robot thinks, as pictures, markers and frames")
    rviz: bool = option(False, "start RViz with the robot's layout")
    window: bool = option(False, "show Gazebo's window")
    record: str = option("", "folder for a bag and a film of every task", metavar="DIR")
    dashboard: bool = option(False, "offer a web page of it all")
    dashboard_host: str = option(
        "127.0.0.1",
        "address that the page listens on; others than this machine's own ask for a token",
        metavar="ADDRESS",
    )
    dashboard_port: int = option(8080, "of the page, or the next free one; 0: any")


def check_choices(options: Options) -> None:
    """
    Raises:
        BringupError: an option has none of its choices.
    """
    for each in fields(options):
        value, choices = getattr(options, each.name), each.metadata["choices"]
        if choices and value not in choices:
            raise BringupError(f"{each.name} is '{value}'; choose one of {', '.join(choices)}")
    if options.namespace and not options.namespace.startswith("/"):
        raise BringupError(f"namespace is '{options.namespace}'; it must start with /")


def graph(options: Options) -> tuple[NodeSpec, ...]:
    """The nodes of a robot, in the order in which to start them.

    Raises:
        BringupError: options are wrong or contradict each other, or RViz or the dashboard is asked
            for and what it needs is not installed.
        EmbodimentError: the robot is unknown or its file is wrong.
    """
    _check(options)
    nodes = [*_own(options), *_onlookers(options), *robot_side(options)]
    return tuple(_in_namespace(node, options) for node in nodes)


def moveit_graph(options: Options) -> tuple[NodeSpec, ...]:
    """MoveIt alone, with Servo, and the robot's ros2_control hardware if that is asked for.

    Raises: as `graph`.
    """
    _check(options)
    robot, simulated = load_embodiment(options.robot), follows_clock(options)
    nodes = [*_hardware(options, robot)]
    nodes += [external_nodes.move_group(robot, simulated), external_nodes.servo(robot, simulated)]
    return tuple(_in_namespace(node, options) for node in nodes)


def gazebo_graph(options: Options) -> tuple[NodeSpec, ...]:
    """Gazebo alone, with the robot in it.

    Raises: as `graph`.
    """
    options = replace(options, sim="gazebo", motion="embedded")
    _check(options)
    return tuple(_in_namespace(node, options) for node in robot_side(options))


def follows_clock(options: Options) -> bool:
    """Whether the nodes' time is that of /clock."""
    if options.use_sim_time == "auto":
        return options.sim != "none"
    return options.use_sim_time == "true"


def require_programs(nodes: Iterable[NodeSpec]) -> None:
    """
    Raises:
        BringupError: programs of other packages are not installed, and which.
    """
    missing = sorted(
        {
            f"{node.executable} (package {node.package})" if node.package else node.executable
            for node in nodes
            if node.package != PACKAGE and program(node.package, node.executable) is None
        }
    )
    if missing:
        raise BringupError(
            f"not installed here: {', '.join(missing)}; they belong to a full ROS 2 installation "
            "(rosdep install --from-paths . --ignore-src), or take other options: "
            "sim mujoco or none, motion embedded, hardware none"
        )


def _check(options: Options) -> None:
    check_choices(options)
    if options.hardware != "none" and options.sim != "none":
        raise BringupError(
            f"hardware '{options.hardware}' with sim '{options.sim}': a robot is real, mocked or "
            "simulated; choose sim none"
        )
    own_driver = options.hardware in real_hardware.DRIVERS
    if options.motion == "moveit" and (options.sim == "mujoco" or own_driver):
        raise BringupError(
            "motion 'moveit' needs a controller that executes FollowJointTrajectory, which "
            f"{'the driver ' + options.hardware if own_driver else 'the simulator mujoco'} is "
            "not; choose sim gazebo, or sim none with hardware mock or real"
        )
    _check_address(options)


def _check_address(options: Options) -> None:
    robot, hardware = load_embodiment(options.robot), options.hardware
    needed = hardware != "none" and real_hardware.needs_address(robot, hardware)
    if needed and not options.robot_ip:
        raise BringupError(
            f"hardware '{hardware}' of {robot.name} needs the address of its control unit: "
            "give robot_ip, as internvla up --robot-ip 172.16.0.2 or robot_ip:=172.16.0.2"
        )
    if options.robot_ip and not needed:
        raise BringupError(
            f"robot_ip is '{options.robot_ip}', but hardware '{hardware}' of {robot.name} has no "
            "address; it is for hardware real of a Franka, libfranka and trossen_arm"
        )


def _own(options: Options) -> Iterator[NodeSpec]:
    """The nodes that see, think and move."""
    common = _common(options)
    managed = {**common, "autostart": options.autostart}
    policy = {**managed, "policy": options.policy, "checkpoint": options.checkpoint}
    seeded = {**policy, "seed": options.seed}
    arm = {**managed, "motion": options.motion, **_gripper(options)}
    if options.motion == "interbotix" and options.namespace:
        arm["interbotix_namespace"] = options.namespace
    topics = camera_topics(options)
    controller = {"arm_controller/joint_trajectory": f"{options.arm_controller}/joint_trajectory"}
    renamed = controller if options.arm_controller != "arm_controller" else {}
    yield NodeSpec("planner", "planner_node", policy, respawn=options.respawn, niceness=4)
    yield NodeSpec("actor", "actor_node", seeded, respawn=options.respawn, niceness=2)
    yield NodeSpec("arm", "arm_node", arm, renamed)
    yield NodeSpec("camera", "camera_node", common, topics, respawn=options.respawn)
    yield NodeSpec("task", "task_node", common, respawn=options.respawn)


def _gripper(options: Options) -> Mapping[str, ParameterValue]:
    """The parameters of arm_node that reach the gripper."""
    if options.motion == "interbotix":
        return {}
    found: dict[str, ParameterValue] = {}
    if _has_controllers(options):
        robot = load_embodiment(options.robot)
        found |= real_hardware.plugin_of(robot, options.hardware).gripper
    if options.gripper_action:
        found |= {"gripper_output": "gripper_command", "gripper_action": options.gripper_action}
    return found


def camera_topics(options: Options) -> dict[str, str]:
    """Remappings of cameras that drivers publish under other names.

    Raises:
        BringupError: `cameras` cannot be read, or names none of the robot's.
    """
    known = [camera.name for camera in load_embodiment(options.robot).cameras]
    found: dict[str, str] = {}
    for word in filter(None, options.cameras.split(",")):
        name, equals, prefix = (part.strip() for part in word.partition("="))
        if not equals or not prefix or name not in known:
            raise BringupError(
                f"cameras has '{word}'; give NAME=TOPIC, where NAME is one of {', '.join(known)} "
                "and TOPIC has image_raw and camera_info below it"
            )
        for kind in ("image_raw", "camera_info"):
            found[f"{name}/{kind}"] = f"{prefix.rstrip('/')}/{kind}"
    return found


def robot_side(options: Options) -> Iterator[NodeSpec]:
    """What stands for the robot: a simulator, ros2_control, MoveIt, or nothing.

    Raises: as `graph`.
    """
    robot, simulated = load_embodiment(options.robot), follows_clock(options)
    yield from _hardware(options, robot)
    if options.motion in ("moveit", "moveit_servo"):
        yield external_nodes.move_group(robot, simulated)
    if options.motion == "moveit_servo":
        yield external_nodes.servo(robot, simulated)
    if options.sim == "gazebo":
        yield from external_nodes.gazebo(robot, options.namespace, options.window)
    if options.sim == "mujoco":
        own: dict[str, ParameterValue] = {
            "robot": options.robot,
            "seed": options.seed,
            "real_time_factor": options.real_time_factor,
        }
        yield NodeSpec("sim", "sim_node", own)


def _has_controllers(options: Options) -> bool:
    """Whether ros2_control is started here, in Gazebo or by itself."""
    return options.sim == "gazebo" or options.hardware not in ("none", *real_hardware.DRIVERS)


def _hardware(options: Options, robot: Embodiment) -> Iterator[NodeSpec]:
    """The robot's driver, or its description and its controllers."""
    if options.hardware in real_hardware.DRIVERS:
        yield real_hardware.driver(options.robot, options.hardware, options.robot_ip)
    if not _has_controllers(options):
        return
    description = {"hardware": options.hardware, "robot_ip": options.robot_ip}
    if options.sim == "gazebo":  # its controller manager lives in Gazebo
        description = external_nodes.gazebo_description(robot, options.namespace)
    simulated = follows_clock(options)
    yield external_nodes.robot_state_publisher(robot, simulated, description)
    if options.sim == "gazebo":
        yield real_hardware.spawner(real_hardware.controllers_file(robot))
        return
    yield from real_hardware.ros2_control(robot, options.hardware, options.robot_ip, simulated)


def _common(options: Options) -> dict[str, ParameterValue]:
    """The parameters that all but the simulator have."""
    return {"robot": options.robot, "use_sim_time": follows_clock(options)}


def _in_namespace(node: NodeSpec, options: Options) -> NodeSpec:
    """Keep robots in namespaces apart: frames, and the clock of a simulator of its own."""
    if not options.namespace or not node.package:
        return node
    topics = [*GLOBAL_TOPICS, "/clock"] if options.sim == "mujoco" else GLOBAL_TOPICS
    own = {topic: topic.removeprefix("/") for topic in topics}
    return replace(node, remappings={**own, **node.remappings})


def _onlookers(options: Options) -> Iterator[NodeSpec]:
    """The nodes that only listen."""
    common = _common(options)
    if options.markers:
        # Makers' drivers and robot_state_publisher publish description and frames themselves.
        ours = options.sim == "mujoco" or options.hardware in real_hardware.DRIVERS
        parameters = {**common, "robot_state": ours}
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


def environment() -> dict[str, str]:
    """Variables that every node should run with."""
    profiles = str(resource("config/fastdds.xml"))
    plugins = [os.environ.get("GZ_SIM_SYSTEM_PLUGIN_PATH"), os.environ.get("LD_LIBRARY_PATH")]
    return {
        "GZ_SIM_SYSTEM_PLUGIN_PATH": os.pathsep.join(filter(None, plugins)),
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
