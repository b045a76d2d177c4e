"""Rounds of continuous tokens: the law of whole images against the exact one, and planted bugs.

6,000 images of 6 tokens of 2 channels. Means and covariances have standard errors of 1.3% of a deviation: a bias of
.07 deviations of any of 6 means is noticed with probability above .99, and each bug below is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest

from coolsd_rt.arrays import Floats64
from coolsd_rt.errors import UserError
from coolsd_rt.law.continuous import PositionVerdict, verify_position
from coolsd_rt.runtime.continuous import VectorLaw, VectorLoop, VectorSampling, draw_vectors
from coolsd_rt.runtime.continuous import loop as module
from coolsd_rt.runtime.continuous.numbers import VectorNumbers
from coolsd_rt.runtime.state import State
from tests.runtime.vector_fakes import DRAFT, NARROWER, SIZES, TARGET, WIDER, Linear, LinearModel, session

IMAGES, LIMIT = 6000, 5.0
LOSSLESS = VectorLaw((1.0,) * 3)
PLAIN, GUIDED = VectorSampling(), VectorSampling(scale=2.0)
CASES = [
    pytest.param(VectorLaw(), PLAIN, None, id="plain"),
    pytest.param(VectorLaw(), GUIDED, None, id="plain, guided"),
    pytest.param(LOSSLESS, PLAIN, DRAFT, id="lossless"),
    pytest.param(LOSSLESS, GUIDED, DRAFT, id="guided"),
    pytest.param(LOSSLESS, replace(GUIDED, aligned=False, temperature=1.5), DRAFT, id="noise not shared"),
    pytest.param(LOSSLESS, replace(PLAIN, alone=3), DRAFT, id="the first three alone"),
    pytest.param(VectorLaw((0.9, 0.6, 0.3)), PLAIN, DRAFT, id="omegas below 1"),
    pytest.param(LOSSLESS, PLAIN, WIDER, id="a wider draft"),
    pytest.param(LOSSLESS, GUIDED, NARROWER, id="a narrower draft"),
]


def scores(law: VectorLaw, sampling: VectorSampling, draft: Linear | None, images: int = IMAGES) -> Floats64:
    """How many standard errors means and covariances of drawn images are from the target's."""
    made = draw_vectors(session(images, sampling, draft), law, sampling, range(images))
    mean, covariance = TARGET.mean_and_covariance(SIZES, sampling)
    deviations = np.sqrt(np.diag(covariance))
    x = (made.tokens.astype(np.float64) - mean[:, None]) / deviations[:, None]
    wanted = covariance / np.outer(deviations, deviations)
    off = [x.mean(0).ravel() * np.sqrt(images)]
    for c in range(SIZES.channels):
        seen = x[:, :, c].T @ x[:, :, c] / images
        off.append(((seen - wanted) / np.sqrt((1 + wanted**2) / images)).ravel())
    off.append((x[:, :, 0].T @ x[:, :, 1]).ravel() / np.sqrt(images))  # channels are independent
    return np.concatenate(off)


@pytest.mark.parametrize(("law", "sampling", "draft"), CASES)
def test_images_have_the_targets_law(law: VectorLaw, sampling: VectorSampling, draft: Linear | None) -> None:
    assert np.abs(scores(law, sampling, draft)).max() < LIMIT


@pytest.mark.parametrize("draft", [DRAFT, WIDER])
def test_the_last_token_is_normal(draft: Linear) -> None:
    made = draw_vectors(session(IMAGES, GUIDED, draft), LOSSLESS, GUIDED, range(IMAGES))
    mean, covariance = TARGET.mean_and_covariance(SIZES, GUIDED)
    x = (made.tokens[:, -1].ravel() - mean[-1]) / np.sqrt(covariance[-1, -1])
    assert kstest(x, "norm").pvalue > 1e-4


def test_a_relaxed_law_is_another_one() -> None:
    assert np.abs(scores(VectorLaw((3.0,) * 3), PLAIN, DRAFT)).max() > 2 * LIMIT


@pytest.mark.parametrize("omega", [1.0, 1.6])
def test_as_many_drafts_are_kept_as_expected(omega: float) -> None:
    law = VectorLaw((omega,) * 3)
    made = draw_vectors(session(2000, PLAIN), law, PLAIN, range(2000), measure=True)
    judged = int(made.statistics.attempts.sum())
    kept = int(made.statistics.accepts.sum()) / judged
    rate = made.expected_acceptance
    assert 0.3 < rate < 0.95
    assert abs(kept - rate) < LIMIT * np.sqrt(rate * (1 - rate) / judged)
    assert made.kl is not None
    assert made.kl == 0 if omega == 1 else made.kl > 1


def test_shared_noise_keeps_more_drafts() -> None:
    found = [
        draw_vectors(session(1000, how), LOSSLESS, how, range(1000)).statistics.mean_acceptance_length
        for how in (PLAIN, replace(PLAIN, aligned=False))
    ]
    assert found[0] > 1.2 * found[1]


@pytest.mark.parametrize("sampling", [PLAIN, GUIDED])
def test_equal_models_keep_every_draft(sampling: VectorSampling) -> None:
    made = draw_vectors(session(50, sampling, TARGET), LOSSLESS, sampling, range(50), measure=True)
    assert made.expected_acceptance == pytest.approx(1)
    assert made.statistics.rounds.tolist() == [2] * 50  # a token, three drafts and one, and the last one
    assert made.tries == 0


