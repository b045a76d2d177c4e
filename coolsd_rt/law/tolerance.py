"""LANTERN's relaxation: a token may borrow the probability of codes that look alike.

f = min(1, (P(x) + c(x)) / Q(x)), where c(x) is the sum of P over the longest run of x's nearest codes, nearest first,
that stays within a bound. The rule `lantern` bounds c by a number, `lantern_pp` by a multiple of P(x), so that a token
of probability 0 borrows nothing. Source: LANTERN (arXiv 2410.03355), LANTERN++ (arXiv 2502.06352).

Knows tables of neighbours. Does not know where they come from: a build computes them from the image tokenizer's
codebook.

Legend: V codes, n neighbours of each code in the table, of which the k nearest may lend.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.arrays import Array
from coolsd_rt.errors import UserError
from coolsd_rt.law.arrays import namespace
from coolsd_rt.limits import OMEGA

Kind = Literal["lantern", "lantern_pp"]


@dataclass(frozen=True, eq=False)
class Tolerance:
    """The bound on borrowed probability, and the codes that may lend it.

    kind: `lantern`, c <= bound; `lantern_pp`, c <= (bound - 1) * P(x).
    bound: a probability in [0, 1] (`lantern`), or a factor of 1 or more (`lantern_pp`).
    near: int64 [V, n], the n nearest other codes of each code, nearest first; a NumPy array, or the array type of the
    distributions.
    k: number of neighbours that may lend; None: all n. LANTERN's residual reads one more, so it needs n > k, or all
    other codes.

    Raises UserError: a bound out of range, no neighbours, or k outside 1..n.
    """

    kind: Kind
    bound: float
    near: Array
    k: int | None = None

    def __post_init__(self) -> None:
        low, high = (0.0, 1.0) if self.kind == "lantern" else (1.0, OMEGA.high)
        if not low <= self.bound <= high:
            expected = "a probability, from 0 to 1" if self.kind == "lantern" else f"a factor, from 1 to {high:g}"
            raise UserError(f"the bound of {self.kind}", expected=expected, found=str(self.bound))
        if len(self.near.shape) != 2 or self.near.shape[1] < 1:
            raise UserError(f"neighbours of {self.kind}", expected="[V, k], k >= 1", found=str(tuple(self.near.shape)))
        if not 1 <= self.lending <= self.near.shape[1]:
            expected = f"from 1 to {self.near.shape[1]}, the columns of the table"
            raise UserError(f"how many neighbours may lend ({self.kind})", expected=expected, found=str(self.lending))

    @property
    def lending(self) -> int:
        """Number of neighbours that may lend, k."""
        return int(self.near.shape[1]) if self.k is None else self.k

    @property
    def columns(self) -> int:
        """Number of columns of the table that LANTERN's residual reads: k + 1, or all other codes."""
        return columns_read(self.lending, int(self.near.shape[0]))

    def borrowed(self, p: Array, tokens: Array) -> Array:
        """Return c, float64 [...], of `tokens`, int64 [...], under P [..., V]."""
        xp = namespace(p)
        own = xp.take_along_axis(p, tokens[..., None], axis=-1)
        return self._sum(xp, xp.take_along_axis(p, self.near[tokens][..., : self.lending], axis=-1), own)

    def everywhere(self, p: Array) -> Array:
        """Return c, float64 [..., V], of every code under P [..., V]. Allocates V * k numbers per row."""
        xp = namespace(p)
        return self._sum(xp, p[..., self.near[:, : self.lending]], p[..., None])

    def zeroed(self, p: Array, tokens: Array) -> Array:
        """Return where LANTERN's residual sets Q to 0 after it rejected `tokens`, int64 [...]: bool [..., V].

        These are the k + 1 codes nearest to the rejected one, without that code itself, if its nearest code lent
        probability; otherwise none.
        """
        xp = namespace(p)
        near = self.near[tokens][..., : self.columns]
        codes = xp.arange(p.shape[-1], dtype=near.dtype, device=near.device)
        among = xp.any(near[..., None] == codes, axis=-2)
        first = xp.take_along_axis(p, near[..., :1], axis=-1)
        return among & (first <= self._limit(xp, xp.take_along_axis(p, tokens[..., None], axis=-1)))

    def lends(self, p: Array) -> Array:
        """Return whether the nearest code of each code lends it probability under P [..., V]: bool [..., V]."""
        return p[..., self.near[:, 0]] <= self._limit(namespace(p), p)

    def _sum(self, xp: Any, lent: Array, own: Array) -> Array:
        """Return the largest partial sum of lent [..., k] within the bound of own [..., 1], 0 if there is none.

        Sums and bound are compared in P's own precision, as LANTERN does: with P in float32, a bound of .1 admits the
        sum that rounds to float32's .1. The sums are accumulated in float64, so that their order does not matter.
        """
        partial = xp.astype(xp.cumulative_sum(lent, axis=-1, dtype=xp.float64), own.dtype)
        within = partial <= self._limit(xp, own)
        return xp.astype(xp.max(xp.where(within, partial, xp.zeros_like(partial)), axis=-1), xp.float64)

    def _limit(self, xp: Any, own: Array) -> Any:
        """Return the bound on c of a token of probability `own`, in the precision of `own`."""
        if self.kind == "lantern":
            return xp.full_like(own, self.bound)
        return xp.full_like(own, self.bound - 1) * own


def columns_read(k: int, codes: int) -> int:
    """Return the number of table columns that k lending neighbours need.

    LANTERN's residual reads one more than may lend, if the codebook has one.
    """
    return min(k + 1, codes - 1)


def nearest_codes(codebook: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Return the k nearest other codes of each code, int64 [V, k], by Euclidean distance, nearest first, ties by index.

    codebook: the raw vectors [V, D]. Raises UserError unless 1 <= k < V.
    """
    x = np.asarray(codebook, np.float64)
    count = len(x)
    if not 1 <= k < count:
        raise UserError("neighbours", expected=f"1 to {count - 1}, the codebook's other codes", found=str(k))
    near = np.empty((count, k), np.int64)
    squares = (x**2).sum(1)
    for start in range(0, count, 1024):  # in blocks of rows: V^2 distances of a large codebook do not fit in memory
        rows = np.arange(start, min(start + 1024, count))
        distance = squares[rows, None] - 2 * x[rows] @ x.T + squares
        distance[np.arange(len(rows)), rows] = np.inf
        # A tenth of the time of sorting whole rows, for the 49,152 tokens of a language model.
        last = np.partition(distance, k - 1, axis=1)[:, k - 1]
        for row, own, far in zip(rows, distance, last, strict=True):
            close = np.flatnonzero(own <= far)  # with ties at the end more than k, in the order of their indices
            near[row] = close[np.argsort(own[close], kind="stable")[:k]]
    return near
