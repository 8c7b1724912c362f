"""Reads pickles of plain containers and numeric arrays without running code that they name.

A pickle is a program that can call any function it names. Here only the names of numpy's array, dtype and scalar
are allowed, and each of them calls a small reader below that checks its arguments. None of numpy's own unpickling
code runs, and any other name raises an error.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

MAX_BYTES = 256 * 2**20
MAX_STEPS = 1_000_000
_NUMBERS = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248])")


def unpickle(data: bytes) -> Any:
    """Return the content of a pickle.

    Args:
        data: Bytes of the pickle.

    Returns:
        Containers, strings and numbers unchanged; each array as an :class:`Array`.

    Raises:
        ValueError: The pickle names anything else, is too large, or is no pickle.

    Example:
        >>> unpickle(pickle.dumps({"a": ["b"], "c": np.ones((1, 2))}))["c"].value.tolist()
        [[1.0, 1.0]]
        >>> unpickle(pickle.dumps(print))
        Traceback (most recent call last):
        ValueError: names builtins.print; only numpy arrays, numbers, strings, lists, tuples and dicts are read
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"is {len(data):,} bytes large; at most {MAX_BYTES:,} are read")
    try:
        _check_sizes(data)
        return _Reader(io.BytesIO(data)).load()
    except Exception as error:  # a broken pickle can raise anything, as the library's manual says
        refused = isinstance(error, _RefusedError)
        raise ValueError(str(error) if refused else f"is not a pickle that can be read: {error}") from error


class _RefusedError(pickle.UnpicklingError):
    """A pickle contains something other than containers, strings and numbers, or is too large."""


class Array:
    """An array of a pickle; ``value`` is set when the reader reaches the array's content."""

    def __init__(self) -> None:
        self.value: np.ndarray = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self.value = _numbers(raw, dtype, shape, "F" if fortran else "C")


class _Dtype:
    """A numeric type of a pickle."""

    def __init__(self, code: Any) -> None:
        if not (isinstance(code, str) and _NUMBERS.fullmatch(code)):
            raise _RefusedError(f"has an array or a scalar of type {code!r}; expected numbers")
        self.value = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        self.value = self.value.newbyteorder(state[1])


class _Name:
    """Callable behind an allowed name of a pickle; neither class nor function, so that no pickle can change it."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setstate__(self, state: Any) -> None:
        raise _RefusedError("sets the state of a name")


def _numbers(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(dtype, _Dtype) or not isinstance(raw, (bytes, bytearray)) or order not in ("C", "F"):
        raise _RefusedError("has an array that is not one of numbers")
    if math.prod(shape) * dtype.value.itemsize != len(raw):
        raise _RefusedError(f"has an array of shape {shape} with {len(raw)} bytes")
    return np.frombuffer(bytes(raw), dtype.value).reshape(shape, order=order)


def _buffered(raw: Any, dtype: Any, shape: Any, order: Any) -> Array:
    array = Array()
    array.value = _numbers(raw, dtype, shape, order)
    return array


def _scalar(dtype: Any, raw: Any) -> Any:
    return _numbers(raw, dtype, (), "C")[()]


def _not_called(*args: Any) -> Any:
    raise _RefusedError("makes an array without content")


_NAMES = {
    ("numpy", "ndarray"): _Name(_not_called),
    ("numpy", "dtype"): _Name(lambda code, *_: _Dtype(code)),
    **{
        (f"numpy.{core}.{module}", name): _Name(make)
        for core in ("core", "_core")
        for module, name, make in (
            ("multiarray", "_reconstruct", lambda *_: Array()),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _buffered),  # arrays of pickle protocol 5
        )
    },
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise _RefusedError(
                f"names {module}.{name}; only numpy arrays, numbers, strings, lists, tuples and dicts are read"
            )
        return _NAMES[module, name]


def _check_sizes(data: bytes) -> None:
    """Check that the pickle's sizes are plausible for the file's size; a few bytes can request gigabytes."""
    for step, (opcode, arg, _) in enumerate(pickletools.genops(data)):
        if step >= MAX_STEPS:
            raise _RefusedError(f"has more than {MAX_STEPS:,} steps, far more than a matrix and its tokens need")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and (arg or 0) > len(data):
            raise _RefusedError(f"has a table of {arg:,} entries in {len(data):,} bytes")
