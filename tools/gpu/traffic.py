"""Bytes that a launch of `verify` moves, and the least that it could.

Counts what the kernel asks of memory, not what a cache answers. A time is this over the memory's rate, or longer.
Legend: M images, L draft length, V codes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Traffic:
    """Bytes of one launch."""

    moved: int  # what the kernel reads and writes
    floor: int  # each row of P and Q that the verdict depends on, read once
    whole: int  # all of P and Q, read once: what a kernel without the gathers would pay


def verify_traffic(
    length: int, vocab: int, accepted: list[int], num_drafts: list[int], resampler: str = "optimal"
) -> Traffic:
    """Bytes of one launch with these outcomes; accepted and num_drafts have one number an image. No forced, no rates.

    The floor leaves out what is not a row: tokens, uniforms, omegas, results, and P and Q at the drafted tokens.
    """
    rows = 0
    for n, count in zip(accepted, num_drafts, strict=True):
        rows += 2 if n < count and resampler != "target" else 1
    floor = rows * vocab * 4
    # An image: num_drafts and u_resample; omegas; accepted, token, degenerate and fault.
    # An evaluated draft: its token, u, P, Q.
    image = 8 + 4 + length * 8 + 8 + 8 + 1 + 4
    draft = 8 + 4 + 4 + 4
    moved = floor + len(num_drafts) * image + sum(num_drafts) * draft
    return Traffic(moved, floor, len(num_drafts) * (2 * length + 1) * vocab * 4)
