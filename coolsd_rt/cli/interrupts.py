"""Ctrl-C: where it may strike, and how a process ends after it.

A KeyboardInterrupt inside the import of a native module ends some of them with a segmentation fault (onnx, torch), so
that Ctrl-C waits for imports to end. And after one was raised below `exec` or `eval`, which torch uses when it exports,
CPython 3.11 forgets the exit code at its own end and kills itself with SIGINT; its finalizers then also ran into
half-initialised native modules. So an interrupted process ends without them, once everything of ours is unwound. A
KeyboardInterrupt that is raised where Python ignores exceptions (finalizers, callbacks of native code) is raised again.

Knows signals and frames. Does not know commands. Windows, which has no timer signal, keeps Python's handler.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130  # exit code: 128 + SIGINT, as shells have it
_AGAIN = 0.02  # seconds until the next look at whether an import still runs


def hold_back_during_imports() -> None:
    """Make Ctrl-C wait while a module is imported. Nothing happens if SIGINT is ignored or handled by someone else."""
    if hasattr(signal, "setitimer") and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
        signal.signal(signal.SIGALRM, _interrupt)
        sys.unraisablehook = _unraisable


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, now or when no import runs."""
    if _importing(frame):
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)
    else:
        raise KeyboardInterrupt


def _unraisable(ignored: sys.UnraisableHookArgs) -> None:
    """Raise a KeyboardInterrupt again that was ignored; report anything else."""
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)
    else:
        sys.__unraisablehook__(ignored)


def _importing(frame: FrameType | None) -> bool:
    """Return whether the code that was interrupted is part of an import."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def was_interrupted(error: BaseException | None) -> bool:
    """Return whether an exception is Ctrl-C, or was raised while one was handled: torch's clean-up can fail then."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False


def leave(code: int) -> NoReturn:
    """End the process with an exit code. An interrupted one ends at once: no finalizers, no waiting for threads."""
    if code == INTERRUPTED:
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):  # closed by the caller, or its reader left
                stream.flush()
        os._exit(code)
    sys.exit(code)
