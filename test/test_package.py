"""The package as a whole: its manifests agree, its parts lean on each other one way only."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

import internvla_ros
from internvla_ros.bringup import Options, graph

ROOT = Path(__file__).resolve().parent.parent
MODULES = ROOT / "internvla_ros"
INTERFACES = sorted(
    path for kind in ("msg", "srv", "action") for path in (ROOT / kind).glob(f"*.{kind}")
)

# A part may import its own layer's parts and those of the layers below, never those above.
LAYERS = (
    {"spatial", "robots", "motion", "control", "resources"},
    {"data", "distributed", "drivers", "model", "recording"},
    {"sim", "train", "evaluate", "serving", "dashboard"},
    {"node_spec", "external_nodes", "real_hardware", "bringup", "nodes", "cli"},
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
MESSAGE_PACKAGES = re.compile(r"(\w+_msgs|builtin_interfaces|rosgraph_msgs|std_srvs)$")


def imports(path: Path) -> Iterator[str]:
    """Every module that the file imports, anywhere in it, by its full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            if node.module == "internvla_ros":
                yield from (f"internvla_ros.{alias.name}" for alias in node.names)


def part_of(path: Path) -> str:
    return path.relative_to(MODULES).parts[0].removesuffix(".py")


def sources() -> list[Path]:
    return sorted(set(MODULES.rglob("*.py")) - {MODULES / "__init__.py"})


def test_versions_agree() -> None:
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    assert manifest.findtext("version") == internvla_ros.__version__
    assert f"{internvla_ros.__version__} " in (ROOT / "CHANGELOG.rst").read_text()


def test_the_manifest_is_valid() -> None:
    """By the package that ROS reads it with; the schema in it is fetched by ament_xmllint alone."""
    catkin = pytest.importorskip("catkin_pkg.package")
    warnings: list[str] = []
    package = catkin.parse_package(str(ROOT / "package.xml"), warnings=warnings)
    package.validate(warnings=warnings)
    assert not warnings
    names = [each.name for each in (*package.exec_depends, *package.test_depends)]
    assert len(names) == len(set(names)), "a dependency is named twice"


def test_the_linters_that_the_build_calls_are_its_dependencies() -> None:
    text = (ROOT / "CMakeLists.txt").read_text()
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    listed = {str(each.text) for each in manifest.findall("test_depend")}
    assert {"ament_lint_auto", "ament_cmake_pep257", "ament_cmake_flake8"} <= listed
    for name in (".flake8", "scripts/pep257.txt"):
        assert name in text and (ROOT / name).is_file()


def test_every_part_has_a_layer() -> None:
    folders = {path.name for path in MODULES.iterdir() if (path / "__init__.py").is_file()}
    assert folders <= RANK.keys()


def test_parts_import_one_way() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources()
        for name in imports(path)
        if name.startswith("internvla_ros.")
        and RANK.get(name.split(".")[1], -1) > RANK[part_of(path)]
    ]
    assert not wrong


def test_parts_of_a_layer_make_no_circle() -> None:
    needs: dict[str, set[str]] = {part: set() for part in RANK}
    for path in sources():
        for name in imports(path):
            if name.startswith("internvla_ros.") and name.split(".")[1] in RANK:
                needs[part_of(path)].add(name.split(".")[1])
    for part, others in needs.items():
        others.discard(part)
    resolved: set[str] = set()
    while ready := {part for part, others in needs.items() if others <= resolved} - resolved:
        resolved |= ready
    assert resolved == set(RANK), f"circle among {sorted(RANK.keys() - resolved)}"


@pytest.mark.parametrize(
    ("what", "allowed"),
    [("torch", {"model", "train"}), ("transformers", {"model", "train"}), ("rclpy", {"nodes"})],
)
def test_heavy_imports_stay_where_they_belong(what: str, allowed: set[str]) -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for path in sources()
        if part_of(path) not in allowed
        and any(name.split(".")[0] == what for name in imports(path))
    ]
    assert not wrong


def test_only_nodes_know_messages() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources()
        if part_of(path) != "nodes"
        for name in imports(path)
        if MESSAGE_PACKAGES.match(name.split(".")[0])
        or re.match(r"internvla_ros\.(msg|srv|action)\b", name)
    ]
    assert not wrong


def test_every_interface_is_built() -> None:
    listed = re.findall(r'"((?:msg|srv|action)/\w+\.\w+)"', (ROOT / "CMakeLists.txt").read_text())
    assert {str(path.relative_to(ROOT)) for path in INTERFACES} == set(listed)


@pytest.mark.parametrize("path", INTERFACES, ids=lambda path: path.name)
def test_every_field_of_an_interface_is_explained(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    fields = [line for line in lines if line.strip() and not line.startswith(("#", "---", " "))]
    bare = [line for line in fields if "#" not in line and "=" not in line]
    assert fields and not bare


def test_every_node_has_an_executable() -> None:
    text = (ROOT / "CMakeLists.txt").read_text()
    listed = re.search(r"foreach\(node ([\w ]+)\)", text)
    assert listed is not None
    built = {f"{name}_node" for name in listed[1].split()}
    started = {spec.executable for spec in graph(Options(record="x", dashboard=True))}
    assert started | {"driver_node", "moveit_py_node"} == built
    for executable in built:
        assert "\ndef main(" in (MODULES / "nodes" / f"{executable}.py").read_text()


def test_the_locks_pin_everything_and_agree() -> None:
    pins: dict[str, str] = {}
    for name in ("requirements.lock", "requirements-ros.lock"):
        for line in (ROOT / name).read_text().splitlines():
            if not line.startswith("#"):
                package, _, version = line.partition("==")
                assert version and package not in pins, line
                pins[package] = version
    for line in (ROOT / "requirements.in").read_text().splitlines():
        if match := re.fullmatch(r"(ros-[\w-]+)==(\S+)", line):
            assert pins[match[1]] == match[2]


@pytest.mark.skipif("INTERNVLA_ROOT" not in os.environ, reason="no env.bash: not built with make")
@pytest.mark.parametrize("times", [1, 2])
def test_env_bash_serves_any_folder_and_a_strict_shell(times: int, tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "HOME": ""}
    script = (
        "set -euo pipefail\n"
        + f". '{ROOT}/env.bash'\n" * times
        + "internvla --version\n"
        + "python -c 'from internvla_ros.msg import Box; import internvla_ros.motion; print(Box)'\n"
        + "echo $-\n"
    )
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    version, message, options = done.stdout.splitlines()
    assert version == f"internvla_ros {internvla_ros.__version__}"
    assert "internvla_ros.msg" in message
    assert "e" in options and "u" in options
