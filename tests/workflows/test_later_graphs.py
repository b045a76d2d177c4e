"""A request loads the graphs that it uses; others are hashed and loaded when they are first used, on a real engine."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coolsd_rt import Pipeline
from coolsd_rt.backends.onnxruntime.engine import OrtEngine
from coolsd_rt.backends.onnxruntime.graph import OrtGraphs
from coolsd_rt.errors import CoolsdError
from coolsd_rt.store import EngineFolder, open_engine
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.generate.run import GenerateCallbacks, GenerateConfig, generate
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.prepared import Prepared
from coolsd_rt.workflows.slots import JobsDrawing
from tests.tiny import LENGTH

ALL = {"condition", "target", "draft", "propose", "image"}


def loaded(opened: OpenedEngine) -> set[str]:
    engine = opened.engine
    assert isinstance(engine, OrtEngine)
    assert isinstance(engine._graphs, OrtGraphs)
    return set(engine._graphs.loaded)


def prepared(engine: Path, **options: Any) -> Prepared:
    opened = OpenedEngine.at(engine, threads=1)
    return Prepared.of(opened, GenerateConfig(["red apple"], **options))


def codes(opened: OpenedEngine, made: Prepared) -> np.ndarray[Any, Any]:
    jobs = drawing.spread_jobs(["red apple"], 1, 0, opened.conditioner)
    return np.asarray(drawing.draw(opened.engine, jobs, opened.conditioner, made.settings).codes)


@pytest.mark.parametrize(
    ("options", "used"),
    [
        ({"plain": True}, {"condition", "target"}),
        ({"draft": "jacobi", "draft_length": 3}, {"condition", "target"}),
        ({"draft": "jacobi-coupled", "draft_length": 3}, {"condition", "target"}),
        ({"draft": "ngram"}, {"condition", "target"}),
        ({}, {"condition", "target", "draft", "propose"}),
        ({"draft_length": LENGTH - 1}, {"condition", "target", "draft"}),
        ({"overrides": {"pacing.kind": "auto"}}, {"condition", "target", "draft", "propose"}),
    ],
)
def test_a_request_loads_the_graphs_that_it_draws_with(
    tiny_engine: EngineFolder, options: dict[str, Any], used: set[str]
) -> None:
    """Neither more, nor fewer: a graph that is loaded in a round would be part of the round's time."""
    made = prepared(tiny_engine.folder, **options)
    opened = made.opened
    opened.load(made.later_graphs)
    assert loaded(opened) == used
    drawn = codes(opened, made)
    assert loaded(opened) == used
    opened.engine.decode_images(drawn)
    assert loaded(opened) == used | {"image"}


