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

from typing import NamedTuple, Protocol

import numpy as np

from coolsd_rt.arrays import Bools, Floats64, Ints
from coolsd_rt.runtime.costs import JACOBI, PLACES, RoundCosts
from coolsd_rt.runtime.rates import EDGES, ModelRates, Rates, WindowRates
from coolsd_rt.runtime.sampling import Sampling

FREE_START = 8  # rounds before a draft model is tried: Jacobi drafts, if they pay, have earned its cost by then
COMPARED_ROUNDS = 16  # rounds after which a draft model has to have shown that it is worth its upkeep
UPKEEP = 0.05  # tokens a round that a draft model has to add: its cache is kept up to date in rounds without it too
RETRY_ROUNDS = 24  # rounds without a draft before one is tried again; doubles each time it did not pay
HOPE = 0.9  # acceptance rate at which a drafter has to be worth trying
WORTH_TRYING = 1.02  # tokens a plain round that it has to give then
START = 8.0  # rounds of plain decoding that a batch's rate starts from
LOSS_LIMIT = 0.013  # share of the plain image's time that may be lost to drafts that do not seem to pay


class Choice(NamedTuple):
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

    @property
    def retired(self) -> frozenset[int]:
        """Numbers of drafters that are not going to be chosen again: the loop no longer has to keep them up to date."""
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
        self.retired: frozenset[int] = frozenset()
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


