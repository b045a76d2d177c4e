"""The record of round costs: measured once for an engine on a machine, and the same ever after."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coolsd_rt.law import Law
from coolsd_rt.runtime import Sampling, capacity, uniform_table
from coolsd_rt.runtime.calibration import lengths_to_time, measure_costs
from coolsd_rt.runtime.costs import RoundCosts
from coolsd_rt.runtime.self_decoding import DecodeRequest
from coolsd_rt.workflows.costs import CostBook, cache_folder, record_file
from tests.runtime.fakes import FakeSession, Tables, dims

COSTS = RoundCosts(2, (1.0, 2.0), ((1.0, 1.5), (2.0, 2.5)), (("jacobi", ((0.0, 0.0), (0.0, 0.0))),))
OTHER = RoundCosts(2, (3.0, 4.0), ((3.0, 3.5), (4.0, 4.5)), (("jacobi", ((0.0, 0.0), (0.0, 0.0))),))
MACHINE: dict[str, Any] = {"cpu": "a processor", "threads": 2}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COOLSD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def never() -> RoundCosts:
    raise AssertionError("measured again")


def test_what_was_measured_once_is_read_ever_after(cache: Path) -> None:
    asked: list[int] = []
    book = CostBook("f" * 64, MACHINE, asked.append)
    assert book.get("a kind", 2, lambda: COSTS) == COSTS
    assert book.get("a kind", 2, never) == COSTS
    assert CostBook("f" * 64, MACHINE).get("a kind", 2, never) == COSTS  # as another process would
    assert asked == [2]
    assert [path.suffix for path in (cache / "costs").iterdir()].count(".json") == 1


@pytest.mark.parametrize("change", ["engine", "machine", "kind", "images"])
def test_another_engine_machine_kind_or_size_is_measured_for_itself(change: str) -> None:
    CostBook("f" * 64, MACHINE).get("a kind", 2, lambda: COSTS)
    fingerprint = "e" * 64 if change == "engine" else "f" * 64
    machine = {**MACHINE, "threads": 1} if change == "machine" else MACHINE
    other = CostBook(fingerprint, machine)
    found = other.get("another" if change == "kind" else "a kind", 3 if change == "images" else 2, lambda: OTHER)
    assert found == OTHER
    assert CostBook("f" * 64, MACHINE).get("a kind", 2, never) == COSTS  # and the first record stands


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"version": 2}',
        '{"version": 1, "costs": {"a kind, 2 images": {"verify": "x"}}}',
        '{"version": 1, "costs": {"a kind, 2 images": {"images": 2, "places": [0.25, 0.75], "plain": [1, 1], '
        '"verify": [[0, 1], [1, 1]], "drafts": {"jacobi": [[0, 0], [0, 0]]}, "single_steps": []}}}',
        "\x00\xff",
    ],
)
def test_a_broken_record_is_measured_anew(text: str) -> None:
    path = record_file("f" * 64, MACHINE)
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode("latin-1"))
    assert CostBook("f" * 64, MACHINE).get("a kind", 2, lambda: COSTS) == COSTS
    assert CostBook("f" * 64, MACHINE).get("a kind", 2, never) == COSTS
    assert json.loads(path.read_text())["machine"] == MACHINE


def test_a_folder_that_cannot_be_made_costs_the_record_alone(cache: Path) -> None:
    cache.write_text("a file in its place")
    book = CostBook("f" * 64, MACHINE)
    assert book.get("a kind", 2, lambda: COSTS) == COSTS
    assert book.get("a kind", 2, never) == COSTS  # for as long as the process lives
    assert cache.read_text() == "a file in its place"


def test_without_a_home_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COOLSD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/coolsd-rt")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert CostBook("f" * 64, MACHINE).get("a kind", 2, lambda: COSTS) == COSTS


def _one(number: int, results: Any) -> None:
    mine = RoundCosts(2, (1.0 + number, 2.0), COSTS.verify, COSTS.drafts)
    results.put(CostBook("f" * 64, MACHINE).get("a kind", 2, lambda: mine).as_dict())


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


class Clocked(FakeSession):
    """Steps take known time on a clock: the target's 10 and 1 a position, the draft's 3, the fused graph 4.

    Their logits have no meaning, as those of a real engine that is put somewhere in an image have none.
    """

    now = 0.0

    def _flat(self, ids: Any) -> tuple[Any, Any]:
        rows, size = ids.shape
        return np.zeros((rows, size, self.dims.vocab), np.float32), np.zeros((rows, size, 4), np.float32)

    def target(self, ids: Any, pos: Any) -> Any:
        self.now += 10.0 + ids.shape[1]
        return self._flat(ids)

    def draft(self, ids: Any, features: Any, pos: Any) -> Any:
        self.now += 3.0
        return self._flat(ids)

    def propose(self, *args: Any) -> Any:
        self.now += 4.0
        shape = (self.images, self.propose_length)
        return np.zeros(shape, np.int64), np.full((*shape, self.dims.vocab), 1 / self.dims.vocab, np.float32)


@pytest.mark.parametrize("fused", [False, True])
def test_the_time_of_every_kind_of_round_is_found(fused: bool) -> None:
    """Single steps cost 3 a draft, the fused graph 4 for all: so one draft is made in a single step."""
    length, sizes = 4, dims(2, 12)
    tables = Tables.random(2, 4, seed=1).as_float32()
    slack = capacity(sizes, length, paced=True) - sizes.positions
    session = Clocked(tables, sizes, 2, guided=True, propose_length=length if fused else 0, slack=slack, paced=True)
    request = DecodeRequest(
        Law((1.0,) * length),
        Sampling(cfg_scale=1.5),
        uniform_table(range(2), 12, length),
        clock=lambda: session.now,
    )
    costs = measure_costs(session, request, ("eagle", "jacobi"))
    assert costs.images == 2
    assert costs.plain == (11.0, 11.0)
    assert costs.verify == ((11.0, 12.0, 13.0, 14.0, 15.0),) * 2
    made = dict(costs.drafts)
    assert made["jacobi"] == ((0.0,) * 5,) * 2
    if fused:
        assert costs.single_steps == (1,)
        assert made["eagle"] == ((0.0, 3.0, 4.0, 4.0, 4.0),) * 2
    else:
        assert costs.single_steps == ()
        assert made["eagle"] == ((0.0, 3.0, 6.0, 9.0, 12.0),) * 2


def test_long_windows_are_timed_at_some_lengths() -> None:
    assert lengths_to_time(3) == [0, 1, 2, 3]
    assert lengths_to_time(15) == [0, 1, 2, 3, 4, 5, 6, 8, 12, 15]
    assert np.all(np.diff(lengths_to_time(31)) > 0)
