"""Write config/moveit/ROBOT from the robot's URDF and config/robots/ROBOT.yaml.

What MoveIt has to know of a robot is what we know of it already; only the pairs of links that are
never compared are found here, by trying random positions. Run it after a robot has changed:

    python scripts/write_moveit_config.py [ROBOT ...]
"""

from __future__ import annotations

import argparse
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pinocchio as pin
import yaml

from internvla_ros.motion.backends.planning import GROUP
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import Embodiment, known_embodiments, load_embodiment

FOLDER = Path(__file__).resolve().parent.parent / "config" / "moveit"
GRIPPER = "gripper"
SAMPLES = 4000  # random positions, after which a pair that never touched is taken to be unable to
SEED = 20

Pair = tuple[str, str]


def srdf(robot: Embodiment) -> str:
    """Groups, named positions and the pairs of links that are never compared."""
    root = ElementTree.Element("robot", name=robot.name)
    arm = ElementTree.SubElement(root, "group", name=GROUP)
    ElementTree.SubElement(arm, "chain", base_link=robot.base_frame, tip_link=robot.tip_frame)
    gripper = ElementTree.SubElement(root, "group", name=GRIPPER)
    for joint in robot.gripper.joints:
        ElementTree.SubElement(gripper, "joint", name=joint)
    _state(root, "ready", GROUP, dict(zip(robot.joints, robot.ready.tolist(), strict=True)))
    for name, position in (("open", robot.gripper.open), ("closed", robot.gripper.closed)):
        fingers = zip(robot.gripper.joints, robot.gripper.mirror, strict=True)
        _state(root, name, GRIPPER, {joint: position * mirror for joint, mirror in fingers})
    effector = {"name": GRIPPER, "parent_link": robot.tip_frame, "group": GRIPPER}
    ElementTree.SubElement(root, "end_effector", effector)
    for (first, second), reason in sorted(disabled_pairs(robot).items()):
        pair = {"link1": first, "link2": second, "reason": reason}
        ElementTree.SubElement(root, "disable_collisions", pair)
    ElementTree.indent(root)
    return '<?xml version="1.0"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _state(root: ElementTree.Element, name: str, group: str, joints: dict[str, float]) -> None:
    state = ElementTree.SubElement(root, "group_state", name=name, group=group)
    for joint, value in joints.items():
        ElementTree.SubElement(state, "joint", name=joint, value=f"{value:g}")


def disabled_pairs(robot: Embodiment) -> dict[Pair, str]:
    """Pairs of links that need no comparing, each in order of its names, and why."""
    model, solids = _geometry(robot)
    links = _links_of_solids(model, solids)
    names = sorted(set(links))
    found = {pair: "Adjacent" for pair in combinations(names, 2) if _adjacent(model, pair, names)}
    touched, always = _contacts(model, solids, links)
    for pair in combinations(names, 2):
        if pair not in found and pair not in touched:
            found[pair] = "Never"
        elif pair not in found and pair in always:
            found[pair] = "Always"
    for first, second in robot.clearance.ignored:
        found.setdefault((min(first, second), max(first, second)), "User")
    return found


def _geometry(robot: Embodiment) -> tuple[pin.Model, pin.GeometryModel]:
    model = pin.buildModelFromXML(urdf(robot.name))
    solids = pin.buildGeomFromUrdfString(model, urdf(robot.name), pin.GeometryType.COLLISION)
    solids.addAllCollisionPairs()
    return model, solids


def _links_of_solids(model: pin.Model, solids: pin.GeometryModel) -> list[str]:
    return [model.frames[solid.parentFrame].name for solid in solids.geometryObjects]


def _adjacent(model: pin.Model, pair: Pair, solid: list[str]) -> bool:
    """Whether one link carries the other, with no third solid link between them."""
    return any(
        next(_carriers(model, one, solid), None) == other for one, other in (pair, pair[::-1])
    )


