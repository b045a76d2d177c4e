"""Smaller windows with the figures of the whole ones: codes of one ratio P/Q are merged, codes without weight dropped.

A law of the rule `ratio` sees a code only through P and Q there, and scales with them: what it accepts, what it draws
after a rejection, and every probability and distance of `coolsd_rt.law.traces` are the same if codes with one ratio
P/Q count as one code, with the sums of their P and Q (the ratio is a sufficient statistic). So V codes become about
250 bins of ratios.

Columns of a merged position: each end token by itself; the drafted token by itself, so that the weights along the
drafts have its own P and Q; codes with P = 0; codes with Q = 0; ratios below e^-6; bins of log(P/Q) that are `WIDTH`
wide, with an edge at 0; ratios of e^6 and above.

Error of the bins, w = `WIDTH`, for omegas between e^-6 and e^6:

- TV(P, Q) and every figure of lossless decoding are exact, since no bin has ratios on both sides of 1.
- A law's weights are linear in P and Q on each bin, except where the bin has 1/omega inside. There the merged code is
  accepted more, by at most 1 - e^-w of the bin's weight. The drafted token's own figures are exact. So the accept
  length grows by at most the share 1 - e^-w of itself (5%). On random windows of 5,000 codes it grows by 0.002%.
- The divergence loses what codes of one bin differ by, at most w^2 / 8 a position (0.0003 nats), and is off by what the
  bin with 1/omega inside accepts too much. On the same windows it is off by at most 0.7%, where log(P/Q) has a
  deviation of 0.2 and so fills few bins, and by 0.04% where it has 0.8.

LANTERN's rules look at codes by their number and have no answer on merged windows.

Knows windows of P and Q. Does not know schedules or budgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.arrays import Floats64
from coolsd_rt.law.traces import RecordedRounds

WIDTH = 0.05
"""Width of a bin of log(P/Q)."""
_HALF = 120  # bins on each side of P = Q
_NOT_TARGET, _NOT_DRAFT, _BELOW = range(1, 4)  # columns, from that of the drafted token on


def columns(ends: int) -> int:
    """Return the number of columns of a merged position. ends: number of end tokens."""
    return ends + _BELOW + 2 * _HALF + 2


def merge_codes(
    target: NDArray[Any], draft: NDArray[Any], drafts: NDArray[np.int64], ends: Sequence[int] = ()
) -> tuple[Floats64, Floats64, NDArray[np.int64]]:
    """Merge the codes of positions: P and Q [k, V] become float64 [k, columns], drafts [k] the drafts' columns.

    ends: codes that keep columns of their own, the first ones, in this order.
    """
    shape = len(drafts), columns(len(ends))
    p, q, column_of = np.zeros(shape), np.zeros(shape), np.zeros(len(drafts), np.int64)
    for row, (own_p, own_q, token) in enumerate(zip(target, draft, drafts.tolist(), strict=True)):
        column = _columns(np.asarray(own_p, np.float64), np.asarray(own_q, np.float64), token, ends)
        p[row], q[row] = (np.bincount(column, weights, shape[1]) for weights in (own_p, own_q))
        column_of[row] = column[token]
    return p, q, column_of


def _columns(p: Floats64, q: Floats64, token: int, ends: Sequence[int]) -> NDArray[np.int64]:
    """Return the column of each code, [V]."""
    both = (p > 0) & (q > 0)
    ratio = np.log(np.divide(p, q, out=np.ones_like(p), where=both))
    bins = np.clip(np.floor(ratio / WIDTH), -_HALF - 1, _HALF).astype(np.int64) + _HALF + 1 + _BELOW
    column: NDArray[np.int64] = len(ends) + np.where(both, bins, np.where(q > 0, _NOT_TARGET, _NOT_DRAFT))
    column[token] = len(ends)
    column[list(ends)] = np.arange(len(ends))
    return column


def merge(windows: RecordedRounds) -> RecordedRounds:
    """Merge the codes of whole windows."""
    count, length = windows.drafts.shape
    vocab = windows.target.shape[-1]
    flat = count * length, vocab
    p, q, drafts = merge_codes(
        windows.target.reshape(flat), windows.draft.reshape(flat), windows.drafts.ravel(), windows.ends
    )
    shape = count, length, -1
    return replace(
        windows,
        target=p.reshape(shape),
        draft=q.reshape(shape),
        drafts=drafts.reshape(count, length),
        ends=tuple(range(len(windows.ends))),
        merged=True,
    )


def compact(windows: RecordedRounds) -> RecordedRounds:
    """Reduce the windows to the codes to which P or Q gives weight: a filter like top-k leaves a few dozen of V.

    Positions that do not count are never used, and become uniform. End tokens become the first codes.
    """
    counts = windows.counts
    seen = ((windows.target > 0) | (windows.draft > 0)) & counts[..., None]
    seen[..., list(windows.ends)] = True
    width = max(1, int(seen.sum(-1).max()))
    if width == seen.shape[-1]:
        return windows
    rank = np.where(seen, len(windows.ends), len(windows.ends) + 1)
    rank[..., list(windows.ends)] = np.arange(len(windows.ends))
    order = np.argsort(rank, axis=-1, kind="stable")[..., :width]
    drafts = (order == windows.drafts[..., None]).argmax(-1)
    target, draft = (
        np.where(counts[..., None], np.take_along_axis(a, order, axis=-1), 1.0 / width)
        for a in (windows.target, windows.draft)
    )
    return replace(windows, target=target, draft=draft, drafts=drafts, ends=tuple(range(len(windows.ends))))
