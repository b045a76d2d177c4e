"""Whole trees: the law of a round against every tree that can be drawn, in exact fractions; the longest path; bugs."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from coolsd_rt.arrays import Floats64
from coolsd_rt.errors import UserError
from coolsd_rt.law import Law, exact
from coolsd_rt.law.comparison import Chain, distance
from coolsd_rt.law.exact import Joint
from coolsd_rt.law.tree import LongestPath, StaticTree
from tests.law import drawn_trees
from tests.law.drawn_trees import Context, as_floats, first_accepted, longest, table
from tests.runtime.fakes import Tables

ONE = Fraction(1)
# V, widths, omegas, seed
TREES = [
    (2, (2, 1), (ONE, ONE), 0),
    (2, (2, 2, 1), (ONE, Fraction(1, 2), Fraction(3, 4)), 1),
    (3, (2, 2), (Fraction(3, 2), Fraction(1, 2)), 12),
    (3, (3, 1), (ONE, ONE), 3),
    (3, (2, 1, 1), (ONE, ONE, ONE), 4),
    (5, (2, 1), (Fraction(5, 4), Fraction(6, 5)), 5),
]


def same(a: Joint, b: dict[Context, Fraction]) -> bool:
    return exact.total_variation(a, {tokens: float(w) for tokens, w in b.items()}) < 1e-12


def laws(case: int) -> tuple[dict[Context, list[Fraction]], dict[Context, list[Fraction]]]:
    vocab, widths, omegas, seed = TREES[case]
    least = int(max(omegas) > 1)
    return table(vocab, len(widths) + 1, 100 + seed, least), table(vocab, len(widths), 200 + seed, least)


@pytest.mark.parametrize("case", range(len(TREES)))
def test_the_law_of_a_tree_is_that_of_all_trees_that_can_be_drawn(case: int) -> None:
    p, q = laws(case)
    _, widths, omegas, _ = TREES[case]
    floats = tuple(float(omega) for omega in omegas)
    for rule, choose in ((StaticTree, first_accepted), (LongestPath, longest)):
        truth = drawn_trees.emitted(p.__getitem__, q.__getitem__, widths, omegas, choose)
        assert sum(truth.values()) == 1
        assert same(rule(widths, floats).emitted(as_floats(p), as_floats(q)), truth)


@pytest.mark.parametrize("case", range(len(TREES)))
def test_the_first_accepted_sibling_is_lossless_in_fractions(case: int) -> None:
    """Equal to the target's law, not only close; with an omega above 1 it is not."""
    p, q = laws(case)
    _, widths, omegas, _ = TREES[case]
    emitted = drawn_trees.emitted(p.__getitem__, q.__getitem__, widths, omegas, first_accepted)
    found = drawn_trees.window(p.__getitem__, emitted, len(widths))
    truth = drawn_trees.window(p.__getitem__, {(): ONE}, len(widths))
    assert (found == truth) == (max(omegas) <= 1)


@pytest.mark.parametrize("widths", [(1, 1, 1), (2, 1, 1), (2, 2, 1), (4, 2, 1), (3, 3, 3)])
def test_lossless_where_no_omega_passes_one(widths: tuple[int, ...]) -> None:
    tables = Tables.random(4, 4, seed=9)
    for omegas in ((1.0, 1.0, 1.0), (0.4, 1.0, 0.8), (0.0, 0.0, 0.0)):
        found = distance(StaticTree(widths, omegas), tables.p, tables.q)
        assert max(found.tv, found.kl, found.kl_of_target) < 1e-12


def test_a_tree_of_width_one_is_a_chain() -> None:
    tables, omegas = Tables.random(4, 4, seed=2), (1.4, 0.7, 1.1)
    chain = distance(Chain(Law(omegas)), tables.p, tables.q)
    for rule in (StaticTree, LongestPath):
        found = distance(rule((1, 1, 1), omegas), tables.p, tables.q)
        assert vars(found) == pytest.approx(vars(chain), abs=1e-12)
    assert chain.tv > 0.01


