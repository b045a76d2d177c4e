"""The loop as it is used: Philox, float32. Joint laws of images and of all their beginnings, with stated power.

Each case draws as many images as it takes to find any deviation of total variation 0.005 in the joint law of a
beginning (the first 1, 2, ... tokens) with probability 0.999, at 1e-6 false alarms for the file as a whole. Numbers
are fixed: a case passes or fails for ever. (The exact proof is `test_exact_round`; this covers what that injects.)
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import optimize, stats

from coolsd_rt.arrays import Floats64
from coolsd_rt.law import Law, Tolerance, exact, make_omegas
from coolsd_rt.runtime import Sampling, Statistics, decode, generate, uniform_table
from coolsd_rt.runtime.randomness import ACCEPT, DRAFT, PURPOSES
from tests.runtime.fakes import FakeSession, Tables, context_index, contexts, dims
from tests.runtime.tree import Method, leaves, output_law

ALPHA, POWER, DEVIATION = 1e-6, 0.999, 0.005
LEAST = 5.0  # expectation of a cell; smaller ones are pooled
HIDDEN = 2e-5  # mass of all pooled cells, at most; what a deviation loses by pooling is no more than that
BATCH, SEED = 25_000, 2026

Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Case:
    """A law, the tables it runs on, and the joint law that its images must have."""

    tables: Tables
    law: Law
    vocab: int
    tokens: int
    confidence: float = 0.0

    @functools.cached_property
    def joint(self) -> exact.Joint:
        t = self.tables
        if self.confidence:  # the closed form knows no pacing, the tree does
            return output_law(leaves(t.p, t.q, Method(self.law.omegas, confidence=self.confidence), self.tokens))
        return exact.image_law(t.p, t.q, self.law, self.tokens)

    @property
    def cells(self) -> int:
        return int(self.vocab**self.tokens)

    @property
    def sampling(self) -> Sampling:
        return Sampling(confidence=self.confidence)

    def session(self, images: int) -> FakeSession:
        """As if always paced: otherwise the fake checks its caches row by row, as the exact tests have it do."""
        return FakeSession(self.tables.as_float32(), dims(self.vocab, self.tokens), images, paced=True)


PAPER = make_omegas("exponential", 2, delta=1.1)
FLOORED = make_omegas("exponential", 2, delta=1.1, floor=1.0)
NEAR = np.array([[1, 2], [0, 2], [1, 0]])
TWO, THREE = Tables.random(2, 4, seed=4), Tables.random(3, 3, seed=5)
RARE = Tables.random(2, 4, seed=11, spread=4.0)
CASES = {
    "lossless": Case(TWO, Law((1.0, 1.0)), 2, 4),
    "cool-sd": Case(TWO, Law(PAPER), 2, 4),
    "floored-waterfill": Case(THREE, Law(FLOORED, "waterfill"), 3, 3),  # of two codes it would be G*
    "lantern_pp": Case(THREE, Law((1.0, 1.0), "optimal", Tolerance("lantern_pp", 1.8, NEAR)), 3, 3),
    "paced": Case(TWO, Law(PAPER), 2, 4, confidence=0.7),
    "rare-cells": Case(RARE, Law(PAPER), 2, 4),
}
SEEDED = CASES["cool-sd"]  # again, from seeds: fewer images, for a coarser deviation
SEEDS, SEEDED_DEVIATION = 60_000, 0.025
THRESHOLD = ALPHA / (sum(case.tokens for case in CASES.values()) + SEEDED.tokens)  # Bonferroni


@pytest.fixture(autouse=True)
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting goes image by image and would take most of the time; nothing here looks at it."""
    monkeypatch.setattr(Statistics, "record", lambda *_: None)


def power(images: float, cells: int, deviation: float = DEVIATION) -> float:
    """Probability that a chi-square test of `cells` cells finds a deviation of that total variation, of any shape.

    Noncentrality n sum(d^2 / p) >= n (sum |d|)^2 = n (2 TV)^2, by Cauchy and Schwarz.
    """
    return float(stats.ncx2.sf(stats.chi2.isf(THRESHOLD, cells - 1), cells - 1, images * (2 * deviation) ** 2))


@functools.cache
def needed(cells: int) -> int:
    """Images for the power stated, in whole batches."""
    n = optimize.brentq(lambda n: power(n, cells, DEVIATION - HIDDEN) - POWER, 1e3, 1e8)
    return int(np.ceil(n / BATCH)) * BATCH


