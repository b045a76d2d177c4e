"""torch's exporter at its own speed: nearly all that the slow tests do is in it.

Each export registers torch's 500 translations anew, which takes 0.7 s of a tiny graph's 2 to 7: here they are kept.
What an export registers of its own, it registers in a copy. Knows the exporter's parts. Does not know what is exported.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any


def unburden() -> None:
    """For this process; torch is imported."""
    import torch.export
    import torch.onnx
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    # pytest listens to every logger that does not propagate, and this one is only worked for while somebody listens.
    logging.getLogger("torch.__trace").propagate = True
    for owner, name in ((torch.export, "export"), (torch.onnx, "export"), (torch.onnx.ONNXProgram, "optimize")):
        setattr(owner, name, _unmeasured(getattr(owner, name)))
    make = functools.cache(ONNXRegistry.from_torchlib)

    def copied(*args: Any, **kwargs: Any) -> ONNXRegistry:
        kept, copy = make(*args, **kwargs), ONNXRegistry()
        copy._opset_version = kept._opset_version
        copy.functions = {target: list(each) for target, each in kept.functions.items()}
        return copy

    ONNXRegistry.from_torchlib = staticmethod(copied)  # type: ignore[method-assign]


def _unmeasured(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, out of the sight of coverage, which would follow it line by line and take as long again.

    Graph modules that are traced in it are run elsewhere too.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        tracer = sys.gettrace()
        sys.settrace(None)
        try:
            return function(*args, **kwargs)
        finally:
            sys.settrace(tracer)

    return call
