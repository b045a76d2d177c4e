"""Per-batch state of the decoding loop: row layout, CFG scales, forced tokens, uniforms, logits to probabilities.

Shared by the round and every drafter. Each image has sampling settings of its own; where they differ, logits are
processed by kinds of settings, so that an image's probabilities are those that it has alone, to the last bit. Knows how
per-image values become per-row arrays of the session. Does not know where drafts come from or how they are verified.
Legend as in `coolsd_rt.runtime.round`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from coolsd_rt.arrays import Array, Host, Ints
from coolsd_rt.law.arrays import namespace
from coolsd_rt.ops import process_logits
from coolsd_rt.runtime.interface import Session
from coolsd_rt.runtime.mates import mates
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.runtime.state import State
from coolsd_rt.runtime.statistics import Stopwatch

if TYPE_CHECKING:
    from coolsd_rt.runtime.trees import TreeShape

_PREFIX_LOGITS, _LEAST_PART = 1 << 22, 64  # logits of a row's step over a part of its prefix; positions of a part
_NAMES = {np.dtype(name): name for name in ("int64", "float32", "float64", "bool")}  # str(dtype) takes microseconds


class Window(NamedTuple):
    """The values that one round uses, one entry per image. Window index i counts from the first undecided token."""

    active: Host  # bool [M], the images that are not finished
    at: Ints  # [M, L + 1], the image token of each window index
    uniforms: Host  # [M, L + 1, 3], last axis: purpose; of a tree [M, K + 1, 3], by node
    scale: Array | None  # CFG scale [M, L + 1]; None without CFG


class Judged(NamedTuple):
    """The drafts of a round after their verification; L' is the longest window. Of a tree: along its path.

    The path of a tree goes on behind the accepted nodes by the first sibling of each depth.
    """

    num_drafts: Ints  # [M], drafts that were verified
    drafts: Array  # int64 [M, L']
    target: Array  # P [M, L' + 1, V]
    draft: Array  # Q [M, L', V]
    accepted: Array  # int64 [M]
    token: Array  # int64 [M], after the accepted drafts
    degenerate: Array  # bool [M]
    steps: int = 1  # of the target; more under the rule per_position
    distance: Host | None = None  # [M], of that rule: `coolsd_rt.runtime.position_round`


class Processing(NamedTuple):
    """The settings of a step from logits to probabilities that cannot differ inside one call of it."""

    temperature: float
    top_k: int
    top_p: float

    @staticmethod
    def of(sampling: Sampling) -> Processing:
        """Return those of an image's settings."""
        return Processing(sampling.temperature, sampling.top_k, sampling.top_p)


