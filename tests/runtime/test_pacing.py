"""Rounds that go without a draft where the target is unsure: the law stays, and nothing else may show either."""

from __future__ import annotations

import numpy as np
import pytest

from coolsd_rt.errors import UserError
from coolsd_rt.law import Law, exact, make_omegas
from coolsd_rt.runtime import Generation, LoopHooks, Sampling, State, capacity, decode, generate
from coolsd_rt.runtime import state as state_module
from coolsd_rt.runtime.drafters import eagle as module
from coolsd_rt.runtime.state import RoundRecord
from tests.runtime.fakes import FakeSession, Tables, dims
from tests.runtime.tree import Method, check_leaves, leaves, output_law, probes

VOCAB, TOKENS, LENGTH = 3, 8, 3
LAW = Law(make_omegas("exponential", LENGTH, delta=1.3))
SEEDS = list(range(40, 52))
TABLES = Tables.random(VOCAB, TOKENS, seed=1).as_float32()


@pytest.fixture(params=[16, 2, 1], ids=lambda n: f"catch-up-{n}")
def catch_up(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """After how many undrafted rounds the draft's cache follows; an image of eight tokens never has sixteen."""
    for m in (module, state_module):
        monkeypatch.setattr(m, "CATCH_UP", request.param)
    return int(request.param)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize(
    ("confidence", "stop"), [(0.4, 0.0), (0.5, 0.0), (0.65, 0.0), (1.0, 0.0), (0.0, 0.5), (0.0, 0.7), (0.45, 0.55)]
)
@pytest.mark.parametrize("omegas", [(1.0, 1.0, 1.0), (0.4, 1.0, 0.8), (1.6, 1.2, 1.0)])
def test_every_leaf_is_drawn(
    omegas: tuple[float, ...], confidence: float, stop: float, library: str, catch_up: int
) -> None:
    """The real round over all of its draws, against a tree that knows the rule; lossless where it has to be."""
    t = Tables.random(VOCAB, 5, seed=3)
    found = leaves(t.p, t.q, Method(omegas, confidence=confidence, draft_confidence=stop), 5)
    for upper in (False, True):
        session = FakeSession(t, dims(VOCAB, 5), len(found), library=library, paced=True)
        sampling = Sampling(confidence=confidence, draft_confidence=stop)
        result = decode(session, Law(omegas), sampling, probes(found, 5, LENGTH, upper))
        check_leaves(found, result.codes, result.statistics.rounds)
    assert sum(leaf.volume for leaf in found) == pytest.approx(1.0, abs=1e-12)
    if max(omegas) <= 1:
        assert exact.total_variation(output_law(found), exact.target_law(t.p, 5)) < 1e-12


def draw(seeds: list[int], confidence: float = 0.5, stop: float = 0.0, **more: int) -> tuple[Generation, FakeSession]:
    session = FakeSession(TABLES, dims(VOCAB, TOKENS), len(seeds), guided=True, paced=True, **more)  # type: ignore[arg-type]
    return generate(session, LAW, Sampling(cfg_scale=1.5, confidence=confidence, draft_confidence=stop), seeds), session


@pytest.mark.parametrize("length", [0, LENGTH])
@pytest.mark.parametrize(("confidence", "stop"), [(0.5, 0.0), (0.0, 0.6), (0.5, 0.6)])
def test_a_image_does_not_depend_on_its_batch(length: int, confidence: float, stop: float, catch_up: int) -> None:
    together, _ = draw(SEEDS, confidence, stop, propose_length=length)
    for row, seed in enumerate(SEEDS):
        alone, _ = draw([seed], confidence, stop, propose_length=length)
        assert alone.codes[0].tolist() == together.codes[row].tolist()
        assert alone.statistics.rounds[0] == together.statistics.rounds[row]


@pytest.mark.parametrize("stop", [0.0, 0.6])
def test_proposed_and_stepwise_draw_the_same(stop: float, catch_up: int) -> None:
    (a, proposing), (b, _) = draw(SEEDS, stop=stop, propose_length=LENGTH), draw(SEEDS, stop=stop)
    np.testing.assert_array_equal(a.codes, b.codes)
    assert "propose" in proposing.calls


def test_never_sure_is_plain_decoding_and_always_sure_the_old_way() -> None:
    never, session = draw(SEEDS, confidence=1.0)
    assert never.statistics.mean_acceptance_length == 1.0
    assert "propose" not in session.calls
    always, _ = draw(SEEDS, confidence=1e-9)
    usual, _ = draw(SEEDS, confidence=0.0)
    np.testing.assert_array_equal(always.codes, usual.codes)
    np.testing.assert_array_equal(always.statistics.rounds, usual.statistics.rounds)


def test_rounds_without_a_draft_say_so_and_invariants_hold(catch_up: int) -> None:
    kinds: set[bool] = set()

    def on_round(state: State, record: RoundRecord) -> None:
        kinds.update((record.num_drafts[record.active] > 0).tolist())
        assert (state.cached == state.committed - 1).all()
        behind = (state.cached - state.drafted)[record.active]
        assert (behind >= 1).all()
        assert (behind < catch_up + LENGTH + 1).all()

    session = FakeSession(TABLES, dims(VOCAB, TOKENS), len(SEEDS), guided=True, paced=True)
    generate(
        session, LAW, Sampling(cfg_scale=1.5, confidence=0.5), SEEDS, loop="host", hooks=LoopHooks(on_round=on_round)
    )
    assert kinds == {True, False}


def test_capacity_is_enough(catch_up: int) -> None:
    sizes = dims(VOCAB, TOKENS)
    draw(SEEDS, slack=capacity(sizes, LENGTH, paced=True) - sizes.positions)


def test_unsure_drafts_are_not_judged() -> None:
    """What ends a window is Q alone: the target steps over fewer positions, and more rounds are needed."""

    def run(stop: float) -> tuple[int, int]:
        num_drafts: list[int] = []

        def on_round(state: State, record: RoundRecord) -> None:
            num_drafts.extend(record.num_drafts[record.active].tolist())

        session = FakeSession(TABLES, dims(VOCAB, TOKENS), len(SEEDS), paced=True)
        result = generate(
            session, LAW, Sampling(draft_confidence=stop), SEEDS, loop="host", hooks=LoopHooks(on_round=on_round)
        )
        return sum(num_drafts), int(result.statistics.rounds.sum())

    proposed, rounds = zip(*(run(stop) for stop in (0.0, 0.5, 0.7, 1.0)), strict=True)
    assert proposed[0] > proposed[1] > proposed[2] > proposed[3] == 0
    assert rounds[0] < rounds[1] < rounds[2] < rounds[3] == len(SEEDS) * (TOKENS - 1)


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("name", ["confidence", "draft_confidence"])
def test_bad_values_are_refused(name: str, bad: float) -> None:
    with pytest.raises(UserError, match=f"^{name}: expected a number from 0 to 1, found"):
        Sampling(**{name: bad})  # type: ignore[arg-type]