def test_the_counters_keep_their_invariants() -> None:
    """Also where images end in different rounds: those that are finished stay as they are."""
    law, pair = LOSSLESS, session(40, GUIDED)
    loop = VectorLoop(pair, law, GUIDED, range(40))
    loop.prefill()
    while loop.state.remaining.any():
        before, left = loop.state.codes.copy(), loop.state.remaining > 0
        record = loop.round()
        state = loop.state
        assert (state.cached == state.committed - 1).all()
        assert (state.drafted <= state.committed).all()
        assert (state.codes[~left] == before[~left]).all()
        assert (record.there == np.flatnonzero(left)).all()
        assert (record.accepted <= record.num_drafts).all()
        for m in np.flatnonzero(state.remaining):  # what is cached is what was decided
            decided = state.codes[m, : state.decided[m] - 1]
            assert isinstance(pair.target, LinearModel)
            assert (pair.target.cache[m, SIZES.prefix : SIZES.prefix + len(decided)] == decided).all()
    assert np.isfinite(loop.state.codes).all()


def test_an_image_is_the_same_alone_and_among_others() -> None:
    many = draw_vectors(session(6, GUIDED), LOSSLESS, GUIDED, range(3, 9)).tokens
    for m, seed in enumerate(range(3, 9)):
        assert (draw_vectors(session(1, GUIDED), LOSSLESS, GUIDED, [seed]).tokens[0] == many[m]).all()


def test_the_first_tokens_alone() -> None:
    how = replace(PLAIN, alone=4)
    pair = session(30, how)
    loop = VectorLoop(pair, LOSSLESS, how, range(30))
    loop.prefill()
    drafted = []
    while loop.state.remaining.any():
        decided = loop.state.decided.copy()
        record = loop.round()
        drafted.append((decided, record.num_drafts))
    assert all((drafts[decided < 4] == 0).all() for decided, drafts in drafted)
    assert any(drafts.any() for _, drafts in drafted)


def test_tries_that_reach_their_bound_are_counted() -> None:
    law = VectorLaw((1.0,) * 3, bound=1)
    made = draw_vectors(session(300, PLAIN, WIDER), law, PLAIN, range(300))
    assert made.statistics.degenerate > 0
    assert made.tries > 0


@pytest.mark.parametrize(
    ("said", "call"),
    [
        ("the draft length: expected at most the image's 6, found 7", lambda: drawn(VectorLaw((1.0,) * 7))),
        ("drafts: expected a session with a draft model", lambda: drawn(LOSSLESS, None)),
        ("omega 2: expected", lambda: VectorLaw((1.0, -1.0))),
        ("the bound on tries: expected 1 or more, found 0", lambda: VectorLaw((1.0,), 0)),
        ("tokens that the target draws alone: expected 0 or more", lambda: VectorSampling(alone=-1)),
        ("a seed: expected", lambda: draw_vectors(session(1, PLAIN), LOSSLESS, PLAIN, [-1])),
    ],
)
def test_what_cannot_be_drawn_is_one_line(said: str, call: Callable[[], Any]) -> None:
    with pytest.raises(UserError, match=said):
        call()


def drawn(law: VectorLaw, draft: Linear | None = DRAFT) -> Any:
    return draw_vectors(session(1, PLAIN, draft), law, PLAIN, [0])


def noticed(draft: Linear = DRAFT, sampling: VectorSampling = PLAIN) -> bool:
    return bool(np.abs(scores(LOSSLESS, sampling, draft)).max() > LIMIT)


def test_a_replacement_from_p(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a rejected draft is replaced by a draw of P and not of G*."""
    real, rng = verify_position, np.random.default_rng(0)

    def planted(x: Any, target: Any, *more: Any) -> PositionVerdict:
        found = real(x, target, *more)
        fresh = target.at(rng.standard_normal(x.shape))
        return replace(found, tokens=np.where(found.accepted[:, None], found.tokens, fresh))

    monkeypatch.setattr(module, "verify_position", planted)
    assert noticed()


def test_last_noise_that_the_target_has_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the noise of the last step is that of the first state, which both heads share."""
    real = VectorNumbers.tokens

    def planted(self: VectorNumbers, *args: Any, **more: Any) -> Any:
        noise, _ = real(self, *args, **more)
        return noise, noise.start.astype(np.float64)

    monkeypatch.setattr(VectorNumbers, "tokens", planted)
    assert noticed()


def test_q_of_another_position(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: drafts are judged by the Gaussian of the draft before them."""
    real = VectorLoop._verify

    def planted(self: VectorLoop, window: Any, there: Any, num: Any, at: Any, p: Any, q: Any) -> Any:
        return real(self, window, there, num, at, p, [*q[:1], *q[:-1]])

    monkeypatch.setattr(VectorLoop, "_verify", planted)
    assert noticed()


def test_a_rejected_drafts_cache_row_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the target goes on behind the row of the first rejected draft."""
    real = State.commit

    def planted(self: State, window: Any, accepted: Any, active: Any) -> None:
        real(self, window, accepted, active)
        self.cached = np.where(active & (accepted < window.shape[1] - 1), self.committed, self.cached)

    monkeypatch.setattr(State, "commit", planted)
    assert noticed()


def test_guidance_of_the_other_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the two halves of CFG are exchanged in the draft behind the drafts."""
    real = LinearModel.last_step

    def planted(self: LinearModel, features: Any, scale: Any, noise: Any) -> Any:
        if self.law == TARGET:
            features = np.concatenate(np.split(features, 2)[::-1])
        return real(self, features, scale, noise)

    monkeypatch.setattr(LinearModel, "last_step", planted)
    assert noticed(sampling=GUIDED)
