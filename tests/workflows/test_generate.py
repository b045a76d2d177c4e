"""A request to files and figures: what is written, in which order, what it says, and what an interruption leaves."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from coolsd_rt.contract import CONTRACT_VERSION
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.prompts import VOCABULARY_FILE
from coolsd_rt.store import open_engine
from coolsd_rt.workflows import opening, png
from coolsd_rt.workflows.generate.report import GenerateReport
from coolsd_rt.workflows.generate.run import GenerateCallbacks, GenerateConfig, generate
from tests.workflows.fakes import DIMS, FakeEngine


def ask(out: Path, *prompts: str, **values: Any) -> GenerateConfig:
    return GenerateConfig(prompts or ("red apple",), out, **values)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def pixels(report: GenerateReport) -> dict[tuple[str, int], bytes]:
    """What was drawn, by prompt and seed, read back from the files."""
    return {(d.job.prompt, d.job.seed): np.asarray(Image.open(d.path)).tobytes() for d in report.drawn}


def test_one_png_a_image_in_the_prompts_order_and_a_sheet(engine: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = generate(engine, ask(out, "yellow star", "red apple", variants=2, seed=3))
    expected = ["000-yellow-star.png", "001-yellow-star.png", "002-red-apple.png", "003-red-apple.png"]
    assert names(out) == [*expected, "sheet.png"]
    assert [d.path.name for d in report.drawn] == expected
    assert [(d.job.prompt, d.job.seed) for d in report.drawn] == [
        ("yellow star", 3),
        ("yellow star", 4),
        ("red apple", 3),
        ("red apple", 4),
    ]
    assert len(set(pixels(report).values())) == 4


def test_one_image_needs_no_sheet(engine: Path, tmp_path: Path) -> None:
    report = generate(engine, ask(tmp_path / "out"))
    assert names(tmp_path / "out") == ["000-red-apple.png"]
    assert report.sheet is None


def test_the_same_request_draws_the_same_files_and_another_seed_others(engine: Path, tmp_path: Path) -> None:
    first, again, other = (
        generate(engine, ask(tmp_path / name, "red apple", "yellow star", seed=seed))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert [d.path.read_bytes() for d in first.drawn] == [d.path.read_bytes() for d in again.drawn]
    assert not set(pixels(first).values()) & set(pixels(other).values())


def test_a_image_says_how_to_draw_it_again(engine: Path, tmp_path: Path) -> None:
    report = generate(
        engine, ask(tmp_path / "a", "red apple", "green apple", variants=3, overrides={"schedule.delta": 2})
    )
    path = report.drawn[4].path
    said = png.read_provenance(path)
    assert said is not None
    assert said["engine"] == {"name": "fake", "fingerprint": engine.joinpath("current").read_text().strip()}
    assert said["spec"]["schedule"]["delta"] == 2
    assert said["spec"]["target"]["model"] == "llamagen"
    assert len(said["law"]["omegas"]) == said["law"]["draft_length"] == 3
    assert max(said["law"]["omegas"]) > 2
    overrides = {"schedule.delta": said["spec"]["schedule"]["delta"]}
    again = generate(engine, ask(tmp_path / "b", said["prompt"], seed=said["seed"], overrides=overrides))
    assert pixels(again)[said["prompt"], said["seed"]] == pixels(report)[said["prompt"], said["seed"]]


def test_the_figures_add_up(engine: Path, tmp_path: Path) -> None:
    heard: list[tuple[int, float]] = []
    started: list[int] = []
    listener = GenerateCallbacks(start=started.append, tokens=lambda done, accept: heard.append((done, accept)))
    report = generate(engine, ask(tmp_path / "out", "red apple", "yellow star", "green apple"), listener)
    document = report.as_dict()
    assert started == [3 * DIMS.tokens]
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert heard[-1][0] == 3 * DIMS.tokens
    phases = [document[f"seconds_{p}"] for p in ("target", "draft", "verify", "other")]
    assert sum(phases) == pytest.approx(document["seconds"])
    assert min(phases) > 0
    assert document["seconds_image"] < document["seconds_other"]
    assert document["tokens_per_second"] == pytest.approx(3 * DIMS.tokens / document["seconds"])
    # The first token of an image comes from the prefill; all others from rounds.
    tokens_in_rounds = document["rounds"] * document["mean_acceptance_length"]
    assert 3 * (DIMS.tokens - 1) == pytest.approx(tokens_in_rounds)
    assert 1.2 < document["mean_acceptance_length"] < 4
    assert len(document["acceptance_by_position"]) == 3


def test_plain_decoding_has_no_draft(engine: Path, tmp_path: Path) -> None:
    document = generate(engine, ask(tmp_path / "out", plain=True)).as_dict()
    assert document["mean_acceptance_length"] == 1.0
    assert document["acceptance_by_position"] == []
    assert document["rounds"] == DIMS.tokens - 1
    assert document["seconds_draft"] == 0


def test_overrides_reach_the_loop(engine: Path, tmp_path: Path) -> None:
    lengths = [
        generate(engine, ask(tmp_path / name, "red apple", variants=4, overrides=o)).statistics.mean_acceptance_length
        for name, o in (("a", {"schedule.kind": "none"}), ("b", {"schedule.delta": 4.0}))
    ]
    assert lengths[0] < lengths[1]
    longer = generate(engine, ask(tmp_path / "c", draft_length=5))
    assert len(longer.statistics.acceptance_by_position) == 5
    cold = {"sampling.temperature": 1e-3, "sampling.cfg_scale": 1.0}
    greedy = generate(engine, ask(tmp_path / "d", variants=2, overrides=cold))
    assert len(set(pixels(greedy).values())) == 1


def test_synthetic_images_say_so(engine: Path, tmp_path: Path) -> None:
    rule = {"acceptance.rule": "synthetic", "acceptance.rates": [1.0, 1.0, 1.0]}
    report = generate(engine, ask(tmp_path / "out", "red apple", overrides=rule))
    assert "synthetic" in report.warnings[0]
    with Image.open(report.drawn[0].path) as image:
        assert json.loads(image.info["coolsd-rt"])["law"]["rule"] == "synthetic"
    assert report.statistics.acceptance_by_position == [1.0, 1.0, 1.0]


def test_lantern_without_its_neighbours_is_one_line(engine: Path, tmp_path: Path) -> None:
    """The fake engine has no such file, as one of an earlier version has not."""
    rule = {"acceptance.rule": "lantern", "acceptance.bound": 0.1, "acceptance.neighbours": 2}
    with pytest.raises(UserError, match=r"the rule lantern.*found none.*build it again"):
        generate(engine, ask(tmp_path / "out", "red apple", overrides=rule))
    assert not (tmp_path / "out").exists()


def test_unknown_words_are_named_and_drawn_anyway(engine: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    report = generate(engine, ask(tmp_path / "out", "blue apple", variants=2), GenerateCallbacks(warning=heard.append))
    assert heard == list(report.warnings)
    assert len(heard) == 1
    assert "blue" in heard[0]
    assert "red" not in heard[0]
    assert len(report.drawn) == 2
    assert report.as_dict()["images"][0]["unknown_words"] == ["blue"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"overrides": {"schedule.delta": float("nan")}}, "--delta"),
        ({"overrides": {"schedule.delta": -0.1}}, "--delta"),
        ({"overrides": {"schedule.kind": "none", "schedule.delta": 2.0}}, "--delta"),
        ({"overrides": {"sampling.top_p": 0.0}}, "--top-p"),
        ({"draft_length": 0}, "draft_length: expected a whole number from 1 to 65536, found 0"),
        ({"draft_length": DIMS.tokens + 1}, "draft length"),
        ({"plain": True, "draft_length": 2}, "plain"),
        ({"plain": True, "overrides": {"schedule.delta": 2.0}}, "plain"),
        ({"variants": 0}, "variants: expected a whole number from 1 to 100000"),
        ({"variants": 10**20}, "variants: "),
        ({"variants": 99_999, "prompts": ["red", "blue"]}, "images: expected at most 100000"),
        ({"overrides": {"sampling.cfg_scale": 1e38}}, "--cfg-scale"),
        ({"seed": -1}, "seed"),
        ({"prompts": ["red apple", ""]}, "empty prompt"),
        ({"prompts": []}, "prompts"),
    ],
)
def test_bad_values_are_the_users_and_write_nothing(
    engine: Path, tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        generate(engine, GenerateConfig(**{"prompts": ["red apple"], "out": tmp_path / "out", **values}))
    assert not (tmp_path / "out").exists()


def test_a_manifest_of_another_version_is_one_line(engine: Path, tmp_path: Path) -> None:
    folder = open_engine(engine)
    folder.with_manifest(spec=folder.manifest.spec | {"novelty": 1})
    with pytest.raises(
        CoolsdError, match=r"manifest.json: spec.novelty: expected one of .*, found an unknown key; build it again"
    ):
        generate(engine, ask(tmp_path / "out"))


def test_an_engine_of_an_earlier_contract_is_one_line(engine: Path, tmp_path: Path) -> None:
    """Its graphs have inputs of other names: it is refused before one of them is opened."""
    folder = open_engine(engine)
    before = CONTRACT_VERSION - 1
    folder.with_manifest(contract=folder.manifest.contract | {"version": before, "fused": True})
    said = f"contract: expected version {CONTRACT_VERSION}, found {before}; build it again"
    with pytest.raises(CoolsdError, match=f"manifest.json: {said}") as caught:
        generate(engine, ask(tmp_path / "out"))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1
    assert not (tmp_path / "out").exists()


def test_a_changed_engine_file_is_not_used(engine: Path, tmp_path: Path) -> None:
    fingerprint = (engine / "current").read_text().strip()
    path = engine / fingerprint / VOCABULARY_FILE
    path.unlink()
    path.write_text('{"prefix": 4, "words": ["<pad>", "<unknown>", "<unconditional>"]}')
    with pytest.raises(CoolsdError, match="was changed") as caught:
        generate(engine, ask(tmp_path / "out"))
    assert caught.value.exit_code == 1
    assert not (tmp_path / "out").exists()


class Stops(FakeEngine):
    """Is interrupted, or fails, when an image enters after the first ones."""

    error_raised: BaseException = KeyboardInterrupt()

    def open(self, prefix: Any, capacity: int, start: Any = None) -> Any:
        if self.opened:
            raise self.error_raised
        return super().open(prefix, capacity, start)


def test_what_was_finished_before_an_interruption_stays_whole(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "load_engine", lambda *_: Stops())
    heard: list[Path] = []
    with pytest.raises(KeyboardInterrupt):
        generate(engine, ask(tmp_path / "out", variants=4), GenerateCallbacks(image=heard.append))
    assert 1 <= len(heard) <= 2  # those that had made room
    assert names(tmp_path / "out") == sorted(p.name for p in heard)
    for path in heard:
        Image.open(path).load()


def test_an_interruption_while_a_file_is_written_leaves_no_part_of_it(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("coolsd_rt.store.atomic.os.link", interrupt)
    with pytest.raises(KeyboardInterrupt):
        generate(engine, ask(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_one_line(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("coolsd_rt.store.atomic.os.fsync", full)
    with pytest.raises(CoolsdError, match="no space left on the disk") as caught:
        generate(engine, ask(tmp_path / "out"))
    assert caught.value.exit_code == 1
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_file_where_the_folder_should_be_is_one_line(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="a folder, or a path for a new folder, found the file"):
        generate(engine, ask(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "mine"
