"""A terminal of any width, as a child process sees it."""

from __future__ import annotations

import os
import pty
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OnTerminal = Callable[[str, int], str]


@pytest.fixture
def on_terminal() -> OnTerminal:
    """on_terminal(code, width): what Python code writes to a terminal so wide, stdout and stderr together."""
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")

    def run(code: str, width: int) -> str:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
        child = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=kept | {"TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        said = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the last one has closed it
                break
            if not part:
                break
            said += part
        os.close(ours)
        assert child.wait() == 0, said.decode()
        return said.decode()

    return run


def frames(said: str) -> list[str]:
    """The lines that stood on the terminal one after the other, without colours and movements."""
    parts = re.split(r"\r\x1b\[2K|\r?\n", re.sub(r"\x1b\[\?25[lh]", "", said))
    return [line for line in (re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", part).strip("\r") for part in parts) if line.strip()]
