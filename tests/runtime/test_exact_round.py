"""The real round, enumerated: every path through all of its draws, against an independent account of the method.

For each leaf of `tests.runtime.tree` the round is run at both ends of the leaf's box of uniforms and has to draw the
leaf's image, in the leaf's number of rounds, both times. Then its output law is the leaves' law up to 2e-12 a draw,
and that law is compared with the closed form of `coolsd_rt.law.exact` and, where the method is lossless, with P.
All leaves run as one ragged batch.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from coolsd_rt.arrays import Floats64
from coolsd_rt.law import Law, Resampler, Tolerance, exact, make_omegas
from coolsd_rt.law.tolerance import Kind
from coolsd_rt.runtime import LoopHooks, RoundRecord, Sampling, State, decode, generate
from coolsd_rt.runtime.drafters import DrafterName
from tests.runtime.fakes import FakeSession, Tables, dims
from tests.runtime.tree import Leaf, Method, check_leaves, leaves, output_law, probes

OMEGAS = {
    "none": make_omegas("none", 3),
    "exponential": make_omegas("exponential", 3, delta=1.1),
    "floor": make_omegas("exponential", 3, delta=1.1, floor=1.0),
    "uniform": make_omegas("uniform", 2, delta=1.5),
    "excess": make_omegas("excess", 3, beta=0.8, nu=0.4),
    "below": (0.3, 0.8, 1.0),
    "plain": (),
}
CASES: list[tuple[str, Resampler]] = [
    *((name, "optimal") for name in OMEGAS),
    *itertools.product(["none", "exponential"], ["residual", "target"]),  # type: ignore[list-item]
    *((name, "waterfill") for name in ("none", "exponential", "excess", "below")),
    ("excess", "residual"),
    ("below", "residual"),
]
NEAR = np.array([[1, 2, 3], [0, 2, 3], [1, 0, 3], [2, 0, 1]])
LANTERN: list[tuple[Kind, float, Resampler, int]] = [  # the last: how many may lend
    ("lantern", 0.0, "optimal", 2), ("lantern", 0.3, "optimal", 2), ("lantern", 0.3, "lantern", 2),
    ("lantern", 0.3, "lantern", 1), ("lantern", 0.3, "waterfill", 2),
    ("lantern_pp", 1.0, "optimal", 2), ("lantern_pp", 1.9, "optimal", 2), ("lantern_pp", 1.9, "lantern", 2),
    ("lantern_pp", 1.9, "lantern", 1), ("lantern_pp", 1.9, "residual", 2),
]  # fmt: skip
LAWS = [
    *(pytest.param(Law(OMEGAS[name], resampler), id=f"{name}-{resampler}") for name, resampler in CASES),
    *(
        pytest.param(Law((1.0, 1.0), resampler, Tolerance(kind, bound, NEAR, k)), id=f"{kind}-{bound}-{resampler}-{k}")
        for kind, bound, resampler, k in LANTERN
    ),
    pytest.param(Law((1.0, 1.0), "target", rates=(0.7, 0.4)), id="synthetic"),
]
SHAPES = [pytest.param(3, 5, False, id="V3-N5"), pytest.param(4, 4, True, id="V4-N4-zeros")]


@functools.cache
def tables(vocab: int, tokens: int, zeros: bool) -> Tables:
    return Tables.random(vocab, tokens, seed=vocab, zeros=zeros)


def sized(law: Law, vocab: int) -> Law:
    """The law with the neighbours of that many codes."""
    if law.tolerance is None:
        return law
    return replace(law, tolerance=replace(law.tolerance, near=NEAR[:vocab, : vocab - 1]))


@functools.cache
def enumerated(law: Law, vocab: int, tokens: int, zeros: bool) -> list[Leaf]:
    t = tables(vocab, tokens, zeros)
    tolerance = law.tolerance
    spelled = None if tolerance is None else (tolerance.kind, tolerance.bound, NEAR[:vocab, : vocab - 1].tolist())
    k = None if tolerance is None else tolerance.k
    return leaves(t.p, t.q, Method(law.omegas, law.resampler, lantern=spelled, lend=k, rates=law.rates), tokens)


@pytest.mark.parametrize(("vocab", "tokens", "zeros"), SHAPES)
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("upper", [False, True], ids=["low", "high"])
def test_every_leaf_is_drawn(law: Law, vocab: int, tokens: int, zeros: bool, upper: bool) -> None:
    found = enumerated(law, vocab, tokens, zeros)
    rounds = 0

    def invariants(state: State, record: RoundRecord) -> None:
        nonlocal rounds
        rounds += 1
        assert (state.cached == state.committed - 1).all()
        assert (state.committed <= sizes.positions).all()
        if law.length and record.num_drafts.any():
            num_pending = (state.cached - state.drafted)[record.active]
            assert (num_pending == record.accepted[record.active] + 1).all()

    sizes = dims(vocab, tokens)
    session = FakeSession(tables(vocab, tokens, zeros), sizes, len(found))
    uniforms = probes(found, tokens, law.length, upper)
    result = decode(session, sized(law, vocab), Sampling(), uniforms, loop="host", hooks=LoopHooks(on_round=invariants))

    check_leaves(found, result.codes, result.statistics.rounds)
    assert int(result.statistics.accepts.sum()) == sum(leaf.accepted for leaf in found)
    assert result.statistics.degenerate == sum(leaf.degenerate for leaf in found)
    assert rounds == max(leaf.rounds for leaf in found)


@pytest.mark.parametrize(("vocab", "tokens", "zeros"), SHAPES)
@pytest.mark.parametrize("law", LAWS)
def test_the_leaves_are_the_closed_form(law: Law, vocab: int, tokens: int, zeros: bool) -> None:
    found, t = enumerated(law, vocab, tokens, zeros), tables(vocab, tokens, zeros)
    assert sum(leaf.volume for leaf in found) == pytest.approx(1.0, abs=1e-12)
    drawn = output_law(found)
    assert exact.total_variation(drawn, exact.image_law(t.p, t.q, sized(law, vocab), tokens)) < 1e-12

    distance = exact.total_variation(drawn, exact.target_law(t.p, tokens))
    below = max(law.omegas, default=1.0) <= 1
    lossless_by = {"optimal": below, "waterfill": below, "residual": set(law.omegas) <= {1.0}}
    bound = law.tolerance.bound == (0.0 if law.rule == "lantern" else 1.0) if law.tolerance else law.rates is None
    if not law.omegas or (bound and lossless_by.get(law.resampler, False)):
        assert distance < 1e-12
    else:
        assert distance > 1e-3


@pytest.mark.parametrize(
    "law",
    [
        pytest.param(Law(OMEGAS["exponential"]), id="exponential"),
        pytest.param(Law(OMEGAS["excess"], "waterfill"), id="waterfill"),
        pytest.param(Law((1.0,) * 3, "waterfill", Tolerance("lantern", 0.3, NEAR[:3, :2], 2)), id="lantern"),
        pytest.param(Law((1.0,) * 3, "lantern", Tolerance("lantern_pp", 1.9, NEAR[:3, :2], 2)), id="lantern_pp"),
        pytest.param(Law((1.0,) * 3, "lantern", Tolerance("lantern", 0.3, NEAR[:3, :2], 1)), id="lantern-one-lends"),
        pytest.param(Law((1.0,) * 3, "target", rates=(0.7, 0.4, 0.2)), id="synthetic"),
    ],
)
def test_every_leaf_is_drawn_on_torch(law: Law) -> None:
    found = enumerated(law, 3, 5, False)
    for upper in (False, True):
        session = FakeSession(tables(3, 5, False), dims(3, 5), len(found), library="torch")
        result = decode(session, law, Sampling(), probes(found, 5, 3, upper))
        check_leaves(found, result.codes)


def test_a_cfg_pair_with_a_scale_for_each_position() -> None:
    """Guidance that ends inside a round (`cfg_interval`), on both rows of a pair with tables of their own."""
    tokens, scales, law = 4, (3.0, 2.0, 1.0, 0.5), Law((1.4, 0.6))
    t = Tables.random(3, tokens, seed=9, spread=0.5)

    def guided(of: Callable[[int, tuple[int, ...]], Floats64]) -> Callable[[tuple[int, ...]], Floats64]:
        def model(context: tuple[int, ...]) -> Floats64:
            cond, uncond = of(0, context), of(1, context)
            weights = uncond * (cond / uncond) ** scales[len(context)]  # u + (c - u) s, in the logits
            return np.asarray(weights / weights.sum(), np.float64)

        return model

    target, draft = guided(lambda row, c: t.p(c, row)), guided(lambda row, c: t.q(c, row))
    found = leaves(target, draft, Method(law.omegas), tokens)
    for upper in (False, True):
        session = FakeSession(t, dims(3, tokens), len(found), guided=True)
        result = decode(session, law, Sampling(cfg_scale=scales), probes(found, tokens, 2, upper))
        check_leaves(found, result.codes)
    assert exact.total_variation(output_law(found), exact.image_law(target, draft, law, tokens)) < 1e-12


def test_forced_tokens_are_enumerated_too() -> None:
    """A forced middle: its position never rejects, whatever omega, and the rest keeps its law."""
    law, forced, tokens = Law((0.4, 0.4, 0.4)), (-1, 2, -1, 0, -1), 5
    t = tables(3, tokens, False)
    found = leaves(t.p, t.q, Method(law.omegas, law.resampler, forced), tokens)
    for upper in (False, True):
        session = FakeSession(t, dims(3, tokens), len(found))
        result = decode(session, law, Sampling(), probes(found, tokens, 3, upper), forced)
        check_leaves(found, result.codes, result.statistics.rounds)

    def pinned(context: tuple[int, ...]) -> Floats64:
        return t.p(context) if forced[len(context)] < 0 else np.eye(3)[forced[len(context)]]

    assert exact.total_variation(output_law(found), exact.target_law(pinned, tokens)) < 1e-12


@pytest.mark.parametrize("drafter", ["eagle", "jacobi"])
def test_guidance_that_ends_and_forced_tokens_keep_the_law(drafter: DrafterName) -> None:
    """`cfg_interval` as LlamaGen counts it, beside a line's end and an image's end as Lumina-mGPT has them.

    The unconditional row has tables of its own: what it is given after guidance ended must not matter.
    """
    tokens, scale, last, law, forced = 5, 2.5, 1, Law((1.0, 1.0)), (-1, 1, -1, -1, 0)
    guided_tokens = 1 + 1 + last  # the prefill's token, and those of decode steps 0 .. last
    t = Tables.random(3, tokens, seed=11, spread=0.5)

    def target(context: tuple[int, ...]) -> Floats64:
        n = len(context)
        if forced[n] >= 0:
            return np.asarray(np.eye(3)[forced[n]], np.float64)
        cond, uncond = t.p(context, 0), t.p(context, 1)
        weights = cond if n >= guided_tokens else cond**scale * uncond ** (1 - scale)
        return np.asarray(weights / weights.sum(), np.float64)

    exactly = exact.target_law(target, tokens)
    assert len([p for p in exactly.values() if p > 0]) == 3**3
    images = 4000
    session = FakeSession(t, dims(3, tokens), images, guided=True)
    sampling = Sampling(cfg_scale=scale, cfg_interval=last)
    drawn = generate(session, law, sampling, range(images), forced, drafter=drafter).codes
    assert (drawn[:, 1] == 1).all()
    assert (drawn[:, 4] == 0).all()
    counts = Counter(map(tuple, drawn.tolist()))
    assert set(counts) <= {codes for codes, p in exactly.items() if p > 0}
    distance = 0.5 * sum(abs(counts[codes] / images - p) for codes, p in exactly.items())
    assert distance < 0.05  # 27 images, 4000 draws: 0.03 is usual; guidance one token longer or shorter is over 0.1
    if drafter == "eagle":
        found = leaves(target, draft_of(t, scale, guided_tokens), Method(law.omegas, forced=forced), tokens)
        for upper in (False, True):
            session = FakeSession(t, dims(3, tokens), len(found), guided=True)
            result = decode(session, law, sampling, probes(found, tokens, 2, upper), forced)
            check_leaves(found, result.codes)
        assert exact.total_variation(output_law(found), exactly) < 1e-12


def draft_of(t: Tables, scale: float, guided_tokens: int) -> Callable[[tuple[int, ...]], Floats64]:
    def draft(context: tuple[int, ...]) -> Floats64:
        cond, uncond = t.q(context, 0), t.q(context, 1)
        weights = cond if len(context) >= guided_tokens else cond**scale * uncond ** (1 - scale)
        return np.asarray(weights / weights.sum(), np.float64)

    return draft


def test_p_equal_q_is_degenerate_and_harmless() -> None:
    """With P = Q the classic residual has no mass below omega 1: the fallback is P, and it is counted."""
    t = tables(3, 5, False)
    same = Tables(t.target[0], t.target[0])
    law = Law((0.5, 0.5, 0.5), "residual")
    found = leaves(same.p, same.q, Method(law.omegas, law.resampler), 5)
    result = decode(FakeSession(same, dims(3, 5), len(found)), law, Sampling(), probes(found, 5, 3, False))
    check_leaves(found, result.codes)
    assert result.statistics.degenerate == sum(leaf.degenerate for leaf in found) > 0
    assert exact.total_variation(output_law(found), exact.target_law(same.p, 5)) < 1e-12
