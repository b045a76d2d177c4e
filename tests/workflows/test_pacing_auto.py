"""Pacing `auto` by the ways that users take: a request draws the same images again, and costs are measured once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coolsd_rt.errors import UserError
from coolsd_rt.runtime.costs import PLACES
from coolsd_rt.spec import with_overrides
from coolsd_rt.store import EngineFolder
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.generate.run import GenerateCallbacks, GenerateConfig, generate
from coolsd_rt.workflows.opened import OpenedEngine

PROMPTS = ("red apple", "yellow star", "green apple")
AUTO = {"pacing.kind": "auto"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COOLSD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def images(folder: Path, engine: EngineFolder, measured: list[int]) -> list[np.ndarray]:
    request = GenerateConfig(PROMPTS, folder, overrides=AUTO, threads=1)
    report = generate(engine.folder, request, GenerateCallbacks(measuring=measured.append))
    return [np.asarray(Image.open(one.path)) for one in report.drawn]


def test_a_request_repeats_itself_and_its_costs_are_measured_once(
    tiny_engine: EngineFolder, tmp_path: Path, cache: Path
) -> None:
    measured: list[int] = []
    first = images(tmp_path / "first", tiny_engine, measured)
    again = images(tmp_path / "again", tiny_engine, measured)
    assert all((one == other).all() for one, other in zip(first, again, strict=True))
    at_once = min(len(PROMPTS), OpenedEngine.at(tiny_engine.folder).spec.engine.max_batch)
    assert measured[0] == at_once
    assert len(measured) == len(set(measured))  # each size once, and none of them again
    (record,) = (cache / "costs").glob("*.json")
    found = json.loads(record.read_text())
    assert set(found["machine"]) == {"cpu", "cores", "threads", "versions"}
    assert {f"{costs['images']} images" for costs in found["costs"].values()} == {f"{n} images" for n in measured}
    for costs in found["costs"].values():
        assert len(costs["plain"]) == len(PLACES)
        assert set(costs["drafts"]) == {"eagle", "jacobi"}


def test_a_record_decides_what_is_drafted(tiny_engine: EngineFolder, cache: Path) -> None:
    """Drafts that cost nothing are always made, and drafts that cost more than they can bring never."""
    opened = OpenedEngine.at(tiny_engine.folder, threads=1)
    spec = with_overrides(opened.spec, AUTO)
    settings = opened.paced(opened.settings(spec), spec)
    jobs = drawing.plan(["red apple"], 1, 0, opened.conditioner)
    drawing.draw(opened.engine, jobs, opened.conditioner, settings)  # makes the record
    (record,) = (cache / "costs").glob("*.json")
    found = json.loads(record.read_text())
    (key,) = found["costs"]
    length = settings.law.length

    def drafted(seconds: float) -> int:
        costs = found["costs"][key]
        costs["plain"] = [1.0] * len(PLACES)
        costs["verify"] = [[1.0 + seconds * n for n in range(length + 1)]] * len(PLACES)
        costs["drafts"] = {name: [[0.0] * (length + 1)] * len(PLACES) for name in costs["drafts"]}
        record.write_text(json.dumps(found))
        fresh = OpenedEngine.at(tiny_engine.folder, threads=1)
        paced = fresh.paced(settings, spec)
        return drawing.draw(fresh.engine, jobs, fresh.conditioner, paced).statistics.draft_tokens

    assert drafted(2.0) == 0
    assert drafted(0.0) > 0


def test_other_settings_draft_as_before(tiny_engine: EngineFolder) -> None:
    """Under `manual`, the default, and for plain decoding nothing is measured; and those who measure quality or
    schedules ask for no costs."""
    opened = OpenedEngine.at(tiny_engine.folder, threads=1)
    assert opened.spec.pacing.kind == "manual"
    assert opened.paced(opened.settings(), opened.spec).costs is None
    auto = with_overrides(opened.spec, AUTO)
    assert opened.settings(auto).costs is None
    assert opened.paced(opened.settings(auto, plain=True), auto).costs is None
    assert opened.paced(opened.settings(auto), auto).costs is not None


def test_a_threshold_is_manual_pacing(tiny_engine: EngineFolder) -> None:
    spec = OpenedEngine.at(tiny_engine.folder).spec
    auto = with_overrides(spec, AUTO)
    assert with_overrides(auto, {"pacing.confidence": 0.5}).pacing.kind == "manual"
    assert with_overrides(with_overrides(spec, {"pacing.confidence": 0.5}), AUTO).pacing.confidence == 0.0
    with pytest.raises(UserError, match="expected kind manual with a threshold, found auto"):
        with_overrides(spec, {**AUTO, "pacing.confidence": 0.5})
