"""`quality` pairs by id: order and file names change nothing, and whatever is of another id shows.

Every score is compared with the model's own of that image and that caption; a pairing off by one must fail so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from coolsd_rt.errors import CoolsdError
from coolsd_rt.metrics.gallery import Values, values_of
from coolsd_rt.quality import run as quality_run
from coolsd_rt.quality.run import QualityMeasures
from tests.metrics.test_metric import tiny_clip
from tests.quality.qualities import WORDS, Means, coco, figures, files, run, write_references
from tests.sweep.sweeping import fake_engine


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(quality_run, "InceptionFeatures", Means)
    return fake_engine(tmp_path / "engine", monkeypatch)[0]


def test_order_of_captions_and_names_of_files_change_nothing(engine: Path, tmp_path: Path) -> None:
    first = run(engine, tmp_path / "a")
    folder = tmp_path / "b"
    write_references(folder / "refs", list(WORDS)[::-1])
    (folder / "captions.json").write_text(json.dumps(coco(WORDS)))
    for path in (folder / "refs").iterdir():
        path.rename(path.with_name(f"COCO_val2014_{path.name}"))
    assert figures(
        run(engine, folder, wanted=QualityMeasures(folder / "refs", tmp_path / "a" / "inception"))
    ) == figures(first)
    assert files(folder / "out") == files(tmp_path / "a" / "out")


def test_the_clip_score_of_each_id_and_a_planted_off_by_one(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = tiny_clip(tmp_path / "clip")
    from coolsd_rt.metrics.clip import ClipScore

    def check(folder: Path) -> bool:
        """Whether every score is that of its own image and caption, by the model itself, one at a time."""
        run(engine, folder, wanted=QualityMeasures(clip=clip))
        scores, judge = json.loads((folder / "out" / "scores.json").read_text()), ClipScore(clip)
        assert set(scores) == set(WORDS)
        paths = {name: folder / "out" / "images" / f"{name}.png" for name in WORDS}
        own = {n: float(judge.scores([np.asarray(Image.open(paths[n]))], [text])[0]) for n, text in WORDS.items()}
        return all(scores[name]["clip"] == pytest.approx(own[name], abs=1e-3) for name in WORDS)

    assert check(tmp_path / "right")

    def off_by_one(gallery: Any, folder: Path, identity: Any, compute: Any, on_batch: Any = None) -> Values:
        return values_of(gallery, folder, identity, lambda images, ids: compute(images, (*ids[1:], ids[0])))

    monkeypatch.setattr(quality_run, "values_of", off_by_one)
    assert not check(tmp_path / "wrong")


def test_the_clip_score_is_torchmetrics(engine: Path, tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path / "clip")
    from torchmetrics.multimodal.clip_score import CLIPScore
    from transformers import CLIPModel, CLIPProcessor

    class Tensors(CLIPModel):
        """What torchmetrics 1.9 expects of transformers: today these give a model's whole output."""

        def get_image_features(self, *args: Any, **kwargs: Any) -> Any:
            return super().get_image_features(*args, **kwargs).pooler_output

        def get_text_features(self, *args: Any, **kwargs: Any) -> Any:
            return super().get_text_features(*args, **kwargs).pooler_output

    report = run(engine, tmp_path / "q", wanted=QualityMeasures(clip=clip))
    metric: Any = CLIPScore(lambda: (Tensors.from_pretrained(clip), CLIPProcessor.from_pretrained(clip)))
    for name, caption in WORDS.items():
        pixels = np.asarray(Image.open(tmp_path / "q" / "out" / "images" / f"{name}.png"))
        metric.update(torch.from_numpy(pixels.copy()).permute(2, 0, 1), caption)
    (row,) = (row for row in report.rows if row.kind.name == "clip")
    assert row.figure is not None
    total = float(metric.score) / len(WORDS)  # `compute` shows a mean below 0 as 0
    assert row.figure.value == pytest.approx(total, abs=1e-3)
    assert row.images == len(WORDS)


class Told:
    """A score that knows which caption a reference has: its first pixel's red is the caption's number."""

    from coolsd_rt.metrics.metric import CLIP as kind  # noqa: N811  (a score's attribute)

    def __init__(self, path: Path) -> None:
        self.path = path

    def identity(self) -> Any:
        return {}

    def scores(self, images: Any, prompts: Any) -> Any:
        texts = list(WORDS.values())
        return np.array([float(p[0, 0, 0] == texts.index(t)) for p, t in zip(images, prompts, strict=True)])


def test_references_of_other_ids_are_noticed(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import coolsd_rt.metrics.clip as clip_module

    monkeypatch.setattr(clip_module, "ClipScore", Told)
    names = list(WORDS)
    for title, shift in (("right", 0), ("wrong", 1)):
        folder = tmp_path / title / "refs"
        folder.mkdir(parents=True)
        for k in range(len(names)):
            pixels = np.full((6, 6, 3), (k + shift) % len(names), np.uint8)
            Image.fromarray(pixels).save(folder / f"{names[k]}.png")
        report = run(engine, tmp_path / title, wanted=QualityMeasures(folder, clip=tmp_path))
        said = [line for line in report.warnings if "do not fit their captions" in line]
        assert len(said) == shift
        (row,) = (row for row in report.rows if row.kind.name == "clip_references")
        assert row.figure is not None
        assert row.figure.value == 1 - shift


def test_a_file_of_another_id_or_run_is_refused(engine: Path, tmp_path: Path) -> None:
    run(engine, tmp_path / "q")
    images = tmp_path / "q" / "out" / "images"
    kept = (images / "139.png").read_bytes()
    (images / "139.png").write_bytes((images / "285.png").read_bytes())
    with pytest.raises(CoolsdError, match=r"139\.png: expected the id '139', found '285'; remove it; the same command"):
        run(engine, tmp_path / "q")
    Image.new("RGB", (8, 8)).save(images / "139.png")
    with pytest.raises(CoolsdError, match="expected an image of this run"):
        run(engine, tmp_path / "q")
    (images / "139.png").unlink()
    run(engine, tmp_path / "q")
    assert np.array_equal(np.asarray(Image.open(images / "139.png")), np.asarray(Image.open(_saved(tmp_path, kept))))


def _saved(folder: Path, data: bytes) -> Path:
    (folder / "saved.png").write_bytes(data)
    return folder / "saved.png"
