"""Two runs into one folder: what is there is skipped, what is in the way is refused, and nothing is lost in silence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.workflows import opening, png
from coolsd_rt.workflows.generate.placing import SHOWN
from coolsd_rt.workflows.generate.report import GenerateReport
from coolsd_rt.workflows.generate.run import GenerateCallbacks, GenerateConfig, generate
from tests.workflows import conftest
from tests.workflows.fakes import DIMS, FakeEngine

PROMPTS = ("red apple", "yellow star", "green apple", "red star", "green star")


@pytest.fixture
def engines(engine: Path, monkeypatch: pytest.MonkeyPatch) -> list[FakeEngine]:
    """Every engine that was loaded, in order."""
    loaded: list[FakeEngine] = []

    def load(*_: object) -> FakeEngine:
        loaded.append(FakeEngine())
        return loaded[-1]

    monkeypatch.setattr(opening, "load_engine", load)
    return loaded


@pytest.fixture
def draw(engine: Path, engines: list[FakeEngine], tmp_path: Path) -> Callable[..., GenerateReport]:
    """draw(*prompts, ...): a request into tmp_path/out."""

    def call(*prompts: str, listener: GenerateCallbacks | None = None, **values: Any) -> GenerateReport:
        return generate(engine, GenerateConfig(prompts or PROMPTS, tmp_path / "out", **values), listener)

    return call


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and inode of every file: a file that was written again has another inode."""
    return {p.name: (p.read_bytes(), p.stat().st_ino) for p in folder.iterdir()}


def statuses(report: GenerateReport) -> list[str]:
    return [one["status"] for one in report.as_dict()["images"]]


def shown(folder: Path) -> list[str]:
    """The files that a sheet says it shows."""
    with Image.open(folder / "sheet.png") as image:
        said = json.loads(image.info["coolsd-rt"])
    return [entry["file"] for entry in said[SHOWN]["images"]]


def test_the_same_command_again_draws_nothing(
    draw: Callable[..., GenerateReport], engines: list[FakeEngine], tmp_path: Path
) -> None:
    assert statuses(draw()) == ["written"] * 5
    before = files(tmp_path / "out")
    skipped: list[Path] = []
    again = draw(listener=GenerateCallbacks(skipped=skipped.append))
    assert statuses(again) == ["skipped"] * 5
    assert files(tmp_path / "out") == before
    assert len(engines) == 1  # not even loaded
    assert [path.name for path in skipped] == sorted(before)[:-1]
    assert (again.tokens, again.sheet) == (0, tmp_path / "out" / "sheet.png")
    json.dumps(again.as_dict())


