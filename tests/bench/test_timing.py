"""Turns are interleaved, warm-ups do not count, and the figures are those of the turns."""

from __future__ import annotations

import itertools

import pytest

from coolsd_rt.bench.timing import Timed, Variant, take_turns
from coolsd_rt.law import Law
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.drawing import Settings
from tests.workflows.fakes import DIMS, VOCABULARY, FakeEngine
from tools.demo.report import EAGER, LOSSLESS, PLAIN, RELAXED, STRONGER, Table, markdown

PLAIN_SETTINGS = Settings(Law(()), Sampling(cfg_scale=2.0))
DRAFTED = Settings(Law((1.2, 1.0)), Sampling(cfg_scale=2.0))


def test_variants_take_turns_after_a_warm_up() -> None:
    variants = [
        Variant("eager", "plain", FakeEngine(), PLAIN_SETTINGS),
        Variant("fp32", "drafted", FakeEngine(), DRAFTED),
    ]
    turns = [drawing.plan([p], 2, 0, VOCABULARY) for p in ("red apple", "yellow star", "green apple")]
    order: list[str] = []
    ticks = itertools.count(0.0, 0.5)  # every turn takes half a second on this clock
    timed = take_turns(variants, turns, VOCABULARY, lambda variant: order.append(variant.name), lambda: next(ticks))
    assert order == ["plain", "drafted"] * 4
    for entry in timed:
        assert entry.seconds == [0.5] * 3
        assert entry.rates == [2 * DIMS.tokens / 0.5] * 3
        assert len(entry.statistics.rounds) == 6  # three turns of two images, the warm-up is none of them
        assert all(share is not None and 0 < share < 1 for share in entry.outside)
    assert timed[0].statistics.mean_acceptance_length == 1.0
    assert timed[1].statistics.mean_acceptance_length > 1.2


def test_what_else_is_measured_comes_after_each_turn() -> None:
    variants = [Variant("", "plain", FakeEngine(), PLAIN_SETTINGS), Variant("", "drafted", FakeEngine(), DRAFTED)]
    turns = [drawing.plan([p], 1, 0, VOCABULARY) for p in ("red apple", "yellow star")]
    order: list[str] = []
    take_turns(
        variants, turns, VOCABULARY, lambda variant: order.append(variant.name), between=lambda: order.append("between")
    )
    assert order == ["plain", "drafted", *["plain", "drafted", "between"] * 2]


def test_rounds_of_a_turn_are_its_own() -> None:
    turns = [drawing.plan([p], 2, 0, VOCABULARY) for p in ("red apple", "yellow star")]
    (timed,) = take_turns([Variant("", "drafted", FakeEngine(), DRAFTED)], turns, VOCABULARY)
    assert timed.loops == ["host", "host"]
    for part in timed.parts:
        assert part.accepts.sum() < part.draft_tokens <= 2 * part.rounds_with_drafts
        assert sum(len(times) for times in part.round_seconds.values()) == part.rounds.max()
    every = sorted(seconds for part in timed.parts for seconds in part.round_seconds[2])
    assert every[0] <= (timed.round_seconds(2) or 0.0) <= every[-1]
    assert timed.round_seconds(3) is None


def entry(group: str, name: str, *rates: float) -> Timed:
    variant = Variant(group, name, FakeEngine(), PLAIN_SETTINGS if name == PLAIN else DRAFTED)
    statistics = drawing.draw(
        variant.engine, drawing.plan(["red apple"], 1, 0, VOCABULARY), VOCABULARY, variant.settings
    )
    return Timed(variant, [1.0], list(rates), [0.1] * len(rates), [statistics.statistics])


@pytest.fixture
def table() -> Table:
    fp32 = [
        entry("fp32", *row) for row in ((PLAIN, 30.0, 40.0, 35.0), (LOSSLESS, 42.0), (RELAXED, 70.0), (STRONGER, 80.0))
    ]
    int8 = [entry("int8", *row) for row in ((PLAIN, 70.0), (LOSSLESS, 63.0), (RELAXED, 105.0), (STRONGER, 120.0))]
    return Table([entry(EAGER, PLAIN, 9.0, 10.0, 11.0), *fp32, *int8], {"fp32": 300_000_000, "int8": 500_000_000})


def test_ratios_are_of_medians(table: Table) -> None:
    rows = {row[:2]: row for row in table.rows()}
    assert rows[EAGER, PLAIN][2:5] == ("10 (9-11)", "1.00x", "1")
    assert rows["fp32", PLAIN][2:5] == ("35 (30-40)", "3.50x", "1")
    assert rows["fp32", RELAXED][2:5] == ("70 (70-70)", "7.00x", "2.00x")
    assert rows["int8", RELAXED][4] == "1.50x"


def test_what_does_not_pay_is_said(table: Table) -> None:
    rows = {row[:2]: row for row in table.rows()}
    assert rows["int8", LOSSLESS][4] == "0.90x, does not pay"
    assert [line for row in rows.values() for line in row if "not pay" in line] == ["0.90x, does not pay"]
    assert len(table.losing()) == 1
    assert "int8" in table.losing()[0]


def test_goals_are_judged(table: Table) -> None:
    goals = {g.what: g for g in table.goals()}
    found = {what: (round(g.found, 3), g.reached) for what, g in goals.items()}
    assert found == {
        "plain on fp32 vs eager PyTorch": (3.5, True),
        "plain on int8 vs fp32": (2.0, True),
        "speculation, lossless, fp32 vs plain": (1.2, True),
        "COOL-SD, delta 1.1, fp32 vs plain": (2.0, True),
        "time outside the fp32 engine, COOL-SD": (0.1, True),
        "speculation, lossless, int8 vs plain": (0.9, False),
        "COOL-SD, delta 1.1, int8 vs plain": (1.5, True),
        "time outside the int8 engine, COOL-SD": (0.1, True),
        "peak memory of generate on fp32, a full batch": (300.0, True),
        "peak memory of generate on int8, a full batch": (500.0, False),
    }
    assert goals["peak memory of generate on int8, a full batch"].cells()[1:] == (
        "under 400 MB",
        "500 MB",
        "not reached",
    )
    assert goals["time outside the fp32 engine, COOL-SD"].cells()[1:3] == ("under 15%", "10%")


def test_a_share_that_a_devices_loop_does_not_tell_is_not_zero(table: Table) -> None:
    for entry in table.timed:
        entry.outside, entry.loops = [None] * len(entry.rates), ["device"] * len(entry.rates)
    assert {row[-1] for row in table.rows()} == {"-"}
    assert not any("time outside" in goal.what for goal in table.goals())
    assert {variant["outside_engine"] for variant in table.as_dict()["ways"]} == {None}


def test_markdown_keeps_its_columns() -> None:
    assert markdown(["a", "b"], [["1|2", "3"]]) == "| a | b |\n| --- | --- |\n| 1\\|2 | 3 |\n"
