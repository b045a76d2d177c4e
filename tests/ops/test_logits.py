"""Logit processing against a slow, literal account in float64, on both libraries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from coolsd_rt.ops import process_logits
from tests.ops.libraries import LIBRARIES, Convert, host

SEED = 0


def literal(logits: NDArray[Any], scale: float | None, temperature: float, top_k: int, top_p: float) -> NDArray[Any]:
    """One position: logits [V], or [2, V] with a scale. CFG, temperature, top-k, softmax, top-p, as sentences."""
    x = logits.astype(np.float64)
    if scale is not None:
        x = x[1] + (x[0] - x[1]) * scale
    x = x / max(temperature, 1e-5)
    if 0 < top_k < len(x):
        x = np.where(x >= sorted(x)[-top_k], x, -math.inf)
    p = np.exp(x - x.max())
    p /= p.sum()
    if top_p < 1:
        likelier = np.array([p[p > value].sum() for value in p])  # ties stand or fall together
        p = np.where(likelier <= top_p, p, 0.0)
        p /= p.sum()
    return np.asarray(p)


@pytest.fixture(params=list(LIBRARIES))
def to(request: pytest.FixtureRequest) -> Convert:
    return LIBRARIES[request.param]


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.9])
@pytest.mark.parametrize("top_k", [0, 1, 5, 31, 32, 100])
@pytest.mark.parametrize("top_p", [1.0, 0.6])
@pytest.mark.parametrize("guided", [True, False])
def test_against_the_literal_account(to: Convert, temperature: float, top_k: int, top_p: float, guided: bool) -> None:
    images, steps, vocab = 2, 3, 32
    rows = 2 * images if guided else images
    logits = 3 * np.random.default_rng(SEED).standard_normal((rows, steps, vocab)).astype(np.float32)
    scale = np.array([[1.0, 3.0, 7.5], [0.0, 2.0, -1.0]], np.float32) if guided else None
    probs = host(process_logits(to(logits), None if scale is None else to(scale), temperature, top_k, top_p))
    assert probs.dtype == np.float32
    for m in range(images):
        for s in range(steps):
            given = logits[[m, m + images], s] if guided else logits[m, s]
            expected = literal(given, None if scale is None else float(scale[m, s]), temperature, top_k, top_p)
            np.testing.assert_allclose(probs[m, s], expected, atol=2e-6)
            assert (probs[m, s][expected == 0] == 0).all()  # filtered is 0 exactly
            assert (probs[m, s][expected > 1e-20] > 0).all()


def test_cfg_comes_before_the_softmax(to: Convert) -> None:
    """Mixing distributions instead of logits is another law (and can be negative)."""
    logits = to(np.array([[[2.0, 0.0]], [[0.0, 0.0]]], np.float32))
    probs = host(process_logits(logits, to(np.array([[3.0]], np.float32)), 1.0, 0, 1.0))
    assert probs[0, 0, 0] == pytest.approx(1 / (1 + math.exp(-6.0)))


def test_top_k_keeps_ties_and_top_p_too(to: Convert) -> None:
    logits = to(np.array([[[1.0, 3.0, 1.0, 1.0, 0.0]]], np.float32))
    assert (host(process_logits(logits, None, 1.0, 2, 1.0))[0, 0] > 0).tolist() == [True, True, True, True, False]
    flat = to(np.zeros((1, 1, 4), np.float32))
    assert (host(process_logits(flat, None, 1.0, 0, 0.3)) > 0).all()


def test_small_temperatures_are_greedy(to: Convert) -> None:
    logits = to(np.array([[[0.0, 0.5, 0.1]]], np.float32))
    for temperature in (0.0, 1e-9):
        np.testing.assert_array_equal(host(process_logits(logits, None, temperature, 0, 1.0)), [[[0, 1, 0]]])


def test_precision_follows_the_logits(to: Convert) -> None:
    logits = np.random.default_rng(SEED).standard_normal((1, 1, 8))
    assert host(process_logits(to(logits), None, 1.0, 0, 1.0)).dtype == np.float64
    assert host(process_logits(to(logits.astype(np.float16)), None, 1.0, 0, 1.0)).dtype == np.float32


def test_nan_is_not_filtered_away(to: Convert) -> None:
    logits = np.random.default_rng(SEED).standard_normal((1, 1, 8)).astype(np.float32)
    logits[0, 0, 3] = np.nan
    for top_k, top_p in ((0, 1.0), (2, 1.0), (0, 0.5)):
        assert np.isnan(host(process_logits(to(logits), None, 1.0, top_k, top_p))).all()


def test_the_logits_are_left_as_they_were(to: Convert) -> None:
    logits = np.random.default_rng(SEED).standard_normal((2, 2, 8)).astype(np.float32)
    before, given = logits.copy(), to(logits)
    process_logits(given, to(np.full((1, 2), 2.0, np.float32)), 0.5, 3, 0.9)
    process_logits(given, None, 1.0, 0, 1.0)
    np.testing.assert_array_equal(host(given), before)
