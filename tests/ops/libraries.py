"""The two array libraries that the same lines must run on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Convert = Callable[[Any], Any]
LIBRARIES: dict[str, Convert] = {"numpy": np.asarray, "torch": torch.as_tensor}


def host(array: Any) -> Any:
    return np.asarray(array)