class AutoPacer:
    """Chooses the drafter and the draft length that end the batch soonest.

    A round costs the same for every image of the batch, and the batch ends with its slowest image: those that are
    expected to end last decide (`_critical`), the others draft as many. The gain of a choice is the tokens that it is
    expected to give such an image, less its seconds at the rate so far; choosing by that difference maximises tokens a
    second in the long run (a renewal argument). Drafts are also tried where little is known about them. Once the batch
    is `LOSS_LIMIT` of the plain image's time behind plain decoding, drafters that do not seem to pay are given up, and
    all of them at twice as much.
    """

    reads_p = reads_q = True

    def __init__(self, costs: RoundCosts, tokens: int) -> None:
        """costs: of this batch's number of images. tokens: of an image."""
        self._length = costs.length
        self._seconds_plain = np.array(costs.plain)
        self._seconds_verify = np.array(costs.verify)  # [places, L + 1]
        self._seconds_draft = np.array([seconds for _, seconds in costs.drafts])  # [drafters, places, L + 1]
        self._verify, self._draft = self._costs_at(0.5)  # [L + 1], [drafters, L + 1], in plain rounds
        self._rates: list[Rates] = [
            (WindowRates if name in JACOBI else ModelRates)(self._length) for name, _ in costs.drafts
        ]
        hoped = np.cumsum(HOPE ** np.arange(self._length + 1)) / (self._draft + self._verify)
        self._pays = [1.0] * len(self._rates)  # gain over a round without a draft, in tokens less plain rounds
        self._added: list[list[float]] = []  # of the last rounds, what each draft model adds
        self.retired = frozenset(np.flatnonzero(hoped.max(axis=1) <= WORTH_TRYING).tolist())
        self._total, self._tokens = tokens, np.ones(costs.images)  # decided tokens of each image
        self._rounds, self._spent = 0, 0.0  # rounds, and what they cost in plain rounds
        self._idle, self._patience = 0, RETRY_ROUNDS
        self._drafter = 0
        self._critical = np.zeros(0, np.bool_)
        self._kinds, self._kinds_q = np.zeros(0, np.int64), np.zeros((0, 0), np.int64)

    @property
    def hopeful(self) -> bool:
        """Whether any drafter is left: at first one that would pay, were its drafts accepted as often as `HOPE`."""
        return len(self.retired) < len(self._rates)

    def before(self, confidence: Floats64, most: Ints, active: Bools) -> Choice:
        """The drafter and the length of the largest gain, or a trial."""
        self._kinds = np.searchsorted(EDGES, confidence, side="right")
        longest = int(most[active].max())
        self._give_up(self._behind(active) / self._total)
        usable = [d for d in range(len(self._rates)) if d not in self.retired]
        if not longest or not usable:
            return self._chosen(0, np.zeros_like(most))
        self._critical = self._last_to_end(active)
        self._verify, self._draft = self._costs_at(float(self._tokens[active].mean()) / self._total)
        for d in usable:
            self._pays[d] = float((self._gains(d, most, 1.0)[1 : longest + 1]).max() + self._verify[0])
        price = self._price()
        gains = [self._gains(d, most, price)[: longest + 1] for d in usable]
        best = [float(of.max()) for of in gains]
        first = best.index(max(best))
        drafter, length = usable[first], int(gains[first].argmax())
        trial = self._trial(usable, used=length > 0)
        if trial is not None:
            drafter, length = trial, max(1, length)
        else:
            self._compare(usable)
        return self._chosen(drafter, np.where(active, np.minimum(most, length), 0))

    def _chosen(self, drafter: int, num_drafts: Ints) -> Choice:
        self._drafter = drafter
        return Choice(drafter, num_drafts)

    def _give_up(self, behind: float) -> None:
        """Retire drafters that have cost too much. behind: loss to plain decoding, as a share of its whole time.

        Drafts that pay by all that was seen may lose for a while by chance: they are given twice as much.
        """
        if behind > 2 * LOSS_LIMIT:
            self.retired = frozenset(range(len(self._rates)))
        elif behind > LOSS_LIMIT:
            losing = {d for d, gain in enumerate(self._pays) if gain < UPKEEP}
            self.retired = self.retired | losing

    def _compare(self, usable: list[int]) -> None:
        """Retire a draft model that adds too little: keeping its cache up to date costs time in every round."""
        models = [d for d in usable if not self._rates[d].refines]
        if not models:
            return
        free = max([0.0, *(self._pays[d] for d in usable if self._rates[d].refines)])
        self._added.append([max(self._pays[d] - free, 0.0) for d in models])
        if len(self._added) == COMPARED_ROUNDS:
            added = np.mean(self._added, axis=0)
            self._added = []
            self.retired = self.retired | {d for d, gain in zip(models, added, strict=True) if gain < UPKEEP}

    def _costs_at(self, place: float) -> tuple[Floats64, Floats64]:
        """Costs of judging and of making drafts at a place in the image, in rounds of plain decoding there."""
        low, high = PLACES
        far = (place - low) / (high - low)
        verify = (1 - far) * self._seconds_verify[0] + far * self._seconds_verify[1]
        draft = (1 - far) * self._seconds_draft[:, 0] + far * self._seconds_draft[:, 1]
        plain = max((1 - far) * self._seconds_plain[0] + far * self._seconds_plain[1], 0.1 * self._seconds_plain[0])
        return np.maximum(verify / plain, 1.0), np.maximum(draft / plain, 0.0)

    def _behind(self, active: Bools) -> float:
        """Plain rounds by which plain decoding would have been sooner where the slowest image is now."""
        return self._spent - float(self._tokens[active].min() - 1)

    def _last_to_end(self, active: Bools) -> Bools:
        """bool [M]: images whose expected number of rounds to come is within a tenth of the largest."""
        rounds = np.maximum(self._total - self._tokens, 1) * (self._rounds + START) / (self._tokens - 1 + START)
        last: Bools = active & (rounds >= 0.9 * rounds[active].max())
        return last

    def _gains(self, drafter: int, most: Ints, price: float) -> Floats64:
        """[L + 1] expected drafts accepted of a critical image by number of drafts, less the round's cost in tokens.

        price: tokens that a plain round is worth.
        """
        mine = self._critical
        tokens = self._rates[drafter].accepted(self._kinds[mine], most[mine]).mean(axis=0)
        gains: Floats64 = tokens - price * (self._draft[drafter] + self._verify)
        return gains

    def _price(self) -> float:
        """Tokens that a plain round is worth: those of the slowest image so far, at least 1."""
        tokens = float(self._tokens[self._critical].min()) - 1
        return max((tokens + START) / (self._spent + START), 1.0)

    def _trial(self, usable: list[int], used: bool) -> int | None:
        """A drafter of which too little is known, or None. used: whether the best choice drafts anyway."""
        start = FREE_START if len(usable) > 1 else 0
        for drafter in usable:
            if self._rates[drafter].is_new() and self._rounds >= start:
                return drafter
        if used or self._idle < self._patience:
            return None
        self._patience *= 2
        return usable[-1]  # Jacobi drafts, which cost least

    def after(self, q_top: Floats64, num_drafts: Ints) -> Ints:
        """Stop before the first draft from which on no number of drafts repays the wider step.

        Step i reads Q of drafts up to i alone.
        """
        rates, count = self._rates[self._drafter], q_top.shape[1]
        self._kinds_q = np.searchsorted(EDGES, q_top, side="right")
        if not isinstance(rates, ModelRates):
            return num_drafts
        mine = self._critical
        rate = rates.by_q[self._kinds_q[mine]] * (np.arange(count) < num_drafts[mine, None])
        beyond = rates.reach[self._kinds[mine], :count]  # for drafts whose Q is not to be looked at yet
        price, cost = self._price(), self._verify[: count + 1]
        reach = np.full(len(rate), 1 / len(rate))
        for i in range(count):
            reach = reach * rate[:, i]
            tokens = (reach[:, None] * beyond[:, i:] / beyond[:, i : i + 1]).sum(axis=0).cumsum()
            if (tokens - price * (cost[i + 1 :] - cost[i])).max() <= 0:
                return np.minimum(num_drafts, i)
        return num_drafts

    def learn(self, accepted: Ints, num_drafts: Ints, active: Bools) -> None:
        """Counts of every active image, and the seconds that the costs give the round."""
        made = self._kinds_q.shape[1]
        # How many drafts counted after a rejected one hangs on tokens that were not decided: taken for all.
        longest = int(np.where(accepted < num_drafts, made, num_drafts)[active].max())
        self._spent += float(self._draft[self._drafter][made] + self._verify[longest])
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
