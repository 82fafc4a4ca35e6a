"""Reads from the nodes' source what they publish, take in, offer and ask for, and their parameters.

Nothing runs: calls such as `create_publisher(Plan, "plan", NEWEST)` are found in the syntax tree of
a node and of whatever it uses under internvla_ros/nodes, in every branch, so that what depends on a
parameter or on an installed package is found too. Names and types are followed through assignments,
f-strings, loops over literal tuples and imports; what cannot be followed is an error with file and
line, never left out.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import rclpy.qos
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from internvla_ros.nodes.parameters import declare

NODES = Path(__file__).resolve().parent.parent / "internvla_ros" / "nodes"
PACKAGE = "internvla_ros.nodes"

ROLES = {
    "create_publisher": "publishes",
    "create_lifecycle_publisher": "publishes",
    "create_subscription": "subscribes",
    "create_service": "serves",
    "create_client": "calls",
    "ActionServer": "serves",
    "ActionClient": "calls",
}
ACTIONS = ("ActionServer", "ActionClient")
LIFECYCLE = "LifecycleNode"
PLACEHOLDERS = {"camera": "<camera>", "camera.name": "<camera>", "c.name": "<camera>"}
"""What stands in the code for a camera's name, as the page writes it."""
EVERYTHING = {"topic": "*"}
"""What stands in the recorder for any topic."""
ANY_TYPE = "any"
"""For a type that is looked up by its name when the node runs."""
HIDDEN = "/_action/"
"""In the names of what an action is made of."""
MODULES = {"optional_module": "", "import_module": "", "messages_of": ".msg"}
"""Functions that import a module by name, and what they add to the name."""


class SourceError(ValueError):
    """A call whose name, type or quality of service cannot be followed in the source."""


@dataclass(frozen=True, order=True)
class Interface:
    """One topic, service or action of a node.

    Attributes:
        role: "publishes", "subscribes", "serves" or "calls".
        kind: "topic", "service" or "action".
        name: relative names are in the node's namespace; <x> is the parameter x, or a camera.
        type: as `ros2 interface show` takes it.
        qos: of a topic, else "".
        owner: the class or function that creates it.
    """

    role: str
    kind: str
    name: str
    type: str
    qos: str
    owner: str


@dataclass(frozen=True)
class Parameter:
    """One parameter, as its descriptor has it."""

    name: str
    default: object
    descriptor: ParameterDescriptor
    owner: str


@dataclass(frozen=True)
class NodeInterfaces:
    """A node's name in the graph, what its class says of itself, and all that others can reach."""

    executable: str
    name: str
    words: str
    lifecycle: bool
    interfaces: tuple[Interface, ...]
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True, eq=False)
class Source:
    """A module under internvla_ros/nodes: its definitions, constants and imported names."""

    path: Path
    definitions: Mapping[str, ast.stmt]
    constants: Mapping[str, ast.expr]
    imports: Mapping[str, tuple[str, str]]

    @property
    def module(self) -> str:
        """Its full name."""
        return f"{PACKAGE}.{self.path.stem}"


@dataclass(frozen=True, eq=False)
class Scope:
    """Where an expression stands: names bound in the function and, as self.x, in the class."""

    source: Source
    owner: str
    names: Mapping[str, ast.expr] = field(default_factory=dict)

    def error(self, expression: ast.expr, problem: str) -> SourceError:
        """What cannot be followed, and where."""
        place = f"{self.source.path}:{expression.lineno}"
        return SourceError(f"{place}: {problem}: {ast.unparse(expression)}")


@cache
def read_source(module: str) -> Source:
    """Parse a module under internvla_ros/nodes."""
    path = NODES / f"{module.removeprefix(PACKAGE + '.')}.py"
    definitions: dict[str, ast.stmt] = {}
    constants: dict[str, ast.expr] = {}
    imports: dict[str, tuple[str, str]] = {}
    for statement in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.ImportFrom) and statement.module:
            for alias in statement.names:
                imports[alias.asname or alias.name] = (statement.module, alias.name)
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef):
            definitions[statement.name] = statement
        for name, value in _bound(statement):
            constants[name] = value
    return Source(path, definitions, constants, imports)


def node_interfaces(executable: str) -> NodeInterfaces:
    """All of one node, by the name of its module.

    Raises:
        SourceError: something cannot be followed.
    """
    source = read_source(executable)
    node = next(
        d
        for d in source.definitions.values()
        if isinstance(d, ast.ClassDef) and any("Node" in ast.unparse(base) for base in d.bases)
    )
    interfaces: set[Interface] = set()
    parameters: dict[str, Parameter] = {}
    managed = False
    for each, definition in _reachable(source, "main"):
        managed |= isinstance(definition, ast.ClassDef) and any(
            LIFECYCLE in ast.unparse(base) for base in definition.bases
        )
        for scope, call in _calls(each, definition):
            interfaces.update(interfaces_of(scope, call))
            for parameter in _parameters(scope, call):
                parameters.setdefault(parameter.name, parameter)
    return NodeInterfaces(
        executable,
        _node_name(node),
        ast.get_docstring(node) or "",
        managed,
        tuple(sorted(interfaces)),
        tuple(parameters.values()),
    )


