"""Rules of other methods, as laws on tiny windows, for comparison with COOL-SD's.

Each is a `RoundRule` of `coolsd_rt.law.comparison`. Only `PositionWise` is also drawn with, where a spec asks for it
(`coolsd_rt.runtime.position_round`); no spec and no engine can name another. What is read from its authors' published
code says so; what their public texts leave open is our reading, and says so too.

- `Grouped`: GSD (arXiv 2508.07747).
- `SkippedVerification`: VVS (arXiv 2511.13587).
- `PositionWise`: SSD (arXiv 2606.20543).
- `RelaxedArgmax`: relaxed acceptance around the target's most probable token, as engines of language models have it.
- The longest accepted path of a tree is `coolsd_rt.law.tree.LongestPath` (SJD-PAC, arXiv 2603.18599), LANTERN's rules
  are `Law` with a `Tolerance`.

Knows P and Q as functions of the tokens so far. Does not know models, sampling, or codebooks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from coolsd_rt.arrays import Floats64, Ints
from coolsd_rt.law.acceptance import acceptance
from coolsd_rt.law.exact import Context, Joint, Model, judged_round, target_law
from coolsd_rt.law.position import position_law
from coolsd_rt.law.residual import residual
from coolsd_rt.law.rules import Law


@dataclass(frozen=True)
class _OnePass:
    """length: drafts of a round."""

    length: int

    @property
    def passes(self) -> int:
        """Target passes of a round."""
        return 1


@dataclass(frozen=True)
class Grouped(_OnePass):
    """Grouped speculative decoding (GSD): accepts x with min(1, P(group) / Q(group)), the group being codes like x.

    From its published code. The codes are ranked by P, the least probable first; the group of a code of rank r has the
    ranks r - radius .. r + radius - 1, as far as they exist, and of these only codes whose P is less than `spread`
    from P(x). A code of a rank below `radius` stands alone. After a rejection the token is drawn from
    Norm([P - Q]_+). There radius is 7 and spread .15, for 8,192 codes, and codes far from x in the codebook are left
    out of the group too; that filter is not here.
    """

    radius: int = 1
    spread: float = 0.15

    def emitted(self, target: Model, draft: Model, context: Context = ()) -> Joint:
        """Return the probability of each token sequence that a round can commit, of 1 to L + 1 tokens."""
        return judged_round(target, draft, self.judge, self.length, context)

    def judge(self, p: Floats64, q: Floats64, i: int) -> tuple[Floats64, Floats64]:
        """Return the probabilities [V] that each code is drafted and accepted, or drawn after a rejection."""
        drafted = np.flatnonzero(q > 0)  # no other code's group is asked for
        together = self.groups(p, drafted)
        rate = np.zeros_like(p)
        rate[drafted] = np.minimum(1.0, (together @ p) / (together @ q))
        return rate * q, _drawn_again(1 - float(rate @ q), residual(p, q, 1.0, "residual")[0])

    def groups(self, p: Floats64, of: Ints) -> Floats64:
        """Return which codes are in the groups of codes `of` int64 [n]: [n, V], 1 or 0."""
        order = np.argsort(p, kind="stable")
        rank = np.empty(len(p), np.int64)
        rank[order] = np.arange(len(p))
        apart = rank[None, :] - rank[of, None]
        near = (apart >= -self.radius) & (apart < self.radius) & (np.abs(p[None, :] - p[of, None]) < self.spread)
        near &= (rank[of] >= self.radius)[:, None]
        near[np.arange(len(of)), of] = True
        return np.asarray(near, np.float64)


@dataclass(frozen=True)
class SkippedVerification(_OnePass):
    """VVS: some steps keep their drafts without a target pass, never two such steps in a row.

    So a pass commits the unverified tokens of at most one skipped step, and the tokens of its own round after them. Our
    reading for a chain of drafts: with probability `share` the first `skipped` of the L drafts are kept as Q drew
    them, and the others are judged without relaxation (omega = 1); else all are judged.

    Their code keeps a random path of an EAGLE-2 tree, cut to the mean length of the paths; it skips where the paths are
    alike, or every n-th step; its other rounds judge such trees, on request with LANTERN's rule. None of this is here.
    """

    skipped: int = 1
    share: float = 1.0

    def emitted(self, target: Model, draft: Model, context: Context = ()) -> Joint:
        """Return the probability of each token sequence that a pass can commit, of 1 to L + 1 tokens."""
        out: Joint = {}
        for skipped, weight in ((self.skipped, self.share), (0, 1 - self.share)):
            for kept, w in target_law(draft, skipped, context).items():
                rest = self.length - skipped
                for tokens, v in judged_round(target, draft, _lossless, rest, context + kept).items():
                    out[kept + tokens] = out.get(kept + tokens, 0.0) + weight * w * v
        return out

    def judge(self, p: Floats64, q: Floats64, i: int) -> tuple[Floats64, Floats64]:
        """As of `Grouped`, in a step that skips: with `share` 1 those of every step."""
        return (np.asarray(q, np.float64), np.zeros(len(q))) if i < self.skipped else _lossless(p, q, i)


@dataclass(frozen=True)
class RelaxedArgmax(_OnePass):
    """Accepts a draft if its P is at most `slack` below the greatest P and it is one of the `top` codes of P.

    No uniform decides. Engines of language models decode greedily with it: a rejected draft is replaced by the most
    probable token (`replaced_by` "argmax"). With "target" the token is drawn from P instead, which is our variant for
    targets that are sampled.
    """

    slack: float = 0.1
    top: int = 10
    replaced_by: Literal["argmax", "target"] = "argmax"

    def emitted(self, target: Model, draft: Model, context: Context = ()) -> Joint:
        """Return the probability of each token sequence that a round can commit, of 1 to L + 1 tokens."""
        return judged_round(target, draft, self.judge, self.length, context)

    def judge(self, p: Floats64, q: Floats64, i: int) -> tuple[Floats64, Floats64]:
        """As of `Grouped`."""
        order = np.argsort(-p, kind="stable")
        good = (p >= p.max() - self.slack) & np.isin(np.arange(len(p)), order[: self.top])
        best = (np.arange(len(p)) == order[0]).astype(np.float64)
        return q * good, _drawn_again(1 - float(q @ good), best if self.replaced_by == "argmax" else p)


@dataclass(frozen=True)
class PositionWise:
    """SSD's relaxed mode: every position of the window is judged by itself, and no rejection stops the others.

    Our reading, for a chain of L drafts and `rounds` judging passes. In each pass P of a position is the target's
    distribution after the guesses before it, kept or not; a guess is kept with min(1, P / Q), else replaced by a draw
    from Norm([P - Q]_+). Q is the distribution that the guess has given the guesses it was made after: the draft's in
    the first pass, then the target's of the pass before. All L tokens are committed after the last pass. A token
    that is committed was judged after guesses that may have been replaced since, hence the bias. In pass n the first n
    positions stand behind final tokens, so that L passes are lossless.

    passes: judging passes alone. Their method has one more for each window, which commits the tokens and drafts anew.
    """

    length: int
    rounds: int = 1

    @property
    def passes(self) -> int:
        """Judging passes of a window."""
        return self.rounds

    def emitted(self, target: Model, draft: Model, context: Context = ()) -> Joint:
        """Return the joint distribution of the L tokens."""
        # A state: the guesses, and those that they were made after.
        states: dict[tuple[Context, Context], float] = {
            (x, x): w for x, w in target_law(draft, self.length, context).items()
        }
        proposer = draft
        for _ in range(self.rounds):
            after: dict[tuple[Context, Context], float] = {}
            kernel = _Kernel(target, proposer, context)
            for (guess, given), weight in states.items():
                for token, w in kernel.window(guess, given):
                    after[token, guess] = after.get((token, guess), 0.0) + weight * w
            states, proposer = after, target
        out: Joint = {}
        for (guess, _), weight in states.items():
            out[guess] = out.get(guess, 0.0) + weight
        return out


class _Kernel:
    """What one judging pass makes of the guesses of a window."""

    def __init__(self, target: Model, proposer: Model, context: Context) -> None:
        self._target, self._proposer, self._context = target, proposer, context
        self._rows: dict[tuple[Context, Context], list[list[tuple[int, float]]]] = {}

    def window(self, guess: Context, given: Context) -> list[tuple[Context, float]]:
        """Return the windows that can follow the guesses, and their probabilities."""
        found: list[tuple[Context, float]] = [((), 1.0)]
        for i, x in enumerate(guess):
            row = self._at(guess[:i], given[:i])[x]
            found = [((*tokens, y), w * v) for tokens, w in found for y, v in row]
        return found

    def _at(self, guess: Context, given: Context) -> list[list[tuple[int, float]]]:
        """Return the law of the token at a position for each guess there, as tokens of positive probability."""
        if (guess, given) not in self._rows:
            p, q = self._target(self._context + guess), self._proposer(self._context + given)
            kept, weights = acceptance(p, q, 1.0), residual(p, q, 1.0, "residual")[0]
            law = np.diag(kept) + np.outer(1 - kept, weights / weights.sum())
            self._rows[guess, given] = [[(y, float(w)) for y, w in enumerate(row) if w > 0] for row in law]
        return self._rows[guess, given]


def _lossless(p: Any, q: Any, i: int) -> tuple[Floats64, Floats64]:
    return position_law(p, q, Law((1.0,)), 0)


def _drawn_again(rejected: float, weights: Floats64) -> Floats64:
    """Return the probabilities [V] of a token that is drawn after a rejection of probability `rejected`."""
    return np.asarray(max(0.0, rejected) * weights / weights.sum(), np.float64)
