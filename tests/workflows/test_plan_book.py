"""The record of plans: chosen once for an engine on a machine, and the same ever after."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from coolsd_rt.workflows.plan_book import PlanBook, cache_folder, record_file
from coolsd_rt.workflows.plans import PLAIN, Choice, DraftPlan

FIVE = Choice(DraftPlan("jacobi", 5), ((DraftPlan("jacobi", 5), 1.5),))
TWO = Choice(DraftPlan("eagle", 2), ((DraftPlan("eagle", 2), 1.2),))
NONE = Choice(PLAIN, ((DraftPlan("eagle", 2), 0.7),))
MACHINE: dict[str, Any] = {"cpu": "a processor", "threads": 2}
REQUEST: dict[str, Any] = {"omegas": [1.0], "sampling": {"top_k": 6}}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COOLSD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def never() -> Choice:
    raise AssertionError("chosen again")


def test_what_was_chosen_once_is_read_ever_after(cache: Path) -> None:
    asked: list[int] = []

    def choose() -> Choice:
        asked.append(2)
        return FIVE

    book = PlanBook("f" * 64, MACHINE)
    assert book.get(REQUEST, 2, choose) == FIVE.plan
    assert book.get(REQUEST, 2, never) == FIVE.plan
    assert PlanBook("f" * 64, MACHINE).get(REQUEST, 2, never) == FIVE.plan  # as another process would
    assert asked == [2]
    (path,) = (cache / "plans").glob("*.json")
    record = json.loads(path.read_text())
    assert record["machine"] == MACHINE
    (entry,) = record["requests"].values()
    assert entry == {"request": REQUEST, "plans": {"2": FIVE.as_dict()}}


@pytest.mark.parametrize("change", ["engine", "machine", "request", "images"])
def test_another_engine_machine_request_or_size_is_tried_for_itself(change: str) -> None:
    PlanBook("f" * 64, MACHINE).get(REQUEST, 2, lambda: FIVE)
    fingerprint = "e" * 64 if change == "engine" else "f" * 64
    machine = {**MACHINE, "threads": 1} if change == "machine" else MACHINE
    request = {**REQUEST, "omegas": [1.1]} if change == "request" else REQUEST
    other = PlanBook(fingerprint, machine)
    assert other.get(request, 3 if change == "images" else 2, lambda: TWO) == TWO.plan
    assert PlanBook("f" * 64, MACHINE).get(REQUEST, 2, never) == FIVE.plan  # and the first record stands


def test_the_choice_for_one_size_says_nothing_of_another() -> None:
    """A choice for two images that was wrongly without drafts would cost four images theirs."""
    book = PlanBook("f" * 64, MACHINE)
    assert book.get(REQUEST, 2, lambda: NONE) == PLAIN
    assert book.get(REQUEST, 4, lambda: TWO) == TWO.plan


@pytest.mark.parametrize("plan", [{"draft": "eagle", "draft_length": 9}, {"draft": "jacobi", "draft_length": 2}])
def test_a_plan_that_the_request_could_not_have_is_chosen_again(cache: Path, plan: dict[str, object]) -> None:
    request = {**REQUEST, "drafters": ["eagle"], "draft_length": 5}  # a relaxed law: no other drafter
    PlanBook("f" * 64, MACHINE).get(request, 2, lambda: FIVE)
    (path,) = (cache / "plans").glob("*.json")
    record = json.loads(path.read_text())
    (entry,) = record["requests"].values()
    entry["plans"]["2"] = plan
    path.write_text(json.dumps(record))
    assert PlanBook("f" * 64, MACHINE).get(request, 2, lambda: TWO) == TWO.plan


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"version": 2}',
        '{"version": 1, "requests": []}',
        '{"version": 1, "requests": {"KEY": 3}}',
        '{"version": 1, "requests": {"KEY": {"plans": 3}}}',
        '{"version": 1, "requests": {"KEY": {"plans": {"2": {"draft": "other", "draft_length": 5}}}}}',
        '{"version": 1, "requests": {"KEY": {"plans": {"x": {"draft": null, "draft_length": 0}}}}}',
        "\x00\xff",
    ],
)
def test_a_broken_record_is_chosen_anew(text: str) -> None:
    path = record_file("f" * 64, MACHINE)
    PlanBook("f" * 64, MACHINE).get(REQUEST, 2, lambda: TWO)
    (key,) = json.loads(path.read_text())["requests"]
    path.write_bytes(text.replace("KEY", key).encode("latin-1"))
    assert PlanBook("f" * 64, MACHINE).get(REQUEST, 2, lambda: FIVE) == FIVE.plan
    assert PlanBook("f" * 64, MACHINE).get(REQUEST, 2, never) == FIVE.plan
    assert json.loads(path.read_text())["machine"] == MACHINE


def test_a_folder_that_cannot_be_made_costs_the_record_alone(cache: Path) -> None:
    cache.write_text("a file in its place")
    book = PlanBook("f" * 64, MACHINE)
    assert book.get(REQUEST, 2, lambda: FIVE) == FIVE.plan
    assert book.get(REQUEST, 2, never) == FIVE.plan  # for as long as the process lives
    assert cache.read_text() == "a file in its place"


def test_without_a_home_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COOLSD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/coolsd-rt")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert PlanBook("f" * 64, MACHINE).get(REQUEST, 2, lambda: FIVE) == FIVE.plan


def test_nothing_is_recorded_of_a_choice_that_failed(cache: Path) -> None:
    with pytest.raises(AssertionError):
        PlanBook("f" * 64, MACHINE).get(REQUEST, 2, never)
    assert not list((cache / "plans").glob("*.json"))


def _one(number: int, results: Any) -> None:
    mine = Choice(DraftPlan("eagle", number + 1), ())
    results.put(PlanBook("f" * 64, MACHINE).get(REQUEST, 2, lambda: mine).as_dict())


def test_processes_that_start_together_agree() -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    every = [context.Process(target=_one, args=(number, results)) for number in range(4)]
    for process in every:
        process.start()
    found = [results.get(timeout=60) for _ in every]
    for process in every:
        process.join()
    assert all(one == found[0] for one in found)
