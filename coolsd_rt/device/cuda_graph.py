"""Work that is only enqueued, as one CUDA graph; enqueued piece by piece where it cannot be captured.

Knows streams and graphs of CUDA. Does not know what is enqueued. CUDA has not been run where this was written.
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
    """`run()` enqueues it once more. graph_fallback_reason: what kept it from being one graph; empty if it is one."""

    run: Callable[[], None]
    graph_fallback_reason: str = ""


def capture(function: Callable[[], None]) -> Captured:
    """`function`, which has run before, as a CUDA graph. Capturing runs nothing.

    Where that fails, the function as it is: slower, with the same result. That is said once, with the reason.
    Raises CoolsdError: the GPU is of no use after the attempt.
    """
    graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        _record(graph, function)
        return Captured(graph.replay)
    except Exception as error:  # of CUDA, torch, triton or TensorRT; the function itself has run
        why = first_line(error)
    torch.cuda.set_stream(before)  # torch leaves the stream of a capture that broke current
    with contextlib.suppress(Exception):  # and may go on taking memory from the graph's own pool
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
    # Of other threads' work nothing is forbidden meanwhile.
    with torch.cuda.graph(graph, stream=own, capture_error_mode="thread_local"):
        function()


@contextlib.contextmanager
def on_stream(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Work inside goes to `stream`, after what the current one was given; that waits for it in turn. None: nothing.

    TensorRT synchronises when it is given the default stream. After an error the stream is waited for, so that memory
    which the error sets free is not in use.
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
    """An error in one line; CUDA's are pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:_LONGEST]
