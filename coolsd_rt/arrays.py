"""The array types used in signatures. Knows NumPy. Does not know what an array means."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = Any
"""An array of any array-API namespace, such as NumPy or torch. The standard has no static type for it yet."""

Host = NDArray[Any]
"""A NumPy array of any dtype."""

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats32 = NDArray[np.float32]
Floats64 = NDArray[np.float64]
Pixels = NDArray[np.uint8]
"""RGB uint8 [F, F, 3], or [M, F, F, 3] for a batch."""
