"""`quality` from captions to figures: figures by their definition, kills, and what is refused before work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.metrics.fid import frechet
from coolsd_rt.quality import draw
from coolsd_rt.quality import run as quality_run
from coolsd_rt.quality.captions import read_prompts
from coolsd_rt.quality.draw import QualityCallbacks
from coolsd_rt.quality.run import QualityMeasures, quality
from coolsd_rt.store import EngineFolder
from coolsd_rt.store.atomic import write_atomic
from coolsd_rt.workflows import drawing, opening
from coolsd_rt.workflows.generate.run import GenerateConfig, generate
from coolsd_rt.workflows.png import read_provenance
from tests.quality.qualities import (
    WORDS,
    Means,
    figures,
    files,
    image,
    run,
    write_captions,
    write_inception,
    write_references,
)
from tests.sweep.sweeping import fake_engine


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(quality_run, "InceptionFeatures", Means)
    return fake_engine(tmp_path / "engine", monkeypatch)[0]


def test_images_figures_and_rows_of_what_is_absent(engine: Path, tmp_path: Path) -> None:
    report = run(engine, tmp_path / "q", overrides={"schedule.delta": 2.0})
    out = tmp_path / "q" / "out"
    assert sorted(p.name for p in out.iterdir()) == ["images", "kept", "quality.json", "results.json", "scores.json"]
    assert json.loads((out / "results.json").read_text()) == report.as_dict()
    assert set(files(out)) == {f"{name}.png" for name in WORDS}
    drawn = np.array([np.asarray(Image.open(out / "images" / f"{name}.png")).mean((0, 1)) for name in WORDS])
    real = np.array([image(int(name)).mean((0, 1)) for name in WORDS])
    fid, *absent = report.rows
    assert fid.figure is not None
    assert fid.figure.value == pytest.approx(frechet(torch.from_numpy(real), torch.from_numpy(drawn)), rel=1e-4)
    assert [(row.kind.name, row.figure, row.images) for row in absent] == [
        ("clip", None, 0),
        ("image_reward", None, 0),
        ("hpsv2", None, 0),
    ]
    assert ["hf download" in row.how or "pip install" in row.how for row in absent] == [True] * 3
    assert any("5 images is dominated by its bias" in line for line in report.warnings)
    assert report.settings["schedule"]["delta"] == 2.0


def test_a_image_is_that_of_generate_and_accept_lengths_agree(engine: Path, tmp_path: Path) -> None:
    report = run(engine, tmp_path / "q", seed=7)
    rounds = tokens = 0.0
    for name, caption in WORDS.items():
        alone = generate(engine, GenerateConfig((caption,), tmp_path / name, seed=7 + int(name)))
        assert (
            np.asarray(Image.open(alone.drawn[0].path))
            == np.asarray(Image.open(tmp_path / "q" / "out" / "images" / f"{name}.png"))
        ).all()
        rounds += float(alone.statistics.rounds.sum())
        tokens += alone.statistics.mean_acceptance_length * float(alone.statistics.rounds.sum())
    assert report.cost.accept_length.value == pytest.approx(tokens / rounds)
    assert run(engine, tmp_path / "q", "plain", plain=True).cost.accept_length.value == 1.0


def test_what_is_there_is_not_done_again(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(engine, tmp_path / "q")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "q" / "out").rglob("*.[np][pn][zg]")}
    assert len(before) == 5 + 2

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("an engine is loaded, or a feature computed")

    monkeypatch.setattr("coolsd_rt.workflows.opening.load_engine", never)
    monkeypatch.setattr(Means, "features", never)
    assert run(engine, tmp_path / "q").as_dict() == first.as_dict()
    assert {p: p.stat().st_mtime_ns for p in before} == before


@pytest.mark.parametrize("at", range(10))  # head, five images, two batches of features, two documents
def test_killed_at_any_write_it_goes_on_to_the_same(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    wanted, written = run(engine, tmp_path / "whole", wanted=shared(tmp_path)), 0

    def write(path: Path, data: bytes, **how: bool) -> None:
        nonlocal written
        if written == at:
            raise KeyboardInterrupt
        written += 1
        write_atomic(path, data, **how)

    with monkeypatch.context() as patch:
        for module in ("coolsd_rt.store.results", "coolsd_rt.workflows.png"):
            patch.setattr(f"{module}.write_atomic", write)
        with pytest.raises(KeyboardInterrupt):
            run(engine, tmp_path / "cut", wanted=shared(tmp_path))
    assert figures(run(engine, tmp_path / "cut", wanted=shared(tmp_path))) == figures(wanted)
    assert files(tmp_path / "cut" / "out") == files(tmp_path / "whole" / "out")


def shared(folder: Path) -> QualityMeasures:
    if not (folder / "refs").exists():
        write_references(folder / "refs", list(WORDS))
    return QualityMeasures(folder / "refs", inception=folder / "inception")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"overrides": {"schedule.delta": 2.0}}, r"differs in schedule\.delta \(1\.3 there, 2\.0 here\)"),
        ({"seed": 1}, r"differs in seed \(0 there, 1 here\)"),
        ({"plain": True}, r"differs in plain \(false there, true here\)"),
        ({"limit": 3}, r"differs in prompts\.1000|differs in prompts\.724"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(
    engine: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    run(engine, tmp_path / "q")
    before = files(tmp_path / "q" / "out")
    with pytest.raises(UserError, match=said):
        run(engine, tmp_path / "q", **change)
    assert files(tmp_path / "q" / "out") == before


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (lambda f: QualityMeasures(inception=f / "x"), "FID: expected images to compare with.*give --reference DIR"),
        (lambda f: QualityMeasures(f / "none"), "expected a folder of reference images"),
        (lambda f: QualityMeasures(clip=f / "none"), r"no such folder; run: hf download openai/clip-vit-base-patch32"),
        (lambda f: QualityMeasures(image_reward=f), r"no ImageReward\.safetensors; run: hf download THUDM/ImageReward"),
        (lambda f: QualityMeasures(hpsv2=f / "none.pt"), "no such file; run: hf download xswu/HPSv2"),
    ],
)
def test_absent_files_are_said_before_anything_is_drawn(
    engine: Path, tmp_path: Path, wanted: Callable[[Path], QualityMeasures], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        run(engine, tmp_path / "q", wanted=wanted(tmp_path))
    assert not (tmp_path / "q" / "out").exists()


def test_too_few_images_a_synthetic_law_and_a_wrong_value(engine: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 3 images, found 2"):
        run(engine, tmp_path / "q", limit=2)
    with pytest.raises(UserError, match="synthetic, which draws no images"):
        run(engine, tmp_path / "q", overrides={"acceptance.rule": "synthetic", "acceptance.rates": [0.5, 0.5, 0.5]})
    with pytest.raises(UserError, match="delta"):
        run(engine, tmp_path / "q", overrides={"schedule.delta": -1.0})
    assert not (tmp_path / "q" / "out").exists()


def test_an_engine_that_does_not_load_leaves_nothing(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise CoolsdError("the engine's contract", expected="version 3", found="2")

    with monkeypatch.context() as patch:
        patch.setattr("coolsd_rt.workflows.opening.load_engine", broken)
        with pytest.raises(CoolsdError, match="expected version 3"):
            run(engine, tmp_path / "q")
        assert not (tmp_path / "q" / "out").exists()
    run(engine, tmp_path / "q")


def test_words_that_the_model_does_not_know_are_a_few_lines(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "q").mkdir()
    write_captions(tmp_path / "q" / "captions.json", {str(n): f"red apple strange{n}" for n in range(6)})
    report = run(engine, tmp_path / "q", wanted=QualityMeasures())
    assert [("strange" in line, "3 more prompts" in line) for line in report.warnings] == [(True, False)] * 3 + [
        (False, True)
    ]
    assert report.images == 6


def test_a_text_encoders_captions_are_encoded_in_windows(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(engine, tmp_path / "a")
    seen: list[int] = []
    real = drawing.encode

    def encode(prompts: Any, conditioner: Any) -> Any:
        seen.append(len(prompts))
        return real(prompts, conditioner)

    class Wide:
        """The fake's vocabulary, saying that its rows are large."""

        def __init__(self, inner: Any) -> None:
            self.inner, self.asked = inner, 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        @property
        def features_dim(self) -> int:
            self.asked += 1
            return 8 if self.asked == 1 else 0  # large when the windows are chosen, ids when rows are stacked

    load = opening.load_conditioner
    monkeypatch.setattr(opening, "load_conditioner", lambda *given: Wide(load(*given)))
    monkeypatch.setattr(draw, "_WINDOW", 2)
    monkeypatch.setattr(drawing, "encode", encode)
    again = run(engine, tmp_path / "b", wanted=QualityMeasures(tmp_path / "a" / "refs", tmp_path / "a" / "inception"))
    assert seen == [2, 2, 1]
    assert figures(again) == figures(first)


