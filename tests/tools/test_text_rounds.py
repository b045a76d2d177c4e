"""Figures of texts by rounds against the enumeration of texts and rounds, and the hook on the real loop."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from coolsd_rt.law import Law, Tolerance, exact, make_omegas
from coolsd_rt.law.position import position_law
from coolsd_rt.law.traces import RecordedRounds, round_figures
from coolsd_rt.runtime import LoopHooks, RoundRecord, Sampling, State, decode
from coolsd_rt.runtime.randomness import ACCEPT
from coolsd_rt.runtime.self_decoding import Extent
from tests.runtime.fakes import FakeSession, Tables, dims
from tools.text.served_rounds import BINS, COLUMNS, EDGES, TextRounds

VOCAB, TOKENS, ENDS = 3, 5, (2,)
TABLES = Tables.random(VOCAB, TOKENS, seed=5)
NEAR = np.array([[1, 2], [0, 2], [1, 0]])
LAWS = {
    "none": Law((1.0,) * 3),
    "paper": Law(make_omegas("exponential", 3, delta=1.5)),
    "uniform": Law((2.0, 2.0)),
    "lantern++": Law((1.0,) * 3, tolerance=Tolerance("lantern_pp", 2.0, NEAR)),
    "lantern++, its own": Law((1.0,) * 3, "lantern", Tolerance("lantern_pp", 2.0, NEAR, 1)),
}
Context = tuple[int, ...]
Path = tuple[int, ...]


@functools.cache
def paths(name: str) -> tuple[dict[Path, float], dict[Path, float], dict[Context, float], float]:
    """Texts with the places of their drafts, by the law and by the target; how likely rounds start; expected tokens.

    A path is tokens and, after each of them, the draft position of the next: 0 where a round starts. The target's path
    has its tokens, and moves on from a token as the law does.
    """
    law = LAWS[name]
    by_law: dict[Path, float] = {}
    by_target: dict[Path, float] = {}
    starts: dict[Context, float] = {}
    open_: list[tuple[Context, int, Path, float, float]] = [((x,), 0, (x,), w, w) for x, w in enumerate(TABLES.p(()))]
    tokens = 0.0
    while open_:
        context, place, path, m, r = open_.pop()
        if context[-1] in ENDS or len(context) == TOKENS:
            by_law[path] = by_law.get(path, 0.0) + m
            by_target[path] = by_target.get(path, 0.0) + r
            tokens += m * len(context)
            continue
        if place == 0:
            starts[context] = starts.get(context, 0.0) + m
        p = TABLES.p(context)
        if place == min(law.length, TOKENS - (len(context) - place) - 1):
            accepted, after = np.zeros(VOCAB), p
        else:
            accepted, after = position_law(p, TABLES.q(context), law, place)
        for x in range(VOCAB):
            out, whole = accepted[x] + after[x], (*context, x)
            if x in ENDS or len(whole) == TOKENS:  # what a round would do next has no effect
                open_.append((whole, 0, (*path, x), m * out, r * p[x]))
                continue
            for then, mass in ((place + 1, accepted[x]), (0, after[x])):
                if mass > 0:
                    open_.append((whole, then, (*path, then, x), m * mass, r * p[x] * mass / out))
    return by_law, by_target, starts, tokens


def windows_of(context: Context, length: int) -> RecordedRounds:
    """All drafts of a round that starts there, each weighted with its probability."""
    count = min(length, TOKENS - len(context) - 1)
    drafts = list(itertools.product(range(VOCAB), repeat=count))
    p, q = (np.array([[of((*context, *d[:i])) for i in range(count)] for d in drafts]) for of in (TABLES.p, TABLES.q))
    weight = np.array([np.prod([q[k, i, x] for i, x in enumerate(d)]) for k, d in enumerate(drafts)])
    shape = (len(drafts), count, VOCAB)
    table = np.array(drafts, np.int64).reshape(len(drafts), count)
    counts = np.full(len(drafts), count)
    return RecordedRounds(p.reshape(shape), q.reshape(shape), table, counts, weight, ends=tuple(ENDS))


def by_rounds(name: str) -> tuple[float, float]:
    """Expected sums over a text's rounds: the divergence that is revealed, and tokens, with the first."""
    law, kl, tokens = LAWS[name], 0.0, 1.0
    for context, mass in paths(name)[2].items():
        windows = windows_of(context, law.length)
        found = round_figures(windows, law.first(windows.length), revealed=True)
        kl += mass * windows.mean(found.kl_revealed)
        tokens += mass * windows.mean(found.tokens)
    return kl, tokens


def texts(law: dict[Path, float]) -> dict[Context, float]:
    """The marginal law of tokens. A path of n tokens has n - 2 places, before all tokens but the first and an end."""
    out: dict[Context, float] = {}
    for path, mass in law.items():
        rest = path[1:]
        tokens = (path[0], *(rest[i] for i in range(1, len(rest), 2)), *(rest[-1:] if len(rest) % 2 else ()))
        out[tokens] = out.get(tokens, 0.0) + mass
    return out


@pytest.mark.parametrize("name", LAWS)
def test_the_sum_over_rounds_is_the_divergence_of_texts_with_their_rounds(name: str) -> None:
    by_law, by_target, _, tokens = paths(name)
    assert sum(by_law.values()) == pytest.approx(1, abs=1e-12) == sum(by_target.values())
    joint = exact.kl(by_law, by_target)
    kl, expected = by_rounds(name)
    assert kl == pytest.approx(joint, abs=1e-12)
    assert expected == pytest.approx(tokens, abs=1e-12)
    alone = exact.kl(texts(by_law), texts(by_target))
    assert alone <= joint + 1e-12  # the bound that the tool states
    assert (alone > 1e-4) == (joint > 1e-4) == (name != "none")


