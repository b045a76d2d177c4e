"""How many tokens a round drafts: by fixed thresholds, or by what drafts cost and how often they were accepted.

A pacer is asked twice in a round. `before` the draft it sees the target's top probability where each image's last token
was drawn; `after` it, the top probabilities of Q. Then it `learn`s how many drafts were accepted.

Why the law of the output stays: whether draft i counts depends on decided tokens, on costs that were fixed before the
request, and on Q_1..Q_i, which the drafts before i determine. It never depends on draft i or a later one, so that
draft i still has the law Q_i that the verdict divides by. Drafts of the images beside it are independent of it.

Knows counts, probabilities and seconds. Does not know arrays of a session, models, or how seconds were measured.

Legend: M images, L draft length, l drafts of a round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from coolsd_rt.arrays import Bools, Floats64, Ints
from coolsd_rt.runtime.costs import RoundCosts
from coolsd_rt.runtime.sampling import Sampling

EDGES = (0.5, 0.8, 0.95)
"""Limits of the four classes into which top probabilities are sorted."""

PRIOR_RATES = (0.3, 0.5, 0.7, 0.9)
"""Acceptance rate of each class before anything was seen."""

PRIOR_WEIGHT = 3.0  # drafts that the prior counts as
TRIALS = 6  # first drafts of a class and a drafter that are tried whatever the prior says
RETRY_ROUNDS = 24  # rounds without a draft before one is tried again; doubles each time it did not pay
LOSS_LIMIT = 0.015  # share of the plain image's time that may be lost to trials


@dataclass(frozen=True)
class Choice:
    """What a round drafts. drafter: its number. num_drafts: int64 [M]."""

    drafter: int
    num_drafts: Ints


class Pacer(Protocol):
    """Chooses the drafts of each round of one batch."""

    @property
    def reads_p(self) -> bool:
        """Whether `before` reads the confidence."""
        ...

    @property
    def reads_q(self) -> bool:
        """Whether `after` is to be asked."""
        ...

    @property
    def hopeful(self) -> bool:
        """Whether a round can draft at all. If not, the batch is plain decoding."""
        ...

    def before(self, confidence: Floats64, most: Ints, active: Bools) -> Choice:
        """Choose the drafts to make.

        confidence: float64 [M], the target's top probability where the last token was drawn; ones if `reads_p` is
        false. most: int64 [M], drafts that fit into the image. active: bool [M], images that are not finished.
        """
        ...

    def after(self, q_top: Floats64, num_drafts: Ints) -> Ints:
        """Choose how many of the drafts count, int64 [M]. q_top: float64 [M, l], the top probability of each Q."""
        ...

    def learn(self, accepted: Ints, num_drafts: Ints, active: Bools) -> None:
        """Take note of a round: accepted drafts and drafts that counted, int64 [M]."""
        ...


class ManualPacer:
    """Thresholds: no draft where the target was less sure than `confidence`, none from the first Q that is less sure
    than `draft_confidence` on. 0 switches either off."""

    def __init__(self, confidence: float, draft_confidence: float) -> None:
        self._confidence, self._draft_confidence = confidence, draft_confidence
        self.reads_p, self.reads_q, self.hopeful = confidence > 0, draft_confidence > 0, True

    def before(self, confidence: Floats64, most: Ints, active: Bools) -> Choice:
        """As many as fit, or none."""
        return Choice(0, np.where(confidence >= self._confidence, most, 0))

    def after(self, q_top: Floats64, num_drafts: Ints) -> Ints:
        """Those before the first that Q is unsure of."""
        unsure = q_top < self._draft_confidence
        run = np.where(unsure.any(axis=1), unsure.argmax(axis=1), q_top.shape[1])
        counted: Ints = np.minimum(num_drafts, run)
        return counted

    def learn(self, accepted: Ints, num_drafts: Ints, active: Bools) -> None:
        """Nothing: thresholds do not change."""


class _Rates:
    """Acceptance rates of one drafter: by class of the target's last token and draft position, and by class of Q."""

    def __init__(self, length: int) -> None:
        prior = np.array(PRIOR_RATES)
        # A draft far from the last token is less likely to be right; the first results correct it.
        deep = prior[:, None] * 0.9 ** np.arange(length)
        self._kept, self._tried = PRIOR_WEIGHT * deep, np.full_like(deep, PRIOR_WEIGHT)
        self._kept_q, self._tried_q = PRIOR_WEIGHT * prior, np.full(len(prior), PRIOR_WEIGHT)

    @property
    def by_position(self) -> Floats64:
        """[classes, L]"""
        rates: Floats64 = self._kept / self._tried
        return rates

    @property
    def by_q(self) -> Floats64:
        """[classes]"""
        rates: Floats64 = self._kept_q / self._tried_q
        return rates

    def trials(self, kind: int) -> float:
        """First drafts that were judged after a token of this class."""
        return float(self._tried[kind, 0]) - PRIOR_WEIGHT

    def add(self, kind: int, kinds_q: Ints, accepted: int, num_drafts: int) -> None:
        """One image's round: drafts up to the first rejection were judged."""
        for i in range(min(accepted + 1, num_drafts)):
            kept = float(i < accepted)
            self._tried[kind, i] += 1
            self._kept[kind, i] += kept
            self._tried_q[kinds_q[i]] += 1
            self._kept_q[kinds_q[i]] += kept


