"""Estimate the GPU memory that an engine needs, before it is built; the error says which batch would fit.

Knows sizes and bytes. Does not know TensorRT or devices. It is an estimate: the scratch memory of an engine is unknown
before it is built.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

from coolsd_rt.backends.tensorrt.profiles import LEAST_ROWS, Profile, ProfileSizes, profiles
from coolsd_rt.contract import GraphContract, TensorSpec
from coolsd_rt.errors import CoolsdError
from coolsd_rt.store.atomic import human

_BYTES = {"int64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "uint8": 1, "bool": 1}
CUDA = 500 << 20  # a context of CUDA and its libraries
# Scratch memory of an engine, relative to the bytes of inputs and outputs of its largest step without caches.
SCRATCH = 2


@dataclass(frozen=True)
class Estimate:
    """GPU memory in bytes.

    weights: all weights.
    caches: KV caches.
    steps: bound inputs and outputs of all profiles.
    scratch: scratch memory that all contexts share.
    fixed: CUDA context and libraries.

    caches, steps and scratch grow with the batch.
    """

    weights: int
    caches: int
    steps: int
    scratch: int
    fixed: int = CUDA

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return self.weights + self.caches + self.steps + self.scratch + self.fixed

    def as_dict(self) -> dict[str, int]:
        """Return JSON data."""
        return {
            "weights": self.weights, "caches": self.caches, "steps": self.steps, "scratch": self.scratch,
            "fixed": self.fixed, "total": self.total,
        }  # fmt: skip


def estimate(weights: int, contracts: Iterable[GraphContract], sizes: ProfileSizes) -> Estimate:
    """Estimate the memory of engines of these graphs at these sizes.

    weights: bytes of all weights, in the types they are built in.
    """
    caches = steps = scratch = 0
    for contract in contracts:
        cached = [s for s in contract.inputs if "T" in s.shape]
        known = profiles(contract, sizes)
        caches += sum(_bytes(s, known[0]) for s in cached)
        names = {s.name for s in cached} | {f"{s.name}_out" for s in cached}
        moved = [s for s in (*contract.inputs, *contract.outputs) if s.name not in names]
        each = [sum(_bytes(s, profile) for s in moved) for profile in known]
        steps += sum(each)
        scratch = max(scratch, SCRATCH * max(each))  # engines run one after another in the same memory
    return Estimate(weights, caches, steps, scratch)


def _bytes(spec: TensorSpec, profile: Profile) -> int:
    return prod(profile.shapes(spec)[2]) * _BYTES[spec.dtype]


def check_memory(weights: int, contracts: Sequence[GraphContract], sizes: ProfileSizes, free: int) -> Estimate:
    """Return the estimate if it fits into `free` bytes of a GPU.

    Raises CoolsdError if it does not; the error says which batch would fit, or how much the smallest needs.
    """
    wanted = estimate(weights, contracts, sizes)
    if wanted.total <= free:
        return wanted
    for batch in range(sizes.images - 1, 0, -1):
        fewer = replace(sizes, images=batch, rows=max(LEAST_ROWS, 2 * batch))
        if estimate(weights, contracts, fewer).total <= free:
            fix = f"engine.max_batch {batch} would fit"
            break
    else:
        least = estimate(weights, contracts, replace(sizes, images=1, rows=LEAST_ROWS)).total
        fix = f"a batch of 1 needs about {human(least)}: use a GPU with more memory, or int8 weights"
    found = f"{human(free)} free"
    raise CoolsdError("GPU memory", expected=f"about {human(wanted.total)} (an estimate)", found=found, fix=fix)
