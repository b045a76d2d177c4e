"""The library of an array. Knows NumPy and, through array-api-compat, its kin."""

from __future__ import annotations

from typing import Any

import array_api_compat.numpy
import numpy as np
from array_api_compat import array_namespace


def namespace(*arrays: Any) -> Any:
    """`array_namespace`, but at once for NumPy: the search takes 8 microseconds, and a round asks ten times."""
    if all(type(array) is np.ndarray for array in arrays):
        return array_api_compat.numpy
    return array_namespace(*arrays)
