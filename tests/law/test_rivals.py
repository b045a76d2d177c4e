"""Rules of other methods: each against a restatement of its words and against ends that are known; one distance."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from coolsd_rt.arrays import Floats64
from coolsd_rt.law import Law, Tolerance, exact, nearest_codes
from coolsd_rt.law.comparison import Chain, RoundRule, distance
from coolsd_rt.law.exact import Context, Joint
from coolsd_rt.law.rivals import Grouped, PositionWise, RelaxedArgmax, SkippedVerification
from coolsd_rt.law.tree import LongestPath
from tests.runtime.fakes import Tables

LENGTH = 3
TABLES = Tables.random(4, LENGTH + 1, seed=5, spread=0.8)
SPARSE = Tables.random(4, LENGTH + 1, seed=6, zeros=True)
P, Q = TABLES.p, TABLES.q
TRUTH, DRAFTED = exact.target_law(P, LENGTH), exact.target_law(Q, LENGTH)


def window(rule: RoundRule, length: int = LENGTH) -> Joint:
    return exact.completed(P, rule.emitted(P, Q), length)


def one_token(rule: RoundRule, p: Floats64, q: Floats64) -> Floats64:
    """The law of the token at a position with P and Q, for rules of length 1."""
    law = exact.completed(lambda _: p, rule.emitted(lambda _: p, lambda _: q), 1)
    return np.array([law.get((x,), 0.0) for x in range(len(p))])


RULES: list[RoundRule] = [
    Grouped(LENGTH, 1),
    Grouped(LENGTH, 2, 0.3),
    SkippedVerification(LENGTH, 1),
    SkippedVerification(LENGTH, 2, 0.5),
    RelaxedArgmax(LENGTH, 0.2, 2),
    RelaxedArgmax(LENGTH, 0.2, 3, "target"),
    PositionWise(LENGTH, 1),
    PositionWise(LENGTH, 2),
    LongestPath((2, 2, 1), (1.0,) * LENGTH),
]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_each_is_a_law_and_none_is_lossless(rule: RoundRule) -> None:
    for tables in (TABLES, SPARSE):
        emitted = rule.emitted(tables.p, tables.q)
        assert sum(emitted.values()) == pytest.approx(1, abs=1e-12)
        assert min(emitted.values()) >= 0
        assert {len(tokens) for tokens in emitted} <= set(range(1, LENGTH + 2))
    found = distance(rule, P, Q)
    assert found.tv > 1e-3
    assert found.kl > 1e-6
    assert found.kl_of_target > 1e-6
    assert 1 < found.accept_length <= LENGTH + 1


# GSD


def grouped_by_words(p: list[float], q: list[float], radius: int, spread: float) -> list[float]:
    """The token's law, one draft at a time: rank by P, sum over the neighbours in rank, divide, cap."""
    ranked = sorted(range(len(p)), key=lambda x: (p[x], x))
    law = [0.0] * len(p)
    lack = [max(0.0, a - b) for a, b in zip(p, q, strict=True)]
    for x, drawn in enumerate(q):
        r = ranked.index(x)
        group = ranked[r - radius : r + radius] if r >= radius else [x]
        group = [y for y in group if abs(p[y] - p[x]) < spread]
        if drawn:
            rate = min(1.0, sum(p[y] for y in group) / sum(q[y] for y in group))
            law[x] += drawn * rate
            again = lack if sum(lack) > 1e-6 else p
            law = [w + drawn * (1 - rate) * v / sum(again) for w, v in zip(law, again, strict=True)]
    return law


def test_groups_are_the_neighbours_in_rank() -> None:
    rng = np.random.default_rng(0)
    for n in range(200):
        p, q = rng.dirichlet(np.full(5, 0.7), 2)
        radius, spread = n % 3 + 1, (0.05, 0.15, 1.0)[n % 3 if n < 100 else 1]
        truth = grouped_by_words(p.tolist(), q.tolist(), radius, spread)
        np.testing.assert_allclose(one_token(Grouped(1, radius, spread), p, q), truth, atol=1e-12)


def test_groups_of_one_code_are_lossless() -> None:
    assert exact.total_variation(window(Grouped(LENGTH, 2, 0.0)), TRUTH) < 1e-12


def test_the_smallest_example_of_groups() -> None:
    p, q = np.array([9 / 20, 11 / 20]), np.array([0.0, 1.0])
    np.testing.assert_allclose(one_token(Grouped(1), p, q), [0, 1])
    np.testing.assert_allclose(one_token(Chain(Law((1.0,))), p, q), p)


# VVS


def test_tokens_that_skip_verification_are_the_drafts_own() -> None:
    assert exact.total_variation(window(SkippedVerification(LENGTH, LENGTH)), DRAFTED) < 1e-12
    assert exact.total_variation(window(SkippedVerification(LENGTH, 1, 0.0)), TRUTH) < 1e-12
    first = exact.completed(P, SkippedVerification(LENGTH, 1).emitted(P, Q), 1)
    assert exact.total_variation(first, exact.target_law(Q, 1)) < 1e-12


def test_the_distance_is_proportional_to_the_share_of_skips() -> None:
    whole, half = (distance(SkippedVerification(LENGTH, 1, share), P, Q) for share in (1.0, 0.5))
    assert half.tv == pytest.approx(whole.tv / 2)
    lossless = distance(Chain(Law((1.0,) * LENGTH)), P, Q).accept_length
    assert half.accept_length == pytest.approx((whole.accept_length + lossless) / 2)


# SSD


