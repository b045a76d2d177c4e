"""Texts end at a token: the real round on every leaf, cut at the end token, and texts with limits of their own.

A leaf of `tests.runtime.tree` fixes all draws of an image of N tokens. Up to its first end token a text makes the same
draws, so that it has to be that image cut there: then the law of texts is the law of images, cut.
"""

from __future__ import annotations

import numpy as np
import pytest

from coolsd_rt.law import Law, exact
from coolsd_rt.runtime import LoopHooks, RoundRecord, Sampling, State, decode
from coolsd_rt.runtime.self_decoding import Extent
from tests.runtime.fakes import FakeSession, dims
from tests.runtime.test_exact_round import OMEGAS, enumerated, tables
from tests.runtime.tree import Method, leaves, probes

LAWS = {name: Law(OMEGAS[name]) for name in ("none", "floor", "below", "plain")}
ENDS = [(0,), (2,), (0, 1), (0, 1, 2)]


def cut(codes: tuple[int, ...], ends: tuple[int, ...]) -> list[int]:
    """The codes up to the first end."""
    at = next((i for i, code in enumerate(codes) if code in ends), len(codes))
    return list(codes[: at + 1])


@pytest.mark.parametrize("ends", ENDS, ids=str)
@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("upper", [False, True], ids=["low", "high"])
def test_every_leaf_is_cut_at_its_end(name: str, ends: tuple[int, ...], upper: bool) -> None:
    law, found = LAWS[name], enumerated(LAWS[name], 3, 5, False)
    counted = np.ones(len(found), np.int64)  # the first token belongs to no round

    def count(state: State, record: RoundRecord) -> None:
        nonlocal counted
        counted = counted + np.where(record.active, record.accepted + 1, 0)
        assert (record.num_drafts >= record.accepted)[record.active].all()
        assert (state.committed - state.prefix == counted).all()

    session = FakeSession(tables(3, 5, False), dims(3, 5), len(found))
    uniforms = probes(found, 5, law.length, upper)
    drawn = decode(
        session, law, Sampling(), uniforms, loop="host", hooks=LoopHooks(on_round=count), extent=Extent(ends)
    )

    wanted = [cut(leaf.codes, ends) for leaf in found]
    assert drawn.lengths is not None
    assert drawn.lengths.tolist() == [len(text) for text in wanted] == counted.tolist()
    assert [codes[:n].tolist() for codes, n in zip(drawn.codes, drawn.lengths, strict=True)] == wanted
    # A text has as many rounds as its tokens say, and none after its end.
    assert int(drawn.statistics.accepts.sum() + drawn.statistics.rounds.sum()) == int((drawn.lengths - 1).sum())
    assert (drawn.statistics.rounds <= [leaf.rounds for leaf in found]).all()


@pytest.mark.parametrize("ends", ENDS, ids=str)
def test_the_law_of_texts_is_that_of_plain_texts(ends: tuple[int, ...]) -> None:
    found, t = enumerated(LAWS["none"], 3, 5, False), tables(3, 5, False)

    def texts(law: dict[tuple[int, ...], float]) -> dict[tuple[int, ...], float]:
        out: dict[tuple[int, ...], float] = {}
        for codes, mass in law.items():
            text = tuple(cut(codes, ends))
            out[text] = out.get(text, 0.0) + mass
        return out

    drawn = texts({})
    for leaf in found:
        text = tuple(cut(leaf.codes, ends))
        drawn[text] = drawn.get(text, 0.0) + leaf.volume
    assert exact.total_variation(drawn, texts(exact.target_law(t.p, 5))) < 1e-12


@pytest.mark.parametrize("limit", [1, 2, 4])
@pytest.mark.parametrize("name", ["none", "floor", "plain"])
def test_a_limit_is_an_image_of_as_many_tokens(name: str, limit: int) -> None:
    """Beside texts without a limit, whose rounds go on."""
    law = LAWS[name]
    t = tables(3, 5, False)
    short, whole = leaves(t.p, t.q, Method(law.omegas), limit), enumerated(law, 3, 5, False)[:50]
    uniforms = np.full((len(short) + len(whole), 5, law.length + 1, 3), 0.5)
    uniforms[: len(short), :limit] = probes(short, limit, law.length, False)
    uniforms[len(short) :] = probes(whole, 5, law.length, False)
    session = FakeSession(t, dims(3, 5), len(uniforms))
    limits = (*(limit for _ in short), *(5 for _ in whole))
    drawn = decode(session, law, Sampling(), uniforms, extent=Extent(limits=limits))
    assert drawn.lengths is not None
    assert drawn.lengths.tolist() == list(limits)
    assert [c[:limit].tolist() for c in drawn.codes[: len(short)]] == [list(leaf.codes) for leaf in short]