def test_the_tiny_engine_killed_and_gone_on(tiny_engine: EngineFolder, tmp_path: Path) -> None:
    """A real process, a real kill, the real Inception."""
    torch.set_num_threads(1)
    names = ("139", "285", "632", "724", "1000", "1001")
    captions = {name: ("red apple", "blue star", "green leaf")[k % 3] for k, name in enumerate(names)}
    file = write_captions(tmp_path / "captions.json", captions)
    refs, inception = write_references(tmp_path / "refs", list(names)), write_inception(tmp_path / "i.safetensors")
    code = (
        "import sys, time\nfrom coolsd_rt.workflows import drawing\nreal = drawing.draw\n"
        "def first(*a, **k):\n    there = list(Path(sys.argv[3]).glob('images/*.png'))\n"
        "    return time.sleep(600) if there else real(*a, **k)\n"
        "drawing.draw = first\nfrom coolsd_rt.quality.run import *\n"
        "config = GenerateConfig((), overrides={'schedule.delta': 1.5})\n"
        "quality(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), config)"
    )
    words = [sys.executable, "-c", code, str(tiny_engine.folder), str(file), str(tmp_path / "cut")]
    process = subprocess.Popen(words)
    until = time.monotonic() + 300
    while not list((tmp_path / "cut" / "images").glob("*.png")) and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    there = len(list((tmp_path / "cut" / "images").glob("*.png")))
    assert 0 < there < len(names)
    reports = []
    for out in ("cut", "whole"):
        steps: list[int] = []
        wanted = QualityMeasures(refs, inception, cache=tmp_path / "cache")
        request = GenerateConfig((), overrides={"schedule.delta": 1.5})
        listener = QualityCallbacks(step=steps.append)
        reports.append(quality(tiny_engine.folder, file, tmp_path / out, request, wanted, listener=listener))
        assert steps[0] == (0 if out == "whole" else there // 4 * 4)
    assert figures(reports[0]) == figures(reports[1])
    for half in (tmp_path / "cut" / "images").glob(".*.tmp"):  # the kill may come into a write
        half.unlink()
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    (fid, *_) = reports[0].rows
    assert fid.figure is not None
    assert fid.images == len(names)
    assert fid.figure.value > 0
    said = read_provenance(tmp_path / "cut" / "images" / "139.png")
    assert said is not None
    assert (said["id"], said["seed"], said["prompt"]) == ("139", 139, read_prompts(file)["139"])
