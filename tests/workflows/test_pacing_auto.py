"""Pacing `auto`, the default, by the ways that users take: a request draws the same images again; plans are tried once;
an image says what it was drawn with; and the request's own random numbers have no say in the plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from coolsd_rt import Pipeline
from coolsd_rt.errors import UserError
from coolsd_rt.law import Law
from coolsd_rt.runtime.drafter_names import DrafterName
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.spec import Spec, with_overrides
from coolsd_rt.store import EngineFolder
from coolsd_rt.workflows import drawing, planning
from coolsd_rt.workflows.drawing import Settings
from coolsd_rt.workflows.generate.identity import said_by
from coolsd_rt.workflows.generate.run import GenerateCallbacks, GenerateConfig, generate
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.plan_book import PlanBook
from coolsd_rt.workflows.plans import PLAIN, DraftPlan

PROMPTS = ("red apple", "yellow star", "green apple")
AUTO = {"pacing.kind": "auto"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COOLSD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(engine: EngineFolder, out: Path, prompts: tuple[str, ...] = PROMPTS, **more: Any) -> tuple[Any, list[int]]:
    tried: list[int] = []
    request = GenerateConfig(prompts, out, overrides=AUTO, threads=1, **more)
    return generate(engine.folder, request, GenerateCallbacks(measuring=tried.append)), tried


def pixels(report: Any) -> list[np.ndarray]:
    return [np.asarray(Image.open(one.path)) for one in report.drawn]


def edit_plans(cache: Path, plan: DraftPlan) -> None:
    """Another machine's choice in the record: every size is drawn with `plan`."""
    (path,) = (cache / "plans").glob("*.json")
    record = json.loads(path.read_text())
    for entry in record["requests"].values():
        entry["plans"] = {str(n): plan.as_dict() for n in (1, 2, 3, 4)}
    path.write_text(json.dumps(record))


def test_a_request_repeats_itself_and_plans_are_tried_once(
    tiny_engine: EngineFolder, tmp_path: Path, cache: Path
) -> None:
    first, tried = run(tiny_engine, tmp_path / "first")
    again, tried_again = run(tiny_engine, tmp_path / "again")
    assert (tried, tried_again) == ([3], [])
    assert all((one == other).all() for one, other in zip(pixels(first), pixels(again), strict=True))
    (record,) = (cache / "plans").glob("*.json")
    found = json.loads(record.read_text())
    assert set(found["machine"]) == {"cpu", "cores", "threads", "versions"}
    (entry,) = found["requests"].values()
    drafters = {one["draft"] for one in entry["plans"]["3"]["tried"]}
    assert drafters == {"eagle"}  # the tiny spec's law is relaxed: the drafter is the one that was asked for


@pytest.mark.parametrize("plan", [PLAIN, DraftPlan("eagle", 2), DraftPlan("eagle", 3)], ids=str)
def test_the_record_decides_and_an_image_says_so(
    tiny_engine: EngineFolder, tmp_path: Path, cache: Path, plan: DraftPlan
) -> None:
    """With the plan in its file, the image is drawn again under `manual` pacing."""
    run(tiny_engine, tmp_path / "first")
    edit_plans(cache, plan)
    report, tried = run(tiny_engine, tmp_path / "out")
    assert not tried
    assert (report.statistics.draft_tokens > 0) == (plan.length > 0)
    assert len(report.statistics.accepts) == plan.length
    said = said_by(report.drawn[0].path)
    assert said["plan"] == plan.as_dict()
    asked: dict[str, Any] = (
        {"plain": True} if plan == PLAIN else {"draft_length": plan.length, "overrides": {"pacing.kind": "manual"}}
    )
    if plan.length == 2:
        asked["overrides"] = {
            **asked["overrides"],
            "schedule.kind": "custom",
            "schedule.values": said["law"]["omegas"][:2],
        }
    same = generate(tiny_engine.folder, GenerateConfig(PROMPTS, tmp_path / "same", threads=1, **asked))
    assert all((one == other).all() for one, other in zip(pixels(report), pixels(same), strict=True))


