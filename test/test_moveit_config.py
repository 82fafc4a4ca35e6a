"""config/moveit agrees with the robots' URDF and limits."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pinocchio as pin
import pytest
import yaml

from internvla_ros.motion.backends.planning import GROUP, Target, plan_goals
from internvla_ros.resources import resource
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import Embodiment, known_embodiments, load_embodiment

ROOT = Path(__file__).resolve().parent.parent
FILES = ("kinematics", "joint_limits", "ompl_planning", "moveit_controllers", "servo")


@pytest.fixture(params=known_embodiments())
def robot(request: pytest.FixtureRequest) -> Embodiment:
    return load_embodiment(request.param)


def settings(robot: Embodiment, name: str) -> dict[str, Any]:
    path = resource(f"config/moveit/{robot.name}/{name}.yaml")
    content = yaml.safe_load(path.read_text())
    assert isinstance(content, dict)
    return content


def srdf(robot: Embodiment) -> ElementTree.Element:
    path = resource(f"config/moveit/{robot.name}/{robot.name}.srdf")
    return ElementTree.parse(path).getroot()


def description(robot: Embodiment) -> ElementTree.Element:
    return ElementTree.fromstring(urdf(robot.name))


def chain(robot: Embodiment, base: str, tip: str) -> list[str]:
    """The moving joints from one link to another."""
    above = {
        joint.find("child").get("link"): joint for joint in description(robot).findall("joint")
    }
    joints: list[str] = []
    while tip != base:
        joint = above[tip]
        if joint.get("type") != "fixed":
            joints.insert(0, str(joint.get("name")))
        tip = joint.find("parent").get("link")
    return joints


def test_groups_hold_the_joints_of_arm_and_gripper(robot: Embodiment) -> None:
    groups = {group.get("name"): group for group in srdf(robot).findall("group")}
    assert set(groups) == {GROUP, "gripper"}
    ends = groups[GROUP].find("chain")
    assert ends is not None
    assert ends.get("tip_link") == robot.tip_frame
    assert chain(robot, ends.get("base_link"), ends.get("tip_link")) == list(robot.joints)
    fingers = [joint.get("name") for joint in groups["gripper"].findall("joint")]
    assert tuple(fingers) == robot.gripper.joints
    known = {joint.get("name") for joint in description(robot).findall("joint")}
    assert set(fingers) <= known


def test_named_positions_lie_within_the_limits(robot: Embodiment) -> None:
    limits = {
        joint.get("name"): joint.find("limit")
        for joint in description(robot).findall("joint")
        if joint.find("limit") is not None
    }
    states = srdf(robot).findall("group_state")
    assert {state.get("name") for state in states} == {"ready", "open", "closed"}
    for state in states:
        for joint in state.findall("joint"):
            limit = limits[joint.get("name")]
            value = float(joint.get("value"))
            assert float(limit.get("lower")) - 1e-4 <= value <= float(limit.get("upper")) + 1e-4


def test_pinocchio_reads_the_srdf_and_the_ready_pose_touches_nothing(robot: Embodiment) -> None:
    model = pin.buildModelFromXML(urdf(robot.name))
    solids = pin.buildGeomFromUrdfString(model, urdf(robot.name), pin.GeometryType.COLLISION)
    solids.addAllCollisionPairs()
    before = len(solids.collisionPairs)
    text = ElementTree.tostring(srdf(robot), encoding="unicode")
    pin.removeCollisionPairsFromXML(model, solids, text)
    assert 0 < len(solids.collisionPairs) < before
    pin.loadReferenceConfigurationsFromXML(model, text)
    ready = model.referenceConfigurations["ready"]
    data, shapes = model.createData(), solids.createData()
    assert not pin.computeCollisions(model, data, solids, shapes, ready, True)


def test_pairs_that_are_never_compared_never_touch_or_are_neighbours(robot: Embodiment) -> None:
    """With other random positions than those that the pairs were found with."""
    model = pin.buildModelFromXML(urdf(robot.name))
    solids = pin.buildGeomFromUrdfString(model, urdf(robot.name), pin.GeometryType.COLLISION)
    links = [model.frames[solid.parentFrame].name for solid in solids.geometryObjects]
    pairs = srdf(robot).findall("disable_collisions")
    named = {(pair.get("link1"), pair.get("link2")): pair.get("reason") for pair in pairs}
    assert set(named.values()) <= {"Adjacent", "Never", "Always", "User"}
    assert all({first, second} <= set(links) for first, second in named)
    solids.removeAllCollisionPairs()
    for i, j in combinations(range(len(links)), 2):
        if named.get((min(links[i], links[j]), max(links[i], links[j]))) == "Never":
            solids.addCollisionPair(pin.CollisionPair(i, j))
    assert len(solids.collisionPairs) > 0
    data, shapes = model.createData(), solids.createData()
    rng = np.random.default_rng(77)
    lower = np.maximum(model.lowerPositionLimit, -np.pi)
    upper = np.minimum(model.upperPositionLimit, np.pi)
    touched = sum(
        pin.computeCollisions(model, data, solids, shapes, rng.uniform(lower, upper), True)
        for _ in range(1000)
    )
    assert touched <= 1, "a pair that was not seen to touch in 4,000 positions"


def test_limits_are_the_robots_own(robot: Embodiment) -> None:
    limits = settings(robot, "joint_limits")["joint_limits"]
    assert set(limits) == {*robot.joints, *robot.gripper.joints}
    for key, wanted in (
        ("min_position", robot.position_lower),
        ("max_position", robot.position_upper),
        ("max_velocity", robot.velocity),
        ("max_acceleration", robot.acceleration),
        ("max_jerk", robot.jerk),
    ):
        assert np.allclose([limits[joint][key] for joint in robot.joints], wanted), key


def test_controllers_and_planners_fit_the_groups(robot: Embodiment) -> None:
    manager = settings(robot, "moveit_controllers")["moveit_simple_controller_manager"]
    arm, gripper = (manager[name] for name in manager["controller_names"])
    assert tuple(arm["joints"]) == robot.joints
    assert gripper["joints"] == [robot.gripper.joints[0]]
    assert set(settings(robot, "kinematics")) == {GROUP}
    ompl = settings(robot, "ompl_planning")
    assert set(ompl[GROUP]["planner_configs"]) == set(ompl["planner_configs"])
    asked = {goal.planner for goal in plan_goals(robot, Target.RECOVER, None, None, 1.0)} - {""}
    assert asked
    assert asked <= set(ompl["planner_configs"])


def test_servo_takes_poses_as_often_as_they_are_sent(robot: Embodiment) -> None:
    servo = settings(robot, "servo")["/**"]["ros__parameters"]["moveit_servo"]
    assert servo["move_group_name"] == GROUP
    assert servo["publish_period"] <= 1.0 / robot.control_rate + 1e-9
    assert 2.0 / robot.control_rate < servo["incoming_command_timeout"]
    assert servo["command_in_type"] == "speed_units"
    assert not servo["is_primary_planning_scene_monitor"]
    assert "Ruckig" not in servo["smoothing_filter_plugin_name"]
    assert servo["scale"]["linear"] == robot.tip_limits.speed
    assert len(servo["joint_limit_margins"]) == len(robot.joints)
    # What Servo itself refuses to start with.
    near, far = (servo[f"{what}_collision_proximity_threshold"] for what in ("self", "scene"))
    assert near <= far
    assert 3 * servo["publish_period"] <= servo["max_expected_latency"]
    assert servo["lower_singularity_threshold"] < servo["hard_stop_singularity_threshold"]


def test_the_files_are_what_the_script_writes(robot: Embodiment) -> None:
    """Settings alone: a robot's limits have changed when this fails."""
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); import write_moveit_config as w;"
        "from internvla_ros.robots.embodiment import load_embodiment;"
        "robot = load_embodiment(sys.argv[2]);"
        "print(json.dumps({name: write(robot) for name, write in w.WRITERS.items()}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "scripts"), robot.name],
        capture_output=True,
        text=True,
        check=True,
    )
    written = yaml.safe_load(done.stdout)
    for name in FILES:
        assert settings(robot, name) == written[f"{name}.yaml"], (
            "run scripts/write_moveit_config.py"
        )
