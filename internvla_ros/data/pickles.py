"""Pickles of which only numbers, text, plain containers and numpy arrays are taken.

Some datasets keep annotations as pickles, and a pickle may ask for any function to be called. Here
nothing that a pickle names is ever looked up: the few names that numpy's arrays need stand for
recorders of our own, from which arrays are built afterwards, with their sizes checked.

(`model.pickles` reads tensors with PyTorch, which data may not import.)
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from internvla_ros.data.lerobot.layout import DatasetError

_REFUSED_OPCODES = frozenset(
    {"PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"}
    | {"NEXT_BUFFER", "READONLY_BUFFER"}
)
_NUMBER_TYPE = re.compile(r"[biufc]\d{1,2}|[SU]\d{1,6}")
_PLAIN = (type(None), bool, int, float, complex, str, bytes)


class PickleError(DatasetError):
    """A pickle that is damaged, or holds something else than plain values and arrays."""


def load_plain(data: bytes, where: str) -> Any:
    """The content of a pickle; `where` is for messages.

    Returns:
        None, numbers, text, bytes, numpy arrays and scalars of numbers or text (structured ones
        too), and lists, tuples, sets and dicts of them.

    Raises:
        PickleError: it is damaged or names anything else; nothing of it is executed.
    """
    try:
        _check_opcodes(data)
        return _Builder().built(_Unpickler(io.BytesIO(data)).load())
    except PickleError as error:
        raise PickleError(f"{where}: {error}") from None
    except Exception as error:  # a damaged pickle may raise nearly anything
        said = str(error) or type(error).__name__
        raise PickleError(f"{where} is no readable pickle: {said}") from error


def _check_opcodes(data: bytes) -> None:
    """Refuse what plain values never need, and places in the memo that only a trap would name."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in _REFUSED_OPCODES:
            raise PickleError(f"a pickle with {opcode.name}, which plain values never need")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(data):
            raise PickleError(f"a pickle that numbers its items up to {argument}")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = _NAMES.get((module, name))
        if known is None:
            raise PickleError(
                f"a pickle that asks for {module}.{name}, and loading it could run code of its "
                "maker; refused"
            )
        return known

    def persistent_load(self, identifier: Any) -> Any:
        raise PickleError(f"a pickle that refers to something outside it: {identifier!r}")


class _DType:
    """numpy.dtype("V24", ...) with its state, as a pickle tells it."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


class _Array:
    """An array that a pickle builds: its state is (version, shape, dtype, fortran, bytes)."""

    def __init__(self, *_: Any) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


@dataclass
class _Scalar:
    """A numpy number."""

    dtype: Any
    data: Any

    def __setstate__(self, state: Any) -> None:
        raise PickleError("a numpy number with a state")


class _Name:
    """What a name in a pickle stands for; it can be called, and nothing else."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setstate__(self, state: Any) -> None:
        raise PickleError("a pickle that changes what it names")


def _from_buffer(data: Any, dtype: Any, shape: Any, order: str) -> _Array:
    array = _Array()
    array.state = (1, shape, dtype, order == "F", data)
    return array


def _encoded(text: str, encoding: str) -> bytes:
    """What old pickles hold bytes as."""
    if encoding != "latin1":
        raise PickleError(f"bytes written as {encoding!r}")
    return text.encode("latin1")


def _no_bytes(*arguments: Any) -> bytes:
    """What old pickles hold b"" as."""
    if arguments:
        raise PickleError("bytes made of something else")
    return b""


def _refused(*_: Any) -> Any:
    raise PickleError("a pickle that makes arrays in a way that numpy's own never do")


_NAMES = {
    ("numpy", "dtype"): _Name(_DType),
    ("numpy", "ndarray"): _Name(_refused),
    ("_codecs", "encode"): _Name(_encoded),
    ("__builtin__", "bytes"): _Name(_no_bytes),
}
for _core in ("numpy.core", "numpy._core"):
    _NAMES[f"{_core}.multiarray", "_reconstruct"] = _Name(_Array)
    _NAMES[f"{_core}.multiarray", "scalar"] = _Name(_Scalar)
    _NAMES[f"{_core}.numeric", "_frombuffer"] = _Name(_from_buffer)


class _Builder:
    """Turns what was recorded into values; what a pickle shares is built once."""

    def __init__(self) -> None:
        self._done: dict[int, Any] = {}
        self._open: set[int] = set()

    def built(self, item: Any) -> Any:
        """The value of one recorded item."""
        if type(item) in _PLAIN:
            return item
        key = id(item)
        if key in self._open:
            raise PickleError("a pickle with a container that holds itself")
        if key not in self._done:
            self._open.add(key)
            self._done[key] = self._value(item)
            self._open.discard(key)
        return self._done[key]

    def _value(self, item: Any) -> Any:
        if isinstance(item, _Array):
            return _array(item.state)
        if isinstance(item, _Scalar):
            return _numbers(item.data, _dtype(item.dtype), ())[()]
        if type(item) is dict:
            return {self.built(key): self.built(value) for key, value in item.items()}
        if type(item) in (list, tuple, set, frozenset):
            return type(item)(self.built(value) for value in item)
        if type(item) is bytearray:
            return bytes(item)
        raise PickleError(f"a pickle of a {type(item).__name__.lstrip('_')}, not of a plain value")


def _array(state: tuple[Any, ...]) -> NDArray[Any]:
    version, shape, dtype, fortran, data = state
    if version != 1 or not isinstance(shape, tuple):
        raise PickleError(f"an array of version {version!r} and shape {shape!r}")
    return _numbers(data, _dtype(dtype), shape, "F" if fortran else "C")


def _numbers(
    data: Any, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any = "C"
) -> NDArray[Any]:
    if not isinstance(data, (bytes, bytearray)):
        raise PickleError(f"an array of a {type(data).__name__}, not of bytes")
    if any(type(size) is not int or size < 0 for size in shape):
        raise PickleError(f"an array of shape {shape!r}")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise PickleError(f"{len(data)} bytes for an array of shape {shape} and type {dtype}")
    if not data:
        return np.zeros(shape, dtype)
    return np.frombuffer(data, dtype).reshape(shape, order=order).copy(order=order)


def _dtype(recorded: Any) -> np.dtype[Any]:
    """A type of numbers or text, or a structure of them."""
    if not isinstance(recorded, _DType) or not isinstance(recorded.code, str):
        raise PickleError("an array without a type")
    _, order, subarray, names, fields, *rest = recorded.state or (3, "|", None, None, None)
    if names is None:
        if subarray is not None or not _NUMBER_TYPE.fullmatch(recorded.code):
            raise PickleError(f"an array of type {recorded.code!r}, not of numbers or text")
        return np.dtype(recorded.code).newbyteorder(order if order in ("<", ">") else "|")
    parts = [fields[name] for name in names]
    return np.dtype(
        {
            "names": list(names),
            "formats": [_dtype(part[0]) for part in parts],
            "offsets": [part[1] for part in parts],
            "itemsize": rest[0],
        }
    )
