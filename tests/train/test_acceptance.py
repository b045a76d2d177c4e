"""Reported accept length is the enumeration's, and what real rounds of a real head give."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from coolsd_rt.backends.torch.eager import TorchEngine
from coolsd_rt.law import Law
from coolsd_rt.law.exact import Context, round_law
from coolsd_rt.prompts import Rows
from coolsd_rt.runtime.round import generate
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.runtime.state import capacity
from coolsd_rt.train.acceptance import Acceptance, Tally
from coolsd_rt.train.draw import draw_codes
from coolsd_rt.train.measuring import measure
from coolsd_rt.train.objective import Objective
from coolsd_rt.train.students import Example, HeadStudent
from tests.tiny import networks

V, N, L = 2, 5, 2
OMEGAS = (1.6, 1.2)
Table = Callable[[Context], NDArray[np.float64]]


def _p(context: Context) -> NDArray[np.float64]:
    """Quarters, so that every image's probability is a whole number of 4^-N."""
    k = 1 + hash((5, *context)) % 3
    return np.array([k, 4 - k]) / 4


def _q(begin: int) -> Table:
    """A head's Q depends on where the round began, too."""

    def law(context: Context) -> NDArray[np.float64]:
        k = 1 + hash((begin, 9, *context)) % 9
        return np.array([k, 10 - k]) / 10

    return law


def _images() -> list[tuple[Context, int]]:
    out = []
    for x in itertools.product(range(V), repeat=N):
        weight = np.prod([_p(x[:n])[x[n]] for n in range(N)])
        out.append((x, round(float(weight) * 4**N)))
    return out


def _measured() -> Acceptance:
    """Every image as often as P draws it."""
    images = [x for x, times in _images() for _ in range(times)]
    rates, paths = (np.ones((2, L, len(images), N)) for _ in range(2))
    for row, x in enumerate(images):
        for law, omegas in enumerate(((1.0,) * L, OMEGAS)):
            for i, omega in enumerate(omegas):
                for n in range(i + 1, N):  # a round of which n is draft i began at n - i
                    p, q = _p(x[:n]), _q(n - i)(x[:n])
                    accepted = np.minimum(q, omega * p)
                    rates[law, i, row, n], paths[law, i, row, n] = accepted.sum(), accepted[x[n]] / p[x[n]]
    tally = Tally(OMEGAS)
    for part in np.array_split(np.arange(len(images)), 3):
        tally.add(rates[:, :, part], paths[:, :, part])
    return tally.result()


def _enumerated() -> tuple[float, float]:
    """Accept length of lossless rounds, and of the schedule's from where lossless rounds begin."""
    lossless, relaxed = Law((1.0,) * L), Law(OMEGAS)
    begins: dict[Context, float] = {(x,): float(w) for x, w in enumerate(_p(()))}
    rounds = tokens = more = 0.0
    while begins:
        after: dict[Context, float] = {}
        for context, weight in begins.items():
            left = N - len(context)
            here = round_law(_p, _q(len(context)), lossless, context, left)
            rounds += weight
            tokens += weight * sum(len(t) * w for t, w in here.items())
            soft = round_law(_p, _q(len(context)), relaxed, context, left)
            more += weight * sum(len(t) * w for t, w in soft.items())
            for t, w in here.items():
                if len(context) + len(t) < N:
                    after[context + t] = after.get(context + t, 0.0) + weight * w
        begins = after
    return tokens / rounds, more / rounds


def test_the_measure_is_the_enumeration() -> None:
    found = _measured()
    lossless, relaxed = _enumerated()
    assert found.accept_length == pytest.approx(lossless, abs=1e-12)
    assert found.relaxed == pytest.approx(relaxed, abs=1e-12)
    assert found.relaxed > found.accept_length
    assert found.images == 4**N


def test_a_perfect_draft_fills_every_window() -> None:
    tally = Tally((1.0,) * 3)
    tally.add(np.ones((2, 3, 4, 9)), np.ones((2, 3, 4, 9)))
    found = tally.result()
    assert found.accept_length == pytest.approx(4.0)  # eight tokens in two rounds
    assert found.acceptance == (1.0, 1.0, 1.0)
    nothing = Tally((1.0,) * 3)
    nothing.add(np.zeros((2, 3, 4, 9)), np.zeros((2, 3, 4, 9)))
    assert nothing.result().accept_length == pytest.approx(1.0)


def test_the_measure_is_what_real_rounds_give() -> None:
    """The tiny head, guided: expected rounds against rounds that were drawn, both on many images."""
    target, head, image = networks()
    sampling, images, length = Sampling(cfg_scale=1.5, temperature=3.0, top_k=24), 128, 3
    text = np.random.default_rng(0).integers(3, 8, (images, 3))
    rows = Rows(np.concatenate([text, np.full_like(text, 2)]), np.zeros(2 * images, np.int64))

    engine = TorchEngine(target, head, image)
    session = engine.open(engine.encode_condition(rows.text), capacity(engine.dims, length))
    drawn = generate(session, Law((1.0,) * length), sampling, range(images))
    tokens = engine.dims.tokens
    per_image = drawn.statistics.rounds
    simulated = (tokens - 1) / per_image.mean()
    error = simulated * per_image.std() / per_image.mean() / images**0.5

    codes = draw_codes(target, rows, sampling, range(1000, 1000 + images))
    example = Example(torch.from_numpy(rows.text), None, codes, torch.full(codes.shape, 1.5))
    found = measure(
        HeadStudent(head, target), Objective(sampling), [example], (1.0,) * length, torch.ones(tokens, dtype=torch.bool)
    )
    assert found.accept_length > 1.5  # P and Q are both blunt: a random head is often right
    assert found.relaxed == pytest.approx(found.accept_length, abs=0.1)
    assert abs(found.accept_length - simulated) < 4 * 2**0.5 * error, (found, simulated, error)
    by_round = drawn.statistics.accepts / drawn.statistics.attempts
    assert np.allclose(found.acceptance, by_round, atol=0.1)