def test_what_is_missing_or_damaged_is_drawn_and_the_rest_stays(
    draw: Callable[..., GenerateReport], engines: list[FakeEngine], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    draw()
    before = files(out)
    (out / "001-yellow-star.png").unlink()
    for name in ("003-red-star.png", "004-green-star.png"):
        (out / name).write_bytes(before[name][0][:-20])
    report = draw()
    assert statuses(report) == ["skipped", "written", "skipped", "written", "written"]
    assert engines[1].decoded == [1, 1, 1]  # what was left, one by one
    after = files(out)
    assert {k: v[0] for k, v in after.items()} == {k: v[0] for k, v in before.items()}
    assert all(after[k] == before[k] for k in ("000-red-apple.png", "002-green-apple.png", "sheet.png"))
    assert report.tokens == 3 * DIMS.tokens


def test_an_interrupted_request_goes_on(
    engine: Path, draw: Callable[..., GenerateReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stops(FakeEngine):
        def open(self, prefix: Any, capacity: int, start: Any = None) -> Any:
            if self.opened:
                raise KeyboardInterrupt
            return super().open(prefix, capacity, start)

    whole = generate(engine, GenerateConfig(PROMPTS, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(opening, "load_engine", lambda *_: Stops())
        with pytest.raises(KeyboardInterrupt):
            draw()
    assert statuses(draw()) == ["skipped", "skipped", "written", "written", "written"]
    assert {k: v[0] for k, v in files(tmp_path / "out").items()} == {
        k: v[0] for k, v in files(whole.drawn[0].path.parent).items()
    }


OTHER_REQUESTS: list[dict[str, Any]] = [
    {"seed": 1},
    {"plain": True},
    {"draft": "jacobi", "draft_length": 3},
    {"draft_length": 2},
    {"overrides": {"schedule.delta": 2.0}},
    {"overrides": {"resampler.kind": "waterfill"}},
    {"overrides": {"sampling.temperature": 0.9}},
    {"overrides": {"pacing.confidence": 0.5}},
]


@pytest.mark.parametrize("values", OTHER_REQUESTS, ids=str)
def test_another_image_in_the_place_is_refused_and_overwritten_if_told(
    draw: Callable[..., GenerateReport], engines: list[FakeEngine], tmp_path: Path, values: dict[str, Any]
) -> None:
    draw()
    before = files(tmp_path / "out")
    said = r"000-red-apple.png: .*another .*4 more of the names taken; .*--out, or --overwrite"
    with pytest.raises(UserError, match=said):
        draw(**values)
    assert files(tmp_path / "out") == before
    assert len(engines) == 1
    assert statuses(draw(**values, overwrite=True)) == ["written"] * 5
    after = files(tmp_path / "out")
    assert all(after[name] != before[name] for name in before)
    assert statuses(draw(**values)) == ["skipped"] * 5


def test_another_engine_in_the_place_is_refused(
    draw: Callable[..., GenerateReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw()
    (tmp_path / "other").mkdir()
    monkeypatch.setattr(conftest, "SPEC", conftest.SPEC.replace("max_batch: 2", "max_batch: 3"))
    other = conftest.build_fake(tmp_path / "other")
    with pytest.raises(UserError, match="found an image with another engine"):
        generate(other.folder, GenerateConfig(PROMPTS, tmp_path / "out"))


@pytest.mark.parametrize("name", ["000-red-apple.png", "004-green-star.png", "sheet.png"])
@pytest.mark.parametrize("content", [b"", b"notes", None])
def test_a_strangers_file_stays(
    draw: Callable[..., GenerateReport], engines: list[FakeEngine], tmp_path: Path, name: str, content: bytes | None
) -> None:
    path = tmp_path / "out" / name
    path.parent.mkdir()
    if content is None:
        Image.new("RGB", (8, 8)).save(path)
    else:
        path.write_bytes(content)
    before = files(tmp_path / "out")
    with pytest.raises(UserError, match=name):
        draw()
    assert files(tmp_path / "out") == before
    assert engines == []
    assert statuses(draw(overwrite=True)) == ["written"] * 5


def test_an_image_that_was_edited_stays(draw: Callable[..., GenerateReport], tmp_path: Path) -> None:
    draw("red apple")
    path = tmp_path / "out" / "000-red-apple.png"
    said = png.read_provenance(path)
    png.write_png(path.parent, path.name, 255 - png.read_pixels(path), said)
    before = files(tmp_path / "out")
    with pytest.raises(UserError, match="that image with its pixels changed"):
        draw("red apple")
    assert files(tmp_path / "out") == before


def test_a_folder_in_the_place_is_refused_whatever_is_told(draw: Callable[..., GenerateReport], tmp_path: Path) -> None:
    for name in ("001-yellow-star.png", "sheet.png"):
        (tmp_path / "out" / name).mkdir(parents=True)
        for overwrite in (False, True):
            with pytest.raises(UserError, match=f"{name}.*found a folder"):
                draw(overwrite=overwrite)
        (tmp_path / "out" / name).rmdir()


def test_a_folder_that_cannot_be_written_is_known_before_the_engine_is_loaded(
    draw: Callable[..., GenerateReport], engines: list[FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw()
    monkeypatch.setattr("coolsd_rt.store.outputs.os.access", lambda *_: False)  # tests may run as root
    assert statuses(draw()) == ["skipped"] * 5  # nothing to write
    with pytest.raises(CoolsdError, match="a folder that can be written"):
        draw("yellow star", seed=9)
    assert len(engines) == 1


def test_the_sheet_shows_the_images_of_the_last_run_that_made_one(
    draw: Callable[..., GenerateReport], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    draw("red apple", variants=4)
    assert len(shown(out)) == 4
    four = np.asarray(Image.open(out / "sheet.png"))
    draw("red apple", variants=2)
    assert shown(out) == ["000-red-apple.png", "001-red-apple.png"]
    fresh = tmp_path / "fresh"
    shutil.copytree(out, fresh)
    (fresh / "sheet.png").unlink()
    two = np.asarray(Image.open(out / "sheet.png"))
    draw("red apple", variants=4)
    assert np.array_equal(np.asarray(Image.open(out / "sheet.png")), four)  # two drawn before, two read from files
    assert two.shape != four.shape


def test_a_run_of_one_leaves_a_sheet_that_is_still_true_and_removes_one_that_is_not(
    draw: Callable[..., GenerateReport], tmp_path: Path
) -> None:
    sheet = tmp_path / "out" / "sheet.png"
    draw("red apple", variants=4)
    before = sheet.read_bytes()
    draw("red apple")
    draw("yellow star")  # beside them, under another name
    assert sheet.read_bytes() == before
    draw("red apple", seed=7, overwrite=True)
    assert not sheet.exists()
    sheet.write_bytes(b"mine")
    draw("red apple", seed=8, overwrite=True)
    assert sheet.read_bytes() == b"mine"


def test_a_sheet_of_an_earlier_version_is_ours(draw: Callable[..., GenerateReport], tmp_path: Path) -> None:
    draw("red apple", variants=2)
    path = tmp_path / "out" / "sheet.png"
    path.write_bytes(png.png_bytes(np.zeros((8, 8, 3), np.uint8)))
    draw("red apple", variants=2)
    assert len(shown(path.parent)) == 2


def test_a_damaged_sheet_of_ours_is_made_again(draw: Callable[..., GenerateReport], tmp_path: Path) -> None:
    draw("red apple", variants=2)
    path = tmp_path / "out" / "sheet.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    draw("red apple", variants=2)
    assert path.read_bytes() == whole


class Meanwhile(FakeEngine):
    """Something happens in the folder while the images are drawn."""

    happens: Callable[[], object] = staticmethod(lambda: None)

    def decode_images(self, codes: Any) -> Any:
        type(self).happens()
        return super().decode_images(codes)


@pytest.fixture
def meanwhile(
    draw: Callable[..., GenerateReport], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[], object]], None]:
    def install(happens: Callable[[], object]) -> None:
        monkeypatch.setattr(Meanwhile, "happens", staticmethod(happens))
        monkeypatch.setattr(opening, "load_engine", lambda *_: Meanwhile())

    return install


Install = Callable[[Callable[[], object]], None]


@pytest.mark.parametrize("name", ["000-red-apple.png", "001-red-apple.png", "sheet.png"])
def test_a_file_that_appears_while_a_run_draws_is_not_replaced(
    draw: Callable[..., GenerateReport], meanwhile: Install, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "out" / name
    meanwhile(lambda: path.write_bytes(b"mine"))
    with pytest.raises(UserError, match=f"{name}.*not there before"):
        draw("red apple", variants=2)
    assert path.read_bytes() == b"mine"


def test_two_runs_of_the_same_request_at_once_agree(
    engine: Path, draw: Callable[..., GenerateReport], meanwhile: Install, tmp_path: Path
) -> None:
    request = GenerateConfig(("red apple",), tmp_path / "beside", variants=2)
    generate(engine, request)
    before = files(request.out)

    def other_finishes() -> None:
        for path in request.out.iterdir():
            if not (tmp_path / "out" / path.name).exists():
                shutil.copy(path, tmp_path / "out")

    meanwhile(other_finishes)
    assert statuses(draw("red apple", variants=2)) == ["skipped", "skipped"]
    assert {k: v[0] for k, v in files(tmp_path / "out").items()} == {k: v[0] for k, v in before.items()}


def test_two_runs_of_other_requests_at_once_do_not_mix(
    engine: Path, draw: Callable[..., GenerateReport], meanwhile: Install, tmp_path: Path
) -> None:
    request = GenerateConfig(("red apple",), tmp_path / "beside", seed=5)
    generate(engine, request)
    theirs = files(request.out)

    def other_finishes() -> None:
        shutil.copytree(request.out, tmp_path / "out", dirs_exist_ok=True)

    meanwhile(other_finishes)
    with pytest.raises(UserError, match="an image with another seed, which was not there before"):
        draw("red apple")
    assert files(tmp_path / "out")["000-red-apple.png"][0] == theirs["000-red-apple.png"][0]


def test_standing_is_asked_of_every_name_before_anything_is_drawn(
    draw: Callable[..., GenerateReport], engines: list[FakeEngine], tmp_path: Path
) -> None:
    """The last of many is as safe as the first."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "039-red-apple.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="039-red-apple"):
        draw("red apple", variants=40)
    assert engines == []
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["039-red-apple.png"]


@pytest.mark.parametrize(
    "images", [[{"file": [1]}], [{"file": {}}], [{"file": "000-red-apple.png", "identity": [1]}], [1], {"a": 1}, "x"]
)
def test_a_sheet_that_says_nonsense_does_not_stop_a_run_of_one(
    draw: Callable[..., GenerateReport], tmp_path: Path, images: object
) -> None:
    draw("red apple")
    pixels = np.zeros((8, 8, 3), np.uint8)
    png.write_png(tmp_path / "out", "sheet.png", pixels, {SHOWN: {"images": images}})
    assert statuses(draw("red apple")) == ["skipped"]


@pytest.mark.parametrize("prompt", ["red \udcff apple", "red \x1b apple", "red \0 apple", "x" * 10_001])
def test_a_prompt_that_is_no_text_is_refused_before_its_file_is_looked_for(
    draw: Callable[..., GenerateReport], engines: list[FakeEngine], prompt: str
) -> None:
    with pytest.raises(UserError, match="prompt"):
        draw("red apple", prompt)
    assert not engines
