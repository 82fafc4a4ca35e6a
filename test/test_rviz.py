"""The RViz layouts name nothing that the graph does not have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy")
pytest.importorskip("internvla_ros.msg")

import rclpy
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from internvla_ros.bringup import RVIZ_FAMILIES, BringupError, Options, graph, rviz_layout
from internvla_ros.motion.link_tree import LinkTree
from internvla_ros.nodes.marker_node import MarkerNode
from internvla_ros.nodes.robot_state import transforms_type
from internvla_ros.resources import resource
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import known_embodiments, load_embodiment

SHOWS = {
    "rviz_default_plugins/RobotModel": "std_msgs/msg/String",
    "rviz_default_plugins/MarkerArray": "visualization_msgs/msg/MarkerArray",
    "rviz_default_plugins/Image": "sensor_msgs/msg/Image",
}
WITHOUT_TOPIC = {"rviz_default_plugins/Grid", "rviz_default_plugins/TF"}
ROBOTS = [name for name in known_embodiments() if name.startswith(RVIZ_FAMILIES)]


def layout(robot: str) -> dict[str, Any]:
    return yaml.safe_load(resource(rviz_layout(robot)).read_text())["Visualization Manager"]


@pytest.fixture(params=ROBOTS)
def shown(request: pytest.FixtureRequest) -> Iterator[tuple[str, MarkerNode]]:
    """A robot, and the node that bringup.py starts to show it."""
    robot = request.param
    (spec,) = (node for node in graph(Options(robot=robot)) if node.executable == "marker_node")
    rclpy.init(args=["--ros-args", "-p", f"robot:={spec.parameters['robot']}"])
    node = MarkerNode()
    yield robot, node
    node.destroy_node()
    rclpy.try_shutdown()


def test_every_topic_is_published_with_its_type_and_a_quality_that_fits(
    shown: tuple[str, MarkerNode],
) -> None:
    robot, node = shown
    published = dict(
        node.get_publisher_names_and_types_by_node(node.get_name(), node.get_namespace())
    )
    seen = set()
    for display in layout(robot)["Displays"]:
        if display["Class"] in WITHOUT_TOPIC:
            continue
        topic = display.get("Topic") or display["Description Topic"]
        assert published[topic["Value"]] == [SHOWS[display["Class"]]], display["Name"]
        (offer,) = (
            info.qos_profile
            for info in node.get_publishers_info_by_topic(topic["Value"])
            if info.node_name == node.get_name()
        )
        if topic["Reliability Policy"] == "Reliable":
            assert offer.reliability == ReliabilityPolicy.RELIABLE
        if topic["Durability Policy"] == "Transient Local":
            assert offer.durability == DurabilityPolicy.TRANSIENT_LOCAL
        seen.add(topic["Value"])
    cameras = {f"/{camera.name}/annotated" for camera in load_embodiment(robot).cameras}
    assert seen == {"/robot_description", "/markers"} | cameras
    if transforms_type() is not None:
        assert published["/tf"] == published["/tf_static"] == ["tf2_msgs/msg/TFMessage"]


@pytest.mark.parametrize("family", RVIZ_FAMILIES)
def test_every_frame_is_one_of_a_robot_of_the_family(family: str) -> None:
    robots = [load_embodiment(name) for name in ROBOTS if name.startswith(family)]
    content = layout(robots[0].name)
    named = {content["Global Options"]["Fixed Frame"]}
    for display in content["Displays"]:
        named |= set(display.get("Frames", ())) - {"All Enabled"}
    for robot in robots:
        tree = LinkTree(urdf(robot.name))
        known = {name for link in tree.links for name in (link.name, link.parent)}
        known |= {camera.optical_frame for camera in robot.cameras}
        if named <= known:
            assert content["Global Options"]["Fixed Frame"] == robot.base_frame
            return
    pytest.fail(f"{family}: no robot has all of {sorted(named)}")


def test_all_namespaces_of_the_markers_are_on() -> None:
    source = Path(resource("internvla_ros/nodes/markers.py")).read_text()
    for family in RVIZ_FAMILIES:
        robot = next(name for name in ROBOTS if name.startswith(family))
        (display,) = (d for d in layout(robot)["Displays"] if d["Class"].endswith("/MarkerArray"))
        assert all(display["Namespaces"].values())
        assert all(f'("{name}", ' in source for name in display["Namespaces"])


def test_rviz_is_started_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    with pytest.raises(BringupError, match="rviz2, which is not installed"):
        graph(Options(rviz=True))
    program = tmp_path / "lib" / "rviz2" / "rviz2"
    program.parent.mkdir(parents=True)
    program.write_text("")
    spec = graph(Options(robot="franka_panda", rviz=True))[-2]
    assert (spec.package, spec.executable, spec.vital) == ("rviz2", "rviz2", False)
    assert spec.arguments == ("-d", str(resource("config/rviz/franka.rviz")), "-f", "panda_link0")
