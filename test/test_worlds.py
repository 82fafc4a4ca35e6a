"""Gazebo's world and the robots in it, read by libsdformat, by pinocchio and by hand."""

from __future__ import annotations

import ctypes
import math
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from functools import cache
from pathlib import Path

import numpy as np
import pinocchio as pin
import pytest
import yaml
from write_controllers import controllers, real_controllers, text

from internvla_ros.external_nodes import (
    WORLD,
    gazebo_description,
    gazebo_position,
)
from internvla_ros.real_hardware import CONTROLLERS, controllers_file, plugin_of
from internvla_ros.resources import resource
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import Embodiment, known_embodiments, load_embodiment

ROBOTS = [load_embodiment(name) for name in known_embodiments()]
each_robot = pytest.mark.parametrize("robot", ROBOTS, ids=lambda robot: robot.name)


@cache
def libsdformat() -> str:
    """The library's file name; empty where none is installed."""
    folders = (Path("/usr/lib"), *Path("/usr/lib").glob("*-linux-gnu"), Path("/opt/ros/jazzy"))
    for folder in folders:
        pattern = "libsdformat*.so.*" if folder.name != "jazzy" else "opt/**/libsdformat*.so.*"
        for path in sorted(folder.glob(pattern)):
            if hasattr(ctypes.CDLL(str(path)), "cmdCheck"):
                return str(path)
    return ""


needs_sdformat = pytest.mark.skipif(
    not libsdformat(), reason="libsdformat is not installed (Debian: libsdformat12-12 sdformat-sdf)"
)