class Batch:
    """The values of a batch that stay the same from round to round, its `state`, and the finished images.

    lengths: int64 [M], the draft length of each image; `length` is the longest. samplings: one entry per image. tree:
    that the drafts of a round are, of all images; None for a chain.
    """

    def __init__(
        self,
        session: Session,
        sampling: Sampling,
        uniforms: Host,
        forced: Ints | None,
        watch: Stopwatch,
        state: State,
        tree: TreeShape | None = None,
    ) -> None:
        """uniforms: [M, N, L + 1, 3] as `uniform_table` lays them out; [M, N, K + 1, 3] with a tree of K nodes.

        forced: int64 [N], -1 = free, or None.
        """
        dims, images = session.dims, uniforms.shape[0]
        self.session, self.forced = session, forced
        self.state, self.tree = state, tree
        self.lengths = np.full(images, tree.depth if tree else uniforms.shape[2] - 1, np.int64)
        self.watch = watch
        self.paired = sampling.guided
        self.idle: Array | None = None  # bool [M], the finished images; None while there are none
        self.uniforms = uniforms
        self._scales = np.broadcast_to(sampling.scales(dims.tokens), (images, dims.tokens))
        self._settle([sampling] * images)

    def _settle(self, samplings: list[Sampling]) -> None:
        """Derive what follows from the images that are there now."""
        self.samplings = samplings
        tree, numbers = self.tree, self.uniforms.shape[2]
        self.length = tree.depth if tree else numbers - 1
        self.rows = np.arange(len(samplings))
        self.row_ids = self.rowwise(self.rows, offset=len(samplings))
        self._offsets = np.arange(numbers)
        # The window index whose token each number is for: node i, at depth d, may become the token at index d - 1.
        self._index = np.append(tree.depths[1:] - 1, tree.depth) if tree else self._offsets
        self.confidence = np.array([sampling.confidence for sampling in samplings])
        self.draft_confidence = np.array([sampling.draft_confidence for sampling in samplings])
        self.kinds = [Processing.of(sampling) for sampling in samplings]
        self._parts: list[tuple[Processing, Array, Array]] = []  # images and their rows, by kind; empty if all are one
        every = dict.fromkeys(self.kinds)
        for kind in every if len(every) > 1 else ():
            images = np.flatnonzero([other == kind for other in self.kinds])
            rows = np.concatenate([images, images + len(samplings)]) if self.paired else images
            self._parts.append((kind, self.put(images), self.put(rows)))

    def take(self, keep: Ints, other: Batch | None = None) -> None:
        """Keep the images `keep` int64 of this batch and, counted on from its last, of `other`, in this order."""
        batches = mates(self, other)
        longest = max(batch.uniforms.shape[2] for batch in batches)
        tables = [
            np.pad(batch.uniforms, ((0, 0), (0, 0), (0, longest - batch.uniforms.shape[2]), (0, 0)))
            for batch in batches
        ]  # numbers of drafts that an image never draws
        self.uniforms = np.concatenate(tables)[keep]
        self.lengths = np.concatenate([batch.lengths for batch in batches])[keep]
        self._scales = np.concatenate([batch._scales for batch in batches])[keep]
        self.state.take(keep, None if other is None else other.state)
        self.idle = None
        samplings = [sampling for batch in batches for sampling in batch.samplings]
        self._settle([samplings[m] for m in keep.tolist()])

    def drop_drafts(self) -> None:
        """Let all images be drawn without drafts from now on."""
        self.uniforms = self.uniforms[:, :, :1]
        self.lengths = np.zeros_like(self.lengths)
        self.tree = None
        self._settle(self.samplings)

    def window(self, active: Host) -> Window:
        """Return the window of the next round, which starts at each image's first undecided token."""
        at = self.state.image_index(self.state.committed, self.length + 1)
        uniforms = self.uniforms[self.rows[:, None], at[:, self._index], self._offsets]
        return Window(active, at, uniforms, self.scale(at))

    def put(self, host: Host) -> Array:
        """Copy a host array to the session's array type."""
        return self.session.asarray(host, _NAMES[host.dtype])

    def rowwise(self, host: Host, offset: int = 0) -> Array:
        """Repeat a value per image [M] to a value per row [R], int64. `offset` is added in the unconditional rows."""
        return self.put(self.host_rows(host, offset))

    def host_rows(self, host: Host, offset: int = 0) -> Host:
        """As `rowwise`, on the host."""
        return np.concatenate([host, host + offset]) if self.paired else host

    def blanks(self, width: int) -> Iterator[Array]:
        """Yield ids int64 [R, S] for `width` positions of the prefix, whose embeddings come from the prompt, in parts.

        A step returns logits of all its positions: those of a long prompt at once would take gigabytes. The sizes of
        the parts depend on the vocabulary alone; they are counted from the first position of the batch.
        """
        most = max(_LEAST_PART, _PREFIX_LOGITS // self.session.dims.vocab // _LEAST_PART * _LEAST_PART)
        for at in range(0, width, most):
            yield self.rowwise(np.zeros((len(self.rows), min(most, width - at)), np.int64))

    def both(self, ids: Array) -> Array:
        """Repeat a session's array [M, ...] to [R, ...]: both rows of an image have the same ids."""
        return namespace(ids).concat([ids, ids], axis=0) if self.paired else ids

    def scale(self, at: Ints) -> Array | None:
        """Return the CFG scale of each image token, with the shape of `at`; None without CFG."""
        return self.put(self._scales[self.rows[:, None], at]) if self.paired else None

    def distribution(self, logits: Array, scale: Array | None, at: Ints, start: int = 0) -> Array:
        """Return P or Q [M, S, V] at window indices start..start+S-1. A forced token is a point mass in both."""
        window = slice(start, start + logits.shape[1])
        probs = self._processed(logits, None if scale is None else scale[:, window])
        if self.idle is not None:  # rows of finished images may hold anything, NaN included
            probs[self.idle] = 1.0 / probs.shape[-1]
        return self.pinned(probs, at[:, window])

    def _processed(self, logits: Array, scale: Array | None) -> Array:
        """Return the probabilities [M, S, V] of logits [R, S, V], each image's by its own settings."""
        if not self._parts:
            return process_logits(logits, scale, *self.kinds[0])
        probs: Array = None
        for kind, images, rows in self._parts:
            part = process_logits(logits[rows], None if scale is None else scale[images], *kind)
            if probs is None:
                xp = namespace(part)
                probs = xp.empty((len(self.rows), *part.shape[1:]), dtype=part.dtype, device=part.device)
            probs[images] = part
        return probs

    def pinned(self, probs: Array, at: Ints) -> Array:
        """Set distributions [M, S, V] of image tokens `at` [M, S] to point masses, in place, at forced tokens."""
        if self.forced is not None:
            ids = self.forced[at]
            for row, i in np.argwhere(ids >= 0).tolist():
                probs[row, i] = 0.0
                probs[row, i, int(ids[row, i])] = 1.0
        return probs

    def forced_mask(self, at: Ints) -> Array | None:
        """Return bool with the shape of `at`: which image tokens are forced; None if none is."""
        if self.forced is None:
            return None
        mask = self.forced[at] >= 0
        return self.session.asarray(mask, "bool") if mask.any() else None


def to_host(array: Array) -> Host:
    """Copy a session's array to the host.

    For small results, once per round; large arrays stay where they are computed.
    """
    return array if isinstance(array, np.ndarray) else np.asarray(array.tolist())


def rows_of(keep: Ints, batches: Sequence[Batch]) -> Ints:
    """Return the rows of the images `keep`, counted on from one batch to the next: all conditional ones first."""
    images = [len(batch.rows) for batch in batches]
    sides = 2 if batches[0].paired else 1
    starts = np.cumsum([0, *(sides * count for count in images)])
    of = np.concatenate([np.arange(count) + start for count, start in zip(images, starts[:-1], strict=True)])
    beside = np.concatenate([np.full(count, count) for count in images])  # from an image's first row to its second
    return np.concatenate([of[keep] + side * beside[keep] for side in range(sides)])


def gathered(parts: Sequence[Array], index: Array) -> Array:
    """Return entries `index` int64 of a session's arrays [n, S, ...], counted on from one array to the next.

    The second axis of shorter arrays is padded with zeros.
    """
    xp, longest = namespace(parts[0]), max(part.shape[1] for part in parts)
    padded = []
    for part in parts:
        if part.shape[1] < longest:
            whole = xp.zeros((part.shape[0], longest, *part.shape[2:]), dtype=part.dtype, device=part.device)
            whole[:, : part.shape[1]] = part
            part = whole
        padded.append(part)
    return (xp.concat(padded, axis=0) if len(padded) > 1 else padded[0])[index]
