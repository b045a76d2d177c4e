"""A whole run on a fake engine: counts that agree with each other, the document, the tables and the lines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coolsd_rt.bench import html
from coolsd_rt.bench.report import DEFINITIONS, PHASES, BenchReport
from coolsd_rt.bench.run import BenchCallbacks, BenchConfig, StepSeconds, bench
from coolsd_rt.bench.stats import Median
from coolsd_rt.bench.timing import Variant
from coolsd_rt.bench.variants import VariantChoice
from coolsd_rt.errors import UserError
from coolsd_rt.law import Law
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.runtime.statistics import Statistics
from coolsd_rt.workflows import drawing, opening
from tests.bench.benching import PROMPTS, fake_engine, fake_report, use_fakes
from tests.workflows.fakes import DIMS, VOCABULARY, FakeEngine, FakeSession


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_engine(tmp_path_factory.mktemp("bench"))


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    use_fakes(monkeypatch)


@pytest.fixture(scope="module")
def report(engine: Path) -> BenchReport:
    return fake_report(engine)


def test_counts_agree(report: BenchReport) -> None:
    document = report.as_dict()
    variants = {variant["name"]: variant for variant in document["ways"]}
    plain = variants["plain"]
    images = 6 * 2
    assert (plain["rounds"], plain["mean_acceptance_length"]) == (images * (DIMS.tokens - 1), 1.0)
    assert (plain["rounds_with_drafts"], plain["num_draft_tokens"], plain["draft_acceptance_rate"]) == (0, 0, None)
    assert (plain["versus_plain"], plain["verdict"], plain["break_even_acceptance_length"]) == (None, None, None)
    assert len(variants) == 16
    drafts = {None, "eagle", "jacobi", "jacobi_coupled", "jacobi_gumbel", "ngram"}
    assert {variant["draft"] for variant in variants.values()} == drafts
    assert plain["draft"] is None
    for name, variant in variants.items():
        if name == "plain":
            continue
        accepted, drafts, proposed = (
            variant[x] for x in ("num_accepted_tokens", "rounds_with_drafts", "num_draft_tokens")
        )
        assert variant["rounds"] + accepted == images * (DIMS.tokens - 1)  # each round adds one to what it keeps
        assert accepted == sum(variant["num_accepted_tokens_per_pos"])
        if not proposed:
            assert variant["way"] == "auto"  # drafts nothing where that is fastest
            assert (drafts, accepted, variant["draft_acceptance_rate"]) == (0, 0, None)
            continue
        assert variant["draft_acceptance_rate"] == accepted / proposed
        assert drafts <= variant["rounds"]  # the last token of an image is drawn without a draft
        assert drafts <= proposed <= drafts * variant["draft_length"]
        assert variant["way"] in ("auto", "ngram") or variant["rounds"] - images <= drafts
        assert variant["mean_acceptance_length"] == pytest.approx(1 + accepted / variant["rounds"])
        assert variant["mean_acceptance_length_drafted"] == pytest.approx(1 + accepted / drafts)
        assert variant["per_position_acceptance_rate"] == [n / drafts for n in variant["num_accepted_tokens_per_pos"]]
        assert variant["acceptance_by_position"][0] == variant["per_position_acceptance_rate"][0]
    assert variants["COOL-SD, delta 2"]["num_accepted_tokens"] > variants["lossless"]["num_accepted_tokens"]


def test_raw_samples_are_in_the_document_and_figures_follow_from_them(report: BenchReport) -> None:
    document = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert document["runs"] == 6
    assert document["batch"] == 2
    plain = document["ways"][0]["tokens_per_second"]["samples"]
    for variant in document["ways"]:
        rates, seconds = variant["tokens_per_second"]["samples"], variant["seconds_per_image"]["samples"]
        assert len(rates) == 6
        assert [DIMS.tokens / s for s in seconds] == pytest.approx(rates)
        assert variant["tokens_per_second"]["median"] == np.median(rates)
        assert [sample["seconds"] for sample in variant["samples"]] == seconds
        for sample in variant["samples"]:
            assert list(sample["by_phase"]) == list(PHASES)
            assert sample["by_phase"]["device"] is None  # the fakes are stepped by the host
            known = [seconds for seconds in sample["by_phase"].values() if seconds is not None]
            assert sum(known) == pytest.approx(sample["seconds"])
            assert min(known) >= 0
        phases, whole = variant["seconds_per_image_by_phase"], variant["seconds_per_image"]["median"]
        assert sum(spent or 0.0 for spent in phases.values()) == pytest.approx(whole)
        spent = sum(sample["by_phase"]["target"] for sample in variant["samples"]) / sum(seconds)
        assert phases["target"] == pytest.approx(spent * whole)
        if variant["versus_plain"]:
            ratios = [a / b for a, b in zip(rates, plain, strict=True)]
            assert variant["versus_plain"]["samples"] == pytest.approx(ratios)
            middle = variant["mean_acceptance_length"] / variant["break_even_acceptance_length"]
            assert middle == pytest.approx(np.median(ratios))
    assert [job["seed"] for jobs in document["turns"] for job in jobs] == list(range(5, 17))
    assert [job["prompt"] for job in document["turns"][0]] == ["red apple", "yellow star"]
    assert set(document["definitions"]) == set(DEFINITIONS)
    explained = {name for key in DEFINITIONS for name in key.split(", ")}
    for key in ("mean_acceptance_length", "break_even_draft_length", "draft_acceptance_rate", "rounds_with_drafts"):
        assert key in explained
        assert key in document["ways"][1]


def test_break_even_lengths_go_up_to_the_one_that_was_run(report: BenchReport) -> None:
    rows = {row.name: row for row in report.rows}
    even = rows["lossless"].even
    assert even is not None
    assert [at.length for at in even.lengths] == [1, 2, 3]
    assert even.lengths[-1].tokens == pytest.approx(1 + sum(np.cumprod(rows["lossless"].total.acceptance_by_position)))
    assert rows["plain"].even is None
    assert sorted(report.windows) == list(range(1, 17))  # up to Jacobi's, which is the longest


def test_jacobis_drafts_at_another_length_are_not_guessed_at(engine: Path) -> None:
    found = bench(
        BenchConfig(engine, 2, 2, PROMPTS, choice=VariantChoice(("lossless", "jacobi"), jacobi_length=3), threads=1)
    )
    assert [row.even is None for row in found.rows] == [True, False, True]
    assert found.as_dict()["ways"][2]["by_draft_length"] is None


def test_the_same_images_in_every_variant(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, tuple[tuple[str, int], ...]]] = []
    old = drawing.open_session

    def watched(engine: Any, jobs: Any, vocabulary: Any, settings: Any) -> Any:
        drawn.append((settings.drafter, tuple((job.prompt, job.seed) for job in jobs)))
        return old(engine, jobs, vocabulary, settings)

    monkeypatch.setattr(drawing, "open_session", watched)
    heard: list[object] = []
    listener = BenchCallbacks(heard.append, lambda variants, turns: heard.append((variants, turns)), heard.append)
    bench(BenchConfig(engine, 2, 1, ("a blue star",), 0, VariantChoice(("lossless", "jacobi")), threads=1), listener)
    first, second = (("a blue star", 0),), (("a blue star", 1),)
    turns = [jobs for _, jobs in drawn]
    assert turns == [*[first] * 3, *[first] * 4, *[second] * 3, first]  # warm-up; turn and windows; turn and windows
    assert "blue" in str(heard[0])
    assert heard[1:] == [(3, 3), *["plain", "lossless", "jacobi"] * 3]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"runs": 0}, "runs: expected a whole number from 1 to 10000, found 0"),
        ({"batch": 0}, "batch: expected a whole number from 1 to 4096, found 0"),
        ({"batch": 3}, r"--batch: expected from 1 to the engine's 2 (engine.max_batch), found 3"),
        ({"confidence": 2.0}, "confidence: expected a number from 0 to 1, found 2.0"),
        ({"draft_confidence": -1.0}, "draft_confidence: expected a number from 0 to 1, found -1.0"),
        ({"prompts": (" ",)}, "empty prompt"),
        ({"engine": Path("no/engine")}, "no/engine"),
    ],
)
def test_mistakes_are_said_before_anything_is_drawn(
    engine: Path, changes: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "open_session", lambda *_: pytest.fail("drawn"))
    with pytest.raises(UserError) as stopped:
        bench(replace(BenchConfig(engine, prompts=PROMPTS), **changes))
    assert said in str(stopped.value)


def test_pacing_can_be_set_and_rounds_without_a_draft_count(engine: Path) -> None:
    found = bench(BenchConfig(engine, 1, 1, PROMPTS, choice=VariantChoice(("lossless",)), confidence=0.3, threads=1))
    variant = found.as_dict()["ways"][1]
    assert 0 < variant["rounds_with_drafts"] < variant["rounds"] - 1
    assert 1 < variant["mean_acceptance_length"] < variant["mean_acceptance_length_drafted"]
    cut = bench(
        BenchConfig(engine, 1, 1, PROMPTS, choice=VariantChoice(("lossless",)), draft_confidence=0.5, threads=1)
    )
    variant = cut.as_dict()["ways"][1]
    assert variant["num_draft_tokens"] < 2 * variant["rounds_with_drafts"]  # of 3, at most 3 fewer at the image's end


def test_the_command_draws_the_same_again(engine: Path, report: BenchReport) -> None:
    assert report.command == (
        f"coolsd-rt bench {engine} --runs 6 --batch 2 --seed 5 --prompt 'red apple' --prompt 'yellow star' "
        "--prompt 'green apple' --delta 1.1 --delta 1.5 --delta 2 --threads 1"
    )
    choice = VariantChoice(("jacobi",), (1.3,), (2, 3), 7)
    other = BenchConfig(Path("e"), choice=choice, confidence=0.5, draft_confidence=0.25, spec_file=Path("my spec.yaml"))
    assert other.command(2) == (
        "coolsd-rt bench e --runs 6 --seed 0 --variant jacobi --delta 1.3 --draft-length 2 --draft-length 3 "
        "--jacobi-length 7 --confidence 0.5 --draft-confidence 0.25 --spec 'my spec.yaml' --threads 2"
    )


def test_windows_are_timed_in_the_image_and_in_turns() -> None:
    """A target whose step costs 1 s and 0.1 s a token, on a clock that only it moves."""
    now = 0.0
    steps: list[tuple[tuple[int, ...], list[int]]] = []

    class Slow(FakeSession):
        def target(self, ids: Any, pos: Any) -> tuple[Any, Any]:
            nonlocal now
            now += 1 + ids.shape[1] / 10 + (100 if len(steps) < 4 else 0)  # the first of each: what is not counted
            steps.append((ids.shape, pos.tolist()))
            return super().target(ids, pos)

    class Engine(FakeEngine):
        def open(self, prefix: Any, capacity: int, start: Any = None) -> Slow:
            return Slow(self, np.asarray(prefix), capacity)

    settings = drawing.Settings(Law((1.0, 1.0, 1.0)), Sampling(cfg_scale=2.0))
    jobs = drawing.plan(["red apple"], 2, 0, VOCABULARY)
    windows = StepSeconds(Variant("", "", Engine(), settings), jobs, VOCABULARY, lambda: now)
    windows()
    assert windows.medians == pytest.approx({1: 1.1, 2: 1.2, 3: 1.3, 4: 1.4})
    assert max(max(seconds) for seconds in windows.seconds.values()) < 2
    assert [shape for shape, _ in steps[:5]] == [(4, 1), (4, 2), (4, 3), (4, 4), (4, 1)]  # two images under guidance
    assert {tuple(pos) for _, pos in steps} == {(DIMS.prefix + DIMS.tokens // 2,) * 4}


def with_ratios(report: BenchReport, ratio: Callable[[int], list[float]], runs: int = 6) -> BenchReport:
    """The report with other ratios to plain decoding: of row k, ratio(k)."""
    rows = [report.rows[0]] + [replace(row, ratio=Median.of(ratio(k))) for k, row in enumerate(report.rows[1:])]
    return replace(report, rows=tuple(rows), turns=report.turns[:runs])


def test_what_does_not_pay_is_said(report: BenchReport) -> None:
    spread = [0.9, 0.95, 1.0, 1.0, 1.05, 1.1]
    mixed = with_ratios(report, lambda k: [x * (0.5, 1.0, 2.0)[k % 3] for x in spread])
    lines = mixed.verdicts
    assert [line.split(":")[0] for line in lines[:4]] == [
        "speculation does not pay",
        "unclear",
        "pays",
        "speculation does not pay",
    ]
    length = mixed.rows[1].total.mean_acceptance_length
    assert lines[0] == (
        "speculation does not pay: lossless is 0.50x (0.45-0.55) plain decoding; "
        f"a round brings {length:.2f} tokens and pays from {length / 0.5:.2f}"
    )
    assert len(lines) == 15
    assert [row[-1] for row in mixed.tables[0].rows][:4] == ["the baseline", "does not pay", "unclear", "pays"]
    assert "no variant with drafts is shown to pay" in with_ratios(report, lambda k: spread).verdicts[-1]
    assert not any("no variant with drafts is shown to pay" in line for line in lines)


def test_too_few_turns_claim_nothing(report: BenchReport) -> None:
    few = with_ratios(report, lambda k: [0.9, 0.8, 0.7] if k == 0 else [1.5, 1.6, 1.7], runs=3)
    assert few.verdicts == [
        "too few runs (3) for a 95% interval: give --runs 6 or more",
        "slower than plain decoding in the median: lossless",
    ]
    assert few.tables[0].rows[1][3:] == ("0.80x", "too few runs")


def test_tables_have_their_columns(report: BenchReport) -> None:
    for table in report.tables:
        assert {len(row) for row in table.rows} == {len(table.columns)}
        assert [row[0] for row in table.rows] == [row.name for row in report.rows]
    _, rounds, times = ({row[0]: row for row in table.rows} for table in report.tables)
    assert rounds["plain"][1:] == ("1.00", "-", "-", "-")
    assert rounds["jacobi"][4].endswith(" ...")
    assert re.fullmatch(r"\.\d\d \.\d\d \.\d\d", rounds["lossless"][4])
    assert times["jacobi"][-1] == "-"
    assert re.fullmatch(r"none|up to [12], best [12]|3 or more, best [123]", times["lossless"][-1])


def test_nan_never_reaches_the_document(report: BenchReport) -> None:
    row = report.rows[1]
    nothing = replace(row, timed=replace(row.timed, parts=[Statistics.empty(2, 3)] * 6))
    document = replace(report, rows=(report.rows[0], nothing)).as_dict()["ways"][1]
    assert document["mean_acceptance_length"] is None
    assert document["acceptance_by_position"] == [None, None, None]
    json.dumps(document, allow_nan=False)


def test_synthetic_acceptance_is_marked(engine: Path, report: BenchReport, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {**report.spec.resolved(), "schedule": {"kind": "none"}}
    told["acceptance"] = {"rule": "synthetic", "rates": [0.9, 0.5, 0.1]}
    monkeypatch.setattr(opening, "spec_of", lambda folder: type(report.spec).model_validate(told))
    found = bench(BenchConfig(engine, 1, 1, PROMPTS, threads=1))
    document = found.as_dict()
    assert document["synthetic"] is True
    assert report.as_dict()["synthetic"] is False
    names = [variant["name"].split(":")[0] for variant in document["ways"]]
    assert names == ["plain", "synthetic acceptance", "auto"]  # auto, and its plan
    assert any("acceptance is synthetic" in line for line in found.warnings)
    assert "acceptance is synthetic: these are timings" in html.page(found)