def uniforms(stream: int, images: int, tokens: int, length: int) -> NDArray[np.float32]:
    """As `uniform_table` has them, many images from one stream: a Philox of its own for each would take minutes."""
    philox = np.random.Philox(key=np.array([SEED, stream], np.uint64))
    words = philox.random_raw(images * tokens * (length + 1) * 4).reshape(images, tokens, length + 1, 4)
    return (words[..., :PURPOSES] >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def counted(codes: NDArray[np.int64], vocab: int) -> Counts:
    """Images by cell; a cell's number is the image read as a number of base V, first token first."""
    tokens = codes.shape[1]
    return np.bincount(codes @ vocab ** np.arange(tokens)[::-1], minlength=vocab**tokens)


def drawn(case: Case, batches: int = 0, reuse: bool = False) -> Counts:
    """Counts of as many images as the case needs, or of so many batches.

    reuse: the plant, a draft is judged by the number that drew it.
    """
    counts = np.zeros(case.cells, np.int64)
    for stream in range(batches or needed(case.cells) // BATCH):
        u = uniforms(stream, BATCH, case.tokens, case.law.length)
        if reuse:
            u[..., ACCEPT] = u[..., DRAFT]
        counts += counted(decode(case.session(BATCH), case.law, case.sampling, u).codes, case.vocab)
    return counts


@functools.cache
def observed(name: str) -> Counts:
    return drawn(CASES[name])


def cellwise(joint: exact.Joint, case: Case) -> Floats64:
    """The joint law as an array [cells], exactly normalised."""
    law = np.zeros((case.vocab,) * case.tokens)
    for tokens, weight in joint.items():
        law[tokens] = weight
    return np.asarray(law.ravel() / law.sum(), np.float64)


def groups(expected: Floats64) -> NDArray[np.int64]:
    """The cell that each cell belongs to after pooling.

    All that expect fewer than LEAST are one, and with them the next smallest until they expect LEAST together.
    """
    order = np.argsort(expected, kind="stable")
    together = int((expected < LEAST).sum())
    while together and together < len(expected) and expected[order[:together]].sum() < LEAST:
        together += 1
    of = np.empty(len(expected), np.int64)
    of[order] = np.maximum(np.arange(len(expected)) - max(together - 1, 0), 0)
    return of


def p_value(counts: Counts, law: Floats64) -> float:
    """Chi-square over pooled cells; an image that cannot be is refused outright."""
    if counts[law == 0].any():
        return 0.0
    counts, expected = counts[law > 0], law[law > 0] * counts.sum()
    of = groups(expected)
    return float(stats.chisquare(np.bincount(of, counts), np.bincount(of, expected)).pvalue)


def p_values(counts: Counts, law: Floats64, case: Case) -> list[float]:
    """Of the joint law of the first 1, 2, ... tokens: each is a test of its own."""
    ends = [case.vocab ** (n + 1) for n in range(case.tokens)]
    return [p_value(counts.reshape(end, -1).sum(-1), law.reshape(end, -1).sum(-1)) for end in ends]


def test_the_power_is_as_stated() -> None:
    """For every beginning of every case. Pooling moves mass inside the pooled cells alone, and makes cells fewer."""
    for case in CASES.values():
        images, law = needed(case.cells), cellwise(case.joint, case)
        assert power(images / 2, case.cells) < POWER
        for n in range(case.tokens):
            beginning = law.reshape(case.vocab ** (n + 1), -1).sum(-1)
            of = groups(beginning * images)
            assert beginning[np.bincount(of)[of] > 1].sum() < HIDDEN
            assert power(images, len(beginning), DEVIATION - HIDDEN) >= POWER
    assert power(SEEDS, SEEDED.cells, SEEDED_DEVIATION) >= POWER


@given(st.lists(st.floats(1e-9, 50), min_size=1, max_size=20))
def test_no_pooled_cell_expects_less_than_five(cells: list[float]) -> None:
    expected = np.array(cells)
    of = groups(expected)
    after = np.bincount(of, expected)
    assert after.sum() == pytest.approx(expected.sum())
    assert len(after) == 1 or after.min() >= LEAST
    small = expected < LEAST
    assert len(np.unique(of[small])) <= 1
    assert len(after) >= (~small).sum()  # at most one cell that needed no pooling was taken in
    if not small.any():
        assert len(after) == len(expected)


def test_some_cells_are_pooled() -> None:
    case = CASES["rare-cells"]
    expected = cellwise(case.joint, case) * needed(case.cells)
    assert 0 < expected.min() < LEAST
    assert 2 < len(np.unique(groups(expected))) < case.cells


def test_an_impossible_image_is_refused() -> None:
    law = np.array([0.5, 0.5, 0.0])
    assert p_value(np.array([500, 500, 0]), law) == 1.0
    assert p_value(np.array([500, 499, 1]), law) == 0.0


def test_the_stream_is_laid_out_as_the_table() -> None:
    for offset in range(3):
        np.testing.assert_array_equal(uniforms(offset, 1, 7, 0)[0, :, 0], uniform_table([SEED], 7, 2)[0, :, offset])


@pytest.mark.parametrize("name", list(CASES))
def test_images_and_their_beginnings_have_their_law(name: str) -> None:
    case = CASES[name]
    assert min(p_values(observed(name), cellwise(case.joint, case), case)) > THRESHOLD


def test_images_of_seeds_have_their_law() -> None:
    """Through `generate` and its table, a Philox for each seed."""
    codes = generate(SEEDED.session(SEEDS), SEEDED.law, SEEDED.sampling, range(SEEDS)).codes
    assert min(p_values(counted(codes, SEEDED.vocab), cellwise(SEEDED.joint, SEEDED), SEEDED)) > THRESHOLD


def least_visible(law: Floats64) -> Floats64:
    """A law at total variation DEVIATION, up by one factor on about half of the mass and down by one on the rest."""
    up = np.zeros(len(law), bool)
    for cell in np.argsort(law)[::-1]:
        up[cell] = law[up].sum() + law[cell] <= 0.5
    moved = np.where(up, law / law[up].sum(), -law / law[~up].sum())
    return np.asarray(law + DEVIATION * moved, np.float64)


def conditionals(law: Floats64, case: Case) -> Floats64:
    """The table [contexts, V] whose joint law this is."""
    table = np.zeros((contexts(case.vocab, case.tokens), case.vocab))
    for n in range(case.tokens):
        before = np.indices((case.vocab,) * n, np.int64).reshape(n, case.vocab**n).T
        weights = law.reshape(len(before), case.vocab, -1).sum(-1)
        at = context_index(before, np.full(len(before), n), case.vocab)
        table[at] = weights / weights.sum(-1, keepdims=True)
    return table


def distance(a: Floats64, b: Floats64) -> float:
    return 0.5 * float(np.abs(a - b).sum())


@pytest.mark.parametrize("name", list(CASES))
def test_a_law_at_the_stated_distance_is_refused(name: str) -> None:
    """The same images against a law that they do not have, in the shape that is hardest to see."""
    case = CASES[name]
    law = cellwise(case.joint, case)
    other = least_visible(law)
    assert distance(law, other) == pytest.approx(DEVIATION, abs=1e-12)
    assert p_values(observed(name), other, case)[-1] < THRESHOLD


def test_a_target_that_makes_images_at_the_stated_distance_is_found() -> None:
    """Planted into P's tables: the loop draws from another P than it is tested against."""
    case = CASES["lossless"]
    law = cellwise(case.joint, case)
    planted = replace(case, tables=Tables(conditionals(least_visible(law), case), case.tables.draft[0]))
    assert distance(cellwise(planted.joint, planted), law) == pytest.approx(DEVIATION, abs=1e-12)
    assert p_values(drawn(planted), law, case)[-1] < THRESHOLD


def test_a_schedule_that_makes_images_at_the_stated_distance_is_found() -> None:
    """The paper's law, tested against a first omega that is a little larger."""
    case = CASES["cool-sd"]
    law = cellwise(case.joint, case)

    def planted(more: float) -> Floats64:
        return cellwise(replace(case, law=Law((PAPER[0] + more, *PAPER[1:]))).joint, case)

    more = optimize.brentq(lambda more: distance(planted(more), law) - DEVIATION, 0.0, 2.0)
    assert more < 0.2
    assert min(p_values(observed("cool-sd"), planted(more), case)) < THRESHOLD


def test_a_number_used_twice_is_found() -> None:
    case = CASES["lossless"]
    assert min(p_values(drawn(case, 2, reuse=True), cellwise(case.joint, case), case)) < THRESHOLD
