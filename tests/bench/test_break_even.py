"""Tokens and seconds by draft length, against enumeration and against a machine whose costs are known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from coolsd_rt.bench.break_even import BreakEven, Length, break_even, tokens_by_length


def test_expected_tokens_are_those_of_all_patterns() -> None:
    rng = np.random.default_rng(1)
    for length in (1, 2, 5):
        attempts = rng.integers(1, 200, length)
        accepts = [int(rng.integers(0, n + 1)) for n in attempts]
        rates = [a / n for a, n in zip(accepts, attempts, strict=True)]
        for short, found in enumerate(tokens_by_length(accepts, attempts.tolist()), start=1):
            expected = 0.0
            for pattern in itertools.product((True, False), repeat=short):  # each draft judged on its own
                chance = np.prod([r if kept else 1 - r for r, kept in zip(rates, pattern, strict=False)])
                leading = sum(1 for _ in itertools.takewhile(bool, pattern))
                expected += chance * (leading + 1)
            assert found == pytest.approx(expected)


def test_at_the_length_that_was_run_it_is_what_was_counted() -> None:
    accepts, attempts = [80, 60, 30], [100, 80, 60]
    assert tokens_by_length(accepts, attempts)[-1] == pytest.approx(1 + sum(accepts) / 100)


def test_positions_without_judgements() -> None:
    assert tokens_by_length([0, 0], [50, 0]) == [1.0, 1.0]  # never reached: nothing to gain there
    assert tokens_by_length([5, 0, 0], [10, 0, 0]) == [1.5]  # reached, but always clipped: not known
    assert tokens_by_length([], []) == []
    assert break_even([1.5], 1.0, 2.0, {1: 1.0, 2: 1.1, 3: 1.2}) is None


def test_seconds_follow_the_targets_windows_and_meet_both_ends() -> None:
    window = {1: 10.0, 2: 10.5, 3: 14.0, 4: 14.5}  # ms: a step of the machine between two and three tokens
    draft, law, plain_law = 2.0, 0.3, 0.4
    plain = window[1] + plain_law
    whole = window[4] + plain_law + 3 * (draft + law)
    found = break_even([1.8, 2.4, 2.8], plain, whole, window)
    assert found is not None
    for at in found.lengths:
        assert at.seconds == pytest.approx(window[at.length + 1] + plain_law + at.length * (draft + law))
        assert at.speedup == pytest.approx(at.tokens / at.seconds * plain)
    assert [at.length for at in found.lengths] == [1, 2, 3]
    assert found.lengths[-1].seconds == pytest.approx(whole)
    assert break_even([], plain, plain, {1: 10.0}) is None


def of(*speedups: float) -> BreakEven:
    return BreakEven(tuple(Length(n, 2.0, 1.0, s) for n, s in enumerate(speedups, start=1)))


def test_the_longest_that_pays_and_the_best() -> None:
    assert (of(1.2, 1.3, 1.1, 0.9).longest, of(1.2, 1.3, 1.1, 0.9).best) == (3, 2)
    assert of(1.2, 1.3, 1.1, 0.9).text() == "up to 3, best 2"
    assert of(0.9, 1.1, 1.2).text() == "3 or more, best 3"
    assert (of(0.9, 0.8).longest, of(0.9, 0.8).best, of(0.9, 0.8).text()) == (0, 0, "none")
    assert of(1.0).longest == 1
    document = of(0.9, 1.1).as_dict()
    assert (document["break_even_draft_length"], document["best_draft_length"]) == (2, 2)
    assert [at["versus_plain"] for at in document["by_draft_length"]] == [0.9, 1.1]
