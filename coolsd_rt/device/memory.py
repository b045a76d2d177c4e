"""Estimate the GPU memory of a batch, and report in one line which batch would fit if there is too little.

Knows sizes and bytes, and how torch reports that memory is exhausted. Does not know which models step. It is an
estimate: it does not include temporary memory of libraries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from coolsd_rt.contract import ModelDims
from coolsd_rt.errors import CoolsdError
from coolsd_rt.store.atomic import human

Done = TypeVar("Done")
_LOGITS = 10  # bytes per logit: in its own dtype, in float32, and in a distribution


@dataclass(frozen=True)
class BatchShape:
    """Sizes of a batch.

    images: M. rows: R. capacity: positions of the caches. length: L.
    item: bytes of a number in caches and features.
    """

    dims: ModelDims
    images: int
    rows: int
    capacity: int
    length: int
    item: int

    @property
    def bytes(self) -> int:
        """Bytes of caches, prefix, the logits of the widest step, and the random numbers."""
        d = self.dims
        cached = d.layers * d.heads * d.head_dim + d.draft_layers * d.draft_heads * d.draft_head_dim
        caches = 2 * self.rows * self.capacity * cached * self.item
        prefix = self.rows * d.prefix * (d.dim + d.draft_dim) * self.item
        step = self.rows * max(d.prefix, 2 * (self.length + 1)) * (d.vocab * _LOGITS + 8 * d.dim * self.item)
        numbers = self.images * d.tokens * (self.length + 1) * 3 * 4
        return caches + prefix + step + numbers

    def of(self, images: int) -> BatchShape:
        """Return the sizes of a batch of another number of images."""
        return replace(self, images=images, rows=self.rows // self.images * images)


def refused(batch: BatchShape, free: int) -> CoolsdError:
    """Return the error for a batch that did not fit. free: free bytes after the batch was released."""
    fits = next((m for m in range(batch.images - 1, 0, -1) if batch.of(m).bytes <= free), 0)
    if fits:
        fix = f"draw at most {fits} at once: engine.max_batch {fits}"
    else:
        least = human(batch.of(1).bytes)
        fix = f"a single image needs about {least}: close other programs that use the GPU, or use a larger one"
    what = f"GPU memory for a batch of {batch.images} image{'s' if batch.images > 1 else ''}"
    expected = f"about {human(batch.bytes)} (an estimate)"
    return CoolsdError(what, expected=expected, found=f"{human(free)} free", fix=fix)


def weights_refused(size: int) -> CoolsdError:
    """Return the error for models that did not fit. size: bytes of their weights."""
    fix = "close other programs that use the GPU, use one with more memory, or build in a smaller precision"
    found = f"{human(free_bytes())} free"
    return CoolsdError("GPU memory for the weights", expected=f"{human(size)}", found=found, fix=fix)


def retry_on_oom(work: Callable[[], Done], again: Callable[[], None], why: Callable[[], CoolsdError]) -> Done:
    """Return `work()`; if memory runs out, call `again()` and retry once. Raises `why()` if it runs out again."""
    for _ in range(2):
        try:
            return work()
        except torch.cuda.OutOfMemoryError:
            pass  # leaving the handler frees the tensors that the error's frames hold
        again()
        empty_cache()
    raise why()


def empty_cache() -> None:
    """Return GPU memory that torch has cached and does not use to the GPU."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free_bytes() -> int:
    """Return the free bytes of the current GPU; 0 without a GPU."""
    return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else 0
