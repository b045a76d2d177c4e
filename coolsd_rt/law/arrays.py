"""Find the array library of an array. Knows NumPy and, through array-api-compat, other array-API libraries."""

from __future__ import annotations

from typing import Any

import array_api_compat.numpy
import numpy as np
from array_api_compat import array_namespace


def namespace(*arrays: Any) -> Any:
    """Return the array-API namespace of the arrays, as `array_api_compat.array_namespace` does.

    NumPy arrays take a shortcut: the general lookup costs 8 microseconds, and a round asks for it ten times.
    """
    if all(type(array) is np.ndarray for array in arrays):
        return array_api_compat.numpy
    return array_namespace(*arrays)
