"""Merged windows: the figures of the whole ones, exactly where codes have one ratio, within a bound where bins do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coolsd_rt.errors import UserError
from coolsd_rt.law import Law, Resampler, Tolerance, make_omegas
from coolsd_rt.law.traces import RecordedRounds, RoundForecast, outlook
from coolsd_rt.schedules import merging
from coolsd_rt.schedules.budget import Budget
from coolsd_rt.schedules.merging import WIDTH, compact, merge
from coolsd_rt.schedules.search import tune

LENGTH = 3
RESAMPLERS: tuple[Resampler, ...] = ("optimal", "waterfill", "residual", "target")
OMEGAS = {
    "none": (1.0,) * LENGTH,
    "paper": make_omegas("exponential", LENGTH, delta=1.3),
    "floor": make_omegas("exponential", LENGTH, delta=1.3, floor=1.0),
    "below": (0.3, 0.8, 1.0),
    "large": (64.0, 8.0, 2.0),
}


def drawn(
    rng: np.random.Generator, p: np.ndarray, q: np.ndarray, ends: tuple[int, ...] = (), images: int = 20
) -> RecordedRounds:
    """Windows of P and Q [n, L, V] with drafts drawn from Q."""
    drafts = (q.cumsum(-1) < rng.random((*q.shape[:2], 1)) * q.sum(-1, keepdims=True)).sum(-1)
    return RecordedRounds(
        p, q, drafts, rng.integers(1, LENGTH + 1, len(p)), image=np.arange(len(p)) % images, ends=ends
    )


def few_ratios(seed: int, vocab: int, count: int = 12) -> RecordedRounds:
    """Windows with a handful of ratios P/Q, each of many codes, no P or no Q at some: merging is exact."""
    rng = np.random.default_rng(seed)
    ratios = np.exp((rng.permutation(np.arange(-90, 90))[:6] + 0.5) * WIDTH)  # no two of one bin
    kind = rng.integers(0, 8, (count, LENGTH, vocab))
    q = rng.random(kind.shape) * (kind != 6)
    p = np.where(kind < 6, q * ratios[np.minimum(kind, 5)], (kind == 6) * rng.random(kind.shape))
    # Both become distributions by weights at codes of their own, which keeps the ratios of the other codes.
    spare = np.full((count, LENGTH, 2), 0.0)
    scale = 0.9 / np.maximum(p.sum(-1, keepdims=True), q.sum(-1, keepdims=True))
    p, q = (np.concatenate([a * scale, spare], -1) for a in (p, q))
    p[..., -2], q[..., -1] = 1 - p.sum(-1), 1 - q.sum(-1)
    return drawn(rng, p, q, ends=(0, vocab))


def same(a: RoundForecast, b: RoundForecast, within: float) -> None:
    for name in ("accept_length", "kl", "tv_round", "tv", "reach", "acceptance"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), abs=within), name
    assert a.images is not None
    assert b.images is not None
    for name in ("rounds", "tokens", "kl", "tv", "tv_round"):
        np.testing.assert_allclose(getattr(a.images, name), getattr(b.images, name), atol=20 * within, err_msg=name)


@given(
    seed=st.integers(0, 2**32 - 1),
    vocab=st.integers(2, 60),
    name=st.sampled_from(sorted(OMEGAS)),
    resampler=st.sampled_from(RESAMPLERS),
)
@settings(max_examples=80, deadline=None)
def test_codes_of_one_ratio_are_one_code(seed: int, vocab: int, name: str, resampler: Resampler) -> None:
    windows, law = few_ratios(seed, vocab), Law(OMEGAS[name], resampler)
    for smaller in (merge(windows), compact(merge(windows)), compact(windows)):
        same(outlook(smaller, law), outlook(windows, law), 1e-12)


def text_like(seed: int, apart: float, vocab: int = 5000, count: int = 24) -> RecordedRounds:
    """A few codes with most of the weight, and a long tail."""
    rng = np.random.default_rng(seed)
    logits = 3.0 * rng.standard_normal((count, LENGTH, vocab))
    other = logits + apart * rng.standard_normal(logits.shape)
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (logits, other))
    return drawn(rng, p, q, ends=(3, 4))


@pytest.mark.parametrize("apart", [0.2, 0.8, 2.0])
@pytest.mark.parametrize("resampler", RESAMPLERS)
@pytest.mark.parametrize("name", OMEGAS)
def test_bins_are_within_their_bound(name: str, resampler: Resampler, apart: float) -> None:
    """The docstring's bound, and what it says was measured."""
    windows = text_like(7, apart)
    whole, small = (outlook(w, Law(OMEGAS[name], resampler)) for w in (windows, merge(windows)))
    grown = small.accept_length - whole.accept_length
    assert -1e-9 <= grown <= (1 - np.exp(-WIDTH)) * whole.accept_length
    assert grown < 1e-4 * whole.accept_length
    assert small.kl == pytest.approx(whole.kl, rel=7e-3 if apart < 0.5 else 4e-4, abs=1e-6)
    if name == "none" and resampler != "target":  # G* and [P - Q]+ are lossless, so is waterfill
        same(small, whole, 1e-9)


def test_tv_is_exact() -> None:
    windows = text_like(1, 0.8)
    small = merge(windows)
    tv = [0.5 * np.abs(w.target - w.draft).sum(-1) for w in (small, windows)]
    np.testing.assert_allclose(tv[0], tv[1], atol=1e-12)
    assert small.target.shape[-1] == merging.columns(2) < 260


def test_tuning_finds_the_same() -> None:
    windows = text_like(2, 0.6, vocab=400, count=160)
    whole, small = (tune(w, Budget("kl", 0.02, None)) for w in (windows, merge(windows)))
    assert small.best.outlook.accept_length == pytest.approx(whole.best.outlook.accept_length, rel=2e-3)
    for a, b in zip(small.judged, whole.judged, strict=True):
        assert a.outlook.kl_per_token == pytest.approx(b.outlook.kl_per_token, rel=2e-2)


def test_the_drafted_token_has_its_own_p_and_q() -> None:
    windows = text_like(3, 0.8)
    small = merge(windows)
    for name in ("target", "draft"):
        own = [np.take_along_axis(getattr(w, name), w.drafts[..., None], -1) for w in (small, windows)]
        np.testing.assert_array_equal(own[0], own[1])
    wrong = replace(small, drafts=(small.drafts + 4) % merging.columns(2))
    law = Law(OMEGAS["floor"])
    with np.errstate(divide="ignore", invalid="ignore"):
        assert outlook(wrong, law).accept_length != pytest.approx(outlook(windows, law).accept_length, rel=1e-3)


@pytest.mark.parametrize("kind", ["lantern", "lantern_pp"])
def test_rules_of_neighbours_are_refused(kind: str) -> None:
    near = np.zeros((5000, 1), np.int64)
    law = Law((1.0,) * LENGTH, tolerance=Tolerance(kind, 1.0, near))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=rf"merged windows.*ratio.*{kind}"):
        outlook(merge(text_like(4, 0.5)), law)