def test_wider_trees_accept_more_and_relaxed_ones_are_biased() -> None:
    tables = Tables.random(4, 4, seed=9)
    trees = [StaticTree(widths, (1.0, 1.0, 1.0)) for widths in ((1, 1, 1), (2, 1, 1), (2, 2, 1), (3, 2, 1))]
    lengths = [distance(tree, tables.p, tables.q).accept_length for tree in trees]
    assert lengths == sorted(lengths)
    assert lengths[-1] > lengths[0] + 0.2
    assert distance(StaticTree((2, 2, 1), (1.3, 1.3, 1.3)), tables.p, tables.q).tv > 0.01


def test_the_smallest_example_of_the_longest_path() -> None:
    """The one of docs/rivals.md: two tokens, two siblings, then one draft below each."""
    half = Fraction(1, 2)
    p = {(): [half, half], (0,): [half, half], (1,): [ONE, Fraction(0)]}
    q = {(): [Fraction(3, 4), Fraction(1, 4)], (0,): [ONE, Fraction(0)], (1,): [ONE, Fraction(0)]}

    def target(context: Context) -> list[Fraction]:
        return p.get(context, [half, half])

    emitted = drawn_trees.emitted(target, q.__getitem__, (2, 1), (ONE, ONE), longest)
    first = drawn_trees.window(target, emitted, 1)
    assert first == {(0,): Fraction(1, 4), (1,): Fraction(3, 4)}
    right = drawn_trees.emitted(target, q.__getitem__, (2, 1), (ONE, ONE), first_accepted)
    assert drawn_trees.window(target, right, 1) == {(0,): half, (1,): half}
    floats = as_floats({**p, **{(x, y): [half, half] for x in (0, 1) for y in (0, 1)}})
    assert same(LongestPath((2, 1), (1.0, 1.0)).emitted(floats, as_floats(q)), emitted)


def test_bugs_of_a_tree_are_seen() -> None:
    """The longest path wins; omegas of another depth; widths of another depth; one draft at each node."""
    p, q = laws(2)
    _, widths, omegas, _ = TREES[2]
    floats = tuple(float(omega) for omega in omegas)
    truth = drawn_trees.emitted(p.__getitem__, q.__getitem__, widths, omegas, first_accepted)
    planted = (
        LongestPath(widths, floats),
        StaticTree(widths, floats[::-1]),
        StaticTree((1, *widths[1:]), floats),
        StaticTree(widths, (1.0, 1.0)),
    )
    assert same(StaticTree(widths, floats).emitted(as_floats(p), as_floats(q)), truth)
    for rule in planted:
        assert not same(rule.emitted(as_floats(p), as_floats(q)), truth)


def test_the_number_of_drafts() -> None:
    assert StaticTree((4, 2, 1, 1), (1.0,) * 4).nodes == 4 + 8 + 8 + 8
    assert StaticTree((), ()).nodes == 0


def test_a_tree_that_cannot_be_is_refused() -> None:
    for widths, omegas in (((2, 1), (1.0,)), ((0, 1), (1.0, 1.0)), ((1, 1), (1.0, -1.0))):
        with pytest.raises(UserError):
            StaticTree(widths, omegas)


def test_the_case_of_the_published_sampler() -> None:
    """docs/rivals.md: 10,000 runs of SJD-PAC's sampler had first tokens 0 and 1 in .2821 and .5985 of them."""
    first, rest = [0.44, 0.44] + [0.03] * 4, [0.75] + [0.05] * 5
    after_0 = [0.05, 0.05, 0.75, 0.05, 0.05, 0.05]

    def target(context: Context) -> Floats64:
        return np.array(first if not context else after_0 if context == (0,) else rest)

    def draft(context: Context) -> Floats64:
        return np.array(rest if context else [0.66, 0.22] + [0.03] * 4)

    for rule, law in ((LongestPath, (0.2806, 0.5994)), (StaticTree, (0.44, 0.44))):
        emitted = rule((2, 2), (1.0, 1.0)).emitted(target, draft)
        found = exact.completed(target, emitted, 1)
        assert (found[0,], found[1,]) == pytest.approx(law, abs=5e-5)