def test_images_that_are_there_are_kept_whatever_the_plan(
    tiny_engine: EngineFolder, tmp_path: Path, cache: Path
) -> None:
    """The plan depends on the number of images; one more prompt must not turn the others into strangers."""
    run(tiny_engine, tmp_path / "out", PROMPTS[:2])
    edit_plans(cache, PLAIN)
    report, _ = run(tiny_engine, tmp_path / "out")
    assert [one.written for one in report.drawn] == [False, False, True]


def test_the_plan_is_that_of_the_whole_request(tiny_engine: EngineFolder, tmp_path: Path) -> None:
    """Continued after an interruption, a request draws its last image as it would have drawn it."""
    whole, _ = run(tiny_engine, tmp_path / "whole")
    first, tried = run(tiny_engine, tmp_path / "part")
    first.drawn[2].path.unlink()
    (tmp_path / "part" / "sheet.png").unlink()
    again, tried = run(tiny_engine, tmp_path / "part")
    assert not tried
    assert (pixels(again)[2] == pixels(whole)[2]).all()
    assert said_by(again.drawn[2].path) == said_by(whole.drawn[2].path)


def test_a_pipeline_draws_what_the_command_draws(tiny_engine: EngineFolder, tmp_path: Path) -> None:
    report, _ = run(tiny_engine, tmp_path / "out")
    with Pipeline.load(tiny_engine.folder, threads=1) as pipe:
        output = pipe(list(PROMPTS), pacing="auto")
    assert all((np.asarray(one) == other).all() for one, other in zip(output.images, pixels(report), strict=True))
    assert output.records[0].provenance["plan"] == said_by(report.drawn[0].path)["plan"]


