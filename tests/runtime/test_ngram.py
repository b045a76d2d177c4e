"""Drafts by n-gram lookup: the index against a search, the real round over all of its draws, and planted bugs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coolsd_rt.arrays import Array, Ints
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.law import Law, exact, make_omegas
from coolsd_rt.runtime import LoopHooks, RoundRecord, Sampling, State, decode, generate
from coolsd_rt.runtime.batch import Window
from coolsd_rt.runtime.drafters.ngram import NgramDrafter
from coolsd_rt.runtime.interface import Session
from coolsd_rt.runtime.ngrams import Lookup, NgramIndex, NgramSizes
from coolsd_rt.runtime.randomness import ACCEPT
from coolsd_rt.runtime.slot_group import ImageRequest
from coolsd_rt.runtime.slots import Slots
from tests.runtime.fakes import FakeRowSession, FakeSession, Tables, dims
from tests.runtime.ngram_tree import Searched, searched
from tests.runtime.tree import Context, Leaf, Method, check_leaves, output_law, probes

ids = st.integers(0, 2)


@given(
    prompt=st.lists(ids, max_size=8),
    parts=st.lists(st.lists(ids, max_size=4), max_size=8),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    count=st.integers(1, 6),
    forced=st.lists(st.sampled_from([-1, -1, -1, 0, 1]), max_size=6),
)
def test_the_index_finds_what_a_search_finds(
    prompt: list[int], parts: list[list[int]], sizes: tuple[int, int], count: int, forced: list[int]
) -> None:
    """After every part, however the tokens came; and a proposal leaves nothing behind."""
    longest, shortest = max(sizes), min(sizes)
    index, history = NgramIndex(NgramSizes(longest, shortest), prompt), tuple(prompt)
    for part in parts:
        index.extend(part)
        history += tuple(part)
        wanted, _ = searched(history, count, longest, shortest, tuple(forced))
        assert tuple(index.propose(count, forced)) == wanted
        assert tuple(index.propose(count, forced)) == wanted
        assert index.decided == len(history) - len(prompt)


def test_a_copy_goes_on_in_itself() -> None:
    index = NgramIndex(NgramSizes(), (5, 6))
    index.extend([7, 5, 6])
    assert index.propose(7) == [7, 5, 6, 7, 5, 6, 7]
    index.extend([9])
    assert index.propose(4) == []
    assert index.propose(4, [8, -1]) == [8]


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((0, 1), "longest: expected a whole number from 1 to 64, found 0"),
        ((2, 3), "shortest: expected at most longest, 2, found 3"),
    ],
)
def test_sizes_that_cannot_be(sizes: tuple[int, int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        NgramSizes(*sizes)


LAWS = [
    pytest.param(Law((1.0, 1.0, 1.0)), id="lossless"),
    pytest.param(Law((1.0, 1.0), "residual"), id="residual"),
    pytest.param(Law((0.4, 0.8)), id="below"),
    pytest.param(Law(make_omegas("exponential", 3, delta=1.3)), id="exponential"),
    pytest.param(Law(make_omegas("excess", 2, beta=0.8, nu=0.4), "waterfill"), id="waterfill"),
]
SHAPES = [
    pytest.param(Searched(Tables.random(2, 6, seed=5).p, 6), 2, id="two codes"),
    pytest.param(Searched(Tables.random(3, 5, seed=7, zeros=True).p, 5), 3, id="zeros"),
    pytest.param(Searched(Tables.random(3, 5, seed=7).p, 5, prompt=(2, 0, 1, 0)), 3, id="prompt"),
    pytest.param(Searched(Tables.random(3, 5, seed=8).p, 5, 2, 2, (0, 1, 1, 2, 0)), 3, id="pairs alone"),
    pytest.param(Searched(Tables.random(3, 5, seed=9).p, 5, 1, 1), 3, id="single tokens"),
]


def tables_of(shape: Searched) -> Tables:
    """The tables whose P the shape has."""
    tables = shape.target.__self__  # type: ignore[attr-defined]
    assert isinstance(tables, Tables)
    return tables


def lookup(shape: Searched, images: int) -> Lookup:
    return Lookup(NgramSizes(shape.longest, shape.shortest), (shape.prompt,) * images if shape.prompt else ())


def check(
    shape: Searched,
    vocab: int,
    law: Law,
    found: list[Leaf],
    *,
    library: str = "numpy",
    forced: Context | None = None,
    hooks: LoopHooks | None = None,
) -> None:
    """Every leaf is what the round draws at both ends of its box, and takes no step of a draft."""
    tokens, images = shape.tokens, len(found)
    for upper in (False, True):
        session = FakeSession(tables_of(shape), dims(vocab, tokens), images, library=library)
        uniforms = probes(found, tokens, law.length, upper)
        drafter, hooks = lookup(shape, images), hooks or LoopHooks()
        result = decode(session, law, Sampling(), uniforms, forced, drafter=drafter, loop="host", hooks=hooks)
        check_leaves(found, result.codes, result.statistics.rounds)
        assert int(result.statistics.accepts.sum()) == sum(leaf.accepted for leaf in found)
        assert result.statistics.degenerate == sum(leaf.degenerate for leaf in found)
        assert "draft" not in session.calls
    assert sum(leaf.volume for leaf in found) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("shape", "vocab"), SHAPES)
def test_every_leaf_is_drawn(shape: Searched, vocab: int, law: Law, library: str) -> None:
    found = shape.leaves(Method(law.omegas, law.resampler))
    check(shape, vocab, law, found, library=library)
    drawn, true = output_law(found), exact.target_law(shape.target, shape.tokens)
    assert exact.total_variation(drawn, shape.law(law)) < 1e-12
    assert (exact.total_variation(drawn, true) < 1e-12) == (max(law.omegas) <= 1)


def test_a_batch_has_images_with_and_without_drafts() -> None:
    """In one round: some find nothing, some copy one token, some a copy that goes on in itself."""
    shape, law, kinds = Searched(Tables.random(3, 5, seed=9).p, 5), Law((1.0, 1.0, 1.0)), set()

    def note(state: State, record: RoundRecord) -> None:
        before = state.committed - state.prefix - record.accepted - 1
        kinds.add((int(before.min()), frozenset(record.num_drafts[before == 2].tolist())))
        assert record.draft.shape[1] == record.num_drafts.max()
        assert (np.asarray(record.draft).max(-1, initial=1.0) == 1).all()

    check(shape, 3, law, shape.leaves(Method(law.omegas)), hooks=LoopHooks(on_round=note))
    assert (2, frozenset({0, 2})) in kinds  # "a b" and "a a", which is copied past its end


def test_forced_tokens_are_drafted_whatever_was_there_before() -> None:
    law, forced, shape = Law((0.4, 0.4, 0.4)), (-1, 2, -1, 0, -1), Searched(Tables.random(3, 5, seed=3).p, 5)
    found = shape.leaves(Method(law.omegas, law.resampler, forced))
    check(shape, 3, law, found, forced=forced)

    def pinned(context: Context) -> Any:
        return shape.target(context) if forced[len(context)] < 0 else np.eye(3)[forced[len(context)]]

    assert exact.total_variation(output_law(found), exact.target_law(pinned, 5)) < 1e-12


LAW = Law(make_omegas("exponential", 3, delta=1.3))
PROMPTS = [(), (0, 1, 2, 0), (2, 2, 2), (1, 0, 1, 0, 1), (), (2, 1, 0), (0,)]


def alone(seed: int, prompt: Context, tables: Tables) -> tuple[list[int], int]:
    session = FakeSession(tables, dims(3, 8), 1, guided=True)
    result = generate(session, LAW, Sampling(cfg_scale=1.5), [seed], drafter=Lookup(prompts=(prompt,)))
    return result.codes[0].tolist(), int(result.statistics.rounds[0])


def test_images_with_prompts_come_and_go_and_are_what_they_are_alone() -> None:
    tables = Tables.random(3, 8, seed=1).as_float32()

    def session(requests: Sequence[ImageRequest]) -> Session:
        return FakeRowSession(tables, dims(3, 8), len(requests), guided=True)

    slots, drawn = Slots(3, session, "host"), {}
    for ticket, prompt in enumerate(PROMPTS):
        slots.enter(ticket, ImageRequest(None, LAW, Sampling(cfg_scale=1.5), ticket, "ngram", prompt=prompt))
    while slots.busy:
        drawn.update({image.ticket: image for image in slots.step()})
    found = [(drawn[k].codes.tolist(), len(drawn[k].accepted)) for k in range(len(PROMPTS))]
    assert found == [alone(k, prompt, tables) for k, prompt in enumerate(PROMPTS)]
    assert found != [alone(k, (), tables) for k in range(len(PROMPTS))]  # a prompt is read
    assert len({rounds for _, rounds in found}) > 1


WORLD = Searched(Tables.random(2, 6, seed=5).p, 6)
PAPER = Law(make_omegas("exponential", 3, delta=1.1))


def noticed(law: Law = PAPER) -> bool:
    try:
        check(WORLD, 2, law, WORLD.leaves(Method(law.omegas)))
    except (AssertionError, CoolsdError):
        return True
    return False


def test_without_a_bug_nothing_is_noticed() -> None:
    assert not noticed()
    assert not noticed(Law((1.0, 1.0)))


def test_a_q_that_is_no_point_mass_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a draft that is certain is judged as one of probability 0.9."""
    real = NgramDrafter._certain

    def planted(self: NgramDrafter, tokens: Ints) -> tuple[Array, Array]:
        there, q = real(self, tokens)
        return there, 0.8 * q + 0.2 / q.shape[-1]

    monkeypatch.setattr(NgramDrafter, "_certain", planted)
    assert noticed(Law((1.0, 1.0)))


