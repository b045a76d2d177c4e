"""Plans of a server's images: the measured one for as many images as are in flight, for the spec's law and others."""

from __future__ import annotations

from typing import Any

import pytest

from coolsd_rt.spec import with_overrides
from coolsd_rt.store import EngineFolder
from coolsd_rt.workflows.call_options import Call
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.planning import kind_of
from coolsd_rt.workflows.plans import PLAIN, Choice, DraftPlan
from coolsd_rt.workflows.prepared import Prepared
from coolsd_rt.workflows.slot_plans import SlotPlans, counts_of


@pytest.fixture
def opened(tiny_engine: EngineFolder, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> OpenedEngine:
    monkeypatch.setenv("COOLSD_CACHE", str(tmp_path))
    opened = OpenedEngine.at(tiny_engine.folder)
    opened.spec = with_overrides(opened.spec, {"pacing.kind": "auto"})
    return opened


def asked(opened: OpenedEngine, **values: Any) -> Prepared:
    call = Call.of("red apple", values)
    return Prepared.of(opened, call, call.names)


def record(opened: OpenedEngine, plans: dict[int, DraftPlan]) -> SlotPlans:
    """Plans as measurements on this machine would have left them."""
    kind = kind_of(asked(opened).asked, "auto")
    for count, plan in plans.items():
        opened.plans.get(kind, count, lambda plan=plan: Choice(plan, ()))  # type: ignore[misc]
    found = SlotPlans(opened, max(plans))
    found.measure(on_choose=lambda images: pytest.fail("all is on record"))
    return found


def test_numbers_of_images() -> None:
    assert [counts_of(n) for n in (1, 2, 3, 4, 6, 8)] == [
        [1], [1, 2], [1, 2, 3], [1, 2, 4], [1, 2, 4, 6], [1, 2, 4, 8],
    ]  # fmt: skip


@pytest.mark.parametrize(("in_flight", "count"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 6), (6, 6), (60, 6)])
def test_the_plan_is_that_of_the_images_in_flight(opened: OpenedEngine, in_flight: int, count: int) -> None:
    own = opened.spec.draft.length
    plans = {1: DraftPlan("eagle", own), 2: DraftPlan("eagle", 1), 4: DraftPlan("jacobi", 2), 6: PLAIN}
    lossless = {"schedule": "none"}
    kind = kind_of(asked(opened, **lossless).asked, "auto")
    for n, plan in plans.items():
        opened.plans.get(kind, n, lambda plan=plan: Choice(plan, ()))  # type: ignore[misc]
    found = record(opened, dict.fromkeys(plans, PLAIN))
    assert found.prepared(asked(opened, **lossless), in_flight).plan == plans[count]
    assert found.prepared(asked(opened), in_flight).plan == PLAIN


def test_a_law_that_was_not_measured_takes_as_many_drafts_of_its_own_drafter(opened: OpenedEngine) -> None:
    own = opened.spec.draft.length
    found = record(opened, {1: DraftPlan("eagle", own), 2: DraftPlan("eagle", 1), 4: PLAIN})
    relaxed = asked(opened, schedule={"delta": 1.3}, draft="jacobi", draft_length=4)
    assert found.prepared(relaxed, 1).plan == DraftPlan("jacobi", own)
    assert found.prepared(relaxed, 2).plan == DraftPlan("jacobi", 1)
    assert found.prepared(relaxed, 3).plan == PLAIN


@pytest.mark.parametrize("values", [{"plain": True}, {"pacing": "manual"}])
def test_who_says_how_to_draft_is_not_asked_again(opened: OpenedEngine, values: dict[str, Any]) -> None:
    found = record(opened, {1: DraftPlan("eagle", 1), 2: PLAIN})
    assert found.prepared(asked(opened, **values), 2).plan is None


def test_plans_are_measured_once_on_a_machine(opened: OpenedEngine) -> None:
    heard: list[str] = []
    SlotPlans(opened, 2).measure(lambda: heard.append("between"), lambda images: heard.append(f"{images}"))
    assert [word for word in heard if word != "between"] == ["1", "2"]
    assert heard[1] == "between"  # before the first trial
    assert heard.count("between") > 4
    heard.clear()
    again = SlotPlans(opened, 2)
    again.measure(lambda: heard.append("between"), lambda images: heard.append(f"{images}"))
    assert not heard
    assert again.prepared(asked(opened), 1).plan is not None


def test_before_it_is_measured_a_lone_image_drafts_and_several_do_not(opened: OpenedEngine) -> None:
    plans = SlotPlans(opened, 4)
    plans.read()
    own = opened.spec.draft
    assert plans.prepared(asked(opened), 1).plan == DraftPlan("eagle", own.length)
    assert plans.prepared(asked(opened, draft="jacobi", draft_length=2), 1).plan == DraftPlan("jacobi", 2)
    assert [plans.prepared(asked(opened), n).plan for n in (2, 3, 9)] == [PLAIN] * 3


def test_who_ends_the_measurement_leaves_what_is_known(opened: OpenedEngine) -> None:
    """Plans are recorded one by one; a stop in the middle of the second keeps the first."""

    class Stop(Exception):
        pass

    counts: list[int] = []

    def between() -> None:
        if counts == [1, 2]:
            raise Stop

    with pytest.raises(Stop):
        SlotPlans(opened, 2).measure(between, counts.append)
    SlotPlans(opened, 2).measure(on_choose=counts.append)
    assert counts == [1, 2, 2]


def test_drafts_pay_where_the_plan_has_any(opened: OpenedEngine) -> None:
    found = record(opened, {1: PLAIN, 2: DraftPlan("eagle", 1), 4: PLAIN})
    assert [found.drafts_pay(n) for n in (1, 2, 3, 4, 9)] == [True, True, False, False, False]
    assert [SlotPlans(opened, 4).drafts_pay(n) for n in (1, 2, 4)] == [True, False, False]  # nothing is known


def test_a_spec_that_says_how_to_draft_is_not_measured(opened: OpenedEngine) -> None:
    opened.spec = with_overrides(opened.spec, {"pacing.kind": "manual"})
    plans = SlotPlans(opened, 2)
    plans.measure(lambda: pytest.fail("nothing to try"), lambda images: pytest.fail("nothing to choose"))
