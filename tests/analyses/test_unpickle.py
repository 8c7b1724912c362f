"""Pickles are read without running anything of theirs, and their parts are found however they are nested."""

from __future__ import annotations

import io
import pickle
import struct

import numpy as np
import pytest
from helpers.bomb import Bomb

from shiftlens.analyses.imported.read_pickles import find_parts, is_kept
from shiftlens.analyses.imported.unpickle import Array, unpickle

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_refused_unrun(tmp_path, protocol):
    marker = tmp_path / "ran"
    data = pickle.dumps({"Input": ["▁a"], "Explain": Bomb(marker)}, protocol)
    with pytest.raises(ValueError, match=r"names posix\.system; only numpy arrays"):
        unpickle(data)
    assert not marker.exists()
    pickle.loads(data)  # noqa: S301  # the same bytes do run where nothing guards them
    assert marker.exists()


def call(module: str, name: str, *arguments: object) -> bytes:
    """A pickle that calls a name, whatever the name is."""
    made = io.BytesIO()
    inner = pickle.dumps(arguments, 4)[:-1]
    made.write(inner[:2] + f"c{module}\n{name}\n".encode() + inner[2:] + b"R.")
    return made.getvalue()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (call("builtins", "eval", "1"), r"names builtins\.eval"),
        (call("numpy", "fromfile", "/etc/hosts"), r"names numpy\.fromfile"),
        (call("numpy.core.multiarray", "fromstring", "1"), r"names numpy\.core\.multiarray\.fromstring"),
        (call("numpy", "ndarray", (10**12,)), "array without content"),
        (call("numpy", "dtype", "O"), "type 'O'; expected numbers"),
        (call("numpy", "dtype", "V1000000000"), "expected numbers"),
        (b"cnumpy\ndtype.__new__\n.", r"names numpy\.dtype\.__new__"),
        (b"cnumpy\ndtype\n}X\x01\x00\x00\x00aK\x01sb.", "state of a name"),
        (b"\x80\x04X\x01\x00\x00\x00a" + b"r" + struct.pack("<I", 2**31 - 1) + b".", "table of"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.", "not a pickle"),
        (b"\x80\x05\x96" + struct.pack("<Q", 2**60) + b"x.", "not a pickle"),
        (b"Pid\n.", "not a pickle"),
        (pickle.dumps(np.ones(3), 2), r"names _codecs\.encode"),
        (pickle.dumps(np.array(["a"])), "type 'U1'"),
        (b"N" * 1_000_001 + b".", "more than 1,000,000 steps"),
        (b"", "not a pickle"),
        (b"\x80\x04Na.", "not a pickle"),
    ],
)  # fmt: skip
def test_everything_else_is_refused(data, told):
    with pytest.raises(ValueError, match=told):
        unpickle(data)


def test_an_array_of_another_size_than_it_says_is_refused():
    data = pickle.dumps(np.arange(6, dtype=np.uint8).reshape(2, 3), 4)
    assert unpickle(data).value.tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match=r"shape \(2, 4\) with 6 bytes"):
        unpickle(data.replace(b"K\x02K\x03\x86", b"K\x02K\x04\x86"))


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "u1", "<i8", ">i2", "?"])
def test_arrays_are_read_as_numpy_reads_them(protocol, dtype):
    plain = (np.arange(12).reshape(3, 4) % 5).astype(dtype)
    for array in (plain, np.asfortranarray(plain), plain[:, ::2], plain[:0], np.array([], dtype)):
        got = unpickle(pickle.dumps(("x", {"a": array}, array.sum(), 1.5, None), protocol))
        assert got[1]["a"].value.dtype == array.dtype
        assert np.array_equal(got[1]["a"].value, array)
        assert got[2:] == (array.sum(), 1.5, None)


def numbers(*shape: int) -> Array:
    array = Array()
    array.value = np.ones(shape)
    return array


@pytest.mark.parametrize(
    "content",
    [
        {"out": ["x", "y", "z"], "deep": [("a", {"in": ["p", "q"]}), numbers(2, 3)], "id": "lima_1"},
        [numbers(2, 3), ["p", "q"], ("x", "y", "z")],
        ([["x", "y", "z"], ["p", "q"]], {"e": numbers(2, 3), "density": numbers(2)}, ["one"]),
    ],
)  # fmt: skip
def test_parts_are_found_however_they_are_nested(content):
    matrix, prompt, response = find_parts(content)
    assert (matrix.shape, prompt, response) == ((2, 3), ["p", "q"], ["x", "y", "z"])


def test_equal_lengths_are_told_apart_by_order_and_an_empty_response_is_one():
    assert find_parts([["a", "b"], numbers(2, 2), ["c", "d"]])[1:] == (["a", "b"], ["c", "d"])
    matrix, prompt, response = find_parts({"Input": ["a", "b"], "Output": [], "Explain": numbers(0)})
    assert (matrix.shape, prompt, response) == ((2, 0), ["a", "b"], [])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"a": ["p"], "b": ["q"]}, "shape: none; lists of strings of length: 1, 1"),
        ([numbers(2, 3), ["p", "q"]], r"shape: \(2, 3\); lists of strings of length: 2"),
        ([numbers(2, 3), numbers(2, 3), ["p", "q"], ["x", "y", "z"]], r"\(2, 3\), \(2, 3\)"),
        ([numbers(2, 3), ["p", "q"], ["x", "y"], ["x", "y", "z"]], "length: 2, 2, 3"),
        ("text", "shape: none; lists of strings of length: none"),
    ],
)
def test_another_layout_is_told(content, told):
    with pytest.raises(ValueError, match=told):
        find_parts(content)


def test_a_pickle_of_itself_ends():
    loop: list[object] = [numbers(1, 2), ["p"], ["x", "y"]]
    loop.append(loop)
    assert find_parts(loop)[1] == ["p"]


def test_levels_and_importance_are_told_apart():
    assert is_kept(np.array([[3, 0]], np.int64), 10)
    assert is_kept(np.array([[3.0, 0.0]], np.float32), 10)
    assert not is_kept(np.array([[3.5, 0.0]]), 10)
    assert not is_kept(np.array([[11.0, 0.0]]), 10)
    assert not is_kept(np.array([[3.0, -1.0]]), 10)
    assert not is_kept(np.zeros((2, 3)), 10)
