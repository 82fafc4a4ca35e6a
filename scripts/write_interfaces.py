"""Write docs/interfaces.md from the nodes' code, the message files and docs/interfaces.yaml.

Run it after a topic, service, action, parameter or message has changed:

    python scripts/write_interfaces.py [--check]
"""

from __future__ import annotations

import argparse
import dataclasses
import html
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from node_interfaces import (
    ANY_TYPE,
    NODES,
    Interface,
    NodeInterfaces,
    Parameter,
    SourceError,
    described,
    node_interfaces,
    profiles,
    read_source,
)

from internvla_ros.bringup import Options

ROOT = NODES.parent.parent
PAGE = ROOT / "docs" / "interfaces.md"
WORDS = ROOT / "docs" / "interfaces.yaml"
ROLES = ("publishes", "subscribes", "serves", "calls")
ORDER = (
    "camera",
    "planner",
    "actor",
    "arm",
    "task",
    "sim",
    "driver",
    "marker",
    "dashboard",
    "record",
)

HEAD = """\
# Interfaces

<!-- Written by scripts/write_interfaces.py: change the code or docs/interfaces.yaml, run it. -->

Every topic, service, action and parameter of every node. Relative names are in the namespace of the
graph. `<camera>` stands for each camera in the robot's file, `<servo_node>` and the like for the
parameter of that name. Units are SI unless a line says otherwise: m, rad, s; pixels are those of
the picture that the message names, (0, 0) the outer corner of its first pixel. A gripper's opening
is 0 closed, 1 open.

Every node also has what rclpy gives each of them: the parameter services, `/rosout`,
`/parameter_events`, and `/clock` where the parameter `use_sim_time` is true.
"""

QOS_HEAD = """\
## Quality of service

The tables name these profiles; all keep the last messages up to their depth. What a peer must offer
or ask for to be heard follows from them: a best-effort publisher reaches no reliable subscriber, a
volatile one no transient-local subscriber.
"""

TOPICS_HEAD = """\
## Topics from end to end

Between the nodes of this package; a blank means that it comes from, or goes to, something else: a
driver, a controller, a tool.
"""

OPTIONS_HEAD = """\
## Options of the graph

Launch arguments of `bringup.launch.py` (`dashboard_port:=9000`) and options of `internvla up`
(`--dashboard-port 9000`; `--no-markers` where the default is true).
"""

MANAGED = """\
## Managed nodes

planner_node, actor_node and arm_node have, beside what their tables say, what every lifecycle node
of ROS 2 has. What the transitions mean is said in [Concepts](concepts.md#managed-nodes).
"""

MANAGED_INTERFACES = (
    (
        "publishes",
        "~/transition_event",
        "lifecycle_msgs/msg/TransitionEvent",
        "each change of state",
    ),
    (
        "serves (service)",
        "~/change_state",
        "lifecycle_msgs/srv/ChangeState",
        "carry a transition out, by its label or number; answers at its end",
    ),
    ("serves (service)", "~/get_state", "lifecycle_msgs/srv/GetState", "the present state"),
    (
        "serves (service)",
        "~/get_available_states",
        "lifecycle_msgs/srv/GetAvailableStates",
        "all states",
    ),
    (
        "serves (service)",
        "~/get_available_transitions",
        "lifecycle_msgs/srv/GetAvailableTransitions",
        "the transitions that are possible now",
    ),
    (
        "serves (service)",
        "~/get_transition_graph",
        "lifecycle_msgs/srv/GetAvailableTransitions",
        "all transitions",
    ),
)
"""What rclpy gives every lifecycle node: role, name, type, meaning."""

TYPES_HEAD = """\
## Types of this package

As they stand in `msg/`, `srv/` and `action/`.
"""

LIFECYCLE = """\
This is a managed node: it has the services and the topic of every lifecycle node
([below](#managed-nodes)). All but `/diagnostics`, and the emergency stop of the arm, are there once
it is configured, and its parameters may be changed while it is unconfigured.
"""


