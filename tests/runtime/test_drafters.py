"""Drafters other than the EAGLE head: the real round over all of its draws, against the laws it must have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2

from coolsd_rt.arrays import Array
from coolsd_rt.law import Law, exact, make_omegas
from coolsd_rt.runtime import Generation, LoopHooks, RoundRecord, Sampling, State, capacity, decode, generate
from coolsd_rt.runtime import state as state_module
from coolsd_rt.runtime.drafters import DrafterName, jacobi
from coolsd_rt.runtime.drafters import model as model_module
from coolsd_rt.runtime.randomness import ACCEPT, DRAFT
from tests.runtime.fakes import FakeSession, Tables, context_index, dims
from tests.runtime.jacobi_tree import jacobi_leaves
from tests.runtime.tree import Floats, Leaf, Method, check_leaves, leaves, output_law, probes


class ModelSession(FakeSession):
    """Its draft is a model of its own: row t of the cache is the token at position t."""

    def draft(self, ids: Array, features: Array, pos: Array) -> tuple[Array, Array]:
        assert features is None
        self.calls.append("draft")
        ids_, pos_ = self._in(ids, np.int64), self._in(pos, np.int64)
        width, d = ids_.shape[1], self.dims
        at = pos_[:, None] + np.arange(width)
        np.put_along_axis(self.draft_cache, at, ids_, axis=1)
        logits = np.empty((self.rows, width, d.vocab))
        for s in range(width):
            index = context_index(self.draft_cache[:, d.prefix :], at[:, s] + 1 - d.prefix, d.vocab)
            logits[:, s] = self._log(self.tables.draft, index)
        return self._out(logits), self._out(np.full((self.rows, width, 4), np.nan), "float64")


def drawn(session: FakeSession, law: Law, found: list[Leaf], drafter: DrafterName, **more: Any) -> None:
    """Every leaf of the tree is what the round draws at both ends of the leaf's box."""
    tokens = session.dims.tokens
    for upper in (False, True):
        fresh = type(session)(
            session.tables, session.dims, len(found), library=session.library, slack=40, paced=session.paced
        )
        result = decode(fresh, law, Sampling(**more), probes(found, tokens, law.length, upper), drafter=drafter)
        check_leaves(found, result.codes, result.statistics.rounds)
        if drafter != "model":
            assert "draft" not in fresh.calls
    assert sum(leaf.volume for leaf in found) == pytest.approx(1.0, abs=1e-12)


LAWS = [
    pytest.param(Law((1.0, 1.0)), id="lossless"),
    pytest.param(Law((0.4, 0.8)), id="below"),
    pytest.param(Law(make_omegas("exponential", 2, delta=1.3)), id="exponential"),
    pytest.param(Law(make_omegas("excess", 2, beta=0.8, nu=0.4), "waterfill"), id="waterfill"),
]


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("coupled", [False, True], ids=["fresh", "coupled"])
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("vocab", "tokens", "zeros"), [(2, 5, False), (3, 4, True)])
def test_jacobi_draws_every_leaf(vocab: int, tokens: int, zeros: bool, law: Law, coupled: bool, library: str) -> None:
    t = Tables.random(vocab, tokens, seed=5, zeros=zeros)
    found = jacobi_leaves(t.p, Method(law.omegas, law.resampler), tokens, coupled)
    session = FakeSession(t, dims(vocab, tokens), 1, library=library)
    drawn(session, law, found, "jacobi_coupled" if coupled else "jacobi")
    distance = exact.total_variation(output_law(found), exact.target_law(t.p, tokens))
    assert (distance < 1e-12) == (max(law.omegas) <= 1)


@pytest.mark.parametrize("coupled", [False, True], ids=["fresh", "coupled"])
def test_a_longer_jacobi_window(coupled: bool) -> None:
    """Three drafts of five binary tokens: a draft lives through two rejections before it."""
    law, t = Law((1.0, 1.0, 1.0)), Tables.random(2, 5, seed=8)
    found = jacobi_leaves(t.p, Method(law.omegas), 5, coupled)
    drawn(FakeSession(t, dims(2, 5), 1), law, found, "jacobi_coupled" if coupled else "jacobi")
    assert exact.total_variation(output_law(found), exact.target_law(t.p, 5)) < 1e-12


