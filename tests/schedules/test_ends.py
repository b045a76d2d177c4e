"""Recorded rounds of texts: after an end token nothing counts, in expectation over windows and in the real round."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from coolsd_rt.arrays import Floats64
from coolsd_rt.law import Law, exact, make_omegas
from coolsd_rt.law.exact import Context, Joint
from coolsd_rt.law.traces import RecordedRounds, outlook
from coolsd_rt.runtime import LoopHooks, RoundRecord, Sampling, State, decode
from coolsd_rt.runtime.randomness import ACCEPT, DRAFT, RESAMPLE
from coolsd_rt.runtime.self_decoding import Extent
from coolsd_rt.runtime.statistics import Generation
from coolsd_rt.schedules.analysis import evaluated
from coolsd_rt.schedules.merging import compact, merge
from coolsd_rt.schedules.recording import Recorder, Recording
from tests.law.test_traces import LENGTH, TABLES, every_window
from tests.runtime.fakes import FakeSession, Tables, dims
from tests.runtime.test_exact_round import OMEGAS, enumerated, tables
from tests.runtime.test_texts_end import cut
from tests.runtime.tree import probes

ENDS = [(0,), (2,), (1, 3)]
LAWS = {
    "none": Law((1.0,) * LENGTH),
    "paper": Law(make_omegas("exponential", LENGTH, delta=1.1)),
    "excess": Law(make_omegas("excess", LENGTH, beta=0.6, nu=0.3)),
    "waterfill": Law(make_omegas("excess", LENGTH, beta=0.6, nu=0.3), "waterfill"),
    "below": Law((1.3, 0.6, 0.4), "residual"),
}


def texts(joint: Joint, ends: tuple[int, ...]) -> Joint:
    out: Joint = {}
    for codes, mass in joint.items():
        text = tuple(cut(codes, ends))
        out[text] = out.get(text, 0.0) + mass
    return out


def length_of(law: Law, ends: tuple[int, ...], p: exact.Model, q: exact.Model, context: Context = ()) -> float:
    """Expected tokens of a round up to its end token, by enumeration."""
    return sum(len(cut(codes, ends)) * mass for codes, mass in exact.round_law(p, q, law, context).items())


@pytest.mark.parametrize("ends", ENDS, ids=str)
@pytest.mark.parametrize("name", LAWS)
def test_expectations_are_the_enumerations(name: str, ends: tuple[int, ...]) -> None:
    law, windows = LAWS[name], replace(every_window(), ends=ends)
    length = length_of(law, ends, TABLES.p, TABLES.q)
    joint = texts(exact.window_law(TABLES.p, TABLES.q, law), ends)
    own = texts(exact.target_law(TABLES.p, LENGTH), ends)
    for these, within in ((windows, 1e-12), (compact(windows), 1e-12), (compact(merge(windows)), 1e-5)):
        found = outlook(these, law)
        assert found.accept_length == pytest.approx(length, abs=within)
        assert found.kl == pytest.approx(exact.kl(joint, own), abs=within)
        assert found.tv_round == pytest.approx(exact.total_variation(joint, own), abs=within)
    assert outlook(every_window(), law).accept_length > length + 0.05


def every_draft(t: Tables, vocab: int, tokens: int, length: int) -> tuple[Floats64, Floats64]:
    """Uniforms for every first token and every path of drafts after it, and the probability of each."""
    paths = list(itertools.product(range(vocab), repeat=length + 1))
    table, mass = np.full((len(paths), tokens, length + 1, 3), 0.5), np.ones(len(paths))
    for row, path in enumerate(paths):
        for n, x in enumerate(path):
            weights = t.q(path[:n]) if n else t.p(())
            mass[row] *= weights[x]
            key = (n, n - 1, DRAFT) if n else (0, 0, RESAMPLE)
            table[(row, *key)] = weights[:x].sum() + weights[x] / 2
    return table, mass


@pytest.mark.parametrize("accept", [0.02, 0.5])
@pytest.mark.parametrize("ends", [(0,), (2,), (0, 1)], ids=str)
def test_the_real_rounds_windows_give_every_laws_figures(ends: tuple[int, ...], accept: float) -> None:
    """The first rounds with every draft predict any law, whichever of the drafts the recorded law accepted."""
    t, lossless = tables(3, 5, False), Law(OMEGAS["none"])
    uniforms, mass = every_draft(t, 3, 5, lossless.length)
    uniforms[..., ACCEPT] = accept
    recording = recorded(t, lossless, uniforms, ends)[0]
    windows, first = recording.windows, recording.position == 1
    assert windows.image is not None
    mass = mass[windows.image[first]]
    starts = RecordedRounds(
        windows.target[first],
        windows.draft[first],
        windows.drafts[first],
        windows.num_drafts[first],
        mass / mass.sum(),
        ends=windows.ends,
        merged=True,
    )
    begins = {x: float(p) for x, p in enumerate(t.p(())) if x not in ends}
    assert mass.sum() == pytest.approx(sum(begins.values()))
    for law in (lossless, *(Law(OMEGAS[name]) for name in ("exponential", "floor", "below"))):
        wanted = sum(p * length_of(law, ends, t.p, t.q, (x,)) for x, p in begins.items()) / sum(begins.values())
        assert outlook(starts, law).accept_length == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("ends", [(0,), (2,), (0, 1)], ids=str)
def test_every_round_of_a_text_is_there(ends: tuple[int, ...]) -> None:
    """Also the one that ended it, and what was accepted is what the text has of it."""
    lossless = Law(OMEGAS["none"])
    leaves = enumerated(lossless, 3, 5, False)
    recording, drawn, seen = recorded(tables(3, 5, False), lossless, probes(leaves, 5, lossless.length, False), ends)
    image = recording.windows.image
    assert image is not None
    assert drawn.lengths is not None
    for m, (codes, length) in enumerate(zip(drawn.codes, drawn.lengths.tolist(), strict=True)):
        starts, accepted = recording.position[image == m], recording.accepted[image == m]
        tokens = accepted + 1
        if len(starts) and codes[length - 1] in ends and starts[-1] + accepted[-1] == length:
            tokens[-1] -= 1  # the end was a draft, with no token after it
        assert (starts + tokens <= length).all()
        assert starts[1:].tolist() == (starts + tokens)[:-1].tolist()
        assert length == 1 or starts[0] == 1
        assert length in (1, 5) or starts[-1] + tokens[-1] == length
    at, cuts = evaluated(recording), sum(int((r.num_drafts < r.offered)[r.active].sum()) for r in seen)
    assert cuts > 100
    assert int(at.accepted.sum()) == sum(int(r.accepted[r.active].sum()) for r in seen) + cuts
    assert len(at.accepted) == cuts + sum(int(np.minimum(r.num_drafts, r.accepted + 1)[r.active].sum()) for r in seen)


def recorded(
    t: Tables, law: Law, uniforms: Floats64, ends: tuple[int, ...]
) -> tuple[Recording, Generation, list[RoundRecord]]:
    """A recording of texts of up to five tokens of three codes."""
    recorder, seen = Recorder(law.length, range(len(uniforms)), ends), []

    def see(state: State, record: RoundRecord) -> None:
        recorder(state, record)
        seen.append(record)

    session = FakeSession(t, dims(3, 5), len(uniforms))
    hooks = LoopHooks(on_round=see)
    drawn = decode(session, law, Sampling(), uniforms, loop="host", hooks=hooks, extent=Extent(ends))
    return Recording.of([recorder.arrays()], ends), drawn, seen
