"""Images depend on their prompt and seed alone; batches add up; a spec becomes a law."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coolsd_rt.errors import UserError
from coolsd_rt.law import Law
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.spec import Spec
from coolsd_rt.workflows import drawing, totals
from coolsd_rt.workflows.drawing import Job, Settings
from tests.workflows.fakes import VOCABULARY, FakeEngine

RELAXED = Settings(Law((1.5, 1.2, 1.0)), Sampling(cfg_scale=2.0))
PROMPTS = ["red apple", "yellow star", "green apple"]


def spec(**sections: Any) -> Spec:
    data: dict[str, Any] = {
        "version": 1,
        "name": "toy",
        "target": {"model": "llamagen", "weights": "t.safetensors"},
        "draft": {"model": "eagle", "weights": "d.safetensors", "length": 3},
        "image": {"tokenizer": "vq", "weights": "v.safetensors"},
        "condition": {"kind": "words", "vocab": "vocab.json"},
        "schedule": {"kind": "exponential", "delta": 1.1},
    }
    return Spec.model_validate(data | sections)


def codes(jobs: list[Job], settings: Settings = RELAXED, size: int = 4) -> dict[tuple[str, int], tuple[int, ...]]:
    """Tokens by prompt and seed."""
    drawn: dict[tuple[str, int], tuple[int, ...]] = {}
    for batch in drawing.batches(jobs, size):
        rows = drawing.draw(FakeEngine(), batch, VOCABULARY, settings).codes
        drawn |= {(job.prompt, job.seed): tuple(row.tolist()) for job, row in zip(batch, rows, strict=True)}
    return drawn


def test_a_image_does_not_depend_on_the_prompts_or_images_beside_it() -> None:
    together = codes(drawing.plan(PROMPTS, 3, 5, VOCABULARY))
    assert len(set(together.values())) == 9
    for prompt in PROMPTS:
        for i in range(3):
            alone = codes(drawing.plan([prompt], 1, 5 + i, VOCABULARY))
            assert alone[prompt, 5 + i] == together[prompt, 5 + i]


@pytest.mark.parametrize("settings", [RELAXED, Settings(Law(()), Sampling(cfg_scale=2.0))])
def test_the_size_of_batches_changes_no_token(settings: Settings) -> None:
    jobs = drawing.plan(PROMPTS, 2, 0, VOCABULARY)
    assert codes(jobs, settings, 1) == codes(jobs, settings, 4) == codes(jobs, settings, 6)


def test_unconditional_rows_exist_only_under_guidance() -> None:
    jobs = drawing.plan(PROMPTS, 1, 0, VOCABULARY)
    engine = FakeEngine()
    drawing.draw(engine, jobs, VOCABULARY, RELAXED)
    drawing.draw(engine, jobs, VOCABULARY, Settings(RELAXED.law, Sampling(cfg_scale=1.0)))
    assert engine.opened == [6, 3]
    rows = drawing.prefix_rows(jobs, VOCABULARY, guided=True)
    assert rows.text[:3].tolist() == [list(job.encoded.ids) for job in jobs]
    assert (rows.text[3:] == np.array(VOCABULARY.unconditional().ids)).all()
    assert rows.start.tolist() == [0] * 6


def test_jobs_stand_in_the_prompts_order_and_seeds_wrap() -> None:
    jobs = drawing.plan(["red apple", "a blue star"], 2, 2**64 - 1, VOCABULARY)
    assert [(j.index, j.prompt, j.seed) for j in jobs] == [
        (0, "red apple", 2**64 - 1),
        (1, "red apple", 0),
        (2, "a blue star", 2**64 - 1),
        (3, "a blue star", 0),
    ]
    assert jobs[0].unknown == ()
    assert jobs[3].unknown == ("a", "blue")


@pytest.mark.parametrize(
    ("prompts", "variants", "seed", "said"),
    [
        ([], 1, 0, "prompts"),
        (["red apple", "  "], 1, 0, "empty prompt"),
        (["red apple"], 0, 0, "images per prompt"),
        (["red apple"], 1, -1, "seed"),
        (["red apple"], 1, 2**64, "seed"),
    ],
)
def test_a_bad_plan_is_refused(prompts: list[str], variants: int, seed: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        drawing.plan(prompts, variants, seed, VOCABULARY)


def test_a_spec_becomes_its_law() -> None:
    paper = drawing.settings_of(spec(schedule={"kind": "exponential", "delta": 1.1, "floor": None}))
    assert sum(paper.law.omegas) / 3 == pytest.approx(1.1)
    assert paper.law.omegas[0] / paper.law.omegas[1] == pytest.approx(np.exp(0.7))
    floored = drawing.settings_of(spec())
    assert floored.law.omegas == tuple(max(1.0, omega) for omega in paper.law.omegas)
    assert drawing.settings_of(spec(schedule={"kind": "none"})).law.omegas == (1.0, 1.0, 1.0)
    custom = drawing.settings_of(spec(schedule={"kind": "custom", "values": [2.0, 1.0, 0.5]}))
    assert custom.law.omegas == (2.0, 1.0, 0.5)
    assert drawing.settings_of(spec(), plain=True).plain
    other = drawing.settings_of(
        spec(resampler={"kind": "target"}, sampling={"cfg_scale": 2.5, "temperature": 0.9, "top_k": 7, "top_p": 0.8})
    )
    assert other.law.resampler == "target"
    assert other.sampling == Sampling(2.5, 0.9, 7, 0.8)


def test_a_rule_and_the_engines_neighbours_become_a_tolerance() -> None:
    near = np.arange(60).reshape(20, 3) % 20
    rule = {"rule": "lantern_pp", "factor": 1.5, "neighbours": 2}
    asked = spec(schedule={"kind": "none"}, acceptance=rule, resampler={"kind": "lantern"})
    law = drawing.settings_of(asked, near).law
    assert law.rule == "lantern_pp"
    assert law.resampler == "lantern"
    assert law.tolerance is not None
    assert law.tolerance.bound == 1.5
    assert law.tolerance.lending == 2
    assert np.array_equal(law.tolerance.near, near)  # LANTERN's own residual reads one more
    optimal = spec(schedule={"kind": "none"}, acceptance=rule)
    for columns in (2, 3):
        lent = drawing.settings_of(optimal, near[:, :columns]).law.tolerance
        assert lent is not None
        assert np.array_equal(lent.near, near[:, :2])
    with pytest.raises(UserError, match=r"3 nearest codes.*found 2; build it again, or set acceptance.neighbours to 1"):
        drawing.settings_of(asked, near[:, :2])
    whole = np.array([[1, 2], [0, 2], [1, 0]])  # all other codes: there is none more
    assert drawing.settings_of(asked, whole).law.resampler == "lantern"
    assert drawing.settings_of(asked, near, plain=True).law.tolerance is None
    for missing, said in ((None, "found none"), (near[:, :1], "found 1")):
        with pytest.raises(UserError, match=f"2 nearest codes.*{said}.*image.neighbours"):
            drawing.settings_of(asked, missing)
    timing = spec(schedule={"kind": "none"}, acceptance={"rule": "synthetic", "rates": [0.5, 0.4, 0.3]})
    assert drawing.settings_of(timing).law.rates == (0.5, 0.4, 0.3)


def test_statistics_of_batches_add_up() -> None:
    jobs = drawing.plan(PROMPTS, 2, 0, VOCABULARY)
    whole = drawing.draw(FakeEngine(), jobs, VOCABULARY, RELAXED).statistics
    parts = [drawing.draw(FakeEngine(), b, VOCABULARY, RELAXED).statistics for b in drawing.batches(jobs, 4)]
    summed = totals.total(parts, RELAXED.law.length)
    assert summed.rounds.tolist() == whole.rounds.tolist()
    assert summed.acceptance_by_position == whole.acceptance_by_position
    assert summed.accepted_histogram.tolist() == whole.accepted_histogram.tolist()
    assert summed.mean_acceptance_length == whole.mean_acceptance_length
    assert summed.seconds["target"] == pytest.approx(sum(p.seconds["target"] for p in parts))
