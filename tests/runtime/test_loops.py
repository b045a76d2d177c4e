"""Which loop runs is what was asked for, and it counts and times its rounds: a host's here, a device's in
`tests/backends/device`."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, cast

import pytest

from coolsd_rt.errors import UserError
from coolsd_rt.law import Law
from coolsd_rt.runtime import LoopHooks, RoundRecord, Sampling, State, generate
from coolsd_rt.runtime.self_decoding import Loop
from tests.runtime.fakes import FakeSession, Tables, dims

VOCAB, TOKENS, LENGTH = 3, 9, 3
LAW = Law((1.2, 1.0, 0.8))


class Timed(FakeSession):
    """Each step of the target takes a second, each of the draft a thousandth, on a clock of its own."""

    now = 0.0

    def target(self, ids: Any, pos: Any) -> Any:
        self.now += 1.0
        return super().target(ids, pos)

    def draft(self, ids: Any, features: Any, pos: Any) -> Any:
        self.now += 0.001
        return super().draft(ids, features, pos)


def session(images: int = 2) -> Timed:
    return Timed(Tables.random(VOCAB, TOKENS, seed=3), dims(VOCAB, TOKENS), images)


def see(state: State, record: RoundRecord) -> None:
    """A hook."""


@pytest.mark.parametrize("loop", ["auto", "host"])
def test_a_session_that_is_stepped_has_the_hosts_loop(loop: Loop) -> None:
    assert generate(session(), LAW, Sampling(), [1, 2], loop=loop).loop == "host"


def test_no_loop_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r'loop="device".*found an engine that the host steps; use loop="auto"'):
        generate(session(), LAW, Sampling(), [1, 2], loop="device")


@pytest.mark.parametrize("loop", ["auto", "device"])
def test_a_hook_never_chooses_the_loop(loop: Loop) -> None:
    """Also where the host's would have run: a program that wants each round has to say so."""
    fake = session()
    with pytest.raises(ValueError, match=f"on_round: expected loop='host'.*found loop='{loop}'"):
        generate(fake, LAW, Sampling(), [1, 2], loop=loop, hooks=LoopHooks(on_round=see))
    assert fake.now == 0


def test_an_unknown_loop_is_refused() -> None:
    with pytest.raises(ValueError, match="loop: expected one of auto, host, device, found 'gpu'"):
        generate(session(), LAW, Sampling(), [1, 2], loop=cast("Loop", "gpu"))


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(confidence=0.5, draft_confidence=0.45)], ids=["every round", "paced"]
)
def test_rounds_are_counted_and_timed_by_their_longest_window(sampling: Sampling) -> None:
    """A round's time is its own: neither the prefill's nor the hook's, which take long here."""
    fake, records = session(4), list[RoundRecord]()

    def hook(state: State, record: RoundRecord) -> None:
        records.append(record)
        fake.now += 1000.0

    done = generate(
        fake,
        LAW,
        sampling,
        [1, 2, 3, 4],
        loop="host",
        hooks=LoopHooks(on_round=hook, on_progress=lambda progress: hook_too(fake), clock=lambda: fake.now),
    )
    stats, widths = done.statistics, defaultdict[int, int](int)
    for record in records:
        widths[int(record.num_drafts[record.active].max())] += 1
    assert {width: len(seconds) for width, seconds in stats.round_seconds.items()} == dict(widths)
    assert len(widths) > 1
    for width, seconds in stats.round_seconds.items():
        least = 1.0 + (0.001 if width else 0.0)
        assert all(least - 1e-9 <= spent < 1.02 for spent in seconds)
    num_drafts = [record.num_drafts[record.active] for record in records]
    assert stats.draft_tokens == sum(int(v.sum()) for v in num_drafts)
    assert stats.rounds_with_drafts == sum(int((v > 0).sum()) for v in num_drafts)
    assert 0 < stats.rounds_with_drafts < stats.draft_tokens
    assert stats.seconds["device"] == 0


def hook_too(fake: Timed) -> None:
    fake.now += 1000.0


def test_plain_decoding_proposes_nothing() -> None:
    fake = session()
    stats = generate(fake, Law(()), Sampling(), [1, 2], hooks=LoopHooks(clock=lambda: fake.now)).statistics
    assert (stats.rounds_with_drafts, stats.draft_tokens) == (0, 0)
    assert stats.round_seconds == {0: [1.0] * (TOKENS - 1)}