def test_trials_do_not_use_the_random_numbers_of_the_request(
    tiny_engine: EngineFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan that is chosen because the request's own drafts were accepted fast favours the tokens that are."""
    seeds: list[list[int]] = []
    draw = drawing.draw

    def noted(engine: Any, jobs: Any, *rest: Any, **more: Any) -> Any:
        seeds.append([job.seed for job in jobs])
        return draw(engine, jobs, *rest, **more)

    monkeypatch.setattr(drawing, "draw", noted)
    opened = OpenedEngine.at(tiny_engine.folder, threads=1)
    settings = opened.settings()
    found = []
    for seed in (0, 7):
        seeds.clear()
        jobs = drawing.plan(PROMPTS, 1, seed, opened.conditioner)
        planning.plan_for(opened.engine, jobs, opened.conditioner, settings, PlanBook("f" * 64, {"seed": seed}))
        found.append({tuple(one) for one in seeds})
        assert not {job.seed for job in jobs} & {seed for one in seeds for seed in one}
        assert all(len(set(one)) == len(one) for one in seeds)
    common = found[0] & found[1]
    assert common  # the same for every request: those of the first turn


def test_trials_draw_other_prompts_than_the_one_that_came_first(
    tiny_engine: EngineFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All plans of a turn draw the same prompts; each turn has others, of which the request's own are the first."""
    prompts: list[tuple[str, ...]] = []
    draw = drawing.draw

    def noted(engine: Any, jobs: Any, *rest: Any, **more: Any) -> Any:
        prompts.append(tuple(job.prompt for job in jobs))
        return draw(engine, jobs, *rest, **more)

    monkeypatch.setattr(drawing, "draw", noted)
    opened = OpenedEngine.at(tiny_engine.folder, threads=1)
    jobs = drawing.plan(["red apple"] * 2, 1, 0, opened.conditioner)
    pool = planning.prompts_to_try(jobs, opened.conditioner)
    assert len({job.prompt for job in pool}) == len(pool) >= 3
    trials = planning.Trials(opened.engine, pool, opened.conditioner, opened.settings(), 2, tokens=1, seconds=0.0)
    for turn in (0, 0, 1):
        trials.run(PLAIN, None, turn)
    first, again, next_ = prompts
    assert first == again == ("red apple", pool[1].prompt)
    assert "red apple" not in next_


class NeedsAnEncoder:
    """A conditioner whose samples would load a text encoder."""

    features_dim = 2048

    def samples(self) -> list[str]:
        raise AssertionError("its samples are not free")


def test_no_text_encoder_is_loaded_for_trials(tiny_engine: EngineFolder) -> None:
    opened = OpenedEngine.at(tiny_engine.folder, threads=1)
    jobs = drawing.plan(PROMPTS, 1, 0, opened.conditioner)
    assert planning.prompts_to_try(jobs, NeedsAnEncoder()) == jobs  # type: ignore[arg-type]


def test_why_trials_need_random_numbers_of_their_own() -> None:
    """Exact enumeration. One token, P = (.5, .5), Q = (.9, .1): drafts are accepted where the draft is token 1 or the
    coin is below 5/9. Taking the draft where it is accepted, and plain decoding where it is not, is not the law P."""
    p, q = np.array([0.5, 0.5]), np.array([0.9, 0.1])
    accepted = q * np.minimum(1, p / q)
    residual = np.maximum(p - q, 0) / np.maximum(p - q, 0).sum()
    assert accepted + (1 - accepted.sum()) * residual == pytest.approx(p)  # one plan for all: the law
    assert accepted + (1 - accepted.sum()) * p != pytest.approx(p)  # the faster of both, by the draft's own fate


def settings(law: Law, drafter: DrafterName = "eagle") -> Settings:
    return Settings(law, Sampling(), drafter)


@pytest.mark.parametrize(
    ("asked", "drafters"),
    [
        (settings(Law((1.0, 1.0))), ("eagle", "jacobi")),
        (settings(Law((1.0, 1.0), "residual"), "model"), ("model", "jacobi")),
        (settings(Law((1.0, 1.0)), "jacobi"), ("jacobi",)),
        (settings(Law((1.0, 1.0)), "jacobi_coupled"), ("jacobi_coupled",)),
        (settings(Law((1.0, 1.0)), "ngram"), ("ngram", "jacobi")),
        (settings(Law((1.2, 1.0)), "ngram"), ("ngram",)),
        (settings(Law((1.2, 1.0))), ("eagle",)),
        (settings(Law((0.9, 1.0))), ("eagle",)),
        (settings(Law((1.0, 1.0), "target")), ("eagle",)),
        (settings(Law((1.0, 1.0), "target", rates=(0.8, 0.5))), ("eagle",)),
    ],
)
def test_another_drafter_only_under_a_lossless_law(asked: Settings, drafters: tuple[str, ...]) -> None:
    assert planning.candidates(asked) == drafters


def test_a_plan_shortens_the_law() -> None:
    asked = settings(Law((1.3, 1.2, 1.0)))
    assert planning.with_plan(asked, DraftPlan("eagle", 2)).law == Law((1.3, 1.2))
    assert planning.with_plan(asked, PLAIN).plain
    rates = settings(Law((1.0, 1.0), "target", rates=(0.8, 0.5)))
    assert planning.with_plan(rates, DraftPlan("eagle", 1)).law.rates == (0.8,)


def test_requests_that_differ_in_speed_have_plans_of_their_own(tiny_engine: EngineFolder) -> None:
    opened = OpenedEngine.at(tiny_engine.folder, threads=1)

    def kind(loop: Any = "auto", **changes: Any) -> str:
        spec = with_overrides(opened.spec, {key.replace("_", ".", 1): value for key, value in changes.items()})
        return json.dumps(planning.kind_of(opened.settings(spec), loop), sort_keys=True)

    every = [
        kind(), kind(schedule_delta=1.5), kind(schedule_kind="none"), kind(sampling_temperature=0.5), kind("host"),
        kind(sampling_cfg_scale=1.0), kind(sampling_top_k=4), kind(sampling_top_p=0.9), kind(resampler_kind="residual"),
    ]  # fmt: skip
    assert len(set(every)) == len(every)
    assert kind() == kind()


def test_auto_is_the_default_and_a_threshold_is_manual(tiny_engine: EngineFolder) -> None:
    spec = OpenedEngine.at(tiny_engine.folder).spec
    data = {key: value for key, value in spec.resolved().items() if key != "pacing"}
    assert Spec.model_validate(data).pacing.kind == "auto"
    assert Spec.model_validate({**data, "pacing": {"confidence": 0.5}}).pacing.kind == "manual"
    auto = with_overrides(spec, AUTO)
    assert with_overrides(auto, {"pacing.confidence": 0.5}).pacing.kind == "manual"
    assert with_overrides(with_overrides(spec, {"pacing.confidence": 0.5}), AUTO).pacing.confidence == 0.0
    with pytest.raises(UserError, match="expected kind manual with a threshold, found auto"):
        with_overrides(spec, {**AUTO, "pacing.confidence": 0.5})