def _node_name(node: ast.ClassDef) -> str:
    """What a node's class calls itself: the argument of super().__init__."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "super().__init__":
            return str(ast.literal_eval(call.args[0]))
    raise SourceError(f"class {node.name} does not name its node")


def _reachable(source: Source, start: str) -> Iterator[tuple[Source, ast.stmt]]:
    """The definitions that `start` uses, in its module and in those beside it."""
    waiting, seen = [(source, start)], set()
    while waiting:
        here, name = waiting.pop()
        definition = here.definitions.get(name)
        if definition is None or (here.module, name) in seen:
            continue
        seen.add((here.module, name))
        yield here, definition
        for each in ast.walk(definition):
            if isinstance(each, ast.Name):
                waiting.append(_home(here, each.id))


def _home(source: Source, name: str) -> tuple[Source, str]:
    """Where a name of a module is defined: there, or in another module beside it."""
    module, original = source.imports.get(name, ("", ""))
    if module.startswith(PACKAGE + "."):
        return read_source(module), original
    return source, name


def _calls(source: Source, definition: ast.stmt) -> Iterator[tuple[Scope, ast.Call]]:
    """Every call in a class or function, with the names that are bound where it stands."""
    members: dict[str, ast.expr] = {}
    for statement in ast.walk(definition):
        members.update((n, v) for n, v in _bound(statement) if n.startswith("self."))
    functions = [n for n in ast.walk(definition) if isinstance(n, ast.FunctionDef)]
    for function in functions:
        local = dict(members)
        for statement in ast.walk(function):
            local.update(_bound(statement))
        for loop, names in _loops(function, local):
            for call in loop:
                yield Scope(source, getattr(definition, "name", ""), names), call


def _loops(
    function: ast.FunctionDef, names: dict[str, ast.expr]
) -> Iterator[tuple[list[ast.Call], dict[str, ast.expr]]]:
    """The calls of a function; those in a loop over a literal tuple once for each of its items."""
    inside: set[ast.Call] = set()
    for loop in ast.walk(function):
        if isinstance(loop, ast.For) and isinstance(loop.iter, ast.Tuple):
            calls = [c for part in loop.body for c in ast.walk(part) if isinstance(c, ast.Call)]
            inside.update(calls)
            for item in loop.iter.elts:
                yield calls, {**names, **dict(_unpacked(loop.target, item))}
    nested = {
        call
        for inner in ast.walk(function)
        if isinstance(inner, ast.FunctionDef) and inner is not function
        for call in ast.walk(inner)
        if isinstance(call, ast.Call)
    }
    rest = [c for c in ast.walk(function) if isinstance(c, ast.Call)]
    yield [call for call in rest if call not in inside | nested], names


def _bound(statement: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """The names that an assignment binds, and to what; members are called self.x."""
    if isinstance(statement, ast.AnnAssign) and statement.value is not None:
        yield ast.unparse(statement.target), statement.value
    elif isinstance(statement, ast.Assign):
        for target in statement.targets:
            yield from _unpacked(target, statement.value)


def _unpacked(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, other in zip(target.elts, value.elts, strict=False):
            yield from _unpacked(one, other)
    elif not isinstance(target, ast.Tuple):
        yield ast.unparse(target), value


def interfaces_of(scope: Scope, call: ast.Call) -> Iterator[Interface]:
    """What a call creates; nothing, if it is another kind of call."""
    function = scope.names.get(ast.unparse(call.func), call.func)
    method = ast.unparse(function).split(".")[-1]
    if method == "TransformListener":
        for topic in ("/tf", "/tf_static"):
            yield Interface(
                "subscribes", "topic", topic, "tf2_msgs/msg/TFMessage", "as tf2 has it", scope.owner
            )
    if method not in ROLES:
        return
    arguments = call.args[1:] if method in ACTIONS else call.args
    names = [name for name in texts(scope, arguments[1]) if HIDDEN not in name]
    types = types_of(scope, arguments[0]) if names else []
    is_topic = "publisher" in method or "subscription" in method
    kind = "topic" if is_topic else ("action" if method in ACTIONS else "service")
    quality = arguments[2 if "publisher" in method else 3] if is_topic and names else None
    qos = profile(scope, quality) if quality is not None else ""
    for name, type_ in product(names, types):
        yield Interface(ROLES[method], kind, name, type_, qos, scope.owner)


def texts(scope: Scope, expression: ast.expr) -> list[str]:
    """What a text may be; <x> stands for the parameter x."""
    if isinstance(expression, ast.Constant):
        return [str(expression.value)]
    if isinstance(expression, ast.JoinedStr):
        return ["".join(parts) for parts in product(*(texts(scope, v) for v in expression.values))]
    if isinstance(expression, ast.FormattedValue):
        return texts(scope, expression.value)
    written = ast.unparse(expression)
    if isinstance(expression, ast.Attribute) and written not in scope.names:
        base = scope.names.get(ast.unparse(expression.value), expression.value)
        if isinstance(base, ast.Call) and ast.unparse(base.func) == "declare":
            return [f"<{expression.attr}>"]
    known = scope.names.get(written) or scope.source.constants.get(written)
    if known is not None and known is not expression:
        return texts(scope, known)
    if written in PLACEHOLDERS or written == "name":
        return [PLACEHOLDERS.get(written, "<camera>")]
    if written in EVERYTHING:
        return [EVERYTHING[written]]
    raise scope.error(expression, "this name cannot be followed")


def types_of(scope: Scope, expression: ast.expr) -> list[str]:
    """The interface types that an expression may be, as package/kind/Name."""
    written = ast.unparse(expression)
    if isinstance(expression, ast.IfExp):
        return [*types_of(scope, expression.body), *types_of(scope, expression.orelse)]
    if written in scope.source.imports:
        module, name = scope.source.imports[written]
        return [f"{module.replace('.', '/')}/{name}"]
    if isinstance(expression, ast.Call):
        home, name = _home(scope.source, ast.unparse(expression.func))
        if name in home.definitions:
            return _returned(home, name)
        if name == "getattr":
            return [ANY_TYPE]
    if written in scope.names:
        return types_of(scope, scope.names[written])
    if isinstance(expression, ast.Attribute):
        module = _module(scope, expression.value)
        if module:
            return [f"{module.replace('.', '/')}/{expression.attr}"]
        member = _member(scope, expression)
        if member is not None:
            return types_of(*member)
    raise scope.error(expression, "this type cannot be followed")


def _returned(source: Source, name: str) -> list[str]:
    """The types that a function returns, but None."""
    scope = Scope(source, name)
    values = [
        statement.value
        for statement in ast.walk(source.definitions[name])
        if isinstance(statement, ast.Return) and statement.value is not None
    ]
    return [t for v in values if ast.unparse(v) != "None" for t in types_of(scope, v)]


def _module(scope: Scope, expression: ast.expr) -> str:
    """The module that an expression is, "" where it is none."""
    expression = scope.names.get(ast.unparse(expression), expression)
    if isinstance(expression, ast.Call):
        function = ast.unparse(expression.func).split(".")[-1]
        if function in MODULES:
            return str(ast.literal_eval(expression.args[0])) + MODULES[function]
    return ""


def _member(scope: Scope, expression: ast.Attribute) -> tuple[Scope, ast.expr] | None:
    """What x.y is, where x was made as an instance of a class that is known here."""
    made = scope.names.get(ast.unparse(expression.value), expression.value)
    if not isinstance(made, ast.Call):
        return None
    source, name = _home(scope.source, ast.unparse(made.func))
    definition = source.definitions.get(name)
    if not isinstance(definition, ast.ClassDef):
        return None
    names = dict(bound for part in ast.walk(definition) for bound in _bound(part))
    value = names.get(f"self.{expression.attr}")
    return None if value is None else (Scope(source, name, names), value)


def profile(scope: Scope, expression: ast.expr) -> str:
    """A quality of service by the name it has in qos.py, or in words."""
    written = ast.unparse(expression)
    module, name = scope.source.imports.get(written, ("", ""))
    if module == f"{PACKAGE}.qos":
        return name
    if module == "rclpy.qos":
        return described(getattr(rclpy.qos, name))
    value = scope.source.constants.get(written, expression)
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "QoSProfile":
        return described(eval(ast.unparse(value), vars(rclpy.qos)))
    if written == "profile":
        return "as its publishers"
    raise scope.error(expression, "this quality of service cannot be followed")


def described(quality: QoSProfile) -> str:
    """Reliability, durability and depth in words."""
    reliability = {
        ReliabilityPolicy.RELIABLE: "reliable",
        ReliabilityPolicy.BEST_EFFORT: "best effort",
    }[quality.reliability]
    latched = quality.durability == DurabilityPolicy.TRANSIENT_LOCAL
    return f"{reliability}, {'transient local' if latched else 'volatile'}, depth {quality.depth}"


def profiles() -> dict[str, QoSProfile]:
    """The profiles of qos.py, by name."""
    module = importlib.import_module(f"{PACKAGE}.qos")
    return {n: v for n, v in vars(module).items() if isinstance(v, QoSProfile) and n.isupper()}


def _parameters(scope: Scope, call: ast.Call) -> Iterator[Parameter]:
    """What a call of `declare` declares, by letting it do so."""
    if ast.unparse(call.func) != "declare":
        return
    name = ast.unparse(call.args[1])
    module = importlib.import_module(scope.source.module)
    taken: list[tuple[str, object, ParameterDescriptor]] = []

    def declare_parameter(each: str, default: object, how: ParameterDescriptor) -> Any:
        taken.append((each, default, how))
        return SimpleNamespace(value=default)

    stand_in: Any = SimpleNamespace(
        declare_parameter=declare_parameter, has_parameter=lambda _: False, get_name=lambda: ""
    )
    declare(stand_in, getattr(module, name))
    assert len(taken) == len(dataclasses.fields(getattr(module, name)))
    for each, default, how in taken:
        yield Parameter(each, default, how, name)
