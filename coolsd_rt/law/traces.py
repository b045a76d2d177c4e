"""What a law would have done on recorded rounds, without drawing again.

A recorded window holds P and Q at every position along its drafts, the rejected ones too. So the probability that any
other law reaches a position, what it accepts there, and how far its output is from the target's, are expectations
over the recorded drafts: no new images are needed to compare schedules. Rao-Blackwellised: at each position the
sum over all codes is taken, only the path there is sampled.

Knows arrays of NumPy. Does not know where they were recorded. What it does not see: the places a round starts from are
those of the recording's own law.

Legend: n windows, L draft length, V codes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.arrays import Floats64
from coolsd_rt.errors import UserError
from coolsd_rt.law.clusters import ImageSums, sums
from coolsd_rt.law.position import position_law
from coolsd_rt.law.rules import Law


@dataclass(frozen=True)
class RecordedRounds:
    """Recorded rounds.

    target, draft: P and Q [n, L, V] along the drafts. drafts: int64 [n, L], each drawn from its Q.
    num_drafts: int64 [n], drafts that count (fewer at the image's end). weight: float64 [n], sum 1; None = all alike.
    image: int64 [n], the image of each round; None = not known, and then no errors are.
    """

    target: NDArray[Any]
    draft: NDArray[Any]
    drafts: NDArray[np.int64]
    num_drafts: NDArray[np.int64]
    weight: Floats64 | None = None
    image: NDArray[np.int64] | None = None

    @property
    def length(self) -> int:
        return int(self.drafts.shape[1])

    def mean(self, values: Floats64) -> float:
        """Over windows; values [n]."""
        return float(values.mean() if self.weight is None else values @ self.weight)


@dataclass(frozen=True)
class RoundForecast:
    """What to expect of a round.

    accept_length: tokens, the resampled or bonus token included. kl: of the joint law of the window's tokens from the
    target's, nats a round; exact for the recorded starts, by the chain rule. tv_round: total variation of that joint
    law, an unbiased estimate. tv: total variation of each position's own law, [L]. reach: probability that the position
    is evaluated, [L]. acceptance: probability to keep it then, [L]. images: the same by image, for errors; None where
    the windows do not say which image they are of, or are weighted (all are there then, and there is no error).
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
        """Standard error of tv_round, with images as the observations; NaN where they are not known."""
        return math.nan if self.images is None else self.images.tv_of_a_round.error

    @property
    def kl_per_token(self) -> float:
        """Nats per generated token."""
        return self.kl / self.accept_length

    @property
    def tv_bound_per_token(self) -> float:
        """The paper's upper bound: total variation adds up over positions at most. Per generated token."""
        return sum(t * r for t, r in zip(self.tv, self.reach, strict=True)) / self.accept_length


def outlook(windows: RecordedRounds, law: Law) -> RoundForecast:
    """Expectations of a round of `law` over recorded windows.

    Raises UserError: another draft length, or LANTERN's own residual, which depends on the rejected token.
    """
    if law.length != windows.length:
        raise UserError("the law's draft length", expected=f"{windows.length}, as recorded", found=str(law.length))
    if law.resampler == "lantern":
        raise UserError("the resampler", expected="one that the position decides", found="lantern")
    count = len(windows.drafts)
    rows = np.arange(count)
    # For the path to a position: `reach`, the probability that all drafts so far are accepted, they being drafted;
    # `weight`, how much likelier the output's law makes this context than the drafts' did; and `open_`, the probability
    # that a round which shows this context is still drafting. reach = weight * open_. `ratio` is to the target's law
    # what `weight` is to the output's.
    reach, weight, open_, ratio = (np.ones(count) for _ in range(4))
    tokens, kl, tv, apart = np.ones(count), *(np.zeros(count) for _ in range(3))  # of each round
    figures: list[tuple[float, float, float]] = []
    for i in range(windows.length):
        live = (i < windows.num_drafts).astype(np.float64)
        accepted, after = position_law(windows.target[:, i], windows.draft[:, i], law, i)
        p, q = (np.asarray(a[:, i], np.float64) for a in (windows.target, windows.draft))
        rate, out = accepted.sum(-1), accepted + after
        seen = open_[:, None] * out + (1 - open_[:, None]) * p  # the next token's law given the context alone
        reached = windows.mean(reach * live)
        mean_accepted = windows.mean(reach * live * rate)
        tokens += reach * live * rate
        kl += weight * live * _kl(seen, p)
        # Where a code ends the drafting for certain, or the window ends, all that follows has the target's law: the
        # two joint laws are as far apart there as they will be. The other codes are followed along the drafts.
        ends = (accepted == 0) | np.equal(windows.num_drafts, i + 1)[:, None]
        # Half of the distance is where the output has more, and there the weights are tame: those of the other half
        # are large where Q is small and P is not.
        apart += live * (np.maximum(weight[:, None] * seen - ratio[:, None] * p, 0) * ends).sum(-1)
        here = reach * live * 0.5 * np.abs(out - p).sum(-1)
        tv += here
        share = 1 / reached if reached else 0.0
        figures.append((windows.mean(here) * share, reached, mean_accepted * share))
        x = windows.drafts[:, i]
        drawn, shown = q[rows, x], seen[rows, x]
        reach = reach * accepted[rows, x] / drawn
        weight, ratio = weight * shown / drawn, ratio * p[rows, x] / drawn
        open_ = np.divide(open_ * accepted[rows, x], shown, out=np.zeros(count), where=shown > 0)
    tvs, reaches, rates = zip(*figures, strict=True) if figures else ((), (), ())
    images = None
    if windows.image is not None and windows.weight is None:
        images = sums(windows.image, tokens, kl, tv, apart)
    return RoundForecast(windows.mean(tokens), windows.mean(kl), windows.mean(apart), tvs, reaches, rates, images)


def _kl(a: Floats64, b: Floats64) -> Floats64:
    """KL(a || b) [n] in nats; where b is 0, a is (but for the additive rule: infinite then)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(a > 0, a * (np.log(a) - np.log(b)), 0.0)
    return np.asarray(terms.sum(-1), np.float64)
