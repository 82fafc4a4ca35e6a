"""Messages as bytes: msgpack, and the released policy server's form of numpy arrays in it.

An array is a map of four keys of type bytes: `__ndarray__` (true), `data` (its elements in C
order), `dtype` (numpy's name with the byte order) and `shape`. A numpy scalar is `__npgeneric__`
(true), `data` (the plain value) and `dtype`.
"""

from __future__ import annotations

import math
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

_KINDS = "biufmMSU"
"""Kinds of dtypes that travel. Void, object and complex ones are refused by the released server
too; strings of variable width hold pointers."""
_LONGEST_LIST = 1 << 14
"""Every list is allocated by the length it claims: nested ones could claim all memory there is."""


class CodecError(ValueError):
    """A value that cannot be written as a message, or bytes that are not a message."""


def encode(message: Any) -> bytes:
    """A value of None, bool, int, float, str, bytes, lists, maps and numpy arrays as bytes.

    Raises:
        CodecError: there is something else in it.
    """
    try:
        return bytes(msgpack.packb(message, default=_packed))
    except CodecError:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        raise CodecError(f"this cannot be sent: {error}") from error


def decode(data: bytes) -> Any:
    """The value in a message; arrays are read-only views of its bytes.

    Raises:
        CodecError: the bytes are cut short, too many, or not of this form.
    """
    try:
        return msgpack.unpackb(
            data,
            object_hook=_unpacked,
            ext_hook=_refuse_extension,
            max_array_len=_LONGEST_LIST,
            max_map_len=_LONGEST_LIST,
        )
    except CodecError:
        raise
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        # Its own words may hold what was sent, at any length.
        what = str(error)[:100] or type(error).__name__
        raise CodecError(f"these {len(data)} bytes are no message: {what}") from error


def _packed(value: Any) -> dict[bytes, Any]:
    """An array or a numpy scalar as a map."""
    if not isinstance(value, np.ndarray | np.generic):
        raise CodecError(f"a {type(value).__name__} cannot be sent")
    dtype = _checked(value.dtype).str
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": dtype}
    return {
        b"__ndarray__": True,
        b"data": value.tobytes(),
        b"dtype": dtype,
        b"shape": value.shape,
    }


def _unpacked(content: dict[Any, Any]) -> Any:
    """A map as what it stands for."""
    if b"__ndarray__" in content:
        return _array(content)
    if b"__npgeneric__" in content:
        return _scalar(content)
    return content


def _array(content: dict[Any, Any]) -> NDArray[Any]:
    data, shape = content.get(b"data"), content.get(b"shape")
    dtype = _dtype(content.get(b"dtype"))
    if not isinstance(data, bytes) or not isinstance(shape, list):
        raise CodecError("an array needs the bytes 'data' and the list 'shape'")
    if not all(type(side) is int and 0 <= side < 2**31 for side in shape) or len(shape) > 32:
        raise CodecError(f"no array has the shape {str(shape)[:100]}")
    if dtype.itemsize == 0 or len(data) != math.prod(shape) * dtype.itemsize:
        raise CodecError(
            f"an array of shape {shape} and dtype {dtype.str} has not {len(data)} bytes"
        )
    return np.ndarray(shape, dtype, data)


def _scalar(content: dict[Any, Any]) -> Any:
    value, dtype = content.get(b"data"), _dtype(content.get(b"dtype"))
    if not isinstance(value, bool | int | float | str | bytes):
        raise CodecError(f"no scalar of dtype {dtype.str} is a {type(value).__name__}")
    return dtype.type(value)


def _dtype(name: Any) -> np.dtype[Any]:
    if not isinstance(name, str) or len(name) > 32:
        raise CodecError("an array needs the name of a numpy 'dtype'")
    try:
        return _checked(np.dtype(name))
    except (TypeError, ValueError, SyntaxError) as error:
        raise CodecError(f"{name!r} is no dtype that can be sent") from error


def _checked(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind not in _KINDS or dtype.hasobject:
        raise CodecError(f"arrays of dtype {dtype} cannot be sent")
    return dtype


def _refuse_extension(code: int, data: bytes) -> Any:
    raise CodecError(f"messages hold no msgpack extension (type {code})")
