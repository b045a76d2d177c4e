"""Find the array library of an array. Knows NumPy and, through array-api-compat, other array-API libraries.

NumPy from 2.1 on is an array-API library itself. array-api-compat's own namespace for it imports all of NumPy, f2py and
the test tools included, which takes as long as drawing an image of the demo's size: a program that has NumPy arrays
alone never imports it. Does not know what an array means.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def namespace(*arrays: Any) -> Any:
    """Return the array-API namespace of the arrays: `numpy` itself, or what `array_api_compat.array_namespace` finds.

    NumPy arrays also take this way because the general lookup costs 8 microseconds, and a round asks for it ten times.
    """
    if all(type(array) is np.ndarray for array in arrays):
        return np
    from array_api_compat import array_namespace  # arrays of another library are there already

    return array_namespace(*arrays)
