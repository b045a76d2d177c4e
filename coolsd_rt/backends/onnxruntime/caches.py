"""KV caches in memory that ONNX Runtime reads and writes in place: how they grow, and how rows leave and enter.

Knows arrays and devices. Does not know graphs or what is in a row. Legend as in `coolsd_rt.contract`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.arrays import Ints
from coolsd_rt.captured import native_words
from coolsd_rt.errors import CoolsdError

with native_words([]):  # the import looks for GPUs, and prints warnings if it may not read the devices
    import onnxruntime as ort

BUCKET = 64  # cache rows; capacities are multiples of it


@dataclass(frozen=True)
class OrtMemory:
    """An array and its OrtValue: of the same bytes on a CPU, of a copy on another device."""

    array: NDArray[Any]
    value: Any  # ort.OrtValue

    @staticmethod
    def of(array: NDArray[Any], device: str = "cpu") -> OrtMemory:
        """Return the memory of an array on a device."""
        return OrtMemory(array, ort.OrtValue.ortvalue_from_numpy(array, device, 0))

    @staticmethod
    def zeros(shape: Sequence[int], dtype: str) -> OrtMemory:
        """Return zeros of this shape and dtype in host memory."""
        return OrtMemory.of(np.zeros(tuple(shape), dtype))

    def read(self) -> NDArray[Any]:
        """Return the current contents as an array on the host."""
        values: NDArray[Any] = self.value.numpy()
        return values


class Caches:
    """KV tensors [R, H, T, D] in binding order. Unwritten rows are zeros: NaN there would spread through attention."""

    def __init__(
        self,
        names: Sequence[tuple[str, str]],
        sizes: tuple[int, int, int],
        limit: int,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        """Create caches without memory.

        names: names of the input and the output of each cache.
        sizes: R, H, D.
        limit: largest capacity, rounded up to a bucket.
        """
        self.names, self._sizes, self._dtype, self._device = tuple(names), sizes, dtype, device
        self._limit = -(-limit // BUCKET) * BUCKET
        self.capacity = 0
        self.memory: dict[str, OrtMemory] = {}

    def reach(self, positions: int) -> None:
        """Grow to hold `positions` positions; the contents stay. Raises CoolsdError beyond the limit."""
        if positions <= self.capacity:
            return
        capacity = -(-positions // BUCKET) * BUCKET
        if capacity > self._limit:
            found = f"{positions} positions"
            raise CoolsdError("the KV caches", expected=f"at most {self._limit} positions", found=found)
        rows, heads, width = self._sizes
        for name, _ in self.names:
            grown = np.zeros((rows, heads, capacity, width), self._dtype)
            if name in self.memory:
                grown[:, :, : self.capacity] = self.memory[name].read()
            self.memory[name] = OrtMemory.of(grown, self._device)
        self.capacity = capacity

    def move(self, rows: Ints, sources: Ints, sinks: Ints) -> bool:
        """Move positions within their rows, as `backends.moves.Moves`. Returns whether the memory is where it was."""
        in_place = self._device == "cpu"
        for name, memory in self.memory.items():
            moved = memory.array if in_place else memory.read()
            moved[rows, :, sinks] = moved[rows, :, sources]  # the right side is a copy
            if not in_place:
                self.memory[name] = OrtMemory.of(moved, self._device)
        return in_place

    def take(self, rows: Sequence[int], other: Caches | None = None, shifts: Sequence[int] = (0, 0)) -> None:
        """Keep `rows` of this and, counted on from its last, of `other`, in this order; the contents stay.

        Both hold the positions of the longer one afterwards. The other is not used any more.

        shifts: positions by which the contents of this and of `other` move to the right, whole buckets.
        """
        own, heads, width = self._sizes
        caches = (self, other) if other is not None else (self,)
        capacity = max((c.capacity + shift for c, shift in zip(caches, shifts, strict=False) if c.capacity), default=0)
        self._sizes = (len(rows), heads, width)
        if other is not None:
            self._limit = max(self._limit, other._limit)
        if not capacity:
            return  # no step yet
        entered = [(i, row - own) for i, row in enumerate(rows) if row != i]
        replaced = other is not None and len(rows) == own and self.capacity and not shifts[0]
        if other is not None and replaced and all(row >= 0 for _, row in entered):
            self._replace(entered, other, shifts[1])
            return
        for name, _ in self.names:
            moved = np.zeros((len(rows), heads, capacity, width), self._dtype)
            held = [c.memory[name].read() if name in c.memory else None for c in caches]
            for i, row in enumerate(rows):
                source, at = held[row >= own], shifts[row >= own]
                if source is not None:
                    moved[i, :, at : at + source.shape[2]] = source[row if row < own else row - own]
            self.memory[name] = OrtMemory.of(moved, self._device)
            if other is not None:
                other.memory.pop(name, None)
        self.capacity = capacity

    def _replace(self, entered: Sequence[tuple[int, int]], other: Caches, shift: int) -> None:
        """Copy rows of `other` over rows of this: pairs of a row here and a row there. The other rows are not touched.

        What is behind an entered row's positions stays: like the rows of a rejected draft, no mask lets it be read.
        """
        self.reach(other.capacity + shift)
        for name, _ in self.names:
            if name not in other.memory:
                continue
            in_place = self._device == "cpu"
            here = self.memory[name].array if in_place else self.memory[name].read()
            there = other.memory[name].read()
            for i, row in entered:
                here[i, :, shift : shift + other.capacity] = there[row]
            if not in_place:
                self.memory[name] = OrtMemory.of(here, self._device)
