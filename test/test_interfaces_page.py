"""docs/interfaces.md says of every node what it publishes, takes in, offers and asks for.

The page is made from the source by scripts/write_interfaces.py. Here it is compared with what the
source says now, and what is read in the source with what nodes really create.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("internvla_ros.msg")

import node_interfaces
import rclpy
import write_interfaces
from node_interfaces import Interface, SourceError, described, profiles, read_source
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions

from internvla_ros.bringup import Options, graph
from internvla_ros.robots.embodiment import load_embodiment

ROOT = Path(__file__).resolve().parent.parent
CAMERAS = [camera.name for camera in load_embodiment("widowx_250s").cameras]
OF_RCLPY = ("rcl_interfaces", "type_description_interfaces", "rosgraph_msgs", "action_msgs")
OF_ALL = ("start_type_description_service",)
"""A parameter that rclpy gives every node."""
EVERY_NODE = graph(Options(checkpoint="/x", record="x", dashboard=False))
LIVE = ("camera_node", "planner_node", "actor_node", "arm_node", "task_node", "marker_node")

Created = set[tuple[str, str, str, str]]


def test_the_page_is_what_the_code_says() -> None:
    assert write_interfaces.page() == write_interfaces.PAGE.read_text(), (
        "docs/interfaces.md is stale: run scripts/write_interfaces.py"
    )


def test_every_node_of_the_graph_has_a_section() -> None:
    text = write_interfaces.PAGE.read_text()
    for node in EVERY_NODE:
        assert f"## {node.executable}\n\nNode `{node.name}`." in text


def test_every_type_of_this_package_stands_on_the_page() -> None:
    text = write_interfaces.PAGE.read_text()
    for kind in ("msg", "srv", "action"):
        for path in (ROOT / kind).glob(f"*.{kind}"):
            assert f"### {kind}/{path.stem}\n" in text
            assert path.read_text().rstrip() in text


@pytest.fixture
def created(monkeypatch: pytest.MonkeyPatch) -> Iterator[Created]:
    """What nodes create from now on: role, name, type and quality of service."""
    found: Created = set()

    def spy(method: str, role: str, qos_at: int | None) -> None:
        real: Callable[..., Any] = getattr(Node, method)

        def create(node: Node, kind: Any, name: str, *args: Any, **kwargs: Any) -> Any:
            package, form, *_ = kind.__module__.split(".")
            if package not in OF_RCLPY:
                quality = args[qos_at] if qos_at is not None else ""
                found.add((role, name, f"{package}/{form}/{kind.__name__}", name_of(quality)))
            return real(node, kind, name, *args, **kwargs)

        monkeypatch.setattr(Node, method, create)

    spy("create_publisher", "publishes", 0)
    spy("create_subscription", "subscribes", 1)
    spy("create_service", "serves", None)
    spy("create_client", "calls", None)
    checkpoint = ROOT / "checkpoints" / "nano"
    arguments = ["--ros-args", "-p", f"checkpoint:={checkpoint}", "-p", "autostart:=false"]
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    yield found
    rclpy.try_shutdown()


def name_of(quality: Any) -> str:
    """How the page names a quality of service."""
    if not isinstance(quality, QoSProfile):
        return ""
    return next((n for n, known in profiles().items() if known == quality), described(quality))


def expanded(interfaces: set[Interface]) -> Created:
    """Interfaces but actions, for each camera."""
    return {
        (each.role, each.name.replace("<camera>", camera), each.type, each.qos)
        for each in interfaces
        for camera in CAMERAS
        if each.kind != "action"
    }


@pytest.mark.parametrize("executable", LIVE)
def test_what_is_read_is_what_a_node_creates(executable: str, created: Created) -> None:
    words = write_interfaces.Words(write_interfaces.WORDS)
    read = node_interfaces.node_interfaces(executable)
    rows = list(write_interfaces.merged(read, words))
    always = {row.interface for row in rows if not row.when}
    module = importlib.import_module(f"internvla_ros.nodes.{executable}")
    kinds = [each for each in vars(module).values() if isinstance(each, type)]
    node = next(
        each for each in kinds if issubclass(each, Node) and each.__module__ == module.__name__
    )()
    try:
        if hasattr(node, "trigger_configure"):
            node.trigger_configure()
        assert created
        without_clock = {each for each in created if each[1] != "/clock"}
        assert without_clock <= expanded({row.interface for row in rows})
        assert expanded(always) <= created
        parameters = {each.name for each in read.parameters}
        declared = {n for n in node._parameters if "." not in n} - {"use_sim_time", *OF_ALL}
        assert declared <= parameters
        assert {p.name for p in read.parameters if not words.condition(p.owner)} <= declared
    finally:
        node.destroy_node()


def test_managed_nodes_have_what_the_page_says(created: Created) -> None:
    node = importlib.import_module("internvla_ros.nodes.arm_node").ArmNode()
    try:
        services = {
            (
                f"~/{each.srv_name.rpartition('/')[2]}",
                f"lifecycle_msgs/srv/{each.srv_type.__name__}",
            )
            for each in node.services
            if each.srv_type.__module__.startswith("lifecycle_msgs")
        }
    finally:
        node.destroy_node()
    rows = write_interfaces.MANAGED_INTERFACES
    assert services == {(name, type_) for role, name, type_, _ in rows if "service" in role}


def test_what_cannot_be_followed_is_told_with_its_place() -> None:
    """A topic whose name is worked out while the node runs is no reason to leave it out."""
    source = read_source("camera_node")
    scope = node_interfaces.Scope(source, "CameraNode")
    (call,) = node_interfaces.ast.parse("create_publisher(Image, secret(), 1)").body
    with pytest.raises(SourceError, match=r"camera_node\.py:1: this name cannot be followed"):
        list(node_interfaces.interfaces_of(scope, call.value))
    (call,) = node_interfaces.ast.parse("create_publisher(Unknown, 'x', 1)").body
    with pytest.raises(SourceError, match="this type cannot be followed: Unknown"):
        list(node_interfaces.interfaces_of(scope, call.value))
    (call,) = node_interfaces.ast.parse("create_publisher(Image, 'x', some)").body
    with pytest.raises(SourceError, match="this quality of service cannot be followed: some"):
        list(node_interfaces.interfaces_of(scope, call.value))


def test_a_name_without_words_and_words_without_a_name(tmp_path: Path) -> None:
    path = tmp_path / "words.yaml"
    path.write_text("topics: {x: one}\nservices: {}\nactions: {}\nconditions: {A: a}\nonly: {}\n")
    words = write_interfaces.Words(path)
    assert words.meaning(Interface("publishes", "topic", "x", "T", "Q", "A")) == "one"
    with pytest.raises(write_interfaces.WordsError, match="topics lacks y"):
        words.meaning(Interface("publishes", "topic", "y", "T", "Q", "A"))
    with pytest.raises(write_interfaces.WordsError, match="no node has conditions: A"):
        words.end()
