"""Drafts judged position by position: the real round over all of its draws, its law, its bound, and planted bugs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.law import Law, exact
from coolsd_rt.ops.positions import judge_positions
from coolsd_rt.runtime import LoopHooks, RoundRecord, Sampling, State, decode, generate, position_round
from coolsd_rt.runtime.batch import Judged
from coolsd_rt.runtime.position_round import PositionJudge
from coolsd_rt.runtime.randomness import PURPOSES
from coolsd_rt.runtime.slot_group import DrawnImage, ImageRequest
from coolsd_rt.runtime.slots import SlotHooks, Slots
from coolsd_rt.runtime.statistics import Statistics
from coolsd_rt.workflows.totals import total
from tests.runtime.position_tree import image_law, leaves
from tests.runtime.row_tree import RowHeadSession, RowImage
from tests.runtime.tree import Context, Floats, Leaf, check_leaves, output_law, probes

SMALL, LONG = RowImage(2, 6, 3, 2, seed=3), RowImage(2, 9, 3, 2, seed=8)
CASES = [
    pytest.param(SMALL, 3, 0, id="as drafted"),
    pytest.param(SMALL, 3, 1, id="one pass"),
    pytest.param(SMALL, 3, 2, id="as many passes as drafts"),
    pytest.param(RowImage(2, 5, 4, 3, seed=9), 3, 2, id="two passes of three drafts"),
    pytest.param(RowImage(3, 4, 2, 2, seed=5), 2, 1, id="three codes"),
    pytest.param(RowImage(2, 4, 4, 3, seed=6), 3, 1, id="one row"),
    pytest.param(RowImage(2, 4, 4, 2, seed=7), 2, 3, id="more passes than drafts"),
]


def relaxed(length: int, refinements: int) -> Law:
    return Law((1.0,) * length, refinements=refinements)


def drawn(
    image: RowImage, law: Law, found: list[Leaf], upper: bool, forced: Context | None = None, library: str = "numpy"
) -> tuple[Any, Statistics, Floats]:
    """Codes, counts and the distance of each leaf, with the numbers of one corner of its box."""
    distance = np.zeros(len(found))

    def look(state: State, record: RoundRecord) -> None:
        nonlocal distance
        if record.distance is not None:
            distance = distance + np.where(record.active, record.distance, 0.0)

    uniforms = probes(found, image.tokens, law.length, upper, PURPOSES + 2 * (law.passes - 1))
    result = decode(
        RowHeadSession(image, len(found), library=library), law, Sampling(), uniforms, forced,
        drafter="rows", loop="host", hooks=LoopHooks(on_round=look),
    )  # fmt: skip
    return result.codes, result.statistics, distance


def check(
    image: RowImage, law: Law, found: list[Leaf], forced: Context | None = None, library: str = "numpy"
) -> Floats:
    """Every leaf is what the round draws at both corners of its box. Returns the distance of each leaf."""
    for upper in (False, True):
        codes, statistics, distance = drawn(image, law, found, upper, forced, library)
        check_leaves(found, codes, statistics.rounds)
        assert int(statistics.accepts.sum()) == sum(leaf.accepted for leaf in found)
    return distance


@pytest.mark.parametrize(("image", "length", "passes"), CASES)
def test_the_round_is_its_law(image: RowImage, length: int, passes: int) -> None:
    law = relaxed(length, passes)
    found = leaves(image, length, passes)
    distance = check(image, law, found)
    wanted, seen = image_law(image, length, passes), output_law(found)
    assert sum(leaf.volume for leaf in found) == pytest.approx(1, abs=1e-9)
    assert max(abs(seen.get(x, 0.0) - w) for x, w in wanted.items()) < 1e-9
    # What the rounds count is, in the mean, a bound on the distance of the image's law from the target's.
    apart = exact.total_variation(seen, exact.target_law(image.tables.p, image.tokens))
    bound = sum(leaf.volume * float(d) for leaf, d in zip(found, distance, strict=True))
    assert apart <= bound + 1e-9
    assert bound < 12 * apart + 1e-9  # and not a trivial one
    if passes >= max(image.length((0,) * n, length) for n in range(1, image.tokens)):
        assert apart == pytest.approx(0, abs=1e-9)
    else:
        assert apart > 1e-3


def test_with_torch() -> None:
    check(SMALL, relaxed(2, 1), leaves(SMALL, 2, 1), library="torch")


def test_forced_tokens_stay() -> None:
    forced = (-1, -1, 1, -1, -1, 1)
    check(SMALL, relaxed(3, 2), leaves(SMALL, 3, 2, forced), forced)


def test_a_pass_that_replaces_nothing_is_the_last() -> None:
    """The target runs once where all guesses are kept, and never more often than one pass beyond the refinements."""
    steps: list[tuple[int, int, bool]] = []
    session = RowHeadSession(SMALL, 1)

    def look(state: State, record: RoundRecord) -> None:
        ran = session.calls.count("target") - 1 - sum(n for n, _, _ in steps)
        steps.append((ran, record.steps, int(record.num_drafts[0]) > 0))

    for seed in range(40):
        session, before = RowHeadSession(SMALL, 1), len(steps)
        steps = []
        result = generate(
            session, relaxed(3, 2), Sampling(), [seed], drafter="rows", loop="host", hooks=LoopHooks(on_round=look)
        )
        assert all(ran == told for ran, told, _ in steps), before
        assert all(1 <= told <= (3 if any_ else 1) for _, told, any_ in steps)
        statistics = result.statistics
        assert statistics.repeats == sum(told - 1 for _, told, _ in steps)
        assert statistics.tokens_per_pass == pytest.approx(5 / session.calls[1:].count("target"))


def test_an_image_is_the_same_among_others_that_come_and_go() -> None:
    law, alone, repeats, distance = relaxed(3, 2), [], 0, 0.0
    for seed in range(7):
        result = generate(RowHeadSession(SMALL, 1), law, Sampling(), [seed], drafter="rows", loop="host")
        alone.append(result.codes[0].tolist())
        repeats += result.statistics.repeats
        distance += result.statistics.distance or 0.0
    slots, images = Slots(3, lambda requests: RowHeadSession(SMALL, len(requests)), "host"), {}
    for seed in range(7):
        slots.enter(seed, ImageRequest(None, law, Sampling(), seed, "rows"))
    while slots.busy:
        images.update({image.ticket: image.codes.tolist() for image in slots.step()})
    assert [images[seed] for seed in range(7)] == alone
    batch = generate(RowHeadSession(SMALL, 7), law, Sampling(), range(7), drafter="rows", loop="host")
    assert batch.codes.tolist() == alone
    assert batch.statistics.distance == pytest.approx(distance)
    assert batch.statistics.repeats >= repeats  # a step runs for all of the batch


def counted(seeds: list[int], image: RowImage = LONG) -> tuple[Statistics, int, float]:
    """The counts of a batch whose images end in different rounds, and the same from its records."""
    repeats, distance = 0, 0.0

    def look(state: State, record: RoundRecord) -> None:
        nonlocal repeats, distance
        repeats += sum(record.steps - 1 for there in record.active.tolist() if there)
        if record.distance is not None:
            distance += sum(float(record.distance[m]) for m in np.flatnonzero(record.active))

    result = generate(
        RowHeadSession(image, len(seeds)), relaxed(3, 2), Sampling(confidence=0.6), seeds, drafter="rows", loop="host",
        hooks=LoopHooks(on_round=look),
    )  # fmt: skip
    assert len(set(result.statistics.rounds.tolist())) > 1 or len(seeds) == 1
    return result.statistics, repeats, distance


def test_a_finished_image_has_no_passes() -> None:
    statistics, repeats, distance = counted(list(range(8)))
    assert statistics.repeats == repeats > 0
    assert statistics.distance == pytest.approx(distance)
    tokens = int(statistics.rounds.sum()) + int(statistics.accepts.sum())
    assert statistics.tokens_per_pass == pytest.approx(tokens / (int(statistics.rounds.sum()) + repeats))


def test_counts_of_batches_and_of_slots_are_added() -> None:
    """One image at a time: in a batch of its own, or in the one slot."""
    parts = [counted([seed])[0] for seed in range(5)]
    whole = total(parts, 3)
    assert whole.repeats == sum(part.repeats for part in parts) > 0
    assert whole.distance == pytest.approx(sum(part.distance or 0.0 for part in parts))
    found: list[Statistics] = []
    hooks = SlotHooks(on_finished=lambda statistics, _: found.append(statistics))
    drawn: list[DrawnImage] = []
    slots = Slots(1, lambda requests: RowHeadSession(LONG, len(requests)), "host", hooks)
    for seed in range(5):
        slots.enter(seed, ImageRequest(None, relaxed(3, 2), Sampling(confidence=0.6), seed, "rows"))
    while slots.busy:
        drawn += slots.step()
    assert sum(one.distance or 0.0 for one in drawn) == pytest.approx(whole.distance)
    assert sum(one.repeats for one in found) == whole.repeats
    assert sum(one.distance or 0.0 for one in found) == pytest.approx(whole.distance)


def test_groups_of_other_passes_step_apart() -> None:
    one, two = (ImageRequest(None, relaxed(3, r), Sampling(), 0, "rows") for r in (1, 2))
    assert one.group != two.group


def test_drafts_of_another_kind_are_one_line() -> None:
    session = RowHeadSession(SMALL, 1)
    with pytest.raises(UserError, match="the drafter of the rule per_position: expected rows, found jacobi"):
        generate(session, relaxed(2, 1), Sampling(), [0], drafter="jacobi", loop="host")


@pytest.mark.parametrize(
    ("more", "said"),
    [({"omegas": (1.2, 1.0)}, "every omega 1"), ({"resampler": "target"}, "the resampler optimal or residual")],
)
def test_settings_that_cannot_be_combined(more: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        replace(relaxed(2, 1), **more)


def noticed() -> bool:
    """Whether the enumeration of two passes fails."""
    try:
        check(SMALL, relaxed(3, 2), leaves(SMALL, 3, 2))
    except (CoolsdError, AssertionError, IndexError):
        return True
    return False


def test_without_a_bug_nothing_is_noticed() -> None:
    assert not noticed()


def plant(monkeypatch: pytest.MonkeyPatch, change: Callable[..., Any]) -> None:
    real = judge_positions
    monkeypatch.setattr(position_round, "judge_positions", lambda *args: change(real, *args))


def test_q_of_the_drafts_in_all_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the second pass judges by the draft's Q and not by the law of what it judges."""
    whole, of = PositionJudge.judge, dict[str, Any]()

    def judge(self: PositionJudge, window: Any, num_drafts: Any, pending: Any, drafts: Any, q: Any) -> Judged:
        of["q"] = q
        return whole(self, window, num_drafts, pending, drafts, q)

    monkeypatch.setattr(PositionJudge, "judge", judge)
    plant(monkeypatch, lambda real, p, law, *more: real(p, of["q"], *more))
    assert noticed()


