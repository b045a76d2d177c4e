"""The enumeration: what it must say about lossless rounds, the floor, and expected lengths."""

from __future__ import annotations

import numpy as np
import pytest

from coolsd_rt.law import RESAMPLERS, Law, Resampler, exact, make_omegas
from tests.runtime.fakes import Tables

LENGTH = 3
TABLES = Tables.random(vocab=4, tokens=LENGTH + 2, seed=3, spread=0.7)
P, Q = TABLES.p, TABLES.q


def joint(law: Law) -> exact.Joint:
    return exact.window_law(P, Q, law)


@pytest.mark.parametrize("resampler", [r for r in RESAMPLERS if r != "lantern"])  # it has a rule of its own
def test_every_law_sums_to_one(resampler: Resampler) -> None:
    law = Law(make_omegas("exponential", LENGTH, delta=1.1), resampler)
    for found in (exact.round_law(P, Q, law), joint(law), exact.image_law(P, Q, law, LENGTH + 1)):
        assert sum(found.values()) == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("omegas", [(1.0, 1.0, 1.0), (0.3, 1.0, 0.9), (0.0, 0.0, 0.0)])
def test_lossless_when_no_omega_passes_one(omegas: tuple[float, ...]) -> None:
    truth = exact.target_law(P, LENGTH)
    assert exact.total_variation(joint(Law(omegas)), truth) < 1e-14
    image = exact.image_law(P, Q, Law(omegas), LENGTH + 2)
    assert exact.total_variation(image, exact.target_law(P, LENGTH + 2)) < 1e-14


def test_relaxation_and_the_wrong_residual_are_biased() -> None:
    truth = exact.target_law(P, LENGTH)
    assert exact.total_variation(joint(Law((1.2, 1.0, 1.0))), truth) > 0.01
    assert exact.total_variation(joint(Law((0.5, 0.5, 0.5), "residual")), truth) > 0.01
    assert exact.total_variation(joint(Law((1.0, 1.0, 1.0), "target")), truth) > 0.01


def test_the_floor_is_free() -> None:
    """The same output law to the last digit, and longer rounds."""
    plain = Law(make_omegas("exponential", LENGTH, delta=1.1))
    floored = Law(make_omegas("exponential", LENGTH, delta=1.1, floor=1.0))
    assert plain.omegas[-1] < 1
    truth = exact.target_law(P, LENGTH)
    assert exact.total_variation(joint(plain), truth) > 0.01
    assert exact.total_variation(joint(plain), joint(floored)) < 1e-14
    assert exact.kl(joint(plain), truth) == pytest.approx(exact.kl(joint(floored), truth), abs=1e-13)
    assert exact.accept_length(P, Q, floored) > exact.accept_length(P, Q, plain) + 0.05


def test_accept_length_is_the_sum_of_survivals() -> None:
    """For P and Q that ignore the context, 1 + a + a^2 + ... with a the overlap."""
    p, q = np.array([0.6, 0.4]), np.array([0.3, 0.7])
    rate = 0.7
    length = exact.accept_length(lambda _: p, lambda _: q, Law((1.0, 1.0, 1.0)))
    assert length == pytest.approx(1 + rate + rate**2 + rate**3)
    assert exact.accept_length(lambda _: p, lambda _: q, Law(())) == 1.0


def test_distances() -> None:
    a: exact.Joint = {(0,): 0.5, (1,): 0.5}
    b: exact.Joint = {(0,): 1.0}
    assert exact.total_variation(a, b) == 0.5
    assert exact.kl(b, a) == pytest.approx(np.log(2))
    assert exact.kl(a, b) == float("inf")
