"""A YAML file read value by value, so that every mistake in it is told with file and line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray


class EmbodimentError(ValueError):
    """A robot is unknown, or its configuration is wrong."""


def compose(path: Path, text: str) -> yaml.Node | None:
    """A YAML text as nodes that know their lines; the path only serves to be named in errors."""
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
        problem = getattr(error, "problem", None) or "not YAML"
        raise EmbodimentError(f"{path}:{line}: {problem}") from error


@dataclass(frozen=True)
class Section:
    """A mapping of a YAML file that remembers where each of its keys stands and which were read.

    Every reader raises EmbodimentError with the file, the line and the key.
    """

    path: Path
    line: int
    values: Mapping[str, yaml.Node]
    used: set[str] = field(default_factory=set)
    inner: list[Section] = field(default_factory=list)

    @staticmethod
    def parse(path: Path, text: str) -> Section:
        """The whole document; the path only serves to be named in errors."""
        return Section.of(path, 1, compose(path, text))

    @staticmethod
    def of(path: Path, line: int, node: yaml.Node | None) -> Section:
        """The mapping that a node holds."""
        if not isinstance(node, yaml.MappingNode):
            raise EmbodimentError(f"{path}:{line}: expected a mapping of keys to values")
        values: dict[str, yaml.Node] = {}
        for key, value in node.value:
            here = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise EmbodimentError(f"{path}:{here}: expected a plain key")
            if key.value in values:
                raise EmbodimentError(f"{path}:{here}: {key.value}: stands here twice")
            values[key.value] = value
        return Section(path, line, values)

    def error(self, key: str, problem: str) -> EmbodimentError:
        """What is wrong with a key, ready to be raised; a missing key has its section's line."""
        node = self.values.get(key)
        line = node.start_mark.line + 1 if node is not None else self.line
        return EmbodimentError(f"{self.path}:{line}: {key}: {problem}")

    def end(self) -> None:
        """Refuses keys that nothing has read, here and in inner sections: they are misspelt."""
        for key in self.values:
            if key not in self.used:
                raise self.error(
                    key, f"is not known here; known are {', '.join(sorted(self.used))}"
                )
        for section in self.inner:
            section.end()

    def section(self, key: str) -> Section:
        """The mapping under a key."""
        node = self._node(key)
        self.inner.append(Section.of(self.path, node.start_mark.line + 1, node))
        return self.inner[-1]

    def sections(self, key: str) -> tuple[Section, ...]:
        """The mappings of a list under a key, possibly none."""
        node = self._node(key)
        if not isinstance(node, yaml.SequenceNode):
            raise self.error(key, "expected a list of mappings")
        found = [Section.of(self.path, n.start_mark.line + 1, n) for n in node.value]
        self.inner.extend(found)
        return tuple(found)

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self._value(key)
        if not isinstance(value, bool):
            raise self.error(key, f"expected true or false, found {value!r}")
        return value

    def text(self, key: str, choices: tuple[str, ...] = ()) -> str:
        """A text, one of the choices where there are any."""
        value = self._value(key)
        if not isinstance(value, str) or not value:
            raise self.error(key, f"expected a text, found {value!r}")
        if choices and value not in choices:
            raise self.error(key, f"expected one of {', '.join(choices)}, found {value!r}")
        return value

    def names(self, key: str) -> tuple[str, ...]:
        """A list of different names, at least one."""
        value = self._value(key)
        if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
            raise self.error(key, f"expected a list of names, found {value!r}")
        if len(set(value)) != len(value):
            raise self.error(key, f"expected different names, found {value!r}")
        return tuple(value)

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        """A list of pairs of names, possibly empty."""
        value = self._value(key)
        if not isinstance(value, list):
            raise self.error(key, f"expected a list of pairs of names, found {value!r}")
        for pair in value:
            right = isinstance(pair, list) and len(pair) == 2
            if not right or not all(isinstance(name, str) for name in pair):
                raise self.error(key, f"expected a pair of names, found {pair!r}")
        return tuple((first, second) for first, second in value)

    def number(self, key: str, positive: bool = True) -> float:
        """A finite number, by default above zero."""
        value = self._value(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(key, f"expected a number, found {value!r}")
        if not np.isfinite(value) or (positive and value <= 0):
            raise self.error(key, f"expected a {'positive' if positive else 'finite'} number")
        return float(value)

    def fraction(self, key: str) -> float:
        """A number above 0, at most 1."""
        value = self.number(key)
        if value > 1:
            raise self.error(key, f"expected a number above 0, at most 1, found {value}")
        return value

    def whole(self, key: str, least: int = 1) -> int:
        """A whole number, not below `least`."""
        value = self.number(key, positive=False)
        if value != int(value):
            raise self.error(key, f"expected a whole number, found {value!r}")
        if value < least:
            raise self.error(key, f"expected at least {least}, found {int(value)}")
        return int(value)

    def vector(self, key: str, size: int, positive: bool = False) -> NDArray[np.float64]:
        """[size] finite numbers, read-only."""
        value = self._value(key)
        plain = isinstance(value, list) and all(type(v) in (int, float) for v in value)
        array = np.array(value if plain else [], dtype=np.float64)
        if array.shape != (size,) or not np.isfinite(array).all():
            raise self.error(key, f"expected {size} finite numbers, found {value!r}")
        if positive and (array <= 0).any():
            raise self.error(key, "expected positive numbers")
        array.setflags(write=False)
        return array

    def interval(self, key: str) -> tuple[float, float]:
        """Two finite numbers, the second above the first."""
        low, high = (float(v) for v in self.vector(key, 2))
        if low >= high:
            raise self.error(key, f"expected two rising numbers, found {low} and {high}")
        return low, high

    def _node(self, key: str) -> yaml.Node:
        if key not in self.values:
            raise self.error(key, "is missing")
        self.used.add(key)
        return self.values[key]

    def _value(self, key: str) -> Any:
        node = self._node(key)
        loader = yaml.SafeLoader("")
        try:
            return loader.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError, TypeError) as error:
            raise self.error(key, "cannot be read") from error
        finally:
            loader.dispose()