def test_a_plan_on_record_says_what_is_loaded(
    tiny_engine: EngineFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COOLSD_CACHE", str(tmp_path / "cache"))
    first = prepared(tiny_engine.folder, overrides={"pacing.kind": "auto"})
    assert first.recorded(1) is first
    jobs = drawing.spread_jobs(["red apple"], 1, 0, first.opened.conditioner)
    plan = first.planned(jobs, 1).plan
    assert plan is not None
    again = prepared(tiny_engine.folder, overrides={"pacing.kind": "auto"}).recorded(1)
    assert again.plan == plan
    assert again.planned(jobs, 1) is again
    fewer = again.settings.plain or again.settings.drafter == "jacobi"
    assert ("draft" in again.later_graphs) == fewer
    again.opened.load(again.later_graphs)
    assert loaded(again.opened) == ALL - again.later_graphs


def test_requests_of_one_pipeline_after_that_load_what_they_use(tiny_engine: EngineFolder, tmp_path: Path) -> None:
    whole = Pipeline.load(tiny_engine.folder, threads=1)
    assert whole._opened is not None
    assert loaded(whole._opened) == ALL  # a pipeline is loaded when it has loaded
    opened = OpenedEngine.at(tiny_engine.folder, threads=1)
    opened.load(prepared(tiny_engine.folder, plain=True).later_graphs)
    pipe = Pipeline(opened)
    requests: Sequence[dict[str, Any]] = ({"plain": True}, {"draft": "jacobi", "draft_length": 3}, {}, {"plain": True})
    for options, more in zip(requests, ({"image"}, set(), {"draft", "propose"}, set()), strict=True):
        before = loaded(opened) if options != {"plain": True} or "image" in loaded(opened) else {"condition", "target"}
        a, b = pipe("red apple", **options), whole("red apple", **options)
        assert a.images[0].tobytes() == b.images[0].tobytes()
        assert loaded(opened) == before | more


def flipped(engine: EngineFolder, name: str, to: Path) -> Path:
    """A copy of an engine, with one bit of a file changed."""
    shutil.copytree(engine.folder, to)
    data = bytearray((to / name).read_bytes())
    data[len(data) // 2] ^= 1
    (to / name).unlink()
    (to / name).write_bytes(data)
    return to


@pytest.mark.parametrize("name", ["condition.onnx", "target.onnx", "vocab.json", "neighbours.npy"])
def test_a_changed_file_that_is_used_is_found_before_a_token(
    tiny_engine: EngineFolder, tmp_path: Path, name: str
) -> None:
    engine, tokens = flipped(tiny_engine, name, tmp_path / "copy"), list[int]()
    listener = GenerateCallbacks(tokens=lambda done, _: tokens.append(done))
    with pytest.raises(CoolsdError, match=f"{name} was changed"):
        generate(engine, GenerateConfig(["red apple"], tmp_path / "out", plain=True, threads=1), listener)
    assert tokens == []


@pytest.mark.parametrize(
    ("name", "options"), [("draft.onnx", {}), ("propose.onnx", {}), ("image.onnx", {"plain": True})]
)
def test_a_changed_graph_is_never_loaded(
    tiny_engine: EngineFolder, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    """Before the first token if it drafts; the image decoder when it is needed, and no image is written."""
    engine = flipped(tiny_engine, name, tmp_path / "copy")
    with pytest.raises(CoolsdError, match=f"{name} was changed"):
        generate(engine, GenerateConfig(["red apple"], tmp_path / "out", threads=1, **options))
    assert not (tmp_path / "out").exists()
    with pytest.raises(CoolsdError, match=f"{name} was changed"):
        open_engine(engine).verified()


def test_a_graph_is_hashed_as_it_is_when_it_is_loaded(tiny_engine: EngineFolder, tmp_path: Path) -> None:
    """A file that changes between the engine's opening and its first use."""
    shutil.copytree(tiny_engine.folder, tmp_path / "copy")
    opened = OpenedEngine.at(tmp_path / "copy", threads=1)
    opened.load(frozenset({"draft", "propose", "image"}))
    path = tmp_path / "copy" / "draft.onnx"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CoolsdError, match=r"draft\.onnx was changed"):
        codes(opened, prepared(tiny_engine.folder))
    with pytest.raises(CoolsdError, match=r"draft\.onnx was changed"):
        opened.verified.path("draft.onnx")


def test_a_path_is_that_of_a_file_that_was_hashed(tiny_engine: EngineFolder, tmp_path: Path) -> None:
    engine = flipped(tiny_engine, "draft.onnx", tmp_path / "copy")
    verified = open_engine(engine).verified(later=["draft.onnx", "target.onnx"])
    assert verified.unchecked == {"draft.onnx", "target.onnx"}
    assert verified.path("target.onnx").is_file()
    assert verified.unchecked == {"draft.onnx"}
    for use in (verified.path, verified.read, lambda _: verified.check()):
        with pytest.raises(CoolsdError, match=r"draft\.onnx was changed"):
            use("draft.onnx")


def test_loading_the_image_decoder_late_is_loading_not_drawing(tiny_engine: EngineFolder) -> None:
    """The decoder is there before the clock of decoding starts, and what it took is said apart, once."""
    made = prepared(tiny_engine.folder, plain=True)
    opened = made.opened
    opened.load(made.later_graphs)
    jobs = drawing.spread_jobs(["red apple"], opened.spec.engine.max_batch + 1, 0, opened.conditioner)
    seen: list[set[str]] = []
    decode = opened.engine.decode_images

    def decoding(codes: Any) -> Any:
        seen.append(loaded(opened))
        return decode(codes)

    opened.engine.decode_images = decoding  # type: ignore[method-assign]
    images, loading = JobsDrawing(opened, jobs, made.settings), []
    for _ in images.run():
        loading.append(images.seconds_load)
    assert len(loading) == len(jobs)
    assert all("image" in names for names in seen)
    assert loading[0] > 0
    assert loading[-1] - loading[0] < loading[0]  # once loaded, asking takes no time