def test_a_count_that_depends_on_the_drafts_own_fate_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a first draft that is likely to be rejected is not proposed, by the number that would judge it."""
    real = NgramDrafter.draft

    def planted(self: NgramDrafter, window: Window, num_drafts: Ints) -> tuple[Ints, Array, Array]:
        count, tokens, q = real(self, window, num_drafts)
        return np.where(window.uniforms[:, 0, ACCEPT] > 0.5, 0, count), tokens, q

    monkeypatch.setattr(NgramDrafter, "draft", planted)
    assert noticed(Law((1.0, 1.0)))


def test_an_ngram_that_finds_itself_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the last token enters the index before it has a successor, and is proposed again."""
    real = NgramIndex.extend

    def planted(self: NgramIndex, tokens: Any) -> None:
        for token in tokens:
            real(self, [token])
            self._after[(token,)] = len(self._history) - 1

    monkeypatch.setattr(NgramIndex, "extend", planted)
    assert noticed()


def test_an_index_that_misses_the_last_token_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the lookup is of the history without the token that was decided last."""
    real = NgramIndex.extend
    monkeypatch.setattr(NgramIndex, "extend", lambda self, tokens: real(self, list(tokens)[:-1]))
    assert noticed()


def test_the_oldest_occurrence_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: an n-gram keeps the place where it was first."""
    real = NgramIndex.extend

    def planted(self: NgramIndex, tokens: Any) -> None:
        for token in tokens:
            before = dict(self._after)
            real(self, [token])
            self._after.update(before)

    monkeypatch.setattr(NgramIndex, "extend", planted)
    assert noticed()
