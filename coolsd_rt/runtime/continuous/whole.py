"""Draws images of continuous tokens to their ends, with what the rounds amount to.

Knows the loop and counts. Does not know models, or what a vector looks like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from coolsd_rt.law.continuous import figures, share_a_deviation
from coolsd_rt.runtime.continuous.interface import Floats32, VectorSession
from coolsd_rt.runtime.continuous.loop import VectorLoop, VectorRecord
from coolsd_rt.runtime.continuous.settings import VectorLaw, VectorSampling
from coolsd_rt.runtime.statistics import Statistics


@dataclass
class VectorGeneration:
    """The result of one batch.

    Attributes:
        tokens: float32 [M, N, d].
        statistics: counts of the rounds; `degenerate` counts the replacements that fell back to P.
        tries: draws of P that replacements took.
        kl: exact KL of the tokens' law from the target's in nats, in expectation over what these rounds saw, summed
            over images; None if it was not asked for, or where target and draft have other deviations.
    """

    tokens: Floats32
    statistics: Statistics
    tries: int = 0
    kl: float | None = None
    _acceptance: list[float] = field(default_factory=list)

    @property
    def expected_acceptance(self) -> float:
        """Mean probability that a judged draft is kept, over the drafts that were judged.

        NaN if it was not asked for, or where target and draft have other deviations.
        """
        return float(np.mean(self._acceptance)) if self._acceptance else float("nan")

    def add(self, record: VectorRecord, law: VectorLaw, *, measure: bool) -> None:
        """Count one round."""
        images = np.arange(len(record.accepted))
        active = np.isin(images, record.there)
        self.statistics.record(record.accepted, record.num_drafts, record.fallback, active, images)
        self.tries += int(record.tries.sum())
        drafts, kept = record.num_drafts[record.there], record.accepted[record.there]
        for i, (p, q) in enumerate(zip(record.target, record.draft, strict=True) if measure else ()):
            judged = (drafts > i) & (kept >= i)
            mine, other = p.rows(judged), q.rows(judged)
            if not judged.any() or not share_a_deviation(mine, other).all():
                continue
            found = figures(mine, other, law.omegas[i])
            self._acceptance += found.acceptance.tolist()
            if found.kl is not None:
                self.kl = (self.kl or 0.0) + float(found.kl.sum())


def draw_vectors(
    session: VectorSession,
    law: VectorLaw,
    sampling: VectorSampling,
    seeds: Sequence[int],
    *,
    measure: bool = False,
) -> VectorGeneration:
    """Draw one image per seed on a fresh session. measure: compute the exact KL and acceptance of every judged draft.

    Raises UserError if the draft length exceeds the image, a seed is out of range, or there is no draft to draft with.
    """
    loop = VectorLoop(session, law, sampling, seeds)
    made = VectorGeneration(loop.state.codes, Statistics.empty(session.images, law.length))
    loop.prefill()
    while loop.state.remaining.any():
        made.add(loop.round(), law, measure=measure)
    return made
