"""Write config/controllers/ROBOT.yaml, ros2_control's parameters, from config/robots/ROBOT.yaml.

Run it after a robot has changed:

    python scripts/write_controllers.py [ROBOT ...]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

from internvla_ros.robots.embodiment import Embodiment, known_embodiments, load_embodiment

FOLDER = Path(__file__).resolve().parent.parent / "config" / "controllers"
NOTE = "# Written by scripts/write_controllers.py from config/robots.\n"


def controllers(robot: Embodiment) -> dict[str, Any]:
    """The manager and its three controllers, in any namespace.

    The arm's controller streams: a new trajectory goes on from what was wanted, not from what was
    measured, and may end in motion (arm_node's end in a stop). The hardware is read and written
    twice a setpoint.
    """
    types = {
        "joint_state_broadcaster": "joint_state_broadcaster/JointStateBroadcaster",
        "arm_controller": "joint_trajectory_controller/JointTrajectoryController",
        "gripper_controller": "position_controllers/GripperActionController",
    }
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
    manager = {
        "update_rate": round(2 * robot.control_rate),
        **{name: {"type": plugin} for name, plugin in types.items()},
    }
    parameters = {
        "controller_manager": manager,
        "arm_controller": arm,
        "gripper_controller": gripper,
    }
    return {f"/**/{name}": {"ros__parameters": each} for name, each in parameters.items()}


def text(robot: Embodiment) -> str:
    """The file's content."""
    return NOTE + yaml.safe_dump(controllers(robot), sort_keys=False)


def main() -> None:
    """Write the files of the robots named, or of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    known = known_embodiments()
    parser.add_argument("robots", nargs="*", metavar="ROBOT", help="default: all")
    for name in parser.parse_args().robots or known:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{name}.yaml").write_text(text(load_embodiment(name)))


if __name__ == "__main__":
    main()