def _carriers(model: pin.Model, link: str, solid: list[str]) -> Iterator[str]:
    """The solid links that carry a link, the nearest first."""
    frame = model.frames[model.getFrameId(link, pin.FrameType.BODY)]
    while frame.parentFrame:
        frame = model.frames[frame.parentFrame]
        if frame.type == pin.FrameType.BODY and frame.name in solid:
            yield frame.name


def _contacts(
    model: pin.Model, solids: pin.GeometryModel, links: list[str]
) -> tuple[set[Pair], set[Pair]]:
    """Pairs of links that touched in some and in all of many random positions."""
    data, shapes = model.createData(), solids.createData()
    rng = np.random.default_rng(SEED)
    lower = np.maximum(model.lowerPositionLimit, -np.pi)
    upper = np.minimum(model.upperPositionLimit, np.pi)
    counts: dict[Pair, int] = {}
    for _ in range(SAMPLES):
        pin.computeCollisions(model, data, solids, shapes, rng.uniform(lower, upper), False)
        touching = {
            (min(links[pair.first], links[pair.second]), max(links[pair.first], links[pair.second]))
            for pair, result in zip(solids.collisionPairs, shapes.collisionResults, strict=True)
            if result.isCollision()
        }
        for pair in touching:
            counts[pair] = counts.get(pair, 0) + 1
    return set(counts), {pair for pair, count in counts.items() if count == SAMPLES}


def kinematics(robot: Embodiment) -> dict[str, Any]:
    """The solver of inverse kinematics."""
    solver = {
        "kinematics_solver": "kdl_kinematics_plugin/KDLKinematicsPlugin",
        "kinematics_solver_search_resolution": 0.005,
        "kinematics_solver_timeout": 0.05,
    }
    return {GROUP: solver}


def joint_limits(robot: Embodiment) -> dict[str, Any]:
    """The robot's own limits."""
    limits: dict[str, Any] = {}
    for index, joint in enumerate(robot.joints):
        limits[joint] = {
            "has_position_limits": True,
            "min_position": float(robot.position_lower[index]),
            "max_position": float(robot.position_upper[index]),
            "has_velocity_limits": True,
            "max_velocity": float(robot.velocity[index]),
            "has_acceleration_limits": True,
            "max_acceleration": float(robot.acceleration[index]),
            "has_jerk_limits": True,
            "max_jerk": float(robot.jerk[index]),
        }
    for joint in robot.gripper.joints:
        limits[joint] = {
            "has_velocity_limits": True,
            "max_velocity": robot.gripper.velocity,
            "has_acceleration_limits": False,
        }
    return {
        "default_velocity_scaling_factor": 0.5,
        "default_acceleration_scaling_factor": 0.5,
        "joint_limits": limits,
    }


def ompl_planning(robot: Embodiment) -> dict[str, Any]:
    """Planners, and what is done to requests before and to paths after them."""
    planners = {
        "RRTConnectkConfigDefault": {"type": "geometric::RRTConnect", "range": 0.0},
        "BKPIECEkConfigDefault": {"type": "geometric::BKPIECE", "range": 0.0},
    }
    adapters = [
        "default_planning_request_adapters/ResolveConstraintFrames",
        "default_planning_request_adapters/ValidateWorkspaceBounds",
        "default_planning_request_adapters/CheckStartStateBounds",
        "default_planning_request_adapters/CheckStartStateCollision",
    ]
    return {
        "planning_plugins": ["ompl_interface/OMPLPlanner"],
        "request_adapters": adapters,
        "response_adapters": [
            "default_planning_response_adapters/AddTimeOptimalParameterization",
            "default_planning_response_adapters/ValidateSolution",
            "default_planning_response_adapters/DisplayMotionPath",
        ],
        "planner_configs": planners,
        GROUP: {
            "default_planner_config": "RRTConnectkConfigDefault",
            "planner_configs": list(planners),
            "longest_valid_segment_fraction": 0.005,
        },
    }


