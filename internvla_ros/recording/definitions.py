"""Message definitions as text, and messages of them as CDR, with or without a ROS installation.

A definition is taken from the installed package (share/PACKAGE/msg/NAME.msg), else, for this
package, from its own tree, else from those of ROS 2 Jazzy that the library `rosbags` carries.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from internvla_ros.resources import PACKAGE, ResourceError, resource

_SEPARATOR = "=" * 80
_FIELD = re.compile(
    r"^\s*([A-Za-z]\w*(?:/\w+){0,2})(?:<=\d+)?(?:\[[^\]]*\])?\s+[A-Za-z]\w*(?!\s*=)"
)
_PRIMITIVES = frozenset(
    [
        "bool",
        "byte",
        "char",
        "float32",
        "float64",
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "string",
        "wstring",
    ]
)
_ZERO = {"bool": False, "string": "", "float32": 0.0, "float64": 0.0}


class DefinitionError(ValueError):
    """A message type whose definition is nowhere, or values that do not fit it."""


@cache
def definition(typename: str) -> str:
    """The text of a type and of all that it is made of, as MCAP's encoding "ros2msg" wants it.

    Args:
        typename: such as "std_msgs/msg/Header".

    Raises:
        DefinitionError: there is no such type here.
    """
    parts = [_text(typename)]
    seen = {typename}
    waiting = _needs(typename)
    while waiting:
        other = waiting.pop(0)
        if other in seen:
            continue
        seen.add(other)
        package, _, name = other.split("/")
        parts.append(f"{_SEPARATOR}\nMSG: {package}/{name}\n{_text(other)}")
        waiting += _needs(other)
    return "".join(parts)


def encode(typename: str, values: Mapping[str, Any]) -> bytes:
    """A message as CDR: fields by name, nested ones as mappings; what is left out is zero.

    Raises:
        DefinitionError: the type is unknown, or has no field of a name that is given.
    """
    message = _message(typename, values)
    return bytes(_store().serialize_cdr(message, typename))


def stamp(seconds: float) -> dict[str, int]:
    """builtin_interfaces/Time of `seconds` >= 0, as `encode` takes it."""
    sec, nanosec = divmod(round(seconds * 1_000_000_000), 1_000_000_000)
    return {"sec": sec, "nanosec": nanosec}


@cache
def _text(typename: str) -> str:
    """The definition of one type alone, ending with a line end."""
    path = _path(typename)
    if path is not None:
        return path.read_text(encoding="utf-8").rstrip() + "\n"
    known = get_typestore(Stores.ROS2_JAZZY)
    if typename not in known.fielddefs:
        raise DefinitionError(
            f"there is no definition of {typename}: is its package installed and its name right?"
        )
    return known.generate_msgdef(typename, ros_version=2)[0].partition(_SEPARATOR)[0]


def _path(typename: str) -> Path | None:
    """The file that defines a type; None: no such file is installed."""
    words = typename.split("/")
    if len(words) != 3 or words[1] != "msg" or not all(word.isidentifier() for word in words):
        raise DefinitionError(f"'{typename}' is no message type; write PACKAGE/msg/NAME")
    package, _, name = words
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        path = Path(prefix) / "share" / package / "msg" / f"{name}.msg"
        if prefix and path.is_file():
            return path
    if package == PACKAGE:
        with contextlib.suppress(ResourceError):
            return resource(f"msg/{name}.msg")
    return None


def _needs(typename: str) -> list[str]:
    """The message types of a type's fields, in order."""
    own = typename.split("/")[0]
    found: list[str] = []
    for line in _text(typename).splitlines():
        match = _FIELD.match(line.partition("#")[0])
        if match is None or match[1] in _PRIMITIVES:
            continue
        words = match[1].split("/")
        package = own if len(words) == 1 else words[0]
        found.append(f"{package}/msg/{words[-1]}")
    return found


@cache
def _store() -> Any:
    """The types known so far; others are added when they are needed."""
    return get_typestore(Stores.EMPTY)


def _register(typename: str) -> None:
    store = _store()
    for name in (typename, *_all_needs(typename)):
        if name not in store.fielddefs:
            store.register(get_types_from_msg(_text(name), name))


def _all_needs(typename: str) -> list[str]:
    found = list(dict.fromkeys(_needs(typename)))
    for name in found:  # grows while it is walked through
        found += [other for other in _needs(name) if other not in found]
    return found


def _message(typename: str, values: Mapping[str, Any]) -> Any:
    _register(typename)
    fields = _store().fielddefs[typename][1]
    unknown = values.keys() - {name for name, _ in fields}
    if unknown:
        raise DefinitionError(f"{typename} has no field {', '.join(sorted(unknown))}")
    filled = {name: _value(kind, values.get(name)) for name, kind in fields}
    return _store().types[typename](**filled)


def _value(kind: Any, value: Any) -> Any:
    """A field's value in the form that the serialiser takes; None becomes zero."""
    node, detail = kind
    if node == Nodetype.BASE:
        return _ZERO.get(detail[0], 0) if value is None else value
    if node == Nodetype.NAME:
        return _message(detail, value or {})
    (inner, inner_detail), length = detail
    if value is None:
        value = [None] * (length if node == Nodetype.ARRAY else 0)
    if inner == Nodetype.BASE and inner_detail[0] != "string":
        dtype = {"byte": "uint8", "char": "uint8"}.get(inner_detail[0], inner_detail[0])
        if isinstance(value, bytes | bytearray):
            return np.frombuffer(value, dtype=dtype)
        return np.asarray([0 if each is None else each for each in value], dtype=dtype)
    return [_value((inner, inner_detail), each) for each in value]
