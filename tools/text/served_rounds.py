"""Figures of the rounds of a batch of texts, for the law that draws them: an `on_round` hook that keeps no P or Q.

Each round gives, by `coolsd_rt.law.traces.round_figures`, exact sums over all tokens at each of its positions. Their
sums over a text's rounds are unbiased for the law that writes the text: the rounds start where its own rounds start.

    expected        tokens of the rounds
    kl              divergence of each round's window from the target's, nats; as `analyze` has it for images
    kl_revealed     divergence of text and rounds together: an upper bound of that of texts
    log_likelihood  log P of the tokens after the first, which the prefill draws from P under every law
    bins            sums over the evaluated positions, by the entropy of P

Knows rounds. Does not know questions, files or what the figures are compared with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.arrays import Floats64
from coolsd_rt.law import Law
from coolsd_rt.law.traces import RecordedRounds, round_figures
from coolsd_rt.runtime.state import RoundRecord, State
from coolsd_rt.schedules.analysis import evaluated
from coolsd_rt.schedules.recording import Recording, entropies, top_masses

EDGES = (0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)  # of the entropy of P, nats
BINS = len(EDGES) + 1
COLUMNS = ("positions", "entropy", "top5", "tv", "rejected", "rejection")  # rejection: its probability, given P and Q


class TextRounds:
    """The hook. Sums by text: float64 [M], and `bins` [M, BINS, COLUMNS].

    law: what draws. ends: tokens that end a text. texts: M.
    """

    def __init__(self, law: Law, ends: Sequence[int], texts: int) -> None:
        self._law, self._ends = law, tuple(ends)
        self.expected, self.kl, self.kl_revealed, self.log_likelihood = (np.zeros(texts) for _ in range(4))
        self.rounds = np.zeros(texts, np.int64)
        self.bins = np.zeros((texts, BINS, len(COLUMNS)))

    def __call__(self, state: State, record: RoundRecord) -> None:
        """Add a round after its commit."""
        texts = np.flatnonzero(record.active)
        p, q, drafts = (np.asarray(a)[texts] for a in (record.target, record.draft, record.drafts))
        self.rounds[texts] += 1
        self.log_likelihood[texts] += _log_likelihood(p, record.window[texts], record.accepted[texts])
        p = p[:, : drafts.shape[1]]
        windows = RecordedRounds(p, q, drafts, record.offered[texts], ends=self._ends)
        found = round_figures(windows, self._law.first(windows.length), revealed=True)
        self.expected[texts] += found.tokens
        self.kl[texts] += found.kl
        self.kl_revealed[texts] += found.kl_revealed
        begins = state.decided - record.accepted - 1
        recording = Recording(windows, record.kept[texts], begins[texts], entropies(p), top_masses(p))
        self._add(texts, recording, found.acceptance)

    def _add(self, texts: NDArray[np.int64], recording: Recording, acceptance: Floats64) -> None:
        at = evaluated(recording)
        rejection = 1.0 - acceptance[at.window, at.draft]
        values = [np.ones(len(at.entropy)), at.entropy, at.top5, at.tv, ~at.accepted, rejection]
        place = texts[at.window] * BINS + np.searchsorted(EDGES, at.entropy, side="right")
        for column, value in enumerate(values):
            found = np.bincount(place, value, self.bins.shape[0] * BINS)
            self.bins[..., column] += found.reshape(self.bins.shape[:2])


def _log_likelihood(p: NDArray[np.float32], window: NDArray[np.int64], accepted: NDArray[np.int64]) -> Floats64:
    """Return log P of the tokens that a round decided, [m]. p: [m, L' + 1, V]. window: [m, L' + 1]."""
    decided = np.arange(window.shape[1]) <= accepted[:, None]
    chosen = np.take_along_axis(p, window[..., None], axis=-1)[..., 0].astype(np.float64)
    return np.asarray(np.log(np.where(decided, chosen, 1.0)).sum(axis=1), np.float64)
