"""Acceptance rates of drafters, learned from decided tokens while a batch is drawn.

Knows counts and classes of top probabilities. Does not know what a draft costs, nor how many are made.

Legend: M images, L draft length.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from coolsd_rt.arrays import Floats64, Ints

EDGES = (0.5, 0.8, 0.95)
"""Limits of the four classes into which top probabilities are sorted."""

RATE, WEIGHT = 0.75, 5.0  # acceptance rate before anything was seen, and the number of drafts that it counts as
CLASS_WEIGHT = 25.0  # number of drafts that the rate of a whole counts as in the rate of a class or a position of it
TRIALS = 6  # first drafts that a draft model makes whatever the others gain
WINDOW_RATE, WINDOW_WEIGHT = 0.6, 12.0  # acceptance rate of Jacobi drafts before anything was seen, and its weight


class Rates(Protocol):
    """Acceptance rates of one drafter, as far as they were seen."""

    refines: bool

    def accepted(self, kinds: Ints, most: Ints) -> Floats64:
        """Expected number of accepted drafts, [M, L + 1], by class of the last token and number of drafts made."""
        ...

    def is_new(self) -> bool:
        """Return whether too little was seen."""
        ...

    def add(self, kind: int, kinds_q: Ints, accepted: int, num_drafts: int) -> None:
        """Take note of one image's round: drafts up to the first rejection were judged."""
        ...


class ModelRates:
    """Rates of a draft model: by class of the target's last token and draft position, and by class of Q.

    What was not seen often has the rate of what it is part of: a class that of its position, a position that of all.
    """

    refines = False

    def __init__(self, length: int) -> None:
        classes = len(EDGES) + 1
        self._kept, self._tried = np.zeros((classes, length)), np.zeros((classes, length))
        self._kept_q, self._tried_q = np.zeros(classes), np.zeros(classes)
        self._reach: Floats64 | None = None
        self._by_q = np.zeros(classes)

    @property
    def reach(self) -> Floats64:
        """[classes, L] probability that a draft and all before it are accepted."""
        if self._reach is None:
            every = (self._kept.sum() + RATE * WEIGHT) / (self._tried.sum() + WEIGHT)
            place = (self._kept.sum(axis=0) + every * CLASS_WEIGHT) / (self._tried.sum(axis=0) + CLASS_WEIGHT)
            self._reach = np.cumprod((self._kept + place * CLASS_WEIGHT) / (self._tried + CLASS_WEIGHT), axis=1)
            self._by_q = (self._kept_q + every * CLASS_WEIGHT) / (self._tried_q + CLASS_WEIGHT)
        return self._reach

    @property
    def by_q(self) -> Floats64:
        """[classes]"""
        assert self.reach is not None
        return self._by_q

    def accepted(self, kinds: Ints, most: Ints) -> Floats64:
        """As `Rates`."""
        reach = self.reach[kinds] * (np.arange(self._kept.shape[1]) < most[:, None])
        return np.concatenate([np.zeros((len(kinds), 1)), reach.cumsum(axis=1)], axis=1)

    def is_new(self) -> bool:
        """As `Rates`."""
        return bool(self._tried[:, 0].sum() < TRIALS)

    def add(self, kind: int, kinds_q: Ints, accepted: int, num_drafts: int) -> None:
        """As `Rates`."""
        self._reach = None
        for i in range(min(accepted + 1, num_drafts)):
            kept = float(i < accepted)
            self._tried[kind, i] += 1
            self._kept[kind, i] += kept
            self._tried_q[kinds_q[i]] += 1
            self._kept_q[kinds_q[i]] += kept


class WindowRates:
    """Rates of Jacobi drafts: one for each length of the window.

    A Jacobi draft improves in every round that it stays in the window, also in one that rejects it. So longer windows
    have better drafts at every position, a window is not cut short, and what is known of one length says little of
    another. A length that was not tried has the rate of all lengths together.
    """

    refines = True

    def __init__(self, length: int) -> None:
        self._kept, self._tried = np.zeros(length + 1), np.zeros(length + 1)
        self._expected: Floats64 | None = None

    def accepted(self, kinds: Ints, most: Ints) -> Floats64:
        """As `Rates`."""
        if self._expected is None:
            every = (self._kept.sum() + WINDOW_RATE * WINDOW_WEIGHT) / (self._tried.sum() + WINDOW_WEIGHT)
            rate = (self._kept + every * WINDOW_WEIGHT) / (self._tried + WINDOW_WEIGHT)
            length = len(rate) - 1
            self._expected = np.where(
                rate < 1, rate * (1 - rate ** np.arange(length + 1)) / np.maximum(1 - rate, 1e-9), np.arange(length + 1)
            )
        return self._expected[np.minimum(np.arange(len(self._expected)), most[:, None])]

    def is_new(self) -> bool:
        """As `Rates`: the rate of all lengths together does for a start."""
        return False

    def add(self, kind: int, kinds_q: Ints, accepted: int, num_drafts: int) -> None:
        """As `Rates`."""
        self._expected = None
        self._kept[num_drafts] += accepted
        self._tried[num_drafts] += min(accepted + 1, num_drafts)
