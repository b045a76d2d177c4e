"""Drafts of a row head: the real round over all of its draws, its law in closed form, and planted bugs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coolsd_rt.arrays import Array, Ints
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.law import Law, exact, make_omegas
from coolsd_rt.runtime import LoopHooks, RoundRecord, Sampling, State, decode, generate
from coolsd_rt.runtime.batch import Window
from coolsd_rt.runtime.drafters import rows as module
from coolsd_rt.runtime.drafters.rows import RowDrafter
from coolsd_rt.runtime.row_lengths import row_lengths
from coolsd_rt.runtime.slot_group import ImageRequest
from coolsd_rt.runtime.slots import Slots
from tests.runtime.fakes import FakeSession, Tables, dims
from tests.runtime.row_tree import RowHeadSession, RowImage
from tests.runtime.tree import Context, Leaf, Method, check_leaves, output_law, probes

SMALL = RowImage(2, 6, 3, 2, seed=3)
SHAPES = [
    pytest.param(SMALL, id="two rows of three"),
    pytest.param(RowImage(2, 6, 2, 1, seed=4), id="three rows of two"),
    pytest.param(RowImage(3, 4, 2, 2, seed=5), id="three codes"),
    pytest.param(RowImage(2, 5, 5, 4, seed=6), id="one row"),
]
LAWS = [
    pytest.param(Law((1.0,) * 3), id="lossless"),
    pytest.param(Law((1.0,) * 2, "residual"), id="residual"),
    pytest.param(Law(make_omegas("exponential", 3, delta=1.3)), id="exponential"),
    pytest.param(Law(make_omegas("excess", 2, beta=0.8, nu=0.4), "waterfill"), id="waterfill"),
]


def check(image: RowImage, law: Law, found: list[Leaf], forced: Context | None = None, library: str = "numpy") -> None:
    """Every leaf is what the round draws at both ends of its box, in the leaf's number of rounds."""
    for upper in (False, True):
        session = RowHeadSession(image, len(found), library=library)
        uniforms = probes(found, image.tokens, law.length, upper)
        result = decode(session, law, Sampling(), uniforms, forced, drafter="rows", loop="host")
        check_leaves(found, result.codes, result.statistics.rounds)
        assert int(result.statistics.accepts.sum()) == sum(leaf.accepted for leaf in found)


def method_of(law: Law, forced: Context | None = None) -> Method:
    return Method(law.omegas, law.resampler, forced)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("image", SHAPES)
def test_the_round_is_its_law(image: RowImage, law: Law) -> None:
    law = Law(law.omegas[: image.row], law.resampler)
    found = image.leaves(method_of(law))
    check(image, law, found)
    wanted, seen = image.law(law), output_law(found)
    assert sum(leaf.volume for leaf in found) == pytest.approx(1, abs=1e-9)
    assert max(abs(seen.get(x, 0.0) - w) for x, w in wanted.items()) < 1e-9
    if law.omegas == (1.0,) * law.length:
        lossless = exact.target_law(image.tables.p, image.tokens)
        assert max(abs(seen.get(x, 0.0) - w) for x, w in lossless.items()) < 1e-9


def test_with_torch() -> None:
    law = Law((1.0, 1.0))
    check(SMALL, law, SMALL.leaves(method_of(law)), library="torch")


def test_line_ends_are_forced() -> None:
    """A row of two codes and a line end: drafts reach the line end, and never the next row."""
    forced = (-1, -1, 1, -1, -1, 1)
    law = Law((1.0, 1.0, 1.0))
    check(SMALL, law, SMALL.leaves(method_of(law, forced)), forced)