class AutoPacer:
    """Chooses the drafter and the draft length that end the batch soonest.

    A round costs the same for every image of the batch, and the batch ends with its slowest image: those that are
    expected to end last decide (`_critical`), the others draft as many. The gain of a choice is the tokens that it is
    expected to give such an image, less its seconds at the rate so far; choosing by that difference maximises tokens a
    second in the long run (a renewal argument). Drafts are also tried where little is known about them. Once the batch
    is `LOSS_LIMIT` of the plain image's time behind plain decoding, nothing more is drafted.
    """

    reads_p = reads_q = True

    def __init__(self, costs: RoundCosts, tokens: int) -> None:
        """costs: of this batch's number of images. tokens: of an image."""
        self._verify = np.array(costs.verify)
        self._draft = [np.array(seconds) for _, seconds in costs.drafts]
        self._length = len(costs.verify) - 1
        self._rates = [_Rates(self._length) for _ in costs.drafts]
        plain = float(self._verify[0])
        self._plain, self._budget = plain, LOSS_LIMIT * tokens * plain
        best = [((1 + np.arange(self._length + 1)) * plain / (d + self._verify)).max() for d in self._draft]
        self._hopeful = [bool(gain > 1.02) for gain in best]  # with every draft accepted it would pay
        self._total, self._tokens = tokens, np.ones(costs.images)  # decided tokens of each image
        self._rounds, self._seconds = 0, 0.0
        self._idle, self._patience = 0, RETRY_ROUNDS
        self._drafter = 0
        self._critical = np.zeros(0, np.bool_)
        self._kinds, self._kinds_q = np.zeros(0, np.int64), np.zeros((0, 0), np.int64)

    @property
    def hopeful(self) -> bool:
        """Whether any draft could pay, were all of them accepted."""
        return any(self._hopeful)

    def before(self, confidence: Floats64, most: Ints, active: Bools) -> Choice:
        """The drafter and the length of the largest gain, or a trial."""
        self._kinds = np.searchsorted(EDGES, confidence, side="right")
        longest = int(most[active].max())
        if not longest or not self.hopeful or self._behind(active) > self._budget:
            return self._chosen(0, np.zeros_like(most))
        self._critical = self._last_to_end(active)
        gains = {
            (d, n): self._gain(d, n, most)
            for d, hopeful in enumerate(self._hopeful)
            if hopeful
            for n in range(longest + 1)
        }
        drafter, length = max(gains, key=lambda choice: gains[choice])
        trial = self._trial(used=length > 0)
        if trial is not None:
            drafter, length = trial, max(1, length)
        return self._chosen(drafter, np.where(active, np.minimum(most, length), 0))

    def _chosen(self, drafter: int, num_drafts: Ints) -> Choice:
        self._drafter = drafter
        return Choice(drafter, num_drafts)

    def _behind(self, active: Bools) -> float:
        """Seconds that plain decoding would have been faster, to where the slowest image is now."""
        return self._seconds - float(self._tokens[active].min() - 1) * self._plain

    def _last_to_end(self, active: Bools) -> Bools:
        """bool [M]: images whose expected number of rounds to come is within a tenth of the largest."""
        prior = 8.0  # rounds of a token that the start counts as
        rounds = (self._total - self._tokens) * (self._rounds + prior) / (self._tokens - 1 + prior)
        last: Bools = active & (rounds >= 0.9 * rounds[active].max())
        return last

    def _gain(self, drafter: int, length: int, most: Ints) -> float:
        """Expected drafts accepted of a critical image, less the cost of the round in tokens."""
        reach = np.cumprod(self._rates[drafter].by_position, axis=1)[self._kinds]  # [M, L]
        counts = np.arange(self._length) < np.minimum(most, length)[:, None]
        tokens = float((reach * counts)[self._critical].sum(axis=1).mean())
        return tokens - self._price() * float(self._draft[drafter][length] + self._verify[length])

    def _price(self) -> float:
        """Tokens of an image that a second is worth: the slowest rate so far, at least that of plain decoding."""
        prior = 8.0
        tokens = float(self._tokens[self._critical].min()) - 1
        return max((tokens + prior) / (self._seconds + prior * self._plain), 1 / self._plain)

    def _trial(self, used: bool) -> int | None:
        """A drafter of which too little is known, or None. used: whether the best choice drafts anyway."""
        kinds = np.unique(self._kinds[self._critical]).tolist()
        for drafter, rates in enumerate(self._rates):
            if self._hopeful[drafter] and any(rates.trials(kind) < TRIALS for kind in kinds):
                return drafter
        if used or self._idle < self._patience:
            return None
        self._patience *= 2
        return next(d for d, hopeful in enumerate(self._hopeful) if hopeful)

    def after(self, q_top: Floats64, num_drafts: Ints) -> Ints:
        """Stop before the first draft from which on no number of drafts repays the wider step.

        Step i reads Q of drafts up to i alone.
        """
        rates, count = self._rates[self._drafter], q_top.shape[1]
        self._kinds_q = np.searchsorted(EDGES, q_top, side="right")
        rate = rates.by_q[self._kinds_q]
        later = rates.by_position[self._kinds][:, :count]
        price, images = self._price(), int(self._critical.sum())
        reach = self._critical / images
        for i in range(count):
            now = reach * rate[:, i] * (num_drafts > i)
            run, gain, best = now, 0.0, 0.0
            for k in range(i, count):
                run = run * later[:, k] * (num_drafts > k) if k > i else run
                gain += float(run.sum())
                best = max(best, gain - price * float(self._verify[k + 1] - self._verify[i]))
            if best <= 0:
                return np.minimum(num_drafts, i)
            reach = now
        return num_drafts

    def learn(self, accepted: Ints, num_drafts: Ints, active: Bools) -> None:
        """Counts of every active image, and the seconds that the costs give the round."""
        made, longest = self._kinds_q.shape[1], int(num_drafts[active].max())
        self._seconds += float(self._draft[self._drafter][made] + self._verify[longest])
        self._rounds += 1
        self._tokens += np.where(active, accepted + 1, 0)
        self._idle = 0 if made else self._idle + 1
        for m in np.flatnonzero(active & (num_drafts > 0)).tolist():
            kind, count = int(self._kinds[m]), int(num_drafts[m])
            self._rates[self._drafter].add(kind, self._kinds_q[m], int(accepted[m]), count)
        self._kinds_q = np.zeros((0, 0), np.int64)


def make_pacer(sampling: Sampling, tokens: int) -> Pacer:
    """The pacer that a request asks for. tokens: of an image."""
    if sampling.costs is not None:
        return AutoPacer(sampling.costs, tokens)
    return ManualPacer(sampling.confidence, sampling.draft_confidence)
