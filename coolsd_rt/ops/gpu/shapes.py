"""How a row of V codes is laid out in one program: the block that holds it, and how many warps hold the block.

Chosen so that nothing of a guided round spills up to V = 16384 (`offline` reports it). Does not know kernels or
tensors.
"""

from __future__ import annotations

# One warp holds a line of the block with four codes a lane, so a sum over a line needs no shared memory.
LINE = 128


def power(number: int) -> int:
    """The least power of two that is at least `number`, which is positive."""
    return 1 << (number - 1).bit_length()


def block(vocab: int) -> dict[str, int]:
    """The constants V, C and B of a kernel: V codes as [C, B], at least two lines."""
    return {"V": vocab, "C": max(2, power(vocab) // LINE), "B": LINE}


def warps(vocab: int) -> int:
    """Warps of a program that holds a row once or twice: 32 codes a lane, 4 to 32 warps."""
    return max(4, min(32, power(vocab) // 1024))


def process_warps(vocab: int) -> int:
    """Warps of a program that also holds the row in float64: half of them, each with twice the registers."""
    return max(4, min(32, power(vocab) // 2048))
