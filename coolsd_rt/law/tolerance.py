"""LANTERN's relaxation: a token may borrow the probability of codes that look alike.

f = min(1, (P(x) + c(x)) / Q(x)), where c(x) is the sum of P over the longest run of x's nearest codes, nearest first,
that stays within a bound. Two rules: `lantern` bounds c by a number, `lantern_pp` by a multiple of P(x), so that a
token of no probability borrows none. Source: LANTERN (arXiv 2410.03355), LANTERN++ (arXiv 2502.06352).

Knows lists of neighbours. Does not know where they come from: a build takes them from the image tokenizer's codebook.

Legend: V codes, k neighbours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.errors import UserError
from coolsd_rt.law.arrays import namespace

Array = Any
Kind = Literal["lantern", "lantern_pp"]


@dataclass(frozen=True, eq=False)
class Tolerance:
    """Who may lend how much.

    kind: `lantern`, c <= bound; `lantern_pp`, c <= (bound - 1) * P(x).
    bound: a probability in [0, 1], or a factor of 1 or more.
    near: int64 [V, k], the k nearest codes of each code without itself, nearest first; NumPy, or the array type of the
    distributions.

    Raises UserError on any other bound, or no neighbours.
    """

    kind: Kind
    bound: float
    near: Array

    def __post_init__(self) -> None:
        low, high = (0.0, 1.0) if self.kind == "lantern" else (1.0, math.inf)
        if not (math.isfinite(self.bound) and low <= self.bound <= high):
            expected = "a probability, from 0 to 1" if self.kind == "lantern" else "a finite factor, 1 or more"
            raise UserError(f"the bound of {self.kind}", expected=expected, found=str(self.bound))
        if len(self.near.shape) != 2 or self.near.shape[1] < 1:
            raise UserError(f"neighbours of {self.kind}", expected="[V, k], k >= 1", found=str(tuple(self.near.shape)))

    def borrowed(self, p: Array, tokens: Array) -> Array:
        """c float64 [...] of `tokens` int64 [...] under P [..., V]."""
        xp = namespace(p)
        own = xp.take_along_axis(p, tokens[..., None], axis=-1)
        return self._sum(xp, xp.take_along_axis(p, self.near[tokens], axis=-1), own)

    def everywhere(self, p: Array) -> Array:
        """c float64 [..., V] of every code under P [..., V]; takes V * k numbers a row."""
        xp = namespace(p)
        return self._sum(xp, p[..., self.near], p[..., None])

    def lenders(self, p: Array, tokens: Array) -> Array:
        """bool [..., V]: the k neighbours of `tokens`, if the nearest lent at all. For LANTERN's own residual."""
        xp = namespace(p)
        near = self.near[tokens]
        codes = xp.arange(p.shape[-1], dtype=near.dtype, device=near.device)
        among = xp.any(near[..., None] == codes, axis=-2)
        first = xp.take_along_axis(p, near[..., :1], axis=-1)
        return among & (first <= self._limit(xp.take_along_axis(p, tokens[..., None], axis=-1)))

    def _sum(self, xp: Any, lent: Array, own: Array) -> Array:
        """lent [..., k], own [..., 1] -> the largest partial sum within the bound, 0 if there is none."""
        partial = xp.cumulative_sum(lent, axis=-1, dtype=xp.float64)
        within = partial <= self._limit(xp.astype(own, xp.float64))
        return xp.max(xp.where(within, partial, xp.zeros_like(partial)), axis=-1)

    def _limit(self, own: Array) -> Any:
        return self.bound if self.kind == "lantern" else (self.bound - 1) * own


def nearest_codes(codebook: NDArray[Any], k: int) -> NDArray[np.int64]:
    """int64 [V, k]: each code's k nearest others by Euclidean distance, nearest first, ties by index.

    codebook: the raw vectors [V, D]. Raises UserError unless 1 <= k < V.
    """
    x = np.asarray(codebook, np.float64)
    count = len(x)
    if not 1 <= k < count:
        raise UserError("neighbours", expected=f"1 to {count - 1}, the codebook's other codes", found=str(k))
    near = np.empty((count, k), np.int64)
    squares = (x**2).sum(1)
    for start in range(0, count, 1024):  # rows at a time: V^2 distances of a large codebook do not fit
        rows = np.arange(start, min(start + 1024, count))
        distance = squares[rows, None] - 2 * x[rows] @ x.T + squares
        distance[np.arange(len(rows)), rows] = np.inf
        near[rows] = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return near
