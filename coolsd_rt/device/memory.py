"""What a batch needs of a GPU's memory, and the error where it is not there: one line that says what would fit.

Knows sizes and bytes, and how torch says that memory is out. Does not know which models step. An estimate: what a
library takes for itself between two tensors is its own.
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
_LOGITS = 10  # bytes of a logit, in its own type and in float32, and as part of a distribution


@dataclass(frozen=True)
class BatchShape:
    """Sizes of one. item: bytes of a number in caches and features."""

    dims: ModelDims
    images: int
    rows: int
    capacity: int
    length: int
    item: int

    @property
    def bytes(self) -> int:
        """Caches, prefix, the logits of the widest step, and the random numbers."""
        d = self.dims
        cached = d.layers * d.heads * d.head_dim + d.draft_layers * d.draft_heads * d.draft_head_dim
        caches = 2 * self.rows * self.capacity * cached * self.item
        prefix = self.rows * d.prefix * (d.dim + d.draft_dim) * self.item
        step = self.rows * max(d.prefix, 2 * (self.length + 1)) * (d.vocab * _LOGITS + 8 * d.dim * self.item)
        numbers = self.images * d.tokens * (self.length + 1) * 3 * 4
        return caches + prefix + step + numbers

    def of(self, images: int) -> BatchShape:
        """The same with another number of images."""
        return replace(self, images=images, rows=self.rows // self.images * images)


def refused(batch: BatchShape, free: int) -> CoolsdError:
    """The error for a batch that did not fit; `free`: bytes, once all that it had is given back."""
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
    """The error for models that did not fit; `size`: bytes of their weights."""
    fix = "close other programs that use the GPU, use one with more memory, or build in a smaller precision"
    found = f"{human(free_bytes())} free"
    return CoolsdError("GPU memory for the weights", expected=f"{human(size)}", found=found, fix=fix)


def retry_on_oom(work: Callable[[], Done], again: Callable[[], None], why: Callable[[], CoolsdError]) -> Done:
    """`work()`, once more after `again()` if memory was out. Raises `why()` if it is out again."""
    for _ in range(2):
        try:
            return work()
        except torch.cuda.OutOfMemoryError:
            pass  # what the frames of the error hold goes with it
        again()
        empty_cache()
    raise why()


def empty_cache() -> None:
    """What torch keeps of the GPU's memory and does not use, to the GPU."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free_bytes() -> int:
    """Of the current GPU; 0 without one."""
    return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else 0
