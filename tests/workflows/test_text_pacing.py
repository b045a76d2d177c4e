"""Pacing `auto` for texts, by the ways that users take: plans are tried once, a text says which one it was written
with, the law of a lossless request stays, and trials go on behind end tokens."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import coolsd_rt as cool
from coolsd_rt.cli.main import run
from coolsd_rt.law import Law
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.spec import load_spec, with_overrides
from coolsd_rt.store import EngineFolder
from coolsd_rt.workflows import drawing, planning
from coolsd_rt.workflows.call_options import Call
from coolsd_rt.workflows.drawing import Settings, TextBounds
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.plans import PLAIN, DraftPlan
from coolsd_rt.workflows.prepared import Prepared
from coolsd_rt.workflows.slot_plans import SlotPlans
from coolsd_rt.workflows.texts import TextAsk, text_jobs
from coolsd_rt.workflows.texts_request import WriteCallbacks, WriteConfig, write

PROMPTS = ["red apple", "star"]
LOSSLESS = {"pacing.kind": "auto", "schedule.kind": "none"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COOLSD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def written(engine: EngineFolder, **more: Any) -> tuple[Any, list[int]]:
    tried: list[int] = []
    request = WriteConfig(PROMPTS, 2, 5, {**LOSSLESS, **more.pop("overrides", {})}, **more)
    return write(engine.folder, request, WriteCallbacks(measuring=tried.append)), tried


def test_auto_is_the_default_of_texts(text_spec: Path, tmp_path: Path) -> None:
    path = text_spec.parent / "auto.yaml"
    path.write_text(text_spec.read_text().replace("pacing: {kind: manual}\n", ""))
    assert load_spec(path).spec.pacing.kind == "auto"


def test_plans_are_tried_once_and_a_request_repeats_itself(text_engine: EngineFolder, cache: Path) -> None:
    first, tried = written(text_engine)
    again, tried_again = written(text_engine)
    assert (tried, tried_again) == ([min(4, OpenedEngine.at(text_engine.folder).spec.engine.max_batch)], [])
    assert [text.ids for text in first.texts] == [text.ids for text in again.texts]
    (path,) = (cache / "plans").glob("*.json")
    (entry,) = json.loads(path.read_text())["requests"].values()
    (plan,) = entry["plans"].values()
    assert {one["draft"] for one in plan["tried"]} == {"eagle", "ngram", "jacobi"}
    assert first.as_dict()["plan"] == {key: plan[key] for key in ("draft", "draft_length")}


def test_a_plan_writes_what_its_drafts_write(text_engine: EngineFolder, cache: Path) -> None:
    """Whatever the record says, the texts are those of that draft under `manual` pacing: 'plan' draws them again."""
    written(text_engine)
    (path,) = (cache / "plans").glob("*.json")
    record = json.loads(path.read_text())
    (entry,) = record["requests"].values()
    for plan, same in (
        (PLAIN, {"plain": True, "overrides": {"schedule.kind": "none"}}),
        (DraftPlan("ngram", 2), {"draft": "ngram", "draft_length": 2}),
        (DraftPlan("eagle", 1), {"draft_length": 1}),
    ):
        entry["plans"] = {str(n): plan.as_dict() for n in (1, 2, 3, 4)}
        path.write_text(json.dumps(record))
        report, tried = written(text_engine)
        assert not tried
        assert report.plan == plan
        values: dict[str, Any] = {"overrides": {"schedule.kind": "none", "pacing.kind": "manual"}, **same}
        if plan == PLAIN:
            values["overrides"] = {}
        manual = write(text_engine.folder, WriteConfig(PROMPTS, 2, 5, **values))
        assert manual.plan is None
        assert [text.ids for text in report.texts] == [text.ids for text in manual.texts]


def test_every_way_takes_the_plan(text_engine: EngineFolder, capsys: pytest.CaptureFixture[str]) -> None:
    report, _ = written(text_engine)
    with cool.Pipeline.load(text_engine.folder) as pipe:
        output = pipe(PROMPTS, images_per_prompt=2, seed=5, pacing="auto", schedule="none")
    assert [text.ids for text in output.written] == [text.ids for text in report.texts]
    words = ["-p", PROMPTS[0], "-p", PROMPTS[1], "-n", "2", "--seed", "5", "--pacing", "auto", "--schedule", "none"]
    assert run(["generate", str(text_engine.folder), *words]) == 0
    assert f"drafts: {report.plan} (pacing auto)" in capsys.readouterr().err


def test_trials_go_on_behind_end_tokens(text_engine: EngineFolder) -> None:
    """A batch thins out where texts end; a plan is for so many texts at once. Here every token ends a text."""
    opened = OpenedEngine.at(text_engine.folder, threads=1)
    tokens = opened.description.dims.tokens
    ends = tuple(range(opened.description.dims.vocab))
    settings = replace(opened.settings(), bounds=TextBounds(ends, limit=2))
    jobs = text_jobs(opened, drawing.asked(PROMPTS, 1, 0), TextAsk())
    trials = planning.Trials(opened.engine, jobs, opened.conditioner, settings, 2, seconds=60.0, tokens=tokens)
    for _ in range(2):
        trial = trials.run(PLAIN, None, 0)
        assert trial.decided[-1] == tokens
        assert len(trial.decided) > tokens - 1  # a point after each of them


def test_a_server_measures_plans_of_texts(text_engine: EngineFolder) -> None:
    opened = OpenedEngine.at(text_engine.folder, threads=1)
    opened.spec = with_overrides(opened.spec, LOSSLESS)
    heard: list[int] = []
    plans = SlotPlans(opened, 2)
    plans.measure(on_choose=heard.append)
    assert heard == [1, 2]
    call = Call.of("star", {"max_tokens": 3})
    found = [plans.prepared(Prepared.of(opened, call, call.names), n).plan for n in (1, 2)]
    kind = planning.kind_of(opened.settings(), "auto")
    assert found == [opened.plans.find(kind, n) for n in (1, 2)]
    assert None not in found


@pytest.mark.parametrize(
    ("drafter", "law", "drafters"),
    [
        ("eagle", Law((1.0, 1.0)), ("eagle", "ngram", "jacobi")),
        ("ngram", Law((1.0, 1.0)), ("ngram", "jacobi")),
        ("jacobi", Law((1.0, 1.0)), ("jacobi",)),
        ("eagle", Law((1.2, 1.0)), ("eagle",)),
    ],
)
def test_texts_look_drafts_up_too(drafter: Any, law: Law, drafters: tuple[str, ...]) -> None:
    assert planning.candidates(Settings(law, Sampling(), drafter, bounds=TextBounds())) == drafters
