"""The real round with static trees, enumerated: every path through all of its draws, as `test_exact_round` for chains.

The fakes read each context along the mask of the step, and from cache rows that are moved after a round.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from coolsd_rt.arrays import Floats64
from coolsd_rt.law import Law, exact
from coolsd_rt.law.exact import Joint
from coolsd_rt.law.tree import StaticTree
from coolsd_rt.runtime import Generation, LoopHooks, RoundRecord, Sampling, State, capacity, decode
from coolsd_rt.runtime.trees import TreeShape
from tests.runtime.fakes import Tables, dims
from tests.runtime.static_tree import Trees, tree_leaves, tree_probes
from tests.runtime.tree import Leaf, Method, check_leaves, leaves, output_law, probes
from tests.runtime.tree_fakes import FakeTreeSession

Model = Callable[[tuple[int, ...]], Floats64]
# V, N, one code of each row is impossible, widths, omegas
CASES = [
    (2, 5, False, (2,), (1.0,)),
    (2, 5, False, (2, 1), (1.0, 1.0)),
    (2, 5, False, (2, 1), (1.4, 0.6)),
    (2, 5, False, (2, 2), (1.0, 1.0)),
    (2, 5, False, (1, 1), (1.4, 0.6)),
    (2, 5, False, (1, 2), (0.4, 1.0)),
    (2, 5, False, (2, 1, 1), (1.0, 1.0, 1.0)),
    (3, 4, False, (3,), (1.0,)),
    (3, 4, False, (2, 1), (0.4, 0.8)),
    (3, 4, False, (2, 2), (1.0, 1.0)),
    (3, 4, False, (2, 2), (1.3, 0.7)),
    (3, 4, True, (3, 2), (1.0, 0.8)),
]
NAMES = [f"V{v}-N{n}-{w}-{o}{'-zeros' if z else ''}" for v, n, z, w, o in CASES]


@functools.cache
def tables(vocab: int, tokens: int, zeros: bool) -> Tables:
    return Tables.random(vocab, tokens, seed=vocab + 20, zeros=zeros)


@functools.cache
def enumerated(case: int) -> list[Leaf]:
    vocab, tokens, zeros, widths, omegas = CASES[case]
    t = tables(vocab, tokens, zeros)
    return tree_leaves(t.p, t.q, Trees(widths, omegas), tokens)


def drawn(
    t: Tables,
    trees: Trees,
    found: list[Leaf],
    sizes: tuple[int, int],
    sampling: Sampling | None = None,
    hooks: LoopHooks | None = None,
    **more: Any,
) -> list[Generation]:
    """Draw every leaf at both ends of its box, and compare the images and the numbers of rounds."""
    vocab, tokens = sizes
    results = []
    for upper in (False, True):
        shape = dims(vocab, tokens)
        tree = TreeShape(trees.widths)
        slack = capacity(shape, tree.nodes, bool(trees.confidence)) - shape.positions
        session = FakeTreeSession(t, shape, len(found), slack=slack, paced=bool(trees.confidence), **more)
        result = decode(
            session,
            Law(trees.omegas),
            sampling or Sampling(confidence=trees.confidence),
            tree_probes(found, tokens, trees, upper),
            trees.forced,
            loop="host",
            hooks=hooks or LoopHooks(),
            tree=tree,
        )
        check_leaves(found, result.codes, result.statistics.rounds)
        assert int(result.statistics.accepts.sum()) == sum(leaf.accepted for leaf in found)
        assert result.statistics.degenerate == sum(leaf.degenerate for leaf in found)
        assert "target_tree" in session.calls
        results.append(result)
    return results


def image_law(target: Model, draft: Model, trees: Trees, tokens: int) -> Joint:
    """The law of a whole image by the closed form of a round, whose last rounds have fewer levels."""
    done: Joint = {}
    open_: Joint = {(x,): float(w) for x, w in enumerate(target(())) if w > 0}
    while open_:
        context, weight = open_.popitem()
        depth = min(len(trees.widths), tokens - len(context) - 1)
        if depth < 0:
            done[context] = done.get(context, 0.0) + weight
            continue
        rule = StaticTree(trees.widths[:depth], trees.omegas[:depth])
        for new, w in rule.emitted(target, draft, context).items():
            open_[context + new] = open_.get(context + new, 0.0) + weight * w
    return done


@pytest.mark.parametrize("case", range(len(CASES)), ids=NAMES)
def test_every_leaf_is_drawn(case: int) -> None:
    vocab, tokens, zeros, widths, omegas = CASES[case]

    def invariants(state: State, record: RoundRecord) -> None:
        assert (state.cached == state.committed - 1).all()
        assert (record.num_drafts <= len(widths)).all()
        assert record.window.shape[1] == record.drafts.shape[1] + 1 == record.target.shape[1]
        if record.num_drafts.any():
            num_pending = (state.cached - state.drafted)[record.active]
            assert (num_pending == record.accepted[record.active] + 1).all()

    hooks = LoopHooks(on_round=invariants)
    drawn(tables(vocab, tokens, zeros), Trees(widths, omegas), enumerated(case), (vocab, tokens), hooks=hooks)


@pytest.mark.parametrize("case", range(len(CASES)), ids=NAMES)
def test_the_leaves_are_the_closed_form(case: int) -> None:
    """Of whole images; and of the one window in an image that has no more."""
    vocab, tokens, zeros, widths, omegas = CASES[case]
    t, trees, found = tables(vocab, tokens, zeros), Trees(widths, omegas), enumerated(case)
    assert sum(leaf.volume for leaf in found) == pytest.approx(1.0, abs=1e-12)
    law = output_law(found)
    assert exact.total_variation(law, image_law(t.p, t.q, trees, tokens)) < 1e-12
    distance = exact.total_variation(law, exact.target_law(t.p, tokens))
    if max(omegas) <= 1:
        assert distance < 1e-12
    else:
        assert distance > 1e-3


@pytest.mark.parametrize("widths", [(2,), (2, 1), (2, 2)])
def test_one_window_is_the_closed_form(widths: tuple[int, ...]) -> None:
    """The first round of every image, as it was drawn, with the weight of its leaf."""
    vocab, omegas, tokens = 3, (1.3, 0.7)[: len(widths)], len(widths) + 2
    t, trees = tables(vocab, tokens, False), Trees(widths, omegas)
    found = tree_leaves(t.p, t.q, trees, tokens)
    windows: list[tuple[int, ...]] = []

    def first_round(state: State, record: RoundRecord) -> None:
        if not windows:
            rows = zip(record.window.tolist(), record.accepted.tolist(), strict=True)
            windows.extend(tuple(row[: a + 1]) for row, a in rows)

    drawn(t, trees, found, (vocab, tokens), hooks=LoopHooks(on_round=first_round))
    law: Joint = {}
    for leaf, window in zip(found, windows, strict=True):
        key = (leaf.codes[0], *window)
        law[key] = law.get(key, 0.0) + leaf.volume
    closed: Joint = {}
    for x, weight in enumerate(t.p(())):
        for new, w in StaticTree(widths, omegas).emitted(t.p, t.q, (x,)).items():
            closed[(x, *new)] = float(weight) * w
    assert exact.total_variation(law, closed) < 1e-12


@pytest.mark.parametrize("case", [5, 10], ids=[NAMES[5], NAMES[10]])
def test_every_leaf_is_drawn_on_torch(case: int) -> None:
    vocab, tokens, zeros, widths, omegas = CASES[case]
    t = tables(vocab, tokens, zeros)
    drawn(t, Trees(widths, omegas), enumerated(case), (vocab, tokens), library="torch")


def test_trees_of_one_sibling_are_chains_leaf_by_leaf() -> None:
    omegas = (1.4, 0.6, 1.0)
    t = tables(2, 5, False)
    trees, chains = (
        tree_leaves(t.p, t.q, Trees((1, 1, 1), omegas), 5),
        leaves(t.p, t.q, Method(omegas), 5),
    )
    assert trees == chains
    session = FakeTreeSession(t, dims(2, 5), len(chains))
    uniforms = probes(chains, 5, 3, upper=False)
    check_leaves(chains, decode(session, Law(omegas), Sampling(), uniforms, tree=TreeShape((1, 1, 1))).codes)


def test_a_cfg_pair_with_a_scale_for_each_position() -> None:
    """Guidance that ends inside a round, on both rows of a pair with tables of their own."""
    tokens, scales, trees = 4, (3.0, 2.0, 1.0, 0.5), Trees((2, 2), (1.4, 0.6))
    t = Tables.random(3, tokens, seed=9, spread=0.5)
    target, draft = guided(t.p, scales), guided(t.q, scales)
    found = tree_leaves(target, draft, trees, tokens)
    drawn(t, trees, found, (3, tokens), Sampling(cfg_scale=scales), guided=True)
    assert exact.total_variation(output_law(found), image_law(target, draft, trees, tokens)) < 1e-12


def guided(of: Callable[[tuple[int, ...], int], Floats64], scales: tuple[float, ...]) -> Model:
    def model(context: tuple[int, ...]) -> Floats64:
        cond, uncond = of(context, 0), of(context, 1)
        weights = uncond * (cond / uncond) ** scales[len(context)]  # u + (c - u) s, in the logits
        return np.asarray(weights / weights.sum(), np.float64)

    return model


def test_forced_tokens_have_one_sibling() -> None:
    """A forced position never rejects, whatever omega, and the rest keeps its law."""
    forced, tokens = (-1, -1, 2, -1, 0), 5
    t, trees = tables(3, tokens, False), Trees((2, 2), (0.4, 0.4), forced)
    found = tree_leaves(t.p, t.q, trees, tokens)
    drawn(t, trees, found, (3, tokens))

    def pinned(context: tuple[int, ...]) -> Floats64:
        return t.p(context) if forced[len(context)] < 0 else np.asarray(np.eye(3)[forced[len(context)]], np.float64)

    assert exact.total_variation(output_law(found), exact.target_law(pinned, tokens)) < 1e-12


def test_rounds_without_drafts_between_trees() -> None:
    """`confidence` lets some rounds draft nothing: trees and plain steps take turns, and rows differ."""
    tokens, trees = 5, Trees((2, 1), (1.0, 0.8), confidence=0.7)
    t = tables(2, tokens, False)
    found = tree_leaves(t.p, t.q, trees, tokens)
    results = drawn(t, trees, found, (2, tokens))
    assert len({len(leaf.box) for leaf in found}) > 2
    assert all(0 < r.statistics.rounds_with_drafts < r.statistics.rounds.sum() for r in results)
    assert exact.total_variation(output_law(found), exact.target_law(t.p, tokens)) < 1e-12
