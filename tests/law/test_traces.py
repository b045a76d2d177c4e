"""Expectations over recorded windows against the enumeration: the same numbers, when every window is recorded."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from coolsd_rt.errors import UserError
from coolsd_rt.law import Law, Tolerance, exact, make_omegas
from coolsd_rt.law.traces import RecordedRounds, outlook
from tests.runtime.fakes import Tables

VOCAB, LENGTH = 4, 3
TABLES = Tables.random(VOCAB, LENGTH + 2, seed=11, spread=0.8)
NEAR = np.array([[1, 2], [0, 2], [3, 1], [2, 1]])
LAWS = {
    "none": Law((1.0,) * LENGTH),
    "paper": Law(make_omegas("exponential", LENGTH, delta=1.1)),
    "floor": Law(make_omegas("exponential", LENGTH, delta=1.1, floor=1.0)),
    "excess": Law(make_omegas("excess", LENGTH, beta=0.6, nu=0.3)),
    "waterfill": Law(make_omegas("excess", LENGTH, beta=0.6, nu=0.3), "waterfill"),
    "classic": Law((1.3, 0.6, 0.4), "residual"),
    "target": Law((1.3, 0.6, 0.4), "target"),
    "never in the middle": Law((1.5, 0.0, 1.3)),
    "lantern_pp": Law((1.0,) * LENGTH, tolerance=Tolerance("lantern_pp", 1.7, NEAR)),
    "lantern's own": Law((1.0,) * LENGTH, "lantern", Tolerance("lantern_pp", 1.7, NEAR, 1)),
}


def every_window(tables: Tables = TABLES) -> RecordedRounds:
    """All V^L drafts, each weighted with the probability to draft it."""
    paths = list(itertools.product(range(VOCAB), repeat=LENGTH))
    p, q = (np.array([[of(path[:i]) for i in range(LENGTH)] for path in paths]) for of in (tables.p, tables.q))
    drafts = np.array(paths)
    weight = np.take_along_axis(q, drafts[..., None], -1)[..., 0].prod(-1)
    some = weight > 0
    p, q, drafts, weight = p[some], q[some], drafts[some], weight[some]
    paths = drafts.tolist()
    return RecordedRounds(p, q, drafts, np.full(len(paths), LENGTH), weight)


@pytest.mark.parametrize("name", LAWS)
def test_accept_length_and_kl_are_the_enumerations(name: str) -> None:
    law, found = LAWS[name], outlook(every_window(), LAWS[name])
    assert found.accept_length == pytest.approx(exact.accept_length(TABLES.p, TABLES.q, law), abs=1e-12)
    joint = exact.window_law(TABLES.p, TABLES.q, law)
    own = exact.target_law(TABLES.p, LENGTH)
    assert found.kl == pytest.approx(exact.kl(joint, own), abs=1e-12)
    assert found.tv_round == pytest.approx(exact.total_variation(joint, own), abs=1e-12)


def test_tv_of_a_round_where_supports_differ() -> None:
    """Codes that the draft never draws, and codes that the target never does."""
    tables = Tables.random(VOCAB, LENGTH + 2, seed=12, zeros=True)
    windows, law = every_window(tables), LAWS["excess"]
    wanted = exact.total_variation(exact.window_law(tables.p, tables.q, law), exact.target_law(tables.p, LENGTH))
    assert outlook(windows, law).tv_round == pytest.approx(wanted, abs=1e-12)
    assert wanted > 0.02


def test_positions_and_the_bound() -> None:
    law = LAWS["floor"]
    found = outlook(every_window(), law)
    first, rate = exact.step_law(TABLES.p(()), TABLES.q(()), law.omegas[0], "optimal")
    assert found.acceptance[0] == pytest.approx(rate)
    assert found.reach[:2] == pytest.approx((1.0, rate))
    assert found.tv[0] == pytest.approx(0.5 * np.abs(first - TABLES.p(())).sum())
    distance = exact.total_variation(exact.window_law(TABLES.p, TABLES.q, law), exact.target_law(TABLES.p, LENGTH))
    assert distance <= found.tv_bound_per_token * found.accept_length + 1e-12


def test_sampled_windows_agree_within_their_error() -> None:
    """As a recording has it: drafts drawn, no weights, and a window cut short at the image's end."""
    rng = np.random.default_rng(0)
    count = 20_000
    whole = every_window()
    assert whole.weight is not None
    pick = rng.choice(len(whole.drafts), count, p=whole.weight)
    sampled = RecordedRounds(
        whole.target[pick], whole.draft[pick], whole.drafts[pick], np.full(count, LENGTH), image=np.arange(count)
    )
    law = LAWS["excess"]
    a, b = outlook(sampled, law), outlook(whole, law)
    assert a.accept_length == pytest.approx(b.accept_length, abs=0.02)
    assert a.kl == pytest.approx(b.kl, rel=0.1)
    assert abs(a.tv_round - b.tv_round) < 4 * a.tv_round_error < 0.02
    short = RecordedRounds(whole.target, whole.draft, whole.drafts, np.full(len(whole.drafts), 1), whole.weight)
    assert outlook(short, law).accept_length == pytest.approx(1 + b.acceptance[0])


def test_what_cannot_be_answered_is_refused() -> None:
    with pytest.raises(UserError, match="3, as recorded"):
        outlook(every_window(), Law((1.0,)))