def controllers(robot: Embodiment) -> dict[str, Any]:
    """The controllers that MoveIt sends paths to."""
    manager = "moveit_simple_controller_manager"
    arm = {
        "type": "FollowJointTrajectory",
        "action_ns": "follow_joint_trajectory",
        "default": True,
        "joints": list(robot.joints),
    }
    gripper = {
        "type": "GripperCommand",
        "action_ns": "gripper_cmd",
        "default": True,
        "joints": [robot.gripper.joints[0]],
    }
    return {
        "moveit_controller_manager": f"{manager}/MoveItSimpleControllerManager",
        manager: {
            "controller_names": ["arm_controller", "gripper_controller"],
            "arm_controller": arm,
            "gripper_controller": gripper,
        },
        "trajectory_execution": {
            "allowed_execution_duration_scaling": 1.5,
            "allowed_goal_duration_margin": 1.0,
            "allowed_start_tolerance": 0.02,
        },
    }


def servo(robot: Embodiment) -> dict[str, Any]:
    """MoveIt Servo beside move_group, for a stream of poses."""
    own = {
        "move_group_name": GROUP,
        "command_in_type": "speed_units",
        "scale": {
            "linear": robot.tip_limits.speed,
            "rotational": robot.tip_limits.turn,
            "joint": float(robot.velocity.min()),
        },
        "publish_period": 1.0 / robot.control_rate,
        "incoming_command_timeout": 0.1,
        "max_expected_latency": 0.1,
        "command_out_type": "trajectory_msgs/JointTrajectory",
        "command_out_topic": "arm_controller/joint_trajectory",
        "publish_joint_positions": True,
        "publish_joint_velocities": True,
        "publish_joint_accelerations": False,
        # Not Ruckig's plugin, which overshoots (moveit2 issue 3008).
        "use_smoothing": True,
        "smoothing_filter_plugin_name": "online_signal_smoothing::AccelerationLimitedPlugin",
        # The scene is move_group's, of the same namespace.
        "is_primary_planning_scene_monitor": False,
        "monitored_planning_scene_topic": "monitored_planning_scene",
        "joint_topic": "joint_states",
        "status_topic": "~/status",
        "lower_singularity_threshold": 17.0,
        "hard_stop_singularity_threshold": 30.0,
        "leaving_singularity_threshold_multiplier": 2.0,
        "joint_limit_margins": [0.05] * len(robot.joints),
        "check_collisions": True,
        "collision_check_rate": 20.0,
        "self_collision_proximity_threshold": robot.clearance.self_distance,
        "scene_collision_proximity_threshold": robot.clearance.obstacle_distance,
        "pose_tracking": {"linear_tolerance": 0.001, "angular_tolerance": 0.01},
    }
    return {"/**": {"ros__parameters": {"moveit_servo": own}}}


WRITERS = {
    "kinematics.yaml": kinematics,
    "joint_limits.yaml": joint_limits,
    "ompl_planning.yaml": ompl_planning,
    "moveit_controllers.yaml": controllers,
    "servo.yaml": servo,
}


def files(robot: Embodiment) -> dict[str, str]:
    """What belongs into a robot's folder: name -> content."""
    note = "# Written by scripts/write_moveit_config.py from config/robots and urdf.\n"
    content = {
        name: note + yaml.safe_dump(write(robot), sort_keys=False, width=100)
        for name, write in WRITERS.items()
    }
    return {f"{robot.name}.srdf": srdf(robot), **content}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("robots", nargs="*", metavar="ROBOT", help="default: all of them")
    for name in parser.parse_args().robots or known_embodiments():
        robot = load_embodiment(name)
        folder = FOLDER / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files(robot).items():
            (folder / file).write_text(text)
        print(f"{folder}: {', '.join(path.name for path in sorted(folder.iterdir()))}")


if __name__ == "__main__":
    main()
