"""The real round, enumerated as in `test_exact_round`, where distributions and laws are not ours to choose.

Hypothesis searches. Probabilities are multiples of 1/16, so that ties, zeros, point masses and disjoint supports are
common, with specks of 1e-9, 1e-300 and the least number there is on top; omegas are multiples of 1/4. No residual is
then nearly empty: it is empty but for specks, or holds a sixty-fourth.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from coolsd_rt.arrays import Floats64
from coolsd_rt.law import Law, exact
from coolsd_rt.law.residual import DEGENERATE_MASS
from coolsd_rt.runtime import decode
from coolsd_rt.runtime.randomness import RESAMPLE
from tests.runtime.fakes import FakeSession, Tables, contexts, dims
from tests.runtime.planting import World
from tests.runtime.tree import EDGE, Leaf, Method, check_leaves, output_law, probes

SHAPES = [(2, 1, 3), (2, 4, 6), (3, 2, 4), (3, 3, 5), (4, 2, 4), (6, 1, 3)]  # V, L, N: the first window is a whole one
GRAIN = 16
SPECKS = [0.0, 0.0, 0.0, 1e-9, 1e-300, 5e-324]
OMEGAS = [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.25, 1.5, 2.0, 16.0]
# Never a sum of sixteenths, so that no comparison hangs on the last digit.
BOUNDS = {"lantern": [0.0, 0.03, 0.17, 0.55, 1.0], "lantern_pp": [1.0, 1.37, 1.9, 3.3]}


@st.composite
def distributions(draw: st.DrawFn, vocab: int) -> Floats64:
    """GRAIN grains dropped on V codes, and specks."""
    cuts = draw(st.lists(st.integers(0, GRAIN), min_size=vocab - 1, max_size=vocab - 1).map(sorted))
    grains = np.diff([0, *cuts, GRAIN]) / GRAIN
    specks = draw(st.lists(st.sampled_from(SPECKS), min_size=vocab, max_size=vocab))
    weights = grains + np.array(specks)
    return np.asarray(weights / weights.sum(), np.float64)


@st.composite
def tables(draw: st.DrawFn, vocab: int, tokens: int) -> Tables:
    """A few distributions for P, a few for Q, some for both, dealt out to the contexts."""
    pools = [draw(st.lists(distributions(vocab), min_size=1, max_size=3)) for _ in range(3)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def dealt(pool: list[Floats64]) -> Floats64:
        return np.array(pool)[rng.integers(0, len(pool), contexts(vocab, tokens))]

    return Tables(dealt(pools[0] + pools[2]), dealt(pools[1] + pools[2]))


@st.composite
def methods(draw: st.DrawFn, vocab: int, length: int) -> Method:
    """Any rule with any schedule and resampler that go with it."""
    rule = draw(st.sampled_from(["ratio", "ratio", "ratio", "lantern", "lantern_pp", "synthetic"]))
    if rule == "synthetic":
        rates = draw(st.lists(st.sampled_from([0.0, 0.4, 1.0]), min_size=length, max_size=length))
        return Method((1.0,) * length, "target", rates=tuple(rates))
    resampler = draw(st.sampled_from(["optimal", "waterfill", "residual", "target"]))
    if rule == "ratio":
        omegas = draw(st.lists(st.sampled_from(OMEGAS), min_size=length, max_size=length))
        return Method(tuple(omegas), resampler)
    if draw(st.booleans()):
        resampler = "lantern"
    lend = draw(st.integers(1, vocab - 1))
    count = min(lend + 1, vocab - 1) if resampler == "lantern" else draw(st.integers(lend, vocab - 1))
    near = [draw(st.permutations([y for y in range(vocab) if y != x]))[:count] for x in range(vocab)]
    return Method((1.0,) * length, resampler, lantern=(rule, draw(st.sampled_from(BOUNDS[rule])), near), lend=lend)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    vocab, length, tokens = draw(st.sampled_from(SHAPES))
    return World(draw(tables(vocab, tokens)), draw(methods(vocab, length)), vocab, tokens)


def lossless(law: Law) -> bool:
    """Whether the output has to be P's, whatever P and Q are.

    LANTERN's own residual never: it takes a nearest code without P for one that lent, at a bound of 0 too.
    """
    if law.rates is not None:
        return False
    if law.tolerance is not None and law.tolerance.bound != (0.0 if law.rule == "lantern" else 1.0):
        return False
    if law.resampler in ("optimal", "waterfill"):
        return max(law.omegas) <= 1
    return law.resampler == "residual" and set(law.omegas) == {1.0}


def slack(found: list[Leaf], tokens: int) -> float:
    """How far from P a lossless law may be: an empty residual stops there, short of its threshold."""
    return tokens * DEGENERATE_MASS if any(leaf.degenerate for leaf in found) else 1e-12


def numbers(found: list[Leaf], world: World, upper: bool) -> Floats64:
    """The probes, but for resampling at exactly 0: there a tie of P and Q would have to be one to the last digit, and
    softmax does not keep it so."""
    table = probes(found, world.tokens, world.law.length, upper)
    table[..., RESAMPLE] = np.maximum(table[..., RESAMPLE], EDGE)
    return table


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # dividing by the least number there is
@settings(max_examples=100)
@given(world=worlds(), library=st.sampled_from(["numpy", "torch"]))
def test_the_round_draws_every_leaf_and_the_leaves_are_the_closed_form(world: World, library: str) -> None:
    found, law, t = world.leaves, world.law, world.tables
    event(f"{law.rule} {law.resampler}")
    for upper in (False, True):
        session = FakeSession(t, dims(world.vocab, world.tokens), len(found), library=library)
        result = decode(session, law, world.sampling, numbers(found, world, upper))
        check_leaves(found, result.codes, result.statistics.rounds)
        assert int(result.statistics.accepts.sum()) == sum(leaf.accepted for leaf in found)
        assert result.statistics.degenerate == sum(leaf.degenerate for leaf in found)
    drawn = output_law(found)
    assert sum(drawn.values()) == pytest.approx(1.0, abs=1e-12)
    assert exact.total_variation(drawn, exact.image_law(t.p, t.q, law, world.tokens)) < 1e-12
    if lossless(law):
        truth = exact.target_law(t.p, world.tokens)
        assert exact.total_variation(drawn, truth) < slack(found, world.tokens)
