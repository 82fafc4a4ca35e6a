"""Plain pickles: what numpy writes comes back, and nothing that a pickle names is executed."""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from internvla_ros.data.pickles import PickleError, load_plain

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=10,
)
TYPES = st.sampled_from(["<f8", "<f4", ">i4", "<u2", "|b1", "<c8", "<U3", "|S4"]).map(np.dtype)
BOXES = np.array(
    [(3, 184, 207, -1.0), (4, 1, 2, 0.5)], [("id", "<u4"), ("x", "<i4"), ("y", "<i4"), ("o", "<f4")]
)


@given(PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_values_come_back(value: object, protocol: int) -> None:
    assert load_plain(pickle.dumps(value, protocol), "x") == value


@given(
    TYPES.flatmap(lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, min_side=0))),
    st.sampled_from("CF"),
    st.integers(0, 4),
)
def test_arrays_come_back(array: np.ndarray, order: str, protocol: int) -> None:
    value = {"array": [np.asarray(array, order=order)]}  # type: ignore[call-overload]
    back = load_plain(pickle.dumps(value, protocol), "x")["array"][0]
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_structures_numbers_and_shared_arrays_come_back() -> None:
    value = {"boxes": BOXES, "again": BOXES, "width": np.float32(0.25), "id": np.uint32(3)}
    back = load_plain(pickle.dumps(value), "x")
    assert back["boxes"].dtype == BOXES.dtype and back["again"] is back["boxes"]
    np.testing.assert_array_equal(back["boxes"], BOXES)
    assert back["width"] == np.float32(0.25) and back["width"].dtype == np.float32
    assert back["id"] == 3 and back["id"].dtype == np.uint32


def test_arrays_of_numpy_1_come_back() -> None:
    """Whose modules are called otherwise, as in InternData's files."""
    data = pickle.dumps(BOXES, protocol=2)
    assert b"numpy._core." in data
    back = load_plain(data.replace(b"numpy._core.", b"numpy.core."), "x")
    np.testing.assert_array_equal(back, BOXES)


class Planted:
    """Asks for a call when it is unpickled."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.asked = (function, arguments)

    def __reduce__(self) -> object:
        return self.asked


class Stateful:
    def __reduce__(self) -> object:
        return (np.dtype, ("f8",), {"__code__": 1})


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("depth", ["alone", "inside"])
def test_a_planted_call_is_refused_and_not_made(tmp_path: Path, protocol: int, depth: str) -> None:
    witness = tmp_path / "executed"
    planted: object = Planted(os.mkdir, str(witness))
    value = planted if depth == "alone" else {"boxes": [BOXES, planted]}
    data = pickle.dumps(value, protocol)
    with pytest.raises(PickleError, match=r"row 3: .*asks for (posix|os).mkdir.*refused"):
        load_plain(data, "episode_000000.parquet, row 3")
    assert not witness.exists()
    pickle.loads(data)
    assert witness.exists(), "the trap works"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickle.dumps(Planted(eval, "1+1")), "asks for builtins.eval"),
        (pickle.dumps(Planted(getattr, "a", "b")), "asks for builtins.getattr"),
        (pickle.dumps(Planted(np.load, "x")), "asks for numpy.load"),
        (pickle.dumps(Path("x")), "asks for pathlib"),
        (pickle.dumps(PLAIN.__class__), "asks for hypothesis"),
        (pickle.dumps(np.ndarray), "pickle of a Name"),
        (pickle.dumps(np.array([{}, None], object)), "type 'O8'"),
        (pickle.dumps(Stateful()), "not of a plain value|no readable pickle"),
        (b"\x80\x04cnumpy\ndtype\n}b.", "changes what it names"),
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "NEWOBJ"),
        (b"\x80\x02K\x01Q.", "BINPERSID"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"(iposix\nsystem\n.", "INST"),
        (b"N" + b"r" + struct.pack("<I", 0xFFFFFFFF) + b".", "numbers its items up to 4294967295"),
        (b"\x80\x02]q\x00h\x00a.", "holds itself"),
        (pickle.dumps(BOXES)[:-20], "no readable pickle"),
        (pickle.dumps(np.zeros(4)).replace(b"K\x04\x85", b"K\x05\x85"), "32 bytes for an array"),
        (pickle.dumps(np.zeros(4)).replace(b"C ", b"\x8c "), "not of bytes"),
        (b"", "no readable pickle"),
        (b"PAR1", "no readable pickle"),
    ],
)
def test_anything_else_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(PickleError, match=f"^here.*({message})"):
        load_plain(data, "here")


@given(st.binary(max_size=60), st.integers(0, 200))
def test_damaged_pickles_never_do_more_than_fail(noise: bytes, place: int) -> None:
    data = pickle.dumps({"boxes": BOXES, "names": ["a", "b"]})
    with contextlib.suppress(PickleError):
        load_plain(data[:place] + noise + data[place + len(noise) :], "x")
