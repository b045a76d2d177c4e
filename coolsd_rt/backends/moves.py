"""Which cache rows move when a path of a tree was accepted, for every backend.

The nodes of a tree lie behind each other in the caches, those of the accepted path in between others. Moved together,
they are what a chain of the same tokens would have written. Knows NumPy. Does not know caches. Legend as in
`coolsd_rt.contract`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from coolsd_rt.arrays import Ints


class Moves(NamedTuple):
    """Cache rows that move, each int64 [n]: in batch row `rows[i]` from `sources[i]` to `sinks[i]`.

    All sources are read before a sink is written.
    """

    rows: Ints
    sources: Ints
    sinks: Ints


def moves_of(pos: Any, path: Any, count: Any) -> Moves:
    """Return the moves of accepted paths; nodes that are in their place already have none.

    pos: int64 [R], the position of the pending token, whose cache row stays.
    path: int64 [R, D], the accepted node at each depth; node i lies in cache row pos + 1 + i.
    count: int64 [R], how many nodes of each path were accepted.
    """
    pos, path, count = (np.asarray(x, np.int64) for x in (pos, path, count))
    depth = np.arange(path.shape[1])
    rows, at = np.nonzero((depth < count[:, None]) & (path != depth))
    first = pos[rows] + 1
    return Moves(rows, first + path[rows, at], first + at)
