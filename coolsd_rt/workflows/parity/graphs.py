"""Parity of single steps: runs every graph of an engine and the reference on the same inputs.

Walks over whole images as the loop does: prefill, rounds of L+1 positions that include wrong tokens, ragged rows,
rollback by position, the end of the image. Both sides receive the reference's prefix and features, so that each error
belongs to one graph and does not accumulate. Does not know the backends or thresholds.

Legend as in `coolsd_rt.contract`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coolsd_rt.arrays import Host
from coolsd_rt.ops import process_logits, sample
from coolsd_rt.prompts import Conditioner
from coolsd_rt.runtime.interface import Engine, ProposingSession, RowDraftSession, Session, proposing
from coolsd_rt.runtime.randomness import DRAFT, uniform_table
from coolsd_rt.runtime.state import capacity
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.drawing import Job, Settings
from coolsd_rt.workflows.parity.distance import Distances, GraphParity, host

PROPOSE_EVERY = 4  # every 4th round runs the graph `propose`, the others single steps


def compare_graphs(
    tested: Engine,
    reference: Engine,
    jobs: Sequence[Job],
    conditioner: Conditioner,
    settings: Settings,
    codes: Host,
    pixels: bool = True,
) -> GraphParity:
    """Step both engines over the images `codes` int64 [M, n], drawn for `jobs`, with the law's draft length.

    n: number of image tokens, or of a text's tokens, which may be fewer than the engine's.

    pixels: whether the engines decode images; else they write text.
    """
    out = GraphParity()
    guided = settings.sampling.guided
    rows = drawing.prefix_rows(jobs, conditioner, guided)
    prefix = host(reference.encode_condition(rows.text))
    out.condition.add(host(tested.encode_condition(rows.text)), prefix)
    if pixels:
        out.image.add(host(tested.decode_images(codes)), host(reference.decode_images(codes)))
    size = capacity(reference.dims, max(1, settings.law.length))
    sides = (tested.open(prefix, size, rows.start), reference.open(prefix, size, rows.start))
    walk = _Walk(sides, settings, codes, rows.start, out)
    walk.prefill()
    while walk.position.min() < walk.last:
        walk.round()
    return out


class _Walk:
    """Runs both sessions along given images. `position` int64 [M]: the next position to enter the target.

    start: int64 [R], the first position of each row. Outputs before it are padding and are not compared.
    """

    def __init__(
        self, sides: tuple[Session, Session], settings: Settings, codes: Host, start: Host, out: GraphParity
    ) -> None:
        tested, reference = sides
        self.tested, self.reference, self.settings, self.codes, self.out = tested, reference, settings, codes, out
        self.start = start
        self.dims, self.length = reference.dims, max(1, settings.law.length)
        self.tokens = codes.shape[1]
        self.last = self.dims.prefix + self.tokens - 1  # position of the last token, which never enters the target
        self.kind = self.dims.draft_kind
        self.images = len(codes)
        self.rows = 2 if settings.sampling.guided else 1
        self.position = np.full(self.images, self.dims.prefix, np.int64)
        self.drafted = np.full(self.images, self.dims.prefix - 1, np.int64)
        self.scales = settings.sampling.scales(self.dims.tokens)
        self.free = None if settings.forced is None else np.asarray(settings.forced) < 0  # bool [tokens]
        self.uniforms = uniform_table(range(self.images), self.dims.tokens, self.length)[..., DRAFT]
        self.rounds = 0

    def prefill(self) -> None:
        first = self.tested.dims.first(self.start)
        width = self.dims.prefix - first
        blank, begin = np.zeros((self.images, width), np.int64), np.full(self.images, first)
        _, features = self._target(blank, begin)
        if self.kind == "model":
            self._draft(blank, None, begin)
            self.drafted += 1  # row t of its cache belongs to token t, not to feature t
        elif self.kind == "eagle" and width > 1:
            self._draft(blank[:, 1:], features[:, :-1], begin)
        self.features = features[:, -1:]
        if self.kind == "rows":
            self._keep(features, np.zeros(self.images, np.int64) + width)

    def round(self) -> None:
        """Run one round along the true tokens. The number of drafts that count as accepted cycles through 0..L."""
        if self.kind == "eagle":
            self._drafts(np.maximum(self.position - self.drafted, 1))  # finished images are stepped too
        elif self.kind == "model":
            self._own_drafts(np.maximum(self.position + 1 - self.drafted, 1))
        elif self.kind == "rows":
            self._row_drafts()
        accepted = (np.arange(self.images) + self.rounds) % (self.length + 1)
        last = self.last
        accepted = np.clip(np.minimum(accepted, last - self.position - 1), 0, None)
        at = self._at(self.position - self.dims.prefix, self.length + 1)
        window = self.codes[np.arange(self.images)[:, None], at]
        wrong = np.arange(self.length + 1) > accepted[:, None]
        window = np.where(wrong, (window + 1 + self.rounds) % self.dims.vocab, window)
        logits, self.features = self._target(window, self.position)
        if self.kind == "rows":
            grown = np.minimum(accepted + 1, last - self.position)
            self._keep(np.concatenate([self.above, self.features], axis=1), self.dims.row + grown)
        self._probs(self.out.p, logits, at + 1, ~wrong & (self.position < last)[:, None])
        self.drafted = np.minimum(self.position + (self.kind == "model"), last)
        self.position = np.minimum(self.position + accepted + 1, last)
        self.rounds += 1

    def _drafts(self, num_pending: Host) -> None:
        """Draft steps of an EAGLE head: first with the target's features, then on its own features."""
        width = int(num_pending.max())
        index = self._at(self.drafted + 1 - self.dims.prefix, width)
        ids = self.codes[np.arange(self.images)[:, None], index]
        features = self.features[:, :width]
        uniforms = self.uniforms[np.arange(self.images), self._at(self.position - self.dims.prefix, 1)[:, 0]]
        at = self._at(self.position + 1 - self.dims.prefix, self.length)
        proposed = None
        if self._proposing is not None and self.rounds % PROPOSE_EVERY == 0:
            proposed = self._propose(self._proposing, ids, features, num_pending, uniforms[:, : self.length], at)
        logits, guessed = self._draft(ids, features, self.drafted)
        rows, end = np.arange(self.rows * self.images), self._rowwise(num_pending - 1)
        logits = tuple(side[rows, end][:, None] for side in logits)
        guessed = guessed[rows, end][:, None]
        for i in range(self.length):
            q = self._probs(self.out.q, logits, at[:, i : i + 1], None)
            token = host(sample(q, uniforms[:, i : i + 1]))
            if proposed is not None:
                tokens, probs = proposed
                self.out.propose.add(probs[:, i : i + 1], q)
                self.out.proposed += self.images
                self.out.proposed_alike += int((tokens[:, i : i + 1] == token).sum())
                token = tokens[:, i : i + 1]
            if i + 1 < self.length:
                logits, guessed = self._draft(token, guessed, self.position + i)

    def _own_drafts(self, num_pending: Host) -> None:
        """Draft steps of an independent model: the decided tokens up to `position`, then its own tokens."""
        rows, width = np.arange(self.images), int(num_pending.max())
        ids = self.codes[rows[:, None], self._at(self.drafted - self.dims.prefix, width)]
        logits, _ = self._draft(ids, None, self.drafted)
        every, end = np.arange(self.rows * self.images), self._rowwise(num_pending - 1)
        logits = tuple(side[every, end][:, None] for side in logits)
        at = self._at(self.position + 1 - self.dims.prefix, self.length)
        uniforms = self.uniforms[rows, self._at(self.position - self.dims.prefix, 1)[:, 0]]
        for i in range(self.length):
            q = self._probs(self.out.q, logits, at[:, i : i + 1], None)
            if i + 1 < self.length:
                token = host(sample(q, uniforms[:, i : i + 1]))
                logits, _ = self._draft(token, None, self.position + 1 + i)

    def _keep(self, features: Host, end: Host) -> None:
        """Keep, for a row head, a row's features before column `end` [M] of features [R, S, C]."""
        row = self.dims.row
        columns = self._rowwise(end[:, None] - row + np.arange(row))
        self.above = np.take_along_axis(features, np.maximum(columns, 0)[..., None], axis=1)

    def _row_drafts(self) -> None:
        """The step of a row head: `length` drafts behind the last token before `position`, past the row's end too."""
        row, count = self.dims.row, min(self.length, self.dims.row)
        begin = self.position + 1 - self.dims.prefix
        ids = self.codes[np.arange(self.images)[:, None], self._at(begin - row, row)]
        ends = np.array([min(count, row - 1), row - 1])
        given = (ids[:, :count], self.above[:, :count], ids[:, ends], self.above[:, ends], np.maximum(row - begin, 0))
        logits = []
        for side in (self.tested, self.reference):
            if not isinstance(side, RowDraftSession):
                raise TypeError(f"{type(side).__name__} has no row head")
            a, f, b, g, first = given
            put = [side.asarray(self._rowwise(x), "int64") for x in (a, b, first)]
            features = [side.asarray(x, "float32") for x in (f, g)]
            logits.append(host(side.draft_row(put[0], features[0], put[1], features[1], put[2])).copy())
        at = self._at(begin, count)
        real = self._rowwise(begin[:, None] + np.arange(count) < self.tokens)[..., None]
        self.out.draft.add(*(np.where(real, side, 0) for side in logits))
        self._probs(self.out.q, tuple(logits), at, (begin[:, None] + np.arange(count) < self.tokens))

    @property
    def _proposing(self) -> ProposingSession | None:
        s = self.settings.sampling
        fits = s.guided and s.top_p >= 1 and s.temperature > 0
        return proposing(self.tested, self.length) if fits else None

    def _propose(
        self, side: ProposingSession, ids: Host, features: Host, num_pending: Host, uniforms: Host, at: Host
    ) -> tuple[Host, Host]:
        s = self.settings.sampling
        tokens, probs = side.propose(
            side.asarray(self._rowwise(ids), "int64"),
            side.asarray(features, "float32"),
            side.asarray(self._rowwise(self.drafted), "int64"),
            side.asarray(self._rowwise(num_pending), "int64"),
            side.asarray(uniforms, "float32"),
            side.asarray(self.scales[at], "float32"),
            s.temperature,
            s.top_k or self.dims.vocab,
        )
        return host(tokens), host(probs)

    def _target(self, ids: Host, pos: Host) -> tuple[tuple[Host, Host], Host]:
        """Return both sides' logits [R, S, V] and the reference's features."""
        ids, pos = self._rowwise(ids), self._rowwise(pos)
        (a, fa), (b, fb) = (
            tuple(host(x) for x in side.target(side.asarray(ids, "int64"), side.asarray(pos, "int64")))
            for side in (self.tested, self.reference)
        )
        real = self._real(pos, ids.shape[1])
        self.out.target.add(np.where(real, a, 0), np.where(real, b, 0))
        self.out.target_features.add(np.where(real, fa, 0), np.where(real, fb, 0))
        return (a.copy(), b.copy()), fb.copy()

    def _draft(self, ids: Host, features: Host | None, pos: Host) -> tuple[tuple[Host, ...], Host]:
        """Return both sides' logits [R, S, V] and the features that the reference predicts."""
        ids, pos = self._rowwise(ids), self._rowwise(pos)
        (a, _), (b, guessed) = (
            tuple(
                host(x)
                for x in side.draft(
                    side.asarray(ids, "int64"),
                    None if features is None else side.asarray(features, "float32"),
                    side.asarray(pos, "int64"),
                )
            )
            for side in (self.tested, self.reference)
        )
        real = self._real(pos, ids.shape[1], shift=0 if features is None else 1)
        self.out.draft.add(np.where(real, a, 0), np.where(real, b, 0))
        return (a.copy(), b.copy()), guessed.copy()

    def _real(self, pos: Host, width: int, shift: int = 0) -> Host:
        """Return bool [R, S, 1]: the outputs that count.

        Before a row's start and after the image there is only padding.

        shift: 1 for rows of an EAGLE head, which stand for the token after their feature.
        """
        at = pos[:, None] + np.arange(width)
        real: Host = ((at >= self.start[:, None]) & (at + shift <= self.last))[..., None]
        return real

    def _probs(self, into: Distances, logits: tuple[Host, ...], at: Host, keep: Host | None) -> Host:
        """Compare both sides' distributions at image tokens `at` [M, S] where `keep` is set.

        Returns the reference's [M, S, V].

        A forced token is a point mass on both sides whatever the logits are, so it is not compared.
        """
        s = self.settings.sampling
        inside = at < self.tokens
        if self.free is not None:
            inside &= self.free[np.minimum(at, self.tokens - 1)]
        keep = inside if keep is None else keep & inside
        scale = self.scales[np.minimum(at, self.tokens - 1)] if s.guided else None
        a, b = (process_logits(side, scale, s.temperature, s.top_k, s.top_p) for side in logits)
        into.add(a[keep], b[keep])
        return host(b)

    def _at(self, start: Host, width: int) -> Host:
        at: Host = np.minimum(np.maximum(start, 0)[:, None] + np.arange(width), self.tokens - 1)
        return at

    def _rowwise(self, x: Host) -> Host:
        """Repeat [M, ...] to [R, ...]: both CFG rows of an image have the same tokens and positions."""
        return np.concatenate([x] * self.rows)
