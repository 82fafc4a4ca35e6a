"""Write config/controllers/ROBOT.yaml, ros2_control's parameters, from config/robots/ROBOT.yaml.

For robots whose makers' plugins want other parameters, ROBOT_real.yaml as well.

Run it after a robot has changed:

    python scripts/write_controllers.py [ROBOT ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from internvla_ros.real_hardware import CONTROLLERS, FRANKA, plugin_of
from internvla_ros.robots.description import DescriptionError
from internvla_ros.robots.embodiment import Embodiment, known_embodiments, load_embodiment

FOLDER = Path(__file__).resolve().parent.parent / "config" / "controllers"
NOTE = "# Written by scripts/write_controllers.py from config/robots.\n"


def controllers(robot: Embodiment) -> dict[str, Any]:
    """The manager and its three controllers, in any namespace.

    The arm's controller streams: a new trajectory goes on from what was wanted, not from what was
    measured, and may end in motion (arm_node's end in a stop). The hardware is read and written
    twice a setpoint.
    """
    arm = {
        "joints": list(robot.joints),
        "command_interfaces": ["position"],
        "state_interfaces": ["position", "velocity"],
        "interpolate_from_desired_state": True,
        "allow_nonzero_velocity_at_trajectory_end": True,
        "state_publish_rate": 50.0,
    }
    gripper = {
        "joint": robot.gripper.joints[0],
        "allow_stalling": True,
        "stall_timeout": 0.5,
        "goal_tolerance": 0.002,
    }
    manager = {"update_rate": round(2 * robot.control_rate), **types(CONTROLLERS)}
    return for_any_namespace(
        {"controller_manager": manager, "arm_controller": arm, "gripper_controller": gripper}
    )


def types(names: tuple[str, ...]) -> dict[str, Any]:
    """What the manager has to be told of some controllers."""
    plugins = {
        "joint_state_broadcaster": "joint_state_broadcaster/JointStateBroadcaster",
        "arm_controller": "joint_trajectory_controller/JointTrajectoryController",
        "gripper_controller": "position_controllers/GripperActionController",
    }
    return {name: {"type": plugins[name]} for name in names}


def for_any_namespace(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of nodes as ROS reads them from a file."""
    return {f"/**/{name}": {"ros__parameters": each} for name, each in parameters.items()}


def real_controllers(robot: Embodiment) -> dict[str, Any] | None:
    """For the maker's plugin; None: the same as for any other."""
    try:
        plugin = plugin_of(robot, "real")
    except DescriptionError:
        return None
    if not plugin.suffix:
        return None
    parameters = controllers(robot)
    arm = parameters["/**/arm_controller"]["ros__parameters"]
    manager = {"update_rate": round(robot.control_rate), **types(plugin.controllers)}
    parameters |= for_any_namespace({"controller_manager": manager})
    if plugin is FRANKA:
        manager |= {"update_rate": 1000, "thread_priority": 98}
        arm |= {"command_interfaces": ["effort"], "gains": franka_gains(robot)}
        del parameters["/**/gripper_controller"]
    return parameters


def franka_gains(robot: Embodiment) -> dict[str, dict[str, float]]:
    """Nm/rad, Nms/rad: the maker's own for this controller, which adds no gravity."""
    gains = zip(
        robot.joints, (600, 600, 600, 600, 250, 150, 50), (30, 30, 30, 30, 10, 10, 5), strict=True
    )
    return {
        joint: {"p": float(p), "d": float(d), "i": 0.0, "i_clamp": 1.0} for joint, p, d in gains
    }


def text(parameters: Mapping[str, Any]) -> str:
    """A file's content."""
    return NOTE + yaml.safe_dump(dict(parameters), sort_keys=False)


def main() -> None:
    """Write the files of the robots named, or of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    known = known_embodiments()
    parser.add_argument("robots", nargs="*", metavar="ROBOT", help="default: all")
    for name in parser.parse_args().robots or known:
        FOLDER.mkdir(exist_ok=True)
        robot = load_embodiment(name)
        (FOLDER / f"{name}.yaml").write_text(text(controllers(robot)))
        real = real_controllers(robot)
        if real is not None:
            (FOLDER / f"{name}_real.yaml").write_text(text(real))


if __name__ == "__main__":
    main()
