"""Parses NumPy's .npy format from bytes in memory. A header cannot make it allocate more than those bytes hold.

Knows the format's header. Does not know what the numbers mean.
"""

from __future__ import annotations

import io
import math
import tokenize
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

MAX_HEADER = 1024
# Errors of a damaged header, which is a Python literal that NumPy tokenises and parses.
_FAULTS = (ValueError, TypeError, KeyError, EOFError, SyntaxError, MemoryError, RecursionError, tokenize.TokenError)


class ArrayError(ValueError):
    """The bytes are not a valid array; the message says why."""


def parse_npy(data: bytes | bytearray) -> NDArray[Any]:
    """Return the array of a .npy file, as a view of the given bytes. Never unpickles.

    Raises ArrayError if the bytes are not in the format, contain Python objects, or do not match the header's size.
    """
    file = io.BytesIO(data[: MAX_HEADER + 16])
    try:
        version = npy.read_magic(file)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, fortran, dtype = read(file, max_header_size=MAX_HEADER)
    except _FAULTS as e:
        raise ArrayError("no .npy header") from e
    if any(type(n) is not int or n < 0 for n in shape):
        raise ArrayError(f"a shape of {str(shape)[:60]}")
    if dtype.hasobject or dtype.names or dtype.subdtype or not dtype.itemsize:
        raise ArrayError(f"values of type {str(dtype)[:60]}")
    begin, count = file.tell(), math.prod(shape)
    if count * dtype.itemsize != len(data) - begin:
        raise ArrayError(f"{len(data) - begin} bytes for {str(dtype)[:60]} {str(list(shape))[:60]}")
    if not count:
        return np.empty(shape, dtype)
    return np.frombuffer(data, dtype, count, begin).reshape(shape, order="F" if fortran else "C")
