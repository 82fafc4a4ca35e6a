"""Messages as bytes: as recorded from the released server and client, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from internvla_ros.serving.codec import CodecError, decode, encode

RECORDED = sorted((Path(__file__).parent / "data" / "protocol").glob("*.msgpack"))

KINDS = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?"),
    hnp.byte_string_dtypes(max_len=4),
)
ARRAYS = hnp.arrays(KINDS, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.binary(max_size=8),
)
VALUES = st.recursive(
    st.one_of(PLAIN, ARRAYS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    """Whether two values are the same to the bit, arrays in shape and dtype too."""
    if isinstance(a, np.ndarray):
        return (
            isinstance(b, np.ndarray)
            and (a.dtype.str, a.shape) == (b.dtype.str, b.shape)
            and a.tobytes() == b.tobytes()
        )
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


def test_there_are_recordings() -> None:
    assert len(RECORDED) == 21


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_messages_are_written_byte_for_byte(path: Path) -> None:
    assert encode(decode(path.read_bytes())) == path.read_bytes()


def test_what_a_recorded_message_holds() -> None:
    (path,) = (path for path in RECORDED if path.name.startswith("17_"))
    data = decode(path.read_bytes())["data"]
    assert data["normalized_actions"].dtype.str == "<f4"
    assert data["normalized_actions"].shape == (1, 16, 7)
    assert not data["normalized_actions"].flags.writeable
    assert data["step"].dtype == np.int64 and data["step"] == 3


@given(VALUES)
def test_what_is_sent_arrives(value: Any) -> None:
    assert same(value, decode(encode(value)))


@given(hnp.arrays(np.float32, (3, 4)))
def test_any_layout_in_memory_arrives(array: np.ndarray[Any, Any]) -> None:
    for view in (array.T, array[::2], np.asfortranarray(array)):
        assert same(view.copy(order="C"), decode(encode(view)))


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(2, complex),
        np.array([None]),
        np.zeros(2, "V3"),
        np.zeros(2, "f4,f4"),
        np.complex64(1),
        np.array(["a"], np.dtypes.StringDType()),
        object(),
        {"inside": [object()]},
        1 << 70,
    ],
    ids=str,
)
def test_what_cannot_be_sent_is_said(value: Any) -> None:
    with pytest.raises(CodecError, match="cannot be sent"):
        encode(value)


def array(**changes: Any) -> bytes:
    """A message that is an array, with some entries otherwise; None leaves one out."""
    entries = {"data": b"\0" * 8, "dtype": "<f4", "shape": [2], **changes}
    content = {k.encode(): v for k, v in entries.items() if v is not None}
    return bytes(msgpack.packb({b"__ndarray__": True, **content}))


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "O"},
        {"dtype": "c8"},
        {"dtype": "V8"},
        {"dtype": "T"},
        {"dtype": "(2,)f4"},
        {"dtype": "nonsense"},
        {"dtype": 4},
        {"dtype": "S0"},
        {"dtype": "f4," * 40},
        {"shape": [3]},
        {"shape": [-2]},
        {"shape": [True, 2]},
        {"shape": [2.0]},
        {"shape": [1] * 40 + [2]},
        {"shape": [2**40, 0], "data": b""},
        {"shape": 2},
        {"data": "text"},
        {"data": None},
        {"shape": None},
        {"dtype": None},
    ],
    ids=str,
)
def test_what_is_no_array_is_refused(changes: dict[str, Any]) -> None:
    assert same(np.zeros(2, np.float32), decode(array()))
    with pytest.raises(CodecError):
        decode(array(**changes))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x81\xa1",
        msgpack.packb(1) + b"\0",
        msgpack.packb(msgpack.ExtType(5, b"abc")),
        msgpack.packb({1: 2}),
        b"\xa2\xff\xfe",
        b"\x91" * 5000 + b"\x01",
        b"\xdd\x00\x10\x00\x00" + b"\x01" * (1 << 20),
        msgpack.packb({b"__npgeneric__": True, b"data": [1], b"dtype": "<f4"}),
        msgpack.packb({b"__npgeneric__": True, b"data": 300, b"dtype": "|i1"}),
    ],
    ids=["empty", "reserved", "cut", "more", "extension", "key", "utf8", "deep", "long", "list",
         "large"],
)  # fmt: skip
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        decode(data)


@given(st.binary(max_size=200))
def test_noise_is_a_message_or_one_clear_error(data: bytes) -> None:
    try:
        decode(data)
    except CodecError as error:
        assert str(error) and len(str(error)) < 300


@given(st.data())
def test_a_damaged_message_is_a_message_or_one_clear_error(data: st.DataObject) -> None:
    whole = encode({"a": np.arange(6.0).reshape(2, 3), "b": [np.float32(2), "text"]})
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(CodecError):
        decode(whole[:cut])
    damaged = bytearray(whole)
    damaged[cut] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(damaged))
    except CodecError as error:
        assert len(str(error)) < 300