def binary(first: float, second: float, vocab: int) -> Floats:
    """Noise of two codes that is decided by one number, for the enumeration: code 0 wins where it is below Q(0)."""
    assert vocab == 2
    return np.array([first, 1 - first])


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("law", [*LAWS, pytest.param(Law((1.0, 1.0, 1.0)), id="longer")])
def test_one_noise_a_position_draws_every_leaf(law: Law, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A draft that lives through several rounds is drawn with one number, whatever its laws were: enumerated."""
    monkeypatch.setattr(jacobi, "exponentials", binary)
    t = Tables.random(2, 5, seed=5)
    found = jacobi_leaves(t.p, Method(law.omegas, law.resampler), 5, coupled=False, noise=True)
    drawn(FakeSession(t, dims(2, 5), 1, library=library), law, found, "jacobi_gumbel")
    distance = exact.total_variation(output_law(found), exact.target_law(t.p, 5))
    assert (distance < 1e-12) == (max(law.omegas) <= 1)


def test_noise_that_a_verdict_has_looked_at_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the noise of a position depends on the number that its drafts are judged with."""
    law, t = Law((1.0, 1.0)), Tables.random(2, 5, seed=5)
    found = jacobi_leaves(t.p, Method(law.omegas), 5, coupled=False, noise=True)
    monkeypatch.setattr(jacobi, "exponentials", binary)
    monkeypatch.setattr(jacobi, "DRAFT", ACCEPT)
    with pytest.raises(AssertionError):
        drawn(FakeSession(t, dims(2, 5), 1), law, found, "jacobi_gumbel")


@pytest.mark.parametrize("omegas", [(1.0, 1.0), (0.5, 1.0)])
def test_images_of_seeds_have_the_targets_law(omegas: tuple[float, ...]) -> None:
    """Three codes, the noise as it is. 40,000 images in 8 cells: a total variation of .02 is found with probability
    .998 at this limit, which the truth passes one time in 10,000."""
    count, t = 40_000, Tables.random(3, 3, seed=2, zeros=True)
    session = FakeSession(t, dims(3, 3), count)
    codes = generate(session, Law(omegas), Sampling(), range(count), drafter="jacobi_gumbel").codes
    law = exact.target_law(t.p, 3)
    cells = sorted(cell for cell, weight in law.items() if weight > 0)
    seen = dict.fromkeys(cells, 0)
    for row in codes.tolist():
        seen[tuple(row)] += 1
    wanted = np.array([law[cell] * count for cell in cells])
    statistic = float((((np.array([seen[cell] for cell in cells])) - wanted) ** 2 / wanted).sum())
    assert statistic < chi2.ppf(1 - 1e-4, len(cells) - 1)


def test_tokens_coupled_with_the_verdicts_own_numbers_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the number that passed a draft on is used once more."""
    law, t = Law((1.0, 1.0)), Tables.random(2, 5, seed=5)
    found = jacobi_leaves(t.p, Method(law.omegas), 5, True)
    monkeypatch.setattr(jacobi, "ACCEPT", DRAFT)
    with pytest.raises(AssertionError):
        drawn(FakeSession(t, dims(2, 5), 1), law, found, "jacobi_coupled")


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("paced", [(0.0, 0.0), (0.5, 0.0), (0.0, 0.6), (0.45, 0.55)])
@pytest.mark.parametrize("catch_up", [16, 1])
def test_a_model_of_its_own_draws_every_leaf(
    law: Law, library: str, paced: tuple[float, float], catch_up: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_module, "CATCH_UP", catch_up)
    t = Tables.random(3, 5, seed=7)
    method = Method(law.omegas, law.resampler, confidence=paced[0], draft_confidence=paced[1])
    found = leaves(t.p, t.q, method, 5)
    session = ModelSession(t, dims(3, 5), 1, library=library)
    drawn(session, law, found, "model", confidence=paced[0], draft_confidence=paced[1])
    if max(law.omegas) <= 1:
        assert exact.total_variation(output_law(found), exact.target_law(t.p, 5)) < 1e-12


TABLES = Tables.random(3, 8, seed=1).as_float32()
SEEDS = list(range(60, 72))


def draw(seeds: list[int], drafter: DrafterName, slack: int, **sampling: Any) -> Generation:
    cls = ModelSession if drafter == "model" else FakeSession
    session = cls(TABLES, dims(3, 8), len(seeds), guided=True, slack=slack)
    law = Law(make_omegas("exponential", 3, delta=1.3))
    return generate(session, law, Sampling(cfg_scale=1.5, **sampling), seeds, drafter=drafter)


@pytest.mark.parametrize("drafter", ["model", "jacobi", "jacobi_coupled", "jacobi_gumbel", "ngram"])
@pytest.mark.parametrize("paced", [{}, {"confidence": 0.5}, {"draft_confidence": 0.6}])
@pytest.mark.parametrize("catch_up", [16, 2, 1])
def test_a_image_does_not_depend_on_its_batch(
    drafter: DrafterName, paced: dict[str, float], catch_up: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for m in (model_module, state_module):
        monkeypatch.setattr(m, "CATCH_UP", catch_up)
    slack = capacity(dims(3, 8), 3, paced=bool(paced)) - dims(3, 8).positions
    together = draw(SEEDS, drafter, slack, **paced)
    assert len(set(together.statistics.rounds.tolist())) > 1
    for row, seed in enumerate(SEEDS):
        alone = draw([seed], drafter, slack, **paced)
        assert alone.codes[0].tolist() == together.codes[row].tolist()
        assert alone.statistics.rounds[0] == together.statistics.rounds[row]


@pytest.mark.parametrize("drafter", ["jacobi", "jacobi_coupled", "jacobi_gumbel", "model", "ngram"])
def test_forced_tokens_hold_and_the_rest_keeps_its_law(drafter: DrafterName) -> None:
    forced = [-1, -1, 2, -1, 0, -1, -1, -1]
    cls = ModelSession if drafter == "model" else FakeSession
    session = cls(TABLES, dims(3, 8), len(SEEDS), guided=True)
    result = generate(session, Law((1.0,) * 3), Sampling(cfg_scale=1.5), SEEDS, forced, drafter=drafter)
    assert (result.codes[:, 2] == 2).all()
    assert (result.codes[:, 4] == 0).all()
    assert (result.codes < 3).all()


def test_a_coupled_draft_stays_more_often() -> None:
    """That is what it is for. Beyond a rejection a fresh draft is another one as often as two draws differ, a coupled
    one only as often as the two laws do."""
    t = Tables.random(3, 8, seed=3)
    weights = t.target[0] ** 0.3
    weak = Tables(weights / weights.sum(-1, keepdims=True), t.draft[0])

    def changed(drafter: DrafterName) -> float:
        before: dict[str, Any] = {}
        counts = np.zeros(2)

        def on_round(state: State, record: RoundRecord) -> None:
            start = state.committed - record.accepted - 1
            if before:
                moved = start - before["start"]
                for m, i in np.argwhere(np.arange(record.drafts.shape[1]) < record.num_drafts[:, None]).tolist():
                    if i + moved[m] < before["num_drafts"][m]:
                        counts[:] += (record.drafts[m, i] != before["drafts"][m, i + moved[m]], 1)
            before.update(start=start, drafts=record.drafts.copy(), num_drafts=record.num_drafts.copy())

        session = FakeSession(weak, dims(3, 8), 200)
        generate(
            session,
            Law((1.0,) * 5),
            Sampling(),
            range(200),
            drafter=drafter,
            loop="host",
            hooks=LoopHooks(on_round=on_round),
        )
        return float(counts[0] / counts[1])

    fresh = changed("jacobi")
    assert changed("jacobi_coupled") < 0.5 * fresh
    assert changed("jacobi_gumbel") < 0.5 * fresh


@pytest.mark.parametrize("drafter", ["eagle", "model"])
def test_a_prefix_in_parts_draws_the_same(drafter: DrafterName, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the prefixes of a large vocabulary are stepped: the fakes notice a cache row of a step that was left out."""
    sizes, law, seeds = dims(3, 5), Law((1.2,) * 3), range(4)
    cls = ModelSession if drafter == "model" else FakeSession

    def drawn() -> tuple[FakeSession, Array]:
        session = cls(Tables.random(3, 5, seed=2).as_float32(), sizes, len(seeds), guided=True)
        return session, generate(session, law, Sampling(cfg_scale=1.5), seeds, drafter=drafter).codes

    whole, expected = drawn()
    monkeypatch.setattr("coolsd_rt.runtime.batch._PREFIX_LOGITS", 0)
    monkeypatch.setattr("coolsd_rt.runtime.batch._LEAST_PART", 1)
    parts, found = drawn()
    np.testing.assert_array_equal(found, expected)
    assert parts.calls.count("target") == whole.calls.count("target") + sizes.prefix - 1