def test_the_targets_paths_are_its_texts() -> None:
    """The reference law of the divergence has the target's tokens, whatever the law."""

    def ended(law: dict[Context, float]) -> Iterator[tuple[Context, float]]:
        for codes, mass in law.items():
            at = next((i for i, code in enumerate(codes) if code in ENDS), TOKENS)
            yield codes[: at + 1], mass

    wanted: dict[Context, float] = {}
    for text, mass in ended(exact.target_law(TABLES.p, TOKENS)):
        wanted[text] = wanted.get(text, 0.0) + mass
    for name in LAWS:
        assert exact.total_variation(texts(paths(name)[1]), wanted) < 1e-12


def test_what_stands_behind_an_end_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: drafts behind an end token count."""
    every = property(lambda self: np.arange(self.length) < self.num_drafts[:, None])
    monkeypatch.setattr(RecordedRounds, "counts", every)
    kl, expected = by_rounds("uniform")
    by_law, by_target, _, tokens = paths("uniform")
    assert abs(kl - exact.kl(by_law, by_target)) > 1e-3
    assert abs(expected - tokens) > 1e-3


IMAGES = 12_000


def numbers(law: Law) -> np.ndarray:
    """The random numbers of every text."""
    return np.random.default_rng(3).random((IMAGES, TOKENS, law.length + 1, 3))


def drawn(name: str, planted: bool = False) -> tuple[TextRounds, list[list[int]], list[dict[str, np.ndarray]]]:
    """The hook's sums on the real loop, the texts, and the rounds as they were."""
    law, kept = LAWS[name], []
    hook = TextRounds(law, ENDS, IMAGES)

    def both(state: State, record: RoundRecord) -> None:
        hook(state, replace(record, offered=record.num_drafts) if planted else record)
        kept.append({
            "active": record.active.copy(), "window": record.window.copy(), "accepted": record.accepted.copy(),
            "p": np.array(record.target), "q": np.array(record.draft), "drafts": record.drafts.copy(),
            "offered": record.offered.copy(), "begin": state.decided - record.accepted - 1,
        })  # fmt: skip

    uniforms = numbers(law)
    made = decode(
        FakeSession(TABLES, dims(VOCAB, TOKENS), IMAGES), law, Sampling(), uniforms,
        loop="host", hooks=LoopHooks(on_round=both), extent=Extent(ENDS),
    )  # fmt: skip
    assert made.lengths is not None
    return hook, [row[:n].tolist() for row, n in zip(made.codes, made.lengths, strict=True)], kept


def away(values: np.ndarray, wanted: float) -> float:
    """How many standard errors the mean of values is away."""
    return float(abs(values.mean() - wanted) / (values.std(ddof=1) / np.sqrt(len(values))))


@pytest.mark.parametrize("name", ["paper", "lantern++, its own"])
def test_the_hooks_sums_have_the_exact_expectations(name: str) -> None:
    hook, found, _ = drawn(name)
    by_law, by_target, _, tokens = paths(name)
    assert away(hook.kl_revealed, exact.kl(by_law, by_target)) < 4
    assert away(hook.expected, tokens - 1) < 4
    assert away(np.array([len(text) for text in found]), tokens) < 4
    entropy = -sum(m * sum(np.log(TABLES.p(t[:i])[t[i]]) for i in range(1, len(t))) for t, m in texts(by_law).items())
    assert away(hook.log_likelihood, -entropy) < 4


def test_a_round_that_forgets_what_was_offered_is_noticed() -> None:
    """Planted: the drafts before an accepted end are taken for all of the round's."""
    hook, _, _ = drawn("uniform", planted=True)
    assert away(hook.expected, paths("uniform")[3] - 1) > 4.5


def test_bins_and_likelihood_are_those_of_stored_rounds() -> None:
    """Number by number, from P and Q as they were."""
    law = LAWS["paper"]
    uniforms = numbers(law)
    hook, found, kept = drawn("paper")
    bins, likelihood = np.zeros((IMAGES, BINS, len(COLUMNS))), np.zeros(IMAGES)
    rounds = np.zeros(IMAGES, np.int64)
    for at in kept:
        for m in np.flatnonzero(at["active"]).tolist():
            rounds[m] += 1
            new = at["window"][m, : at["accepted"][m] + 1].tolist()
            likelihood[m] += sum(np.log(at["p"][m, i, x]) for i, x in enumerate(new))
            for i in range(int(at["offered"][m])):
                p, q, d = at["p"][m, i], at["q"][m, i], int(at["drafts"][m, i])
                u = uniforms[m, at["begin"][m] + i, i, ACCEPT]
                kept_it = u * q[d] < law.omegas[i] * p[d]
                entropy = -sum(x * np.log(x) for x in p)
                rate = np.minimum(q, law.omegas[i] * p).sum()
                column = [1, entropy, p.sum(), 0.5 * abs(p - q).sum(), not kept_it, 1 - rate]
                bins[m, sum(entropy >= edge for edge in EDGES)] += column
                if not kept_it or d in ENDS:
                    break
    assert hook.rounds.tolist() == rounds.tolist()
    assert np.allclose(hook.log_likelihood, likelihood, atol=1e-9)
    assert np.allclose(hook.bins, bins, atol=1e-9)
    assert {len(text) for text in found} == set(range(1, TOKENS + 1))
