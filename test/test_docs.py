"""README.md and docs/: links lead somewhere, commands exist, messages are those of the code."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from internvla_ros.bringup import Options, graph
from internvla_ros.cli import COMMANDS, command_parser
from internvla_ros.resources import PACKAGE
from internvla_ros.robots.embodiment import known_embodiments

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
HAND_WRITTEN = [page for page in PAGES if page.name != "interfaces.md"]
FOREIGN = ("cd", "git", "rosdep", "colcon", "source", "ssh", "export")
"""Commands that are not this package's to check."""
FLAGS = {option.name for option in fields(Options) if isinstance(option.default, bool)}
FOLDERS = ("bench", "checkpoints", "config", "docs", "internvla_ros", "launch", "scripts", "urdf")

every_page = pytest.mark.parametrize("page", HAND_WRITTEN, ids=lambda page: page.name)


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a language on a page, also those inside lists."""
    found = re.findall(
        rf"^( *)```{language}\n(.*?)^ *```$", page.read_text(), re.MULTILINE | re.DOTALL
    )
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^( *)```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What headings of a page can be linked to as."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", title.replace("`", "")).strip().lower() for title in titles)
    return {re.sub(r"[-\s]+", "-", title) for title in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), f"{page.name}: {target} does not exist"
        if anchor:
            assert anchor in anchors(other), f"{page.name}: {other.name} has no heading #{anchor}"


@every_page
def test_files_that_are_named_exist(page: Path) -> None:
    for text in re.findall(r"`([^`\s]+/[^`\s]*)`", prose(page)):
        if text.split("/")[0] in FOLDERS and not re.search(r"NAME|ROBOT|[<*]|/(msg|srv)/", text):
            assert (ROOT / text).exists(), f"{page.name}: {text} does not exist"


def commands(page: Path) -> Iterator[list[str]]:
    """The commands in the shell blocks and in the inline code of a page, as words."""
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    inline = re.findall(r"`((?:internvla|make|python|ros2|pip) [^`]+)`", prose(page))
    for line in [*lines, *(text.replace("\n", " ") for text in inline)]:
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&;")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word in ("&&", ";"):
                if words:
                    yield words
                words = []
            elif words or not re.match(r"[A-Z_]+=", word):  # a variable for the command
                words.append(word)


@every_page
def test_commands(page: Path) -> None:
    for words in commands(page):
        program, rest = words[0], words[1:]
        assert program in CHECKS or program in FOREIGN, f"{page.name}: {program} is not known"
        if program in CHECKS:
            try:
                CHECKS[program](rest)
            except AssertionError as error:
                raise AssertionError(f"{page.name}: {' '.join(words)}: {error}") from None


@cache
def parser_of(name: str) -> argparse.ArgumentParser:
    command = next((command for command in COMMANDS if command.name == name), None)
    assert command is not None, f"there is no command {name}"
    return command_parser(command, importlib.import_module(command.module))


def check_internvla(words: list[str]) -> None:
    if words[0].startswith("-") or words[0].isupper():
        return
    parser = parser_of(words[0])
    for word in words[1:]:
        option = word.split("=")[0]
        if option.startswith("--"):
            assert option in parser._option_string_actions, f"there is no {option}"
            continue
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction) and word in action.choices:
                parser = action.choices[word]
                break


@every_page
def test_graphs_come_up_as_they_are_written(page: Path) -> None:
    """With the options of every `internvla up` and `ros2 launch`, as far as the robot ships."""
    for words in commands(page):
        if words[:2] == ["internvla", "up"] and words[-1] not in ("--help", "--checkpoint"):
            given = vars(parser_of("up").parse_args(words[2:]))
        elif words[:3] == ["ros2", "launch", PACKAGE] and words[3] == "bringup.launch.py":
            pairs = dict(word.split(":=") for word in words[4:] if ":=" in word)
            given = {
                name: pairs[name] == "true" if name in FLAGS else pairs[name] for name in pairs
            }
        else:
            continue
        options = Options(**given)
        if options.robot in known_embodiments():
            assert graph(replace(options, rviz=False)), " ".join(words)


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for word in words:
        assert "=" in word or word in targets, f"there is no target {word}"


def check_python(words: list[str]) -> None:
    if words[:1] == ["-m"]:
        assert words[1] == "venv" or importlib.util.find_spec(words[1]) is not None
        return
    path = ROOT / words[0]
    assert path.is_file(), f"there is no file {words[0]}"
    for word in words[1:]:
        if word.startswith("--") and word != "--help":
            assert f'"{word}"' in path.read_text(), f"there is no {word}"


def check_pip(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in words[1:]:
        named = re.search(r"\[([\w,]+)\]", word)
        for extra in named[1].split(",") if named else ():
            assert extra in extras["optional-dependencies"], f"there is no extra {extra}"
        if "==" in word:
            assert word in (ROOT / "requirements.in").read_text(), f"{word} is not the version"


def check_ros2(words: list[str]) -> None:
    if words[0] == "launch" and words[1] == PACKAGE:
        check_launch(words[2:])
    elif words[0] == "run" and words[1] == PACKAGE:
        check_run(words[2:])
    elif words[0] in ("service", "topic", "action"):
        page = (ROOT / "docs" / "interfaces.md").read_text()
        name, *types = [word for word in words[2:] if not word.startswith(("-", "{"))]
        plain = re.sub(r"^/?driver/", "~/", name).lstrip("/")
        assert f"`{plain}`" in page or f"`/{plain}`" in page, f"there is no {name}"
        if words[1] in ("call", "pub", "send_goal"):
            assert f"| `{plain}` | `{types[0]}` |" in page, f"{name} is no {types[0]}"


def check_launch(words: list[str]) -> None:
    assert (ROOT / "launch" / words[0]).is_file(), f"there is no {words[0]}"
    text = (ROOT / "launch" / words[0]).read_text()
    known = {option.name for option in fields(Options)} | set(re.findall(r'"(\w+)"', text))
    for word in words[1:]:
        assert word.startswith("--") or word.split(":=")[0] in known, f"no argument {word}"


def check_run(words: list[str]) -> None:
    pytest.importorskip("rclpy")
    from node_interfaces import node_interfaces

    node = node_interfaces(words[0])
    names = {each.name for each in node.interfaces}
    parameters = {each.name for each in node.parameters}
    for flag, value in pairwise(words):
        if flag == "-p":
            assert value.split(":=")[0] in parameters, f"no parameter {value}"
        elif flag == "-r" and not value.startswith("__"):
            assert value.split(":=")[0] in names, f"no name {value}"
        elif flag == "--params-file":
            assert (ROOT / value).is_file(), f"there is no {value}"


CHECKS = {
    "internvla": check_internvla,
    "make": check_make,
    "python": check_python,
    "python3": check_python,
    "pip": check_pip,
    "ros2": check_ros2,
}


@every_page
def test_python_blocks(page: Path) -> None:
    """They compile, and what they import of this package is there."""
    for text in blocks(page, "python"):
        for statement in ast.walk(ast.parse(text)):
            if not isinstance(statement, ast.ImportFrom) or statement.module is None:
                continue
            if statement.module.split(".")[0] == "internvla_ros":
                module = pytest.importorskip(statement.module)
                for alias in statement.names:
                    assert hasattr(module, alias.name), f"{statement.module} has no {alias.name}"


@every_page
def test_yaml_blocks(page: Path) -> None:
    """They are YAML, and parameters for one of our nodes are parameters of it."""
    files = [
        yaml.safe_load(path.read_text())["/**"]["ros__parameters"]
        for path in (ROOT / "config" / "nodes").glob("*.yaml")
    ]
    source = "".join(path.read_text() for path in (ROOT / "internvla_ros/nodes").glob("*.py"))
    assert files
    for text in blocks(page, "yaml"):
        content = yaml.safe_load(text)
        for name in content.get("/**", {}).get("ros__parameters", {}):
            assert re.search(rf"^    {name}: \w+ = setting\(", source, re.MULTILINE), name


@cache
def texts() -> str:
    """Every text in the package's code, one a line; what a text leaves open ends a line."""
    found: list[str] = []
    for path in [*(ROOT / "internvla_ros").rglob("*.py"), *(ROOT / "launch").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_messages_are_those_of_the_code() -> None:
    """Every piece of a message in the troubleshooting page is a piece of a text in the code."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    rows = re.findall(r"^\| (`.*?`(?:, `.*?`)*)(?: \(.*?\))? \|", page, re.MULTILINE)
    messages = [message for row in rows for message in re.findall(r"`(.+?)`", row)]
    assert len(messages) > 50
    for message in messages:
        for piece in filter(None, (piece.strip(" :;,.x()'") for piece in message.split("…"))):
            assert piece in texts(), f"nothing in the code says: {piece}"


def test_numbered_errors() -> None:
    """The table of error numbers is the action's."""
    action = (ROOT / "action" / "ExecuteInstruction.action").read_text()
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    numbers = dict(re.findall(r"^uint16 (\w+)=(\d+)", action, re.MULTILINE))
    listed = {
        name: number for number, name in re.findall(r"^\| (\d+) \| (\w+) \|", page, re.MULTILINE)
    }
    assert listed == numbers


def test_interventions() -> None:
    """The table of interventions is what safety and the guard may count."""
    from internvla_ros.control.safety import Event, Halt
    from internvla_ros.motion.limits import Limit

    page = (ROOT / "docs" / "concepts.md").read_text()
    table = page.split("Every intervention is counted by name")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`(.+?)`", row)}
    assert listed == {each.value for kind in (Event, Halt, Limit) for each in kind}


def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "interfaces.html").is_file()
