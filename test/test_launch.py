"""The launch files under the real launch and launch_ros, with stand-ins for all programs.

These two packages come with a full ROS 2 installation. They are pure Python: where there is none,
INTERNVLA_LAUNCH_PATH may name a folder that has them (with launch_yaml, launch_xml, osrf_pycommon
and composition_interfaces on AMENT_PREFIX_PATH and PYTHONPATH).
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from launch_path import lack_of_launch, launch_environment
from policy_folder import save_policy_folder

from internvla_ros.bringup import Options, gazebo_graph, graph, moveit_graph
from internvla_ros.node_spec import NodeSpec
from internvla_ros.nodes.launching import OTHER_NAMES
from internvla_ros.resources import PACKAGE, resource
from internvla_ros.robots.embodiment import known_embodiments

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(__file__).resolve().parent / "launching"
FILES = ("bringup", "demo", "gazebo", "moveit")
PATIENCE = 60.0  # s for anything that should happen

Graph = Callable[[Options], Sequence[NodeSpec]]


LACK = lack_of_launch("launch.actions", "launch_ros.actions")
needs_launch = pytest.mark.skipif(bool(LACK), reason=LACK)


def ros2_launch(file: str, *words: str, **more: str) -> subprocess.Popen[str]:
    runner = str(FOLDER / "run_launch_file.py")
    return subprocess.Popen(
        [sys.executable, runner, str(ROOT / "launch" / f"{file}.launch.py"), *words],
        env=launch_environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy_folder(tmp_path_factory.mktemp("policy"))


def install_programs(prefix: Path, nodes: Sequence[NodeSpec]) -> None:
    """Stand-ins for the programs of some nodes, as a ROS installation has them."""
    text = f"#!{sys.executable} -S\n" + (FOLDER / "program.py").read_text()
    for node in nodes:
        folder = prefix / "lib" / node.package if node.package else prefix / "bin"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / node.executable).write_text(text)
        (folder / node.executable).chmod(0o755)
        index = prefix / "share" / "ament_index" / "resource_index" / "packages"
        index.mkdir(parents=True, exist_ok=True)
        (index / (node.package or "none")).touch()


@dataclass
class Launched:
    """A launch under way, whose programs are stand-ins."""

    process: subprocess.Popen[str]
    folder: Path

    def records(self) -> dict[str, dict[str, Any]]:
        """How programs were started, by the name of their node."""
        found = (json.loads(path.read_text()) for path in self.folder.glob("*.json"))
        return {record["node"]: record for record in found}

    def wait_for(self, names: set[str]) -> dict[str, dict[str, Any]]:
        deadline = time.monotonic() + PATIENCE
        while not names <= self.records().keys():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                output = self.process.communicate()[0]
                raise AssertionError(f"{sorted(names - self.records().keys())} of:\n{output}")
            time.sleep(0.05)
        return self.records()

    def end(self) -> str:
        """Ctrl-C; what the launch has said."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.communicate(timeout=PATIENCE)[0]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    """Starts a launch file with stand-ins for the programs of some nodes."""
    started: list[subprocess.Popen[str]] = []

    def begin(file: str, nodes: Sequence[NodeSpec], *words: str, **more: str) -> Launched:
        record = tmp_path / "record"
        record.mkdir()
        prefix = tmp_path / "prefix"
        install_programs(prefix, nodes)
        paths = {
            "AMENT_PREFIX_PATH": f"{prefix}{os.pathsep}{os.environ.get('AMENT_PREFIX_PATH', '')}",
            "PATH": f"{prefix / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }
        process = ros2_launch(file, *words, RECORD=str(record), **paths, **more)
        started.append(process)
        return Launched(process, record)

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def arguments(options: Options) -> list[str]:
    """The launch arguments that make these options."""
    plain = Options()
    changed = (
        (OTHER_NAMES.get(f.name, f.name), getattr(options, f.name))
        for f in fields(Options)
        if getattr(options, f.name) != getattr(plain, f.name)
    )
    return [f"{k}:={str(v).lower() if isinstance(v, bool) else v}" for k, v in changed]


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def assert_started_as(record: dict[str, Any], node: NodeSpec, namespace: str) -> None:
    """A program was started as the graph has it."""
    assert (record["package"], record["executable"]) == (node.package or "bin", node.executable)
    words: list[str] = record["words"]
    assert tuple(words[: len(node.arguments)]) == node.arguments
    assert record["niceness"] == min(19, os.nice(0) + node.niceness)
    if not node.package:
        return
    given = dict(word.split(":=", 1) for word in words if ":=" in word)
    assert given.pop("__node") == node.name
    assert given.pop("__ns", "/") == (namespace or "/")
    assert given == dict(node.remappings)
    texts = list(record["files"])
    if node.parameter_file:
        assert texts.pop(0) == resource(node.parameter_file).read_text()
    parameters: dict[str, Any] = {}
    for text in texts:
        for each in yaml.full_load(text).values():  # lists are tagged as Python's tuples
            parameters |= dict(flat(each["ros__parameters"]))
    assert parameters == dict(node.parameters)


MANY: list[tuple[str, Graph, Options]] = [
    ("bringup", graph, Options()),
    *(("bringup", graph, Options(robot=robot, seed=7)) for robot in known_embodiments()[:2]),
    ("bringup", graph, Options(namespace="/left", cameras="front=/d435/color", sim="none")),
    ("bringup", graph, Options(namespace="/left", sim="gazebo", window=True)),
    ("bringup", graph, Options(motion="moveit_servo", use_sim_time="false")),
    ("bringup", graph, Options(motion="moveit", sim="none", hardware="mock")),
    (
        "bringup",
        graph,
        Options(robot="franka_fr3", sim="none", hardware="real", robot_ip="10.0.0.2"),
    ),
    ("bringup", graph, Options(rviz=True, markers=False, respawn=False, record="kept")),
    ("gazebo", gazebo_graph, Options(sim="gazebo", robot="google_robot")),
    ("moveit", moveit_graph, Options(sim="none", robot="franka_panda", hardware="mock")),
]


@needs_launch
@pytest.mark.parametrize(
    ("file", "make", "options"),
    MANY,
    ids=lambda x: " ".join(arguments(x)) if isinstance(x, Options) else "",
)
def test_a_launch_file_starts_the_graph_of_bringup(
    file: str,
    make: Graph,
    options: Options,
    start: Callable[..., Launched],
    policy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if file == "bringup":
        options = replace(options, checkpoint=str(policy))
    if options.rviz:  # the graph asks for it
        install_programs(tmp_path / "rviz", [NodeSpec("rviz", "rviz2", package="rviz2")])
        monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path / "rviz"), os.pathsep)
    nodes = make(options)
    given = arguments(options)
    if file != "bringup":
        given = [word for word in given if not word.startswith("sim:=")]
    launched = start(file, nodes, *given)
    names = {node.name if node.package else node.executable: node for node in nodes}
    records = launched.wait_for(set(names))
    assert records.keys() == names.keys()
    for name, node in names.items():
        assert_started_as(records[name], node, options.namespace if node.package else "")
    output = launched.end()
    assert "Traceback" not in output
    assert launched.process.returncode == 0
    assert "ended with" not in output


@needs_launch
@pytest.mark.parametrize("fails", ["arm_node", "spawner", "planner_node", "marker_node"])
def test_the_launch_ends_when_what_it_needs_dies(
    fails: str, start: Callable[..., Launched], policy: Path
) -> None:
    """Once-only programs may end, but not fail; what is started again may die, and what listens."""
    options = Options(checkpoint=str(policy), sim="none", hardware="mock")
    nodes = graph(options)
    launched = start("bringup", nodes, *arguments(options), FAIL=fails)
    fatal = fails in ("arm_node", "spawner")
    if fatal:
        output = launched.process.communicate(timeout=PATIENCE)[0]
    else:
        launched.wait_for({node.name for node in nodes})
        output = launched.end()
    assert "ended with status 3" in output
    assert ("starting it again" in output) == (not fatal)


@needs_launch
@pytest.mark.parametrize("file", FILES)
def test_every_argument_is_described(file: str) -> None:
    process = ros2_launch(file, "--show")
    output, _ = process.communicate(timeout=PATIENCE)
    declared = json.loads(output.splitlines()[-1])
    known = {OTHER_NAMES.get(f.name, f.name): f for f in fields(Options)}
    assert declared.keys() <= known.keys()
    for name, (_, description, choices) in declared.items():
        each = known[name]
        assert description.startswith(each.metadata["description"]) and len(description) > 10
        expected = each.metadata["choices"] or None
        if isinstance(each.default, bool):
            expected = ("true", "false")
        assert choices == (list(expected) if expected else None)
    if file == "bringup":
        assert declared.keys() == known.keys()
        plain = {name: str(field.default) for name, field in known.items()}
        assert {name: default.lower() for name, (default, *_) in declared.items()} == {
            name: text.lower() for name, text in plain.items()
        }


@needs_launch
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["robot:=r2d2"], "unknown robot 'r2d2'"),
        (["sim:=matlab"], "matlab"),
        (["seed:=many"], "seed is 'many', which is no int"),
        (["rviz:=perhaps"], "perhaps"),
        (["model:=/nowhere"], "no checkpoint folder at /nowhere"),
        (["namespace:=left"], "must start with /"),
        (["cameras:=up=/x"], "NAME is one of front, wrist"),
        (["sim:=gazebo"], "not installed here: .*parameter_bridge .package ros_gz_bridge"),
    ],
)
def test_a_wrong_argument_is_told_before_anything_starts(
    words: list[str], message: str, start: Callable[..., Launched], policy: Path
) -> None:
    given = [f"model:={policy}", *words]
    launched = start(
        "bringup", [node for node in graph(Options()) if node.package == PACKAGE], *given
    )
    output, _ = launched.process.communicate(timeout=PATIENCE)
    assert launched.process.returncode == 1
    assert re.search(message, output), output
    assert launched.records() == {}
