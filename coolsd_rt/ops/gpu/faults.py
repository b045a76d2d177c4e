"""Fault bits that a kernel sets instead of raising, one int32 per row, and their translation into errors on the host.

A kernel cannot raise, and a host that waits for each round to look for NaN loses the time that the kernel saved. So the
bits travel with the tokens and are read together with them. Does not know tensors beyond `tolist`.
"""

from __future__ import annotations

from typing import Any

from coolsd_rt.errors import CoolsdError

# A drafted token that counts has Q = 0, a negative or NaN P, a NaN Q, or is no code at all.
FAULT_DRAFT = 1
# The weights that end the round have no finite, positive total.
FAULT_TOTAL = 2
# `num_drafts` is outside 0..L.
FAULT_WINDOW = 4

# The first that applies is raised: causes come before their consequences.
_MEANINGS = (
    (
        FAULT_WINDOW,
        "a window of drafts cannot be verified",
        "from 0 to L drafts that count",
        "a number outside that",
        "num_drafts and the drafts were not made for the same round",
    ),
    (
        FAULT_DRAFT,
        "a drafted token cannot be verified",
        "P >= 0 and Q > 0 at each drafted token",
        "NaN, Q = 0 or an id that is not a code",
        "the models' logits hold NaN, or the drafts were not drawn from this Q",
    ),
    (
        FAULT_TOTAL,
        "a distribution cannot be sampled",
        "a finite, positive total",
        "zero, infinity or NaN",
        "the model's logits hold NaN or infinity, or nothing is left after filtering",
    ),
)


def raise_fault(fault: Any) -> None:
    """Raise the reference's CoolsdError for the first bit that any row has; return if no row has one.

    fault: int32, any shape; an array, a tensor on any device (this waits for it) or nested lists.
    """
    bits, rows = 0, _flat(fault.tolist() if hasattr(fault, "tolist") else fault)
    for row in rows:
        bits |= row
    for bit, what, expected, found, fix in _MEANINGS:
        if bits & bit:
            where = [i for i, row in enumerate(rows) if row & bit]
            raise CoolsdError(what, expected=expected, found=f"{found}, in row {where[0]}", fix=fix)


def _flat(values: Any) -> list[int]:
    if isinstance(values, list):
        return [number for value in values for number in _flat(value)]
    return [int(values)]
