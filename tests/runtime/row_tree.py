"""`tests.runtime.tree` for drafts of a row head: every way an image can be drawn, and the law of it in closed form.

Q of a draft depends on the decided tokens and on the draft's place in its round, never on other drafts. The fake below
answers with NaN where it is given anything else than what is decided: a token or a feature of another position, row or
image, or a feature of a rejected draft.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from coolsd_rt.arrays import Array
from coolsd_rt.contract import ModelDims
from coolsd_rt.law import Law, exact
from tests.runtime.fakes import FakeRowSession, Tables, context_index, contexts, dims
from tests.runtime.tree import THIN, Box, Context, Floats, Leaf, Method, draw, whole_law


@dataclass(frozen=True, eq=False)
class RowImage:
    """An image of `tokens` tokens in rows of `row`, of which the first `ahead` drafts are guessed along the row."""

    vocab: int
    tokens: int
    row: int
    ahead: int
    seed: int = 0

    @property
    def tables(self) -> Tables:
        """Target P by context; the draft's table is not used."""
        return Tables.random(self.vocab, self.tokens, self.seed)

    @property
    def guesses(self) -> Floats:
        """Q by decided context and place in the round, [contexts, row, V]."""
        rng = np.random.default_rng(self.seed + 1)
        weights = np.exp(rng.standard_normal((contexts(self.vocab, self.tokens), self.row, self.vocab)))
        return np.asarray(weights / weights.sum(-1, keepdims=True), np.float64)

    @property
    def dims(self) -> ModelDims:
        return replace(dims(self.vocab, self.tokens), draft_layers=0, row=self.row, ahead=self.ahead)

    def most(self, begin: int) -> int:
        """Drafts of a round that begins at this token: to its row's last token; in the first row `ahead`."""
        end = (begin // self.row + 1) * self.row
        return min(end - begin, self.ahead) if end == self.row else end - begin

    def length(self, codes: Context, longest: int) -> int:
        return min(longest, self.tokens - len(codes) - 1, self.most(len(codes)))

    def law(self, law: Law) -> dict[Context, float]:
        """The law of the image, by the closed form of each round."""
        tables, guesses = self.tables, self.guesses

        def rounds(codes: Context) -> Iterable[tuple[Context, float]]:
            own = guesses[index_of(codes, self.vocab)]
            many = self.length(codes, law.length)
            return exact.round_law(
                tables.p, lambda context: own[len(context) - len(codes)], law, codes, many + 1
            ).items()

        return whole_law(self.tokens, tables.p(()), rounds)

    def leaves(self, method: Method) -> list[Leaf]:
        """All paths through all draws."""
        tables, guesses = self.tables, self.guesses

        def point(law: Floats, n: int) -> Floats:
            fixed = method.fixed(n)
            return law if fixed is None else np.asarray(np.eye(len(law))[fixed], np.float64)

        def image(codes: Context, box: Box, rounds: int, accepted: int) -> Iterator[Leaf]:
            if len(codes) == self.tokens:
                yield Leaf(codes, box, rounds, accepted, 0)
                return
            for new, more, kept in window(codes, (), self.length(codes, len(method.omegas))):
                yield from image(codes + new, box + more, rounds + 1, accepted + kept)

        def window(codes: Context, done: Context, length: int) -> Iterator[tuple[Context, Box, int]]:
            i, n = len(done), len(codes) + len(done)
            p = point(tables.p(codes + done), n)
            if i == length:
                yield from (((*done, x), box, i) for x, box in draw(p, (n, i, 2)))
                return
            q = point(np.asarray(guesses[index_of(codes, self.vocab), i], np.float64), n)
            for x, drawn in draw(q, (n, i, 0)):
                rate = 1.0 if method.fixed(n) is not None else method.rate(p, q, i, x)
                if rate > THIN:
                    for new, box, kept in window(codes, (*done, x), length):
                        yield new, (*drawn, ((n, i, 1), 0.0, rate), *box), kept
                if 1 - rate > THIN:
                    law, _ = method.after_rejection(p, q, method.omegas[i], x)
                    for y, box in draw(law, (n, i, 2)):
                        yield (*done, y), (*drawn, ((n, i, 1), rate, 1.0), *box), i

        return [leaf for x, box in draw(point(tables.p(()), 0), (0, 0, 2)) for leaf in image((x,), box, 0, 0)]


def index_of(codes: Context, vocab: int) -> int:
    return int(context_index(np.array([codes], np.int64), np.array([len(codes)]), vocab)[0])


def tokens_of(index: int, vocab: int) -> Context:
    """The tokens of a context's number."""
    found: list[int] = []
    while index:
        index, x = divmod(index - 1, vocab)
        found.append(x)
    return tuple(reversed(found))


class RowHeadSession(FakeRowSession):
    """A session with a row head over the tables of a `RowImage`."""

    def __init__(self, image: RowImage, images: int, **more: Any) -> None:
        super().__init__(image.tables, image.dims, images, **more)
        self.image, self._guesses = image, image.guesses

    def draft(self, ids: Array, features: Array, pos: Array) -> tuple[Array, Array]:
        raise AssertionError("a row head has one kind of step")

    def draft_row(self, ids: Array, features: Array, end_ids: Array, end_features: Array, first_below: Array) -> Array:
        self.calls.append("draft")
        ids_, ends_, first = (self._in(x, np.int64) for x in (ids, end_ids, first_below))
        features_, last_ = self._in(features, np.float64), self._in(end_features, np.float64)
        d, rows, count = self.image, self.rows, ids_.shape[1]
        assert ends_.shape == (rows, 2)
        assert count <= d.row
        logits = np.full((rows, count, d.vocab), np.nan)
        for r in range(rows):
            begin = int(last_[r, 1, 2]) - self._dims.prefix + 2
            if begin >= d.tokens:
                logits[r] = 0.0  # an image that is complete
                continue
            logits[r, d.most(begin) :] = 0.0  # padding, beside images with longer rows
            known = tokens_of(int(last_[r, 1, 0]), d.vocab)
            codes = (*known, int(ends_[r, 1]))
            assert len(codes) == begin
            if int(first[r]) != max(0, d.row - begin) or not self._is(last_[r, 1], r, codes, begin - 1):
                continue
            for s in range(min(count, d.most(begin))):
                above = begin - d.row + s
                pairs = [(ids_[r, s], features_[r, s], above)]
                beside = (ids_[r, s + 1], features_[r, s + 1]) if s + 1 < count else (ends_[r, 0], last_[r, 0])
                pairs.append((*beside, min(above + 1, begin - 1)))
                fits = all(x == codes[k] and self._is(f, r, codes, k) for x, f, k in pairs if k >= 0)
                if above < 0 or fits:
                    logits[r, s] = np.log(self._guesses[index_of(codes, d.vocab), s])
        return self._out(logits)

    def _is(self, feature: Floats, row: int, codes: Context, k: int) -> bool:
        """Whether it is the target's feature before token k of these codes, of this row."""
        wanted = (index_of(codes[:k], self.image.vocab), self.names[row], self._dims.prefix + k - 1, 1)
        return tuple(feature.tolist()) == wanted
