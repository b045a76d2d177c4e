"""Peak memory is the command's own, not this process's."""

from __future__ import annotations

import sys

import pytest

from coolsd_rt.errors import CoolsdError
from tools.demo.memory import peak_memory

MB = 1 << 20


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_the_peak_counts_even_when_it_was_freed_and_the_caller_does_not() -> None:
    ballast = bytearray(b"x" * (300 * MB))  # what this process holds must not show
    small = peak_memory(python("pass"))
    large = peak_memory(python(f"a = b'x' * {150 * MB}; del a"))
    assert small < 100 * MB
    assert 140 * MB < large - small < 200 * MB
    assert len(ballast) == 300 * MB


def test_a_command_that_fails_is_not_measured() -> None:
    with pytest.raises(CoolsdError, match="out of luck"):
        peak_memory(python("import sys; sys.exit('out of luck')"))