def test_the_same_numbers_in_all_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a token that was rejected once is rejected by the same number again."""
    monkeypatch.setattr(position_round, "PASS", 0)
    assert noticed()


def test_a_rejection_ends_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: what stands behind the first rejection is not judged."""

    def change(real: Any, p: Any, law: Any, tokens: Any, *more: Any) -> Any:
        new, empty = real(p, law, tokens, *more)
        behind = np.cumsum(new != tokens, axis=1) - (new != tokens) > 0
        return np.where(behind, tokens, new), empty

    plant(monkeypatch, change)
    assert noticed()


@pytest.mark.parametrize("which", ["the features of the row head's next drafts", "the token behind the drafts"])
def test_what_belongs_to_the_guesses(monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    """Planted: something of the first pass, over the guesses, is used as if it were of the tokens."""
    real = PositionJudge._run
    first: dict[int, tuple[Any, Any, Any]] = {}  # by window, which is kept so that no other one has its id

    def change(self: PositionJudge, window: Any, pending: Any, tokens: Any) -> Any:
        p, features = real(self, window, pending, tokens)
        _, old, stale = first.setdefault(id(window), (window, p, features.copy()))
        if which.startswith("the features"):
            return p, stale
        return np.concatenate([p[:, :-1], old[:, -1:]], axis=1), features

    monkeypatch.setattr(PositionJudge, "_run", change)
    assert noticed()


def test_a_distance_of_drafts_that_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The distance is that of the tokens that were committed, however long the longest window is."""
    real, seen = PositionJudge.judge, list[bool]()

    def look(self: PositionJudge, *args: Any) -> Judged:
        judged = real(self, *args)
        apart = 0.5 * np.abs(judged.target[:, :-1] - judged.draft).sum(-1)
        counts = np.arange(apart.shape[1]) < judged.num_drafts[:, None]
        seen.append(bool((~counts).any()))
        assert judged.distance is not None
        assert judged.distance == pytest.approx((apart * counts).sum(1))
        return judged

    monkeypatch.setattr(PositionJudge, "judge", look)
    law = Law((1.0,) * 3, refinements=1)
    generate(RowHeadSession(RowImage(2, 9, 3, 2, seed=8), 6), law, Sampling(), range(6), drafter="rows", loop="host")
    assert seen
