"""`torch.compile` of the eager reference: the same networks and the same loop, its step compiled by Inductor.

Mode default, whole graphs, fixed shapes: one graph for the prefill, one for a step of one token. CUDA graphs, which the
mode reduce-overhead adds, do not exist on a CPU.

Knows the eager engine. Does not know how compiled code is made, or a clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coolsd_rt.backends.torch.eager import TorchEngine, TorchSession
from coolsd_rt.contract import ModelDims


class CompiledEngine:
    """`runtime.interface.Engine`: the eager engine, whose sessions share one compiled step of the target."""

    def __init__(self, eager: TorchEngine) -> None:
        self._eager = eager
        self._step: Callable[..., Any] | None = None

    @property
    def dims(self) -> ModelDims:
        """Sizes of the engine."""
        return self._eager.dims

    def encode_condition(self, condition: Any) -> Any:
        """As the eager engine."""
        return self._eager.encode_condition(condition)

    def open(self, prefix: Any, capacity: int, start: Any = None) -> TorchSession:
        """Open a session whose target is compiled at its first steps."""
        session = self._eager.open(prefix, capacity, start)
        if self._step is None:
            self._step = torch.compile(session.step_target, fullgraph=True, dynamic=False)
        session.step_target = self._step
        return session

    def decode_images(self, codes: Any) -> NDArray[np.uint8]:
        """As the eager engine."""
        return self._eager.decode_images(codes)
