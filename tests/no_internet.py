"""A process that may open no internet socket: the kernel ends it (or refuses) where it tries, native code too.

A filter of Linux's seccomp, set through ctypes; it needs no rights and no tool. `python -m tests.no_internet kill
MODULE ARGS...` runs a module so; `refuse` in the place of `kill` lets the process go on with an error.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import runpy
import signal
import socket
import sys

_SOCKET = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}  # audit name of the machine, number of socket(2)
SUPPORTED = sys.platform == "linux" and platform.machine() in _SOCKET
KILLED = -signal.SIGSYS if SUPPORTED else 0
"""Exit code, as `subprocess` has it, of a process that tried."""

_KILL, _REFUSE, _ALLOW = 0x80000000, 0x00050000 | errno.EACCES, 0x7FFF0000
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("first", ctypes.POINTER(_Instruction)))


def forbid(action: int = _KILL) -> None:
    """From now on, in every thread and child: `action` for each socket of IPv4 or IPv6."""
    arch, number = _SOCKET[platform.machine()]
    lines = (
        (_LOAD, 0, 0, 4),  # the machine
        (_EQUAL, 0, 6, arch),
        (_LOAD, 0, 0, 0),  # the call
        (_EQUAL, 0, 4, number),
        (_LOAD, 0, 0, 16),  # its first argument: the family
        (_EQUAL, 1, 0, socket.AF_INET),
        (_EQUAL, 0, 1, socket.AF_INET6),
        (_RETURN, 0, 0, action),
        (_RETURN, 0, 0, _ALLOW),
    )
    program = _Program(len(lines), (_Instruction * len(lines))(*(_Instruction(*line) for line in lines)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program)):
        raise OSError(ctypes.get_errno(), "seccomp is not to be had")


if __name__ == "__main__":
    forbid({"kill": _KILL, "refuse": _REFUSE}[sys.argv[1]])
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
