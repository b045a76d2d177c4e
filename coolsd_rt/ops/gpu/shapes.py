"""The layout of a row of V codes in one Triton program: the block that holds it, and the number of warps.

Chosen so that no kernel of a guided round spills registers up to V = 16384 (`offline` reports it). Knows sizes. Does
not know kernels or tensors.
"""

from __future__ import annotations

# One warp holds a line of the block, four codes per lane, so a sum over a line needs no shared memory.
LINE = 128


def power(number: int) -> int:
    """Return the least power of two that is at least `number`, which is positive."""
    return 1 << (number - 1).bit_length()


def block(vocab: int) -> dict[str, int]:
    """Return the constants V, C and B of a kernel: V codes as [C, B], at least two lines."""
    return {"V": vocab, "C": max(2, power(vocab) // LINE), "B": LINE}


def warps(vocab: int) -> int:
    """Return the number of warps of a program that holds a row once or twice: 32 codes per lane, 4 to 32 warps."""
    return max(4, min(32, power(vocab) // 1024))


def process_warps(vocab: int) -> int:
    """Return the number of warps of a program that also holds the row in float64.

    It is half of `warps`, each with twice the registers.
    """
    return max(4, min(32, power(vocab) // 2048))