class WordsError(ValueError):
    """docs/interfaces.yaml does not go with the code."""


@dataclass(frozen=True)
class Row:
    """An interface, and when it is there ("": always)."""

    interface: Interface
    when: str


class Words:
    """Looks up what is said of each name, and knows what nobody asked for."""

    def __init__(self, path: Path) -> None:
        self._content = yaml.safe_load(path.read_text(encoding="utf-8"))
        self._unused = {
            (section, name)
            for section in ("topics", "services", "actions", "conditions")
            for name in self._content[section]
        } | {(node, name) for node, names in self._content["only"].items() for name in names}

    def meaning(self, interface: Interface) -> str:
        """What an interface is for.

        Raises:
            WordsError: nothing is said of it.
        """
        section = f"{interface.kind}s"
        self._unused.discard((section, interface.name))
        try:
            return self._content[section][interface.name]
        except KeyError:
            raise WordsError(f"docs/interfaces.yaml: {section} lacks {interface.name}") from None

    def condition(self, owner: str) -> str:
        """When what a class makes is there."""
        self._unused.discard(("conditions", owner))
        return self._content["conditions"].get(owner, "")

    def only(self, node: str, name: str) -> str:
        """When a name of a node is there; `name` begins with its role."""
        self._unused.discard((node, name))
        return self._content["only"].get(node, {}).get(name, "")

    def end(self) -> None:
        """Refuse what is said of names that no node has."""
        if self._unused:
            names = ", ".join(sorted(": ".join(key) for key in self._unused))
            raise WordsError(f"docs/interfaces.yaml: no node has {names}")


def executables() -> list[str]:
    """The modules of all nodes that are programs, the way of the data first."""
    found = [path.stem for path in NODES.glob("*_node.py")]
    programs = [name for name in found if "main" in read_source(name).definitions]
    known = {f"{name}_node": index for index, name in enumerate(ORDER)}
    return sorted(programs, key=lambda name: (known.get(name, len(known)), name))


def page() -> str:
    """The page as Markdown."""
    words = Words(WORDS)
    nodes = [node_interfaces(name) for name in executables()]
    sections = [node_section(node, words) for node in nodes]
    words.end()
    parts = [HEAD, qos_section(), topics_section(nodes), *sections]
    parts += [managed_section(), options_section(), types_section()]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def qos_section() -> str:
    """The profiles of qos.py."""
    rows = [(f"`{name}`", described(quality)) for name, quality in profiles().items()]
    return QOS_HEAD + "\n" + table(("profile", "is"), rows)


def topics_section(nodes: Sequence[NodeInterfaces]) -> str:
    """Every topic once, with who publishes and who subscribes."""
    ends: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for node in nodes:
        for each in node.interfaces:
            if each.kind == "topic" and each.type != ANY_TYPE:
                others = ends[each.name, each.type][each.role]
                if node.executable not in others:
                    others.append(node.executable)
    rows = [
        (code(name), code(type_), ", ".join(who["publishes"]), ", ".join(who["subscribes"]))
        for (name, type_), who in sorted(ends.items())
    ]
    return TOPICS_HEAD + "\n" + table(("topic", "type", "from", "to"), rows)


def node_section(node: NodeInterfaces, words: Words) -> str:
    """One node: what it says of itself, its interfaces and its parameters."""
    words_of_node = html.escape(node.words, quote=False)
    parts = [f"## {node.executable}\n", f"Node `{node.name}`. {words_of_node}\n"]
    if node.lifecycle:
        parts.append(LIFECYCLE)
    rows = [interface_row(row, words) for row in merged(node, words)]
    parts.append(table(("", "name", "type", "QoS", "what"), rows))
    parameters = [parameter_row(each, node.executable, words) for each in node.parameters]
    if parameters:
        parts.append(table(("parameter", "type", "default", "may be", "meaning"), parameters))
    return "\n".join(parts)


