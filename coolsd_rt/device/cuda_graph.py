"""Capture enqueued work as one CUDA graph; run it without a graph if it cannot be captured.

Knows CUDA streams and graphs. Does not know what is enqueued. CUDA has not been run where this was written.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from coolsd_rt.errors import CoolsdError

_LOG = logging.getLogger(__name__)
_LONGEST = 300


@dataclass(frozen=True)
class Captured:
    """Captured work. `run()` enqueues it again.

    graph_fallback_reason: why the work is not one CUDA graph; empty if it is.
    """

    run: Callable[[], None]
    graph_fallback_reason: str = ""


def capture(function: Callable[[], None]) -> Captured:
    """Capture `function`, which has run before, as a CUDA graph. Capturing does not run it.

    If the capture fails, the result calls `function` itself: slower, with the same result. The reason is logged once.
    Raises CoolsdError: the GPU does not work after the attempt.
    """
    graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        _record(graph, function)
        return Captured(graph.replay)
    except Exception as error:  # of CUDA, torch, triton or TensorRT; the function has run before
        why = first_line(error)
    torch.cuda.set_stream(before)  # after a failed capture torch leaves its stream current
    with contextlib.suppress(Exception):  # and may go on allocating from the graph's memory pool
        torch._C._cuda_endAllocateToPool(before.device_index, graph.pool())
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        fix = "run the command again; if the error returns, report the reason"
        found = f"{why}, then {first_line(error)}"
        raise CoolsdError(
            "the GPU", expected="a working GPU after the CUDA graph failed", found=found, fix=fix
        ) from error
    _LOG.warning("warning: rounds run without a CUDA graph, slower and with the same result: %s", why)
    return Captured(function, why)


def _record(graph: torch.cuda.CUDAGraph, function: Callable[[], None]) -> None:
    stream = torch.cuda.current_stream()
    own = None if stream == torch.cuda.default_stream() else stream
    # thread_local: other threads may use CUDA during the capture.
    with torch.cuda.graph(graph, stream=own, capture_error_mode="thread_local"):
        function()


@contextlib.contextmanager
def on_stream(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Run the work inside on `stream`, after the work queued on the current stream, which then waits for it.

    None: do nothing. TensorRT synchronises when it is given the default stream. After an error this waits for the
    stream, so that memory that the error frees is not in use.
    """
    if stream is None:
        yield
        return
    around = torch.cuda.current_stream()
    stream.wait_stream(around)
    try:
        with torch.cuda.stream(stream):
            yield
    except BaseException:
        with contextlib.suppress(RuntimeError):
            stream.synchronize()
        raise
    finally:
        around.wait_stream(stream)


def first_line(error: BaseException) -> str:
    """Return the first line of an error, shortened; CUDA's errors can be pages long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:_LONGEST]
