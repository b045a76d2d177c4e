"""The loop as it is used: Philox, float32, seeds. Joint laws of whole pictures, with the power of the test computed.

40,000 pictures of 5 binary tokens, 32 cells, alpha 1e-6: a deviation of total variation 0.03 is found with probability
above 0.999, whatever its shape. (The exact proof is `test_exact_round`; this one covers what it injects.)
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from coolsd_rt.law import Law, exact, make_omegas
from coolsd_rt.runtime import Sampling, decode, uniform_table
from coolsd_rt.runtime.randomness import ACCEPT, DRAFT
from tests.runtime.fakes import FakeSession, Tables, dims

PICTURES, TOKENS, ALPHA, DEVIATION = 40_000, 5, 1e-6, 0.03
TABLES = Tables.random(2, TOKENS, seed=4)
CELLS = 2**TOKENS
UNIFORMS = uniform_table(range(PICTURES), TOKENS, 3)


def p_value(law: Law, uniforms: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    session = FakeSession(TABLES, dims(2, TOKENS), PICTURES, dtype="float32")
    codes = decode(session, law, Sampling(), uniforms).codes
    observed = np.bincount(codes @ (1 << np.arange(TOKENS)), minlength=CELLS)
    joint = exact.image_law(TABLES.p, TABLES.q, law, TOKENS)
    expected = np.zeros(CELLS)
    for tokens, weight in joint.items():
        expected[int(np.array(tokens) @ (1 << np.arange(TOKENS)))] = PICTURES * weight
    assert expected.min() > 5  # no cell needs pooling
    return float(stats.chisquare(observed, expected * PICTURES / expected.sum()).pvalue)


def test_the_power_is_as_stated() -> None:
    # sum (d^2 / p) >= (sum |d|)^2 = (2 TV)^2, by Cauchy and Schwarz: the worst shape of deviation
    noncentral = PICTURES * (2 * DEVIATION) ** 2
    threshold = stats.chi2.isf(ALPHA, CELLS - 1)
    assert stats.ncx2.sf(threshold, CELLS - 1, noncentral) > 0.999


def test_lossless_and_relaxed_pictures_have_their_laws() -> None:
    for law in (Law((1.0, 1.0, 1.0)), Law(make_omegas("exponential", 3, delta=1.1))):
        assert p_value(law, UNIFORMS) > ALPHA / 2  # Bonferroni


def test_a_number_used_twice_is_found() -> None:
    """Planted: a draft is judged with the uniform that drew it."""
    reused = UNIFORMS.copy()
    reused[..., ACCEPT] = reused[..., DRAFT]
    assert p_value(Law((1.0, 1.0, 1.0)), reused) < ALPHA
