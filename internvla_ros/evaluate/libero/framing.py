"""How the evaluation and its LIBERO processes talk: msgpack messages with arrays, over pipes.

A frame is its length (8 bytes, little endian) and one msgpack map. Arrays travel as an extension
type that holds their dtype, shape and bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import IO, Any

import msgpack
import numpy as np

_LENGTH = struct.Struct("<Q")
_ARRAY = 1
_KINDS = "biuf"  # plain numbers: nothing that could hold an object
MAX_FRAME = 1 << 32


class FrameError(ValueError):
    """Bytes that are no frame, or a value that cannot be put into one."""


def encode(message: Mapping[str, Any]) -> bytes:
    """A message as the content of a frame."""
    packed: bytes = msgpack.packb(dict(message), default=_pack)
    return packed


def decode(content: bytes) -> dict[str, Any]:
    """The message that a frame holds; its arrays can be written to.

    Raises:
        FrameError: it holds none.
    """
    try:
        message = msgpack.unpackb(content, ext_hook=_unpack, max_bin_len=MAX_FRAME)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise FrameError(f"not a message: {error}") from error
    if not isinstance(message, dict):
        raise FrameError(f"a message is a map, not {type(message).__name__}")
    return message


def write_frame(stream: IO[bytes], message: Mapping[str, Any]) -> None:
    """Send one message."""
    content = encode(message)
    stream.write(_LENGTH.pack(len(content)))
    stream.write(content)
    stream.flush()


def read_frame(stream: IO[bytes]) -> dict[str, Any] | None:
    """Receive one message; None when the other side has ended between two of them.

    Raises:
        FrameError: it ended within one, or sent something else.
    """
    head = stream.read(_LENGTH.size)
    if not head:
        return None
    if len(head) < _LENGTH.size:
        raise FrameError("the other side ended within a message")
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME:
        raise FrameError(f"a message of {length} bytes is no message")
    content = stream.read(length)
    if len(content) < length:
        raise FrameError("the other side ended within a message")
    return decode(content)


def _pack(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, np.ndarray):
        raise FrameError(f"cannot send a {type(value).__name__}")
    if value.dtype.kind not in _KINDS:
        raise FrameError(f"cannot send an array of {value.dtype}")
    head: bytes = msgpack.packb((value.dtype.str, value.shape))
    body = np.ascontiguousarray(value).tobytes()
    return msgpack.ExtType(_ARRAY, struct.pack("<H", len(head)) + head + body)


def _unpack(code: int, data: bytes) -> Any:
    if code != _ARRAY or len(data) < 2:
        raise FrameError(f"unknown kind of value {code}")
    (length,) = struct.unpack_from("<H", data)
    kind, shape = msgpack.unpackb(data[2 : 2 + length])
    dtype = np.dtype(kind)
    if dtype.kind not in _KINDS:
        raise FrameError(f"refused an array of {dtype}")
    return np.frombuffer(data, dtype, offset=2 + length).reshape(shape).copy()