def judged_alone(p: Tables, length: int) -> dict[Context, float]:
    """One judging pass, window by window."""
    out: dict[Context, float] = {}
    codes = range(4)
    for drafts in itertools.product(codes, repeat=length):
        weight = math.prod(p.q(drafts[:i])[x] for i, x in enumerate(drafts))
        for tokens in itertools.product(codes, repeat=length):
            w = weight
            for i, (x, y) in enumerate(zip(drafts, tokens, strict=True)):
                a, b = p.p(drafts[:i]), p.q(drafts[:i])
                lack = np.maximum(a - b, 0)
                rate = min(1.0, a[x] / b[x])
                w *= rate * (x == y) + (1 - rate) * lack[y] / lack.sum()
            out[tokens] = out.get(tokens, 0.0) + w
    return out


def test_a_pass_judges_every_position_after_the_guesses() -> None:
    assert exact.total_variation(PositionWise(2, 1).emitted(P, Q), judged_alone(TABLES, 2)) < 1e-12


def test_as_many_passes_as_positions_are_lossless() -> None:
    """In pass n the first n positions stand behind tokens that no pass changes any more."""
    for rounds in (1, 2, 3, 4):
        law = PositionWise(LENGTH, rounds).emitted(P, Q)
        assert exact.total_variation(exact.completed(P, law, min(rounds, LENGTH)), head(TRUTH, rounds)) < 1e-12
    tvs = [exact.total_variation(PositionWise(LENGTH, rounds).emitted(P, Q), TRUTH) for rounds in (1, 2, 3)]
    assert tvs == sorted(tvs, reverse=True)


def head(law: Joint, length: int) -> Joint:
    out: Joint = {}
    for tokens, w in law.items():
        out[tokens[:length]] = out.get(tokens[:length], 0.0) + w
    return out


def test_a_target_without_context_is_met_in_one_pass() -> None:
    p = P(())
    law = PositionWise(LENGTH, 1).emitted(lambda _: p, Q)
    assert exact.total_variation(law, exact.target_law(lambda _: p, LENGTH)) < 1e-12


def test_the_smallest_example_of_positions_judged_alone() -> None:
    """The second token is judged after a guess that half of the time is replaced."""
    laws = {(): np.array([0.5, 0.5]), (0,): np.array([1.0, 0.0]), (1,): np.array([0.0, 1.0])}
    law = PositionWise(2, 1).emitted(laws.__getitem__, lambda _: np.array([1.0, 0.0]))
    assert law == pytest.approx({(0, 0): 0.5, (1, 0): 0.5})
    assert exact.total_variation(law, exact.target_law(laws.__getitem__, 2)) == 0.5


# Relaxed argmax


def test_no_slack_is_greedy_and_much_slack_accepts_all() -> None:
    greedy = window(RelaxedArgmax(LENGTH, 0.0, 1))
    path: Context = ()
    for _ in range(LENGTH):
        path = (*path, int(np.argmax(P(path))))
    accepted = RelaxedArgmax(LENGTH, 0.0, 1).emitted(P, Q)
    assert all(tokens[:-1] == path[: len(tokens) - 1] for tokens in accepted)
    assert greedy[path] > TRUTH[path]
    for replaced in ("argmax", "target"):
        every = window(RelaxedArgmax(LENGTH, 1.0, 4, replaced))
        assert exact.total_variation(every, DRAFTED) < 1e-12


@pytest.mark.parametrize(
    ("rule", "law"),
    [
        (RelaxedArgmax(1, 0.15, 3), [0.4 + 0.3, 0.3, 0.0]),
        (RelaxedArgmax(1, 0.15, 1), [1.0, 0.0, 0.0]),
        (RelaxedArgmax(1, 0.05, 3), [1.0, 0.0, 0.0]),
        (RelaxedArgmax(1, 0.15, 3, "target"), [0.4 + 0.3 * 0.5, 0.3 + 0.3 * 0.4, 0.3 * 0.1]),
    ],
)
def test_drafts_near_the_most_probable_token_are_accepted(rule: RelaxedArgmax, law: list[float]) -> None:
    p, q = np.array([0.5, 0.4, 0.1]), np.array([0.4, 0.3, 0.3])
    np.testing.assert_allclose(one_token(rule, p, q), law)


# The distance


def test_a_chain_is_the_law_of_the_loop() -> None:
    near = nearest_codes(np.array([[0.0], [1.0], [2.5], [4.5]]), 3)
    for law in (
        Law((1.3, 1.1, 0.8)),
        Law((1.0,) * 3, "lantern", Tolerance("lantern_pp", 2.5, near, 2)),
        Law((1.0,) * 3, "optimal", Tolerance("lantern", 0.2, near, 2)),
    ):
        found = distance(Chain(law), P, Q)
        joint = exact.window_law(P, Q, law)
        assert found.tv == exact.total_variation(joint, TRUTH)
        assert found.kl == exact.kl(joint, TRUTH)
        assert found.kl_of_target == exact.kl(TRUTH, joint)
        assert found.accept_length == exact.accept_length(P, Q, law)
        assert found.tv > 0.01


def test_passes_count_and_what_is_never_committed_is_infinitely_far() -> None:
    assert distance(PositionWise(LENGTH, 2), P, Q).accept_length == pytest.approx(LENGTH / 2)
    greedy = distance(RelaxedArgmax(LENGTH, 0.0, 1), lambda _: P(()), lambda _: np.eye(4)[np.argmax(P(()))])
    assert greedy.kl_of_target == math.inf
    assert greedy.kl < math.inf