@pytest.mark.parametrize("image", SHAPES)
def test_drafts_end_with_their_row(image: RowImage) -> None:
    """In every round as many as the row has, and one token of the image is left for the round's own draw."""
    length = image.row
    rounds = 0

    def look(state: State, record: RoundRecord) -> None:
        nonlocal rounds
        rounds += 1
        for m in np.flatnonzero(record.active):
            n = int(state.decided[m]) - int(record.accepted[m]) - 1
            wanted = image.length(tuple(range(n)), length)
            assert record.num_drafts[m] == wanted

    session = RowHeadSession(image, 5)
    generate(
        session, Law((1.0,) * length), Sampling(), range(5), drafter="rows", loop="host", hooks=LoopHooks(on_round=look)
    )
    assert rounds


def test_an_image_is_the_same_among_others_that_come_and_go() -> None:
    """In slots, where images join and leave between rounds."""
    law, alone = Law((1.2, 1.1, 1.0)), []
    for seed in range(7):
        result = generate(RowHeadSession(SMALL, 1), law, Sampling(), [seed], drafter="rows", loop="host")
        alone.append(result.codes[0].tolist())
    slots, drawn = Slots(3, lambda requests: RowHeadSession(SMALL, len(requests)), "host"), {}
    for seed in range(7):
        slots.enter(seed, ImageRequest(None, law, Sampling(), seed, "rows"))
    while slots.busy:
        drawn.update({image.ticket: image.codes.tolist() for image in slots.step()})
    assert [drawn[seed] for seed in range(7)] == alone


def test_an_engine_without_a_row_head_is_one_line() -> None:
    session = FakeSession(Tables.random(2, 4), dims(2, 4), 1)
    with pytest.raises(UserError, match="the drafter rows: expected an engine with a row head, found one without"):
        generate(session, Law((1.0,)), Sampling(), [0], drafter="rows", loop="host")


def noticed(image: RowImage = SMALL) -> bool:
    """Whether the enumeration of the lossless round fails."""
    law = Law((1.0, 1.0, 1.0))
    try:
        check(image, law, image.leaves(method_of(law)))
    except (CoolsdError, AssertionError, IndexError):
        return True
    return False


def test_without_a_bug_nothing_is_noticed() -> None:
    assert not noticed()


def test_q_of_another_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: drafts are drawn from their Q and judged by that of the draft beside them."""
    real = RowDrafter.draft

    def planted(self: RowDrafter, window: Window, num_drafts: Ints) -> tuple[Ints, Array, Array]:
        count, tokens, q = real(self, window, num_drafts)
        return count, tokens, np.roll(q, 1, axis=1)

    monkeypatch.setattr(RowDrafter, "draft", planted)
    assert noticed()


def test_a_feature_of_a_rejected_draft(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the features of the whole step are kept, as if all drafts had been accepted."""
    real = RowDrafter.committed

    def planted(self: RowDrafter, active: Any) -> None:
        self._cached = self._batch.state.cached - self._step.shape[1]
        real(self, active)

    monkeypatch.setattr(RowDrafter, "committed", planted)
    assert noticed()


def test_features_a_round_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: what the last round accepted is not kept."""
    monkeypatch.setattr(RowDrafter, "committed", lambda self, active: None)
    assert noticed()


def test_drafts_past_the_rows_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: as many drafts as a row has, wherever the round begins."""
    monkeypatch.setattr(module, "row_lengths", lambda begin, row, ahead: np.full(begin.shape, row))
    assert noticed()


def test_the_first_row_as_if_it_had_one_above(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: drafts behind the guesses along the row, where there is no other guess."""
    monkeypatch.setattr(module, "row_lengths", lambda begin, row, ahead: row_lengths(begin + row, row, ahead))
    assert noticed(RowImage(2, 6, 3, 1, seed=3))


def test_a_row_above_that_is_one_column_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the pair of the token above and to the left."""
    real = RowHeadSession.draft_row

    def planted(self: RowHeadSession, ids: Array, features: Array, *ends: Array) -> Array:
        return real(self, np.roll(ids, 1, axis=1), np.roll(features, 1, axis=1), *ends)

    monkeypatch.setattr(RowHeadSession, "draft_row", planted)
    assert noticed()
