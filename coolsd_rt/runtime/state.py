"""The authoritative counters of every image in a batch.

Host integers and token ids only: no arrays of an engine, no probabilities. `coolsd_rt.runtime.round` describes the
counters and the invariants that hold between rounds.

Legend: M images, W prefix length, N image tokens. Positions count the prefix: image token n is position W + n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.arrays import Array, Host, Ints
from coolsd_rt.contract import ModelDims
from coolsd_rt.runtime.mates import mates

CATCH_UP = 16  # number of rounds without a draft after which the draft's cache is updated


def capacity(dims: ModelDims, length: int, paced: bool = False) -> int:
    """Return the number of cache positions that a session needs at draft length `length`.

    They hold the image and the padding of ragged rows after it. length: of a tree, the number of its nodes. paced:
    rounds may skip drafting, in which case ragged rows grow by up to `CATCH_UP`.
    """
    return dims.positions + length + (CATCH_UP + length if paced else 0)


@dataclass
class State:
    """The counters, one entry per image.

    Both CFG rows of an image share its entry, since every decision is for both.
    """

    prefix: int
    tokens: int
    codes: Host  # [M, N] image token ids, or vectors [M, N, d]; entries at or after `committed` are undefined
    committed: Ints  # [M] positions whose token is decided
    cached: Ints  # [M] positions in the target's KV cache
    drafted: Ints  # [M] rows of the draft's KV cache that were made from real features
    limit: Ints  # [M] tokens that complete the image: N, less for a text with a limit or once it has its end
    ends: frozenset[int] = frozenset()  # the tokens that complete a text

    @staticmethod
    def empty(images: int, dims: ModelDims, ends: Sequence[int] = (), limits: Sequence[int] | None = None) -> State:
        """Return the state before the prefill: nothing decided, nothing cached.

        ends: see the field. limits: one entry per image, 1 to N; None: N.
        """
        zeros = [np.zeros(images, np.int64) for _ in range(3)]
        limit = np.full(images, dims.tokens, np.int64) if limits is None else np.asarray(limits, np.int64)
        codes = np.zeros((images, dims.tokens), np.int64)
        committed, cached, drafted = zeros
        return State(dims.prefix, dims.tokens, codes, committed, cached, drafted, limit, frozenset(ends))

    def take(self, keep: Ints, other: State | None = None) -> None:
        """Keep the images `keep` int64 of this state and, counted on from its last, of `other`, in this order."""
        states = mates(self, other)
        for name in ("codes", "committed", "cached", "drafted", "limit"):
            setattr(self, name, np.concatenate([getattr(state, name) for state in states])[keep])

    @property
    def remaining(self) -> Ints:
        """[M] number of image tokens that are not decided yet; of a text, the most that can follow."""
        return self.prefix + self.limit - self.committed

    @property
    def decided(self) -> Ints:
        """[M] number of image tokens that are decided."""
        return self.committed - self.prefix

    def image_index(self, position: Ints, width: int) -> Ints:
        """Return [M, width] indices of image tokens from `position` [M] on.

        Past the end: the last token, as padding.
        """
        index: Ints = np.minimum((position - self.prefix)[:, None] + np.arange(width), self.tokens - 1)
        return index

    def cut(self, window: Ints, accepted: Ints) -> Ints:
        """Return `accepted` [M] without what stands behind the first end token of a window [M, up to L + 1].

        The end is then the last token that counts. What is dropped was decided given everything before it, so that the
        law of the tokens up to the end is what it would be without the drafts behind it.
        """
        if not self.ends:
            return accepted
        is_end = np.isin(window, list(self.ends))
        first = np.where(is_end.any(axis=1), is_end.argmax(axis=1), window.shape[1])
        kept: Ints = np.minimum(accepted, first)
        return kept

    def commit(self, window: Host, accepted: Ints, active: NDArray[np.bool_]) -> None:
        """Decide window[m, :accepted[m] + 1] for each active image. This is also the rollback: two sums, no copy.

        window: [M, up to L + 1], of vectors [M, up to L + 1, d]: the accepted drafts and the token after them,
        `accepted` as `cut` returns it. The accepted positions of the target's last step count as cached now; the last
        decided token becomes the next round's pending token, or completes a text.
        """
        width = window.shape[1]
        new = (np.arange(width) <= accepted[:, None]) & active[:, None]
        rows, columns = np.nonzero(new)
        self.codes[rows, self.committed[rows] - self.prefix + columns] = window[rows, columns]
        grown = np.where(active, accepted + 1, 0)
        self.committed += grown
        self.cached += grown
        self.complete(window[np.arange(len(window)), accepted], active)

    def complete(self, last: Ints, active: NDArray[np.bool_]) -> None:
        """Let the texts end whose last decided token `last` [M] is an end token."""
        if self.ends:
            done = active & np.isin(last, list(self.ends))
            self.limit = np.where(done, self.decided, self.limit)


@dataclass(frozen=True)
class RoundRecord:
    """What one round saw and decided, for tests and traces. L' is the longest window of the round's images.

    Of a tree: along the path of its accepted nodes, continued by first siblings. P and Q are those of the whole node.

    The session may reuse the arrays that it returned: copy what has to outlive the hook.
    """

    active: NDArray[np.bool_]  # [M] images that were not finished
    offered: Ints  # [M] drafts that were verified
    num_drafts: Ints  # [M] drafts that counted: fewer if an accepted one completed the text
    accepted: Ints  # [M]
    degenerate: NDArray[np.bool_]  # [M] rejections that found no residual and drew from P
    drafts: Ints  # [M, L'] as drawn from Q
    window: Ints  # [M, L' + 1] drafts, with the resampled or bonus token at index `accepted`
    target: Array  # P [M, L' + 1, V]
    draft: Array  # Q [M, L', V]
    steps: int = 1  # of the target; more under the rule per_position alone
    distance: Host | None = None  # [M], of that rule: `coolsd_rt.runtime.position_round`

    @property
    def kept(self) -> Ints:
        """[M] drafts that became tokens: `accepted`, and an end token that was accepted and is not counted there."""
        return self.accepted + (self.num_drafts < self.offered)
