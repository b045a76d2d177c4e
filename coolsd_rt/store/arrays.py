"""NumPy's .npy format, read from bytes that were checked: nothing is allocated that the bytes do not hold.

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
# The header is a Python literal, which NumPy tokenises and parses.
_FAULTS = (ValueError, TypeError, KeyError, EOFError, SyntaxError, MemoryError, RecursionError, tokenize.TokenError)


class ArrayError(ValueError):
    """Bytes that are not an array; the message says what is wrong, in words."""


def parse_npy(data: bytes | bytearray) -> NDArray[Any]:
    """The array of a .npy file, over the same bytes. Never unpickles.

    Raises ArrayError: not the format, Python objects, or a header that does not fit the number of bytes.
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
