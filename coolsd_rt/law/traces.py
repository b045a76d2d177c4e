"""Compute how a law would have performed on recorded rounds, without drawing again.

A recorded window holds P and Q at every position along its drafts, including the rejected ones. So the probability that
any other law reaches a position, its acceptance there, and the distance of its output from the target are expectations
over the recorded drafts: schedules can be compared without new images. The estimates are Rao-Blackwellised: at each
position the sum over all codes is exact, and only the path to that position is sampled.

Knows NumPy arrays. Does not know where they were recorded. Limitation: the contexts in which rounds start are those of
the law that was recorded.

Legend: n windows, L draft length, V codes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.arrays import Floats64
from coolsd_rt.errors import UserError
from coolsd_rt.law.clusters import ImageSums, sums
from coolsd_rt.law.position import Judge, position_law
from coolsd_rt.law.rules import Law


@dataclass(frozen=True)
class RecordedRounds:
    """Recorded rounds.

    target, draft: P and Q [n, L, V] along the drafts.
    drafts: int64 [n, L], each drawn from its Q.
    num_drafts: int64 [n], drafts that count (fewer at the image's end).
    weight: float64 [n], sum 1; None: equal weights.
    image: int64 [n], the image of each round; None: unknown, and then there are no standard errors.
    ends: codes that complete a text. A draft after one of them does not count, and no token follows it.
    merged: whether codes with one ratio P/Q are one code (`coolsd_rt.schedules.merging`).
    """

    target: NDArray[Any]
    draft: NDArray[Any]
    drafts: NDArray[np.int64]
    num_drafts: NDArray[np.int64]
    weight: Floats64 | None = None
    image: NDArray[np.int64] | None = None
    ends: tuple[int, ...] = field(default=(), kw_only=True)
    merged: bool = field(default=False, kw_only=True)

    @property
    def counts(self) -> NDArray[np.bool_]:
        """Whether each draft counts, [n, L]: it is one of `num_drafts`, and no draft before it completes the text."""
        ended = np.isin(self.drafts, self.ends)
        open_ = np.cumsum(ended, axis=1) == ended
        return np.asarray((np.arange(self.length) < self.num_drafts[:, None]) & open_)

    @property
    def length(self) -> int:
        """Draft length L of the recording."""
        return int(self.drafts.shape[1])

    def mean(self, values: Floats64) -> float:
        """Return the weighted mean of values [n] over the windows."""
        return float(values.mean() if self.weight is None else values @ self.weight)


@dataclass(frozen=True)
class RoundForecast:
    """Expected figures of a round.

    accept_length: tokens, the resampled or bonus token included.
    kl: divergence of the joint distribution of the window's tokens from the target's, nats per round; exact for the
    recorded starts, by the chain rule.
    tv_round: total variation of that joint distribution, an unbiased estimate.
    tv: total variation of the distribution at each position, [L].
    reach: probability that each position is evaluated, [L].
    acceptance: probability that an evaluated draft is accepted, [L].
    images: sums per image, for standard errors; None if the images are unknown, or if the windows are weighted (then
    they are the whole population, and there is no error).
    """

    accept_length: float
    kl: float
    tv_round: float
    tv: tuple[float, ...]
    reach: tuple[float, ...]
    acceptance: tuple[float, ...]
    images: ImageSums | None = field(default=None, compare=False, repr=False)

    @property
    def tv_round_error(self) -> float:
        """Standard error of tv_round, with images as observations; NaN if the images are unknown."""
        return math.nan if self.images is None else self.images.tv_of_a_round.error

    @property
    def kl_per_token(self) -> float:
        """KL divergence per generated token, nats."""
        return self.kl / self.accept_length

    @property
    def tv_bound_per_token(self) -> float:
        """The paper's upper bound on total variation per generated token: it adds up over positions at most."""
        return sum(t * r for t, r in zip(self.tv, self.reach, strict=True)) / self.accept_length


@dataclass(frozen=True)
class RoundFigures:
    """Expected figures of a round of a law over each recorded window, float64 [n], or [n, L] by draft position.

    tokens: tokens of the round, those behind an end token not counted.
    kl, tv_round: as in `RoundForecast`, of one window.
    kl_revealed: the sum of KL(law of the token || P) over the evaluated positions. See `round_figures`.
    reach: [n, L] probability that the position is evaluated; 0 past the window's end.
    acceptance: [n, L] probability that a draft evaluated there is accepted.
    tv: [n, L] total variation of the token's distribution there, if it is evaluated.
    """

    tokens: Floats64
    kl: Floats64
    kl_revealed: Floats64
    tv_round: Floats64
    reach: Floats64
    acceptance: Floats64
    tv: Floats64


WindowRule = Callable[[NDArray[Any], NDArray[Any], int], tuple[Floats64, Floats64]]
"""P and Q [n, V] of a draft position, and its index: the probabilities [n, V] that codes are accepted, and drawn after
a rejection. A `Law` is one; others are rules of other methods, which judge drafts one after another too."""


def by_row(judge: Judge) -> WindowRule:
    """Return the rule of windows that judges each of them by itself."""

    def rule(target: NDArray[Any], draft: NDArray[Any], i: int) -> tuple[Floats64, Floats64]:
        both = np.asarray(target, np.float64), np.asarray(draft, np.float64)
        rows = [judge(p, q, i) for p, q in zip(*both, strict=True)]
        accepted, after = (np.array([row[k] for row in rows]).reshape(target.shape) for k in (0, 1))
        return accepted, after

    return rule


def _rule_of(law: Law) -> WindowRule:
    return lambda p, q, i: position_law(p, q, law, i)


def round_figures(windows: RecordedRounds, law: Law | WindowRule, *, revealed: bool = False) -> RoundFigures:
    """Compute the expected figures of a round of `law` over each window: the exact sum over all codes at each position.

    What stands behind a token of `windows.ends` has no effect. revealed: compute `kl_revealed`, else 0.

    Two divergences of a text, each a sum over its rounds, are expectations over texts that the law itself wrote:
    - `kl` is that of the tokens of one window alone, followed by the target. It says what a round costs; the sum over
      a text's rounds is no bound of the divergence of the text's law.
    - `kl_revealed` is the divergence of the joint law of a text and of where its rounds begin, from the target's
      law with rounds that begin as they do under `law` given the tokens so far (chain rule). The text's law is a
      marginal of it, so that its divergence from the target's is at most the expected sum (data processing).

    Raises UserError: a rule of LANTERN on merged windows, which have no neighbours.
    """
    if isinstance(law, Law) and windows.merged and law.tolerance is not None:
        fix = "use the rule ratio; recordings of texts are always merged"
        raise UserError("the rule on merged windows", expected="ratio", found=law.rule, fix=fix)
    rule = _rule_of(law) if isinstance(law, Law) else law
    count, length, counts = *windows.drafts.shape, windows.counts
    rows, end = np.arange(count), np.zeros(windows.target.shape[-1], bool)
    end[list(windows.ends)] = True
    # Of the path to a position: `reach` is the probability that all drafts so far are accepted, given that they were
    # drafted. `weight` is the probability of this context under the output's distribution, divided by that under the
    # drafts'. `open_` is the probability that a round with this context is still drafting: reach = weight * open_.
    # `ratio` is like `weight`, with the target's distribution in place of the output's.
    reach, weight, open_, ratio = (np.ones(count) for _ in range(4))
    tokens, kl, revealed_kl, apart = np.ones(count), *(np.zeros(count) for _ in range(3))  # per round
    reaches, rates, tvs = (np.zeros((count, length)) for _ in range(3))
    for i in range(length):
        live = counts[:, i].astype(np.float64)
        accepted, after = rule(windows.target[:, i], windows.draft[:, i], i)
        p, q = (np.asarray(a[:, i], np.float64) for a in (windows.target, windows.draft))
        rate, out = accepted.sum(-1), accepted + after
        seen = (
            open_[:, None] * out + (1 - open_[:, None]) * p
        )  # distribution of the next token, given the context alone
        reaches[:, i], rates[:, i], tvs[:, i] = reach * live, rate, 0.5 * np.abs(out - p).sum(-1)
        tokens += reaches[:, i] * (rate - accepted[:, end].sum(-1))  # no token follows an end
        kl += weight * live * _kl(seen, p)
        if revealed:
            revealed_kl += reaches[:, i] * _kl(out, p)
        # Where a code certainly ends the drafting, or the window ends, all later tokens follow the target: the distance
        # of the two joint distributions is final there, as it is where a text ends. The other codes are followed along
        # the drafts.
        ends_there = (accepted == 0) | end | np.equal(windows.num_drafts, i + 1)[:, None]
        # Half of the distance lies where the output has more probability than the target. There the weights are small;
        # in the other half they are large where Q is small and P is not.
        apart += live * (np.maximum(weight[:, None] * seen - ratio[:, None] * p, 0) * ends_there).sum(-1)
        # Past the window's end nothing is followed, and what fills it need not be drawn from its Q.
        x = windows.drafts[:, i]
        drawn, shown = np.where(live > 0, q[rows, x], 1.0), seen[rows, x]
        reach = reach * accepted[rows, x] / drawn
        followed = accepted[rows, x] > 0  # a code that ends the drafting was counted above, also where it was drafted
        weight, ratio = (np.where(followed, a, 0.0) for a in (weight * shown / drawn, ratio * p[rows, x] / drawn))
        open_ = np.divide(open_ * accepted[rows, x], shown, out=np.zeros(count), where=shown > 0)
    return RoundFigures(tokens, kl, revealed_kl, apart, reaches, rates, tvs)


def outlook(windows: RecordedRounds, law: Law | WindowRule) -> RoundForecast:
    """Compute the expected figures of a round of `law` over recorded windows.

    Raises UserError: a draft length other than the recorded one.
    """
    if isinstance(law, Law) and law.length != windows.length:
        raise UserError("the law's draft length", expected=f"{windows.length}, as recorded", found=str(law.length))
    found = round_figures(windows, law)
    columns = []
    for i in range(windows.length):
        reach = found.reach[:, i]
        reached = windows.mean(reach)
        share = 1 / reached if reached else 0.0
        parts = (windows.mean(reach * values[:, i]) for values in (found.tv, found.acceptance))
        columns.append((reached, *(part * share for part in parts)))
    reaches, tvs, rates = zip(*columns, strict=True) if columns else ((), (), ())
    images = None
    if windows.image is not None and windows.weight is None:
        images = sums(windows.image, found.tokens, found.kl, (found.reach * found.tv).sum(-1), found.tv_round)
    tokens, kl, apart = (windows.mean(values) for values in (found.tokens, found.kl, found.tv_round))
    return RoundForecast(tokens, kl, apart, tvs, reaches, rates, images)


def _kl(a: Floats64, b: Floats64) -> Floats64:
    """Return KL(a || b), [n], in nats.

    Where b is 0, a is 0 too, except under LANTERN's additive rule: the result is infinite then.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(a > 0, a * (np.log(a) - np.log(b)), 0.0)
    return np.asarray(terms.sum(-1), np.float64)