def merged(node: NodeInterfaces, words: Words) -> Iterator[Row]:
    """A node's interfaces, each once: where it is there always, no condition is named."""
    conditions: dict[Interface, list[str]] = defaultdict(list)
    for each in node.interfaces:
        when = words.only(node.executable, f"{each.role} {each.name}") or words.condition(
            each.owner
        )
        conditions[replace(each, owner="")].append(when)
    for each in sorted(conditions, key=lambda each: (ROLES.index(each.role), each)):
        whens = conditions[each]
        yield Row(each, "" if "" in whens else "; ".join(dict.fromkeys(whens)))


def interface_row(row: Row, words: Words) -> tuple[str, ...]:
    """One line of a node's table."""
    each = row.interface
    what = words.meaning(each) + (f" ({row.when})" if row.when else "")
    role = each.role if each.kind == "topic" else f"{each.role} ({each.kind})"
    return role, code(each.name), code(each.type), code(each.qos) if each.qos else "", what


def parameter_row(each: Parameter, executable: str, words: Words) -> tuple[str, ...]:
    """One line of a node's parameters; the file's value where it is not the default."""
    in_file = parameter_file(executable).get(each.name, each.default)
    default = code(written(each.default))
    if in_file != each.default:
        default += f"; {code(written(in_file))} in the file"
    when = words.condition(each.owner)
    meaning = each.descriptor.description + (f" ({when})" if when else "")
    if not each.descriptor.read_only:
        meaning += "; may be changed while the node runs"
    return code(each.name), type_name(each.default), default, allowed(each), meaning


def parameter_file(executable: str) -> dict[str, object]:
    """The values in config/nodes; none where a node has no file."""
    path = ROOT / "config" / "nodes" / f"{executable}.yaml"
    if not path.is_file():
        return {}
    values: dict[str, object] = yaml.safe_load(path.read_text())["/**"]["ros__parameters"]
    return values


def allowed(each: Parameter) -> str:
    """The range or the choices of a parameter."""
    for whole in each.descriptor.integer_range:
        return f"{whole.from_value} to {whole.to_value}"
    for real in each.descriptor.floating_point_range:
        return f"{real.from_value:g} to {real.to_value:g}"
    return each.descriptor.additional_constraints


def type_name(value: object) -> str:
    """A parameter's type as ROS calls it."""
    names = {bool: "bool", int: "integer", float: "double", str: "string"}
    return names.get(type(value), "array")


def written(value: object) -> str:
    """A value as it is written in YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if value == "" else str(value)


def managed_section() -> str:
    """What all managed nodes have."""
    rows = [(role, code(name), code(type_), what) for role, name, type_, what in MANAGED_INTERFACES]
    return MANAGED + "\n" + table(("", "name", "type", "what"), rows)


def options_section() -> str:
    """What a user chooses of the graph."""
    rows = []
    for option in dataclasses.fields(Options):
        meaning = html.escape(option.metadata["description"], quote=False)
        default = code(written(option.default))
        choices = ", ".join(option.metadata["choices"])
        rows.append((code(option.name), type_name(option.default), default, choices, meaning))
    return OPTIONS_HEAD + "\n" + table(("option", "type", "default", "one of", "meaning"), rows)


def types_section() -> str:
    """Every message, service and action of this package, as it is."""
    parts = [TYPES_HEAD]
    for kind in ("msg", "srv", "action"):
        for path in sorted((ROOT / kind).glob(f"*.{kind}")):
            parts.append(f"### {kind}/{path.stem}\n\n```text\n{path.read_text().rstrip()}\n```\n")
    return "\n".join(parts)


def code(text: str) -> str:
    """Text as code in a table's cell, where a bar would begin the next one."""
    if "|" in text:
        return f"<code>{html.escape(text).replace('|', '&#124;')}</code>"
    return f"`{text}`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def main() -> int:
    """Write the page, or say whether it is up to date; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if it is stale")
    args = parser.parse_args()
    try:
        text = page()
    except (SourceError, WordsError) as error:
        print(f"write_interfaces: {error}", file=sys.stderr)
        return 2
    if not args.check:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    print(f"{PAGE} is stale: run scripts/write_interfaces.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
