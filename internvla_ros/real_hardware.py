"""What moves a robot that is not simulated, as data: makers' ros2_control plugins, and this
package's own drivers.

A plugin is named by the robot's description. What is known of the makers' own stands here; any
other plugin is taken to have the joints of arm and fingers, and to need nothing else.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from internvla_ros.node_spec import NodeSpec, ParameterValue
from internvla_ros.resources import resource
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import Embodiment

CONTROLLERS = ("joint_state_broadcaster", "arm_controller", "gripper_controller")
DRIVERS = {"libfranka": "franka", "trossen_arm": "widowx_ai"}
"""Kinds of hardware that driver_node moves, without ros2_control -> its parameter `driver`."""


@dataclass(frozen=True)
class Plugin:
    """A ros2_control plugin.

    Attributes:
        controllers: that are started with it.
        address: whether it has to be told the address of a control unit.
        suffix: of the name of its parameter file in config/controllers.
        gripper: parameters of arm_node that reach the gripper.
    """

    controllers: tuple[str, ...] = CONTROLLERS
    address: bool = False
    suffix: str = ""
    gripper: Mapping[str, ParameterValue] = field(
        default_factory=lambda: {"gripper_output": "gripper_command"}
    )


FRANKA = Plugin(
    CONTROLLERS[:2],  # the hand has a node of its own
    address=True,
    suffix="_real",
    gripper={
        "gripper_output": "gripper_command",
        "gripper_action": "franka_gripper/gripper_action",
        "gripper_effort": 20.0,  # that node grips with what it is told: 0 would be no grip at all
    },
)
INTERBOTIX = Plugin(CONTROLLERS[1:], suffix="_real")  # xs_sdk publishes the joint states
PLUGINS = {
    "franka_hardware/FrankaHardwareInterface": FRANKA,
    "interbotix_xs_ros_control/XSHardwareInterface": INTERBOTIX,
}


def plugin_of(robot: Embodiment, hardware: str) -> Plugin:
    """What `hardware` is for a robot: "mock", "real", or the name of a plugin.

    Raises:
        DescriptionError: "real", and no public plugin drives the robot.
    """
    if hardware != "real":
        return Plugin()
    description = ElementTree.fromstring(urdf(robot.name, hardware=hardware))
    name = description.findtext("ros2_control/hardware/plugin", "")
    return PLUGINS.get(name, Plugin())


def needs_address(robot: Embodiment, hardware: str) -> bool:
    """Whether the control unit's address has to be given. Raises as `plugin_of`."""
    return hardware in DRIVERS or plugin_of(robot, hardware).address


def controllers_file(robot: Embodiment, hardware: str = "mock") -> str:
    """The parameters of a robot's controllers: a share-folder path. Raises as `plugin_of`."""
    return f"config/controllers/{robot.name}{plugin_of(robot, hardware).suffix}.yaml"


def driver(robot: str, hardware: str, address: str) -> NodeSpec:
    """This package's own driver: `hardware` is one of DRIVERS, `robot` a name or a path."""
    parameters: dict[str, ParameterValue] = {
        "robot": robot,
        "driver": DRIVERS[hardware],
        "address": address,
    }
    return NodeSpec("driver", "driver_node", parameters)


def ros2_control(
    robot: Embodiment, hardware: str, address: str, use_sim_time: bool
) -> Iterator[NodeSpec]:
    """The controller manager with a plugin, what starts its controllers, and a hand's own node.

    Raises: as `plugin_of`.
    """
    plugin, file = plugin_of(robot, hardware), controllers_file(robot, hardware)
    yield NodeSpec(
        "controller_manager",
        "ros2_control_node",
        {"use_sim_time": use_sim_time},
        {"~/robot_description": "robot_description"},
        package="controller_manager",
        file=file,
    )
    yield spawner(file, plugin.controllers)
    if plugin is FRANKA:
        yield franka_gripper(robot, address)


def spawner(file: str, controllers: tuple[str, ...] = CONTROLLERS) -> NodeSpec:
    """Starts controllers, with the parameters in `file`, once their manager is there."""
    path = str(resource(file))
    arguments = (*controllers, "--controller-manager", "controller_manager", "--param-file", path)
    return NodeSpec(
        "controller_spawner",
        "spawner",
        package="controller_manager",
        arguments=arguments,
        once=True,
    )


def franka_gripper(robot: Embodiment, address: str) -> NodeSpec:
    """The Franka Hand's node. Its finger states join the arm's, and whatever it grasps is right."""
    anything = 0.08  # m: the whole stroke
    parameters: dict[str, ParameterValue] = {
        "robot_ip": address,
        "joint_names": tuple(robot.gripper.joints),
        "state_publish_rate": 50,
        "default_speed": 0.1,
        "default_grasp_epsilon.inner": anything,
        "default_grasp_epsilon.outer": anything,
    }
    remapped = {"~/joint_states": "joint_states"}
    name = "franka_gripper"
    return NodeSpec(name, f"{name}_node", parameters, remapped, respawn=True, package=name)
