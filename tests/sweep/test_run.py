"""Sweeps: the same images however often they are killed, nothing of others touched, figures of known images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.law import Law, Tolerance, make_omegas
from coolsd_rt.runtime.statistics import Statistics
from coolsd_rt.store import EngineFolder
from coolsd_rt.store.atomic import write_atomic
from coolsd_rt.sweep import plot
from coolsd_rt.sweep.draw import DrawnPoint
from coolsd_rt.sweep.results import PointResult, Results, is_lossless
from coolsd_rt.sweep.run import SweepCallbacks, SweepConfig, sweep
from coolsd_rt.workflows import drawing
from tests.sweep.sweeping import PROMPTS, fake_engine, write_sweep
from tests.workflows.fakes import FakeEngine

POINTS = ["plain", "lossless", "cool-sd, delta 1.2", "cool-sd, delta 2"]
BATCHES = 3 + 4 * 3  # references and points of five images, two at once


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[FakeEngine]]:
    return fake_engine(tmp_path / "engine", monkeypatch)


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "plots", lambda results: {})


def figures(out: Path) -> Any:
    """results.json without what a clock says."""
    data = json.loads((out / "results.json").read_text())
    for point in data["points"]:
        assert point.pop("speed")["tokens_per_second"] > 0
    return data


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def test_a_sweep_leaves_figures_images_and_plots(fakes: tuple[Path, list[FakeEngine]], tmp_path: Path) -> None:
    engine, loaded = fakes
    out, heard = tmp_path / "out", list[Any]()
    listener = SweepCallbacks(
        start=lambda points, batches: heard.append((points, batches)),
        batch=lambda: heard.append("batch"),
        point=lambda result, was_there: heard.append((result.name, was_there)),
    )
    results = sweep(SweepConfig(engine, write_sweep(tmp_path / "sweep"), out), listener)
    assert heard[0] == (4, BATCHES)
    assert heard.count("batch") == BATCHES
    assert [h for h in heard[1:] if h != "batch"] == [(name, False) for name in POINTS]
    assert Results.model_validate_json((out / "results.json").read_bytes()) == results
    assert [p.name for p in results.points] == POINTS
    assert [p.lossless for p in results.points] == [True, True, False, False]
    plain, lossless, *_, strong = results.points
    assert plain.mean_acceptance_length.value == 1.0
    assert 1 < lossless.mean_acceptance_length.value < strong.mean_acceptance_length.value
    assert strong.omegas == pytest.approx(make_omegas("exponential", 3, delta=2.0, floor=1.0))
    assert {len(p.quality) for p in results.points} == {2}
    assert {p.images for p in results.points} == {5}
    assert set(results.pareto) == {"frechet", "retrieval"}
    assert all(name in POINTS for names in results.pareto.values() for name in names)
    for name in ("pareto", "accept_length"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (out / f"{name}.svg").read_bytes()
    assert len(list((out / "points").glob("*.png"))) == 4
    assert sum(loaded[0].opened) > 0


def test_the_same_prompts_and_seeds_at_all_points(
    fakes: tuple[Path, list[FakeEngine]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_plots: None
) -> None:
    drawn: list[list[tuple[str, int]]] = []
    real = drawing.draw

    def draw(engine: Any, jobs: Any, vocabulary: Any, settings: Any, **more: Any) -> Any:
        drawn.append([(job.prompt, job.seed) for job in jobs])
        return real(engine, jobs, vocabulary, settings, **more)

    monkeypatch.setattr(drawing, "draw", draw)
    sweep(SweepConfig(fakes[0], write_sweep(tmp_path / "sweep", "images: 5", "images: 5\nseed: 7"), tmp_path / "out"))
    assert len(drawn) == BATCHES
    references, *points = ([x for batch in drawn[k : k + 3] for x in batch] for k in range(0, BATCHES, 3))
    assert points[0] == [(PROMPTS[k % 3], 7 + k) for k in range(5)]
    assert all(point == points[0] for point in points)
    assert [prompt for prompt, _ in references] == [prompt for prompt, _ in points[0]]
    assert not {seed for _, seed in references} & {seed for _, seed in points[0]}


def stop_at(monkeypatch: pytest.MonkeyPatch, count: int) -> Callable[[], int]:
    """A kill in place of write number `count`; the function says how many there were."""
    written = 0

    def write(path: Path, data: bytes) -> None:
        nonlocal written
        if written == count:
            raise KeyboardInterrupt
        written += 1
        write_atomic(path, data)

    monkeypatch.setattr("coolsd_rt.store.results.write_atomic", write)
    return lambda: written


def test_killed_at_any_write_it_goes_on_to_the_same_results(
    fakes: tuple[Path, list[FakeEngine]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_plots: None
) -> None:
    engine, loaded = fakes
    file = write_sweep(tmp_path / "sweep", "images: 5", "images: 3", "[1.2, 2]", "[2]", "plain: {plain: true}\n  ", "")
    writes, batches = stop_at(monkeypatch, -1), 2 + 2 * 2
    sweep(SweepConfig(engine, file, tmp_path / "whole"))
    wanted, total = figures(tmp_path / "whole"), writes()
    assert total == 1 + batches + 2 * 2 + 1  # head, batches, sheet and figures of each point, results
    for k in range(total):
        loaded.clear()
        out = tmp_path / f"killed-{k}"
        with monkeypatch.context() as patch:
            stop_at(patch, k)
            with pytest.raises(KeyboardInterrupt):
                sweep(SweepConfig(engine, file, out))
        finished = {path.name: path.read_bytes() for path in out.glob("points/*.json")}
        sweep(SweepConfig(engine, file, out))
        assert figures(out) == wanted, f"killed at write {k}"
        # A finished point is not measured again, and of all batches at most one is drawn twice.
        assert {path.name: path.read_bytes() for path in out.glob("points/*.json")}.items() >= finished.items()
        assert sum(len(engine.opened) for engine in loaded) <= batches + 1
        shutil.rmtree(out)


def test_a_finished_sweep_is_read_not_drawn(
    fakes: tuple[Path, list[FakeEngine]], tmp_path: Path, no_plots: None
) -> None:
    request = SweepConfig(fakes[0], write_sweep(tmp_path / "sweep"), tmp_path / "out")
    first, seen = sweep(request), list[bool]()
    again = sweep(request, SweepCallbacks(point=lambda result, was_there: seen.append(was_there)))
    assert again == first
    assert seen == [True] * 4
    assert fakes[1][1].opened == []


def test_a_real_engine_is_measured_with_its_own_tokenizer(
    tiny_engine: EngineFolder, tiny_spec: Path, tmp_path: Path, no_plots: None
) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "version: 1\nimages: 4\npoints: {plain: {plain: true}, spec: {}}\nquality: {frechet: {images: 6}}\n"
    )
    results = sweep(SweepConfig(tiny_engine.folder, file, tmp_path / "out", tiny_spec, threads=1))
    plain, spec = results.points
    assert (plain.mean_acceptance_length.value, plain.omegas) == (1.0, [])
    assert spec.mean_acceptance_length.value > 1
    assert all(p.quality["frechet"].value > 0 for p in results.points)
    with np.load(tmp_path / "out" / "references" / "00001.npz") as references:
        assert len(references["pixels"]) == 2  # of six, four at once


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (("images: 5", "images: 6"), r"differs in images \(5 there, 6 here\)"),
        (("images: 5", "images: 5\nseed: 1"), r"differs in seed \(0 there, 1 here\)"),
        (("[1.2, 2]", "[1.2, 3]"), r"differs in points\[3\]\.name"),
        (("set: {pacing.confidence: 0}", "set: {sampling.top_k: 3}"), r"differs in points\[0\]\.sampling\.top_k"),
        (("[1.2, 2]", "[1.2]"), r"differs in points \(4 there, 3 here\)"),
        (("  frechet: {network: features.safetensors}\n", ""), "differs in references"),
    ],
)
def test_another_sweeps_folder_is_refused_and_left_alone(
    fakes: tuple[Path, list[FakeEngine]], tmp_path: Path, no_plots: None, pairs: tuple[str, ...], said: str
) -> None:
    out = tmp_path / "out"
    sweep(SweepConfig(fakes[0], write_sweep(tmp_path / "sweep"), out))
    before = snapshot(out)
    with pytest.raises(UserError, match=f"expected a sweep of this engine by this file, found one that {said}"):
        sweep(SweepConfig(fakes[0], write_sweep(tmp_path / "sweep", *pairs), out))
    assert snapshot(out) == before


def test_other_references_prompts_and_engines_are_another_sweep(
    fakes: tuple[Path, list[FakeEngine]], tmp_path: Path, no_plots: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, file = tmp_path / "out", write_sweep(tmp_path / "sweep")
    sweep(SweepConfig(fakes[0], file, out))
    other = fake_engine(tmp_path / "other", monkeypatch)[0]
    manifest = next(other.glob("*/manifest.json"))
    assert json.loads(manifest.read_text())["fingerprint"] in (out / "sweep.json").read_text()  # the same files
    (file.parent / "prompts.txt").write_text("yellow star\nred apple\n")
    with pytest.raises(UserError, match=r"differs in prompts\[0\]"):
        sweep(SweepConfig(fakes[0], file, out))
    file = write_sweep(tmp_path / "sweep")
    refs = file.parent / "refs"
    (refs / "red-apple.png").write_bytes((refs / "green-apple.png").read_bytes())
    with pytest.raises(UserError, match=r"differs in quality\.retrieval\.references"):
        sweep(SweepConfig(fakes[0], file, out))
    head = json.loads((out / "sweep.json").read_text())
    (out / "sweep.json").write_text(json.dumps({**head, "engine": "0" * 16}))
    with pytest.raises(UserError, match="differs in engine"):
        sweep(SweepConfig(fakes[0], write_sweep(tmp_path / "sweep"), out))


def test_a_folder_of_something_else_is_refused(fakes: tuple[Path, list[FakeEngine]], tmp_path: Path) -> None:
    out, file = tmp_path / "photos", write_sweep(tmp_path / "sweep")
    out.mkdir()
    (out / "results.json").write_text("mine")
    before = snapshot(out)
    with pytest.raises(UserError, match=r"found other files in it \(results\.json\); name another folder"):
        sweep(SweepConfig(fakes[0], file, out))
    assert snapshot(out) == before
    with pytest.raises(UserError, match="expected a folder"):
        sweep(SweepConfig(fakes[0], file, out / "results.json"))


def test_broken_files_of_the_folder_are_named(
    fakes: tuple[Path, list[FakeEngine]], tmp_path: Path, no_plots: None
) -> None:
    out, file = tmp_path / "out", write_sweep(tmp_path / "sweep")
    sweep(SweepConfig(fakes[0], file, out))
    point = next((out / "points").glob("001-*.json"))
    whole = point.read_bytes()
    point.write_bytes(whole[:50])
    with pytest.raises(CoolsdError, match=r"001-lossless\.json: expected a finished point of a sweep.*remove it"):
        sweep(SweepConfig(fakes[0], file, out))
    point.unlink()
    batch = next((out / "points" / "001-lossless").glob("00001.npz"))
    batch.write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(CoolsdError, match=r"00001\.npz: expected a batch of a sweep's point"):
        sweep(SweepConfig(fakes[0], file, out))
    (out / "sweep.json").write_text("{")
    with pytest.raises(CoolsdError, match="expected JSON"):
        sweep(SweepConfig(fakes[0], file, out))


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (
            ("references: refs", "references: nowhere"),
            r"sweep\.yaml:11: quality\.retrieval\.references: expected a fold",
        ),
        (("network: features.safetensors", "network: x.pt"), r"sweep\.yaml:10: quality\.frechet\.network: expected vq"),
        (("network: features.safetensors", "network: sweep.yaml"), "sweep.yaml: expected"),
        (("network: features.safetensors", "references: nowhere"), "expected"),
        (("prompts: prompts.txt", "prompts: none.txt"), "prompts: expected a text file"),
        (
            ("plain: {plain: true}", "plain: {set: {acceptance.rule: synthetic, acceptance.rates: [1, 1, 1]}}"),
            "P and Q",
        ),
        (
            ("schedule.kind: none}", "acceptance.rule: lantern, acceptance.bound: 0.1, acceptance.neighbours: 4}"),
            "codes",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_drawn(
    fakes: tuple[Path, list[FakeEngine]], tmp_path: Path, pairs: tuple[str, ...], said: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match=said):
        sweep(SweepConfig(fakes[0], write_sweep(tmp_path / "sweep", *pairs), out))
    assert not out.exists()
    assert all(engine.opened == [] for engine in fakes[1])


def test_a_prompt_without_a_reference_is_said_before_anything_is_drawn(
    fakes: tuple[Path, list[FakeEngine]], tmp_path: Path
) -> None:
    file = write_sweep(tmp_path / "sweep")
    (file.parent / "refs" / "yellow-star.png").unlink()
    with pytest.raises(
        UserError, match=r"refs: expected a reference image of every prompt, found none of 'yellow star'"
    ):
        sweep(SweepConfig(fakes[0], file, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_accept_length_has_the_error_of_its_images() -> None:
    """Against the spread of the same figure over many samples of images."""
    rng = np.random.default_rng(0)

    def sample(count: int) -> DrawnPoint:
        rounds = rng.integers(80, 160, count)
        accepts = np.array([int((255 - rounds).sum())])
        statistics = Statistics(rounds, np.zeros(2, np.int64), np.array([int(rounds.sum())]), accepts)
        return DrawnPoint(np.zeros((count, 1, 1, 3), np.uint8), statistics, 1.0, 256 * count, "host")

    found = [sample(40).accept_length for _ in range(400)]
    spread = float(np.std([f.value for f in found]))
    errors = [(f.high - f.low) / 2 / 1.96 for f in found if f.high is not None and f.low is not None]
    assert float(np.mean(errors)) == pytest.approx(spread, rel=0.12)
    assert sample(1).accept_length.low is None


@pytest.mark.parametrize(
    ("law", "wanted"),
    [
        (Law((1.0, 1.0)), True),
        (Law((0.9, 0.2)), True),
        (Law((1.1, 0.2)), False),
        (Law((1.0, 1.0), "residual"), True),
        (Law((1.0, 0.2), "residual"), False),
        (Law((1.0, 0.2), "waterfill"), True),
        (Law((1.0, 1.0), "target"), False),
        (Law((1.0,), tolerance=Tolerance("lantern_pp", 1.0, np.array([[1], [0]]))), True),
        (Law((1.0,), tolerance=Tolerance("lantern_pp", 1.5, np.array([[1], [0]]))), False),
        (Law((1.0,), "target", rates=(1.0,)), False),
        (Law(()), True),
    ],
)
def test_which_laws_are_the_targets_own(law: Law, wanted: bool) -> None:
    assert is_lossless(law) is wanted


def test_plots_are_the_same_for_the_same_figures(
    fakes: tuple[Path, list[FakeEngine]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(plot, "plots", lambda results: {})
        results = sweep(SweepConfig(fakes[0], write_sweep(tmp_path / "sweep"), tmp_path / "out"))
    first = plot.plots(results)
    assert set(first) == {"pareto.png", "pareto.svg", "accept_length.png", "accept_length.svg"}
    assert first == plot.plots(results)
    bare = [PointResult.model_validate({**p.model_dump(), "quality": {}}) for p in results.points]
    assert set(plot.plots(Results.of("0" * 16, bare))) == {"accept_length.png", "accept_length.svg"}
    assert plot.plots(Results.of("0" * 16, bare[:2])) == {}
