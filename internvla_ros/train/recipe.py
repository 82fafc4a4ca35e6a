"""Reading a training recipe, one YAML file, with every mistake told by file, line and key."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import yaml

from internvla_ros.resources import ResourceError, resource
from internvla_ros.robots.document import EmbodimentError, Section, compose
from internvla_ros.train.settings import Recipe

T = TypeVar("T")


class RecipeError(ValueError):
    """A recipe that names something unknown or is not to be read."""


def load_recipe(name: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe of that name in config/train/, or of that file; raises `RecipeError`.

    `changes` are "key=value" with dotted keys, e.g. "stage2.loop.steps=100".
    """
    path = Path(name)
    try:
        if path.suffix not in (".yaml", ".yml"):
            path = resource(f"config/train/{name}.yaml")
        text = path.read_text()
    except ResourceError as error:
        raise RecipeError(f"no recipe {name!r}: {error}") from error
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from error
    try:
        node = compose(path, text)
        for change in changes:
            _apply(node, change)
        document = Section.of(path, 1, node)
        recipe = _read(document, Recipe)
        document.end()
    except EmbodimentError as error:
        raise RecipeError(str(error)) from error
    return recipe


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Write a recipe as `load_recipe` reads it, whole."""
    temporary = path.with_name(path.name + ".writing")
    temporary.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_text(yaml.safe_dump(_plain(dataclasses.asdict(recipe)), sort_keys=False))
    temporary.replace(path)


def differences(before: Recipe, after: Recipe) -> list[str]:
    """What two recipes say differently, as "key: before -> after"."""
    return _different("", dataclasses.asdict(before), dataclasses.asdict(after))


def _different(key: str, before: Any, after: Any) -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = list(dict.fromkeys([*before, *after]))
        return [
            line
            for name in keys
            for line in _different(
                f"{key}.{name}" if key else name, before.get(name), after.get(name)
            )
        ]
    return [] if before == after else [f"{key}: {before} -> {after}"]


def _plain(value: Any) -> Any:
    """Lists for tuples; sections that are not there are left out."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if v is not None}
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value


def _read(section: Section, kind: type[T]) -> T:
    """A dataclass from a section, field by field."""
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for entry in dataclasses.fields(kind):  # type: ignore[arg-type]
        needed = (
            entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        )
        section.used.add(entry.name)
        if needed or entry.name in section.values:
            values[entry.name] = _value(section, entry.name, hints[entry.name], entry.metadata)
    return kind(**values)


def _value(section: Section, key: str, kind: Any, metadata: typing.Mapping[str, Any]) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(k for k in get_args(kind) if k is not type(None))
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _read(section.section(key), kind)
    if get_origin(kind) is Literal:
        return section.text(key, get_args(kind))
    if get_origin(kind) is tuple:
        return _tuple(section, key, get_args(kind))
    if kind is bool:
        return section.flag(key)
    if kind is str:
        return section.text(key) if _filled(section, key) else ""
    number = section.whole(key, least=-(10**9)) if kind is int else section.number(key, False)
    low, high = metadata["range"]
    if not low <= number <= high:
        raise section.error(key, f"expected {_range(low, high)}, found {number:g}")
    return number


def _tuple(section: Section, key: str, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    first = kinds[0]
    if dataclasses.is_dataclass(first) and isinstance(first, type):
        return tuple(_read(entry, first) for entry in section.sections(key))
    if first is str:
        return section.names(key) if _filled(section, key) else ()
    return tuple(float(v) for v in section.vector(key, len(kinds)))


def _filled(section: Section, key: str) -> bool:
    """Whether a text or a list is given and not empty, as defaults are written."""
    node = section.values.get(key)
    return node is None or bool(getattr(node, "value", None))


def _range(low: float, high: float) -> str:
    return f"at least {low:g}" if high == float("inf") else f"{low:g} to {high:g}"


def _apply(root: yaml.Node | None, change: str) -> None:
    """Put one "key=value" into a document, as if its line said so."""
    path, equals, text = change.partition("=")
    if not equals or not path:
        raise RecipeError(f"--set {change}: expected key=value, e.g. stage2.loop.steps=100")
    *outer, last = path.split(".")
    node = root
    for name in outer:
        node = _inner(node, name, change)
    value = _composed(text, change)
    if isinstance(node, yaml.SequenceNode):
        index = _index(node, last, change)
        value.start_mark = node.value[index].start_mark
        node.value[index] = value
        return
    if not isinstance(node, yaml.MappingNode):
        raise RecipeError(f"--set {change}: {'.'.join(outer)} holds no entries")
    value.start_mark = node.start_mark
    for index, (key, old) in enumerate(node.value):
        if key.value == last:
            value.start_mark = old.start_mark
            node.value[index] = (key, value)
            return
    key = yaml.ScalarNode("tag:yaml.org,2002:str", last, node.start_mark, node.end_mark)
    node.value.append((key, value))


def _composed(text: str, change: str) -> yaml.Node:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {change}: the value is not YAML") from error
    if node is None:
        raise RecipeError(f"--set {change}: there is no value after the =")
    return node


def _inner(node: yaml.Node | None, name: str, change: str) -> yaml.Node:
    if isinstance(node, yaml.SequenceNode):
        return node.value[_index(node, name, change)]
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == name:
                return value
        empty = yaml.MappingNode("tag:yaml.org,2002:map", [], node.start_mark, node.end_mark)
        key = yaml.ScalarNode("tag:yaml.org,2002:str", name, node.start_mark, node.end_mark)
        node.value.append((key, empty))
        return empty
    raise RecipeError(f"--set {change}: there is nothing to set under {name}")


def _index(node: yaml.SequenceNode, name: str, change: str) -> int:
    if not name.isdecimal() or int(name) >= len(node.value):
        raise RecipeError(f"--set {change}: {name} is none of the {len(node.value)} list entries")
    return int(name)