def sdformat(call: str, path: Path) -> tuple[int, str]:
    """What one of libsdformat's commands answers, in a process of its own as it prints."""
    code = "import ctypes, sys; sys.exit(getattr(ctypes.CDLL(sys.argv[1]), sys.argv[2])"
    code += "(*[arg.encode() for arg in sys.argv[3:]]) & 255)"
    words = [sys.executable, "-S", "-c", code, libsdformat(), call, str(path)]
    done = subprocess.run(words, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def described(robot: Embodiment, namespace: str = "") -> str:
    return urdf(robot.name, **gazebo_description(robot, namespace))


@needs_sdformat
def test_the_world_is_sdf() -> None:
    status, output = sdformat("cmdCheck", resource(WORLD))
    assert (status, output.strip()) == (0, "Valid.")


@needs_sdformat
def test_a_broken_world_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken.sdf"
    broken.write_text(resource(WORLD).read_text().replace("<mass>0.03</mass>", "<mass>-1</mass>"))
    status, output = sdformat("cmdCheck", broken)
    assert status != 0 and "invalid inertia" in output


@needs_sdformat
@each_robot
def test_a_robot_becomes_a_model_of_gazebo(robot: Embodiment, tmp_path: Path) -> None:
    path = tmp_path / f"{robot.name}.urdf"
    path.write_text(described(robot))
    assert sdformat("cmdCheck", path)[0] == 0


@each_robot
def test_pinocchio_reads_the_description_for_gazebo(robot: Embodiment) -> None:
    """Held by the world, with the same joints."""
    plain, held = pin.buildModelFromXML(urdf(robot.name)), pin.buildModelFromXML(described(robot))
    assert list(held.names) == list(plain.names)
    assert held.existFrame("world")


@each_robot
@pytest.mark.parametrize("namespace", ["", "/left"])
def test_cameras_are_those_of_the_robot(robot: Embodiment, namespace: str) -> None:
    root = ElementTree.fromstring(described(robot, namespace))
    sensors = {
        sensor.attrib["name"]: (element.attrib["reference"], sensor)
        for element in root.findall("gazebo[@reference]")
        for sensor in element.findall("sensor")
    }
    assert sensors.keys() == {camera.name for camera in robot.cameras}
    for camera in robot.cameras:
        link, sensor = sensors[camera.name]
        assert link == camera.frame
        assert sensor.findtext("topic") == f"{namespace}/{camera.name}/image_raw"
        assert sensor.findtext("gz_frame_id") == camera.optical_frame
        pose = np.array([float(word) for word in sensor.findtext("pose", "").split()])
        np.testing.assert_allclose(pose[:3], camera.position)
        forward, left, up = pin.rpy.rpyToMatrix(*pose[3:]).T
        np.testing.assert_allclose(
            np.stack([-left, -up, forward], axis=1), camera.optical_rotation(), atol=1e-9
        )
        size = (sensor.findtext("camera/image/width"), sensor.findtext("camera/image/height"))
        assert size == (str(camera.width), str(camera.height))
        angle = float(sensor.findtext("camera/horizontal_fov", ""))
        focal = 0.5 * camera.width / math.tan(angle / 2)
        assert focal == pytest.approx(camera.intrinsics()[0, 0])
    plugin = root.find("gazebo/plugin")
    assert plugin is not None
    assert Path(plugin.findtext("parameters", "")) == resource(controllers_file(robot))
    assert plugin.findtext("ros/namespace", "") == namespace


@each_robot
def test_things_lie_on_the_robots_own_table(robot: Embodiment) -> None:
    base = np.array(gazebo_position(robot))
    table = robot.tabletop
    assert base[2] + table.height == 0.0
    world = ElementTree.parse(resource(WORLD)).getroot()
    movable = [m for m in world.iter("model") if m.find("static") is None]
    assert len(movable) >= 3
    for model in movable:
        x, y, *_ = (float(word) for word in model.findtext("pose", "").split())
        assert table.x[0] <= x - base[0] <= table.x[1], model.attrib
        assert table.y[0] <= y - base[1] <= table.y[1], model.attrib
    floor = float(world.findtext(".//model[@name='floor']/pose", "").split()[2])
    assert floor <= base[2] + table.floor


@each_robot
def test_controllers_are_written_from_the_robot(robot: Embodiment) -> None:
    content = resource(controllers_file(robot)).read_text()
    assert content == text(controllers(robot)), "run scripts/write_controllers.py"
    parameters = yaml.safe_load(content)
    manager = parameters["/**/controller_manager"]["ros__parameters"]
    assert manager.keys() - {"update_rate"} == set(CONTROLLERS)
    assert manager["update_rate"] >= robot.control_rate
    arm = parameters["/**/arm_controller"]["ros__parameters"]
    control = ElementTree.fromstring(described(robot)).find("ros2_control")
    assert control is not None
    for name in (*arm["joints"], parameters["/**/gripper_controller"]["ros__parameters"]["joint"]):
        joint = control.find(f"joint[@name='{name}']")
        assert joint is not None
        offered = {element.attrib["name"] for element in joint.findall("command_interface")}
        assert set(arm["command_interfaces"]) <= offered


@pytest.mark.parametrize("name", ["franka_fr3", "franka_panda", "widowx_250s"])
def test_a_makers_plugin_gets_the_controllers_that_it_has_joints_for(name: str) -> None:
    robot = load_embodiment(name)
    real = real_controllers(robot)
    assert real is not None
    file = resource(controllers_file(robot, "real"))
    assert file.name == f"{name}_real.yaml"
    assert file.read_text() == text(real), "run scripts/write_controllers.py"
    manager = real["/**/controller_manager"]["ros__parameters"]
    started = set(plugin_of(robot, "real").controllers)
    assert started == manager.keys() & set(CONTROLLERS)
    control = ElementTree.fromstring(urdf(name, hardware="real")).find("ros2_control")
    assert control is not None
    arm = real["/**/arm_controller"]["ros__parameters"]
    for joint in arm["joints"]:
        offered = {
            each.attrib["name"]
            for each in control.findall(f"joint[@name='{joint}']/command_interface")
        }
        assert set(arm["command_interfaces"]) <= offered
    assert arm.get("gains", {}).keys() <= set(robot.joints)
    finger = control.find(f"joint[@name='{robot.gripper.joints[0]}']")
    assert (finger is not None) == ("gripper_controller" in started)


def test_no_file_of_the_world_is_elsewhere() -> None:
    """Neither meshes nor models from the network: what is not here would not be found."""
    words = resource(WORLD).read_text()
    assert "<uri>" not in words and "fuel" not in words
