"""Content addressing: what runs again, what does not, and that a name never holds half of anything."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from coolsd_rt.errors import CoolsdError
from coolsd_rt.store import EngineRecord, Stage, Store, open_engine
from coolsd_rt.store import atomic as atomic_module
from coolsd_rt.store import cache as cache_module
from tests.store.conftest import SPEC, VIEW, left_over, toy_build, toy_stage, toy_write


class Counter:
    """A producer that notes which stages it ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def __call__(self, stage: Stage) -> Callable[[Path], Mapping[str, Any]]:
        def produce(folder: Path) -> Mapping[str, Any]:
            self.ran.append(stage.name)
            return toy_write(stage)(folder)

        return produce


def test_build_layout(out: Path) -> None:
    engine = toy_build(out)
    assert engine.folder == out / "toy" / engine.manifest.fingerprint
    assert (out / "toy" / "current").read_text().strip() == engine.manifest.fingerprint
    assert open_engine(out / "toy").manifest == engine.manifest == open_engine(engine.folder).manifest
    assert sorted(engine.manifest.files) == ["draft.onnx", "target.onnx"]
    assert engine.manifest.files["draft.onnx"].role == "draft"
    assert engine.manifest.stages["target"].facts == {"nodes": 3}
    assert left_over(out) == []


def test_unchanged_stages_do_not_run_again(out: Path) -> None:
    count = Counter()
    first = toy_build(out, produce=count)
    assert count.ran == ["target", "draft"]
    again = toy_build(out, produce=count)
    assert count.ran == ["target", "draft"]
    assert again.manifest == first.manifest
    changed = toy_build(out, produce=count, draft="bb")
    assert count.ran == ["target", "draft", "draft"]
    assert changed.manifest.fingerprint != first.manifest.fingerprint
    assert open_engine(out / "toy").manifest.fingerprint == changed.manifest.fingerprint
    open_engine(first.folder).verified()
    back = toy_build(out, produce=count)
    assert len(count.ran) == 3
    assert open_engine(out / "toy").manifest == back.manifest == first.manifest


CHANGES: list[dict[str, Any]] = [
    {"files": {"target.weights": "bb"}},
    {"files": {}},
    {"spec": {"model": "n"}},
    {"tools": {"torch": "2.14.0"}},
    {"code": "c2"},
    {"after": {"target": "k"}},
    {"name": "draft"},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_any_changed_input_changes_the_key(change: dict[str, Any]) -> None:
    base: dict[str, Any] = dict(toy_stage("target").inputs) | {"name": "target"}
    assert Stage(**base).key == toy_stage("target").key
    assert Stage(**(base | change)).key != Stage(**base).key


def test_the_order_of_inputs_does_not_matter() -> None:
    assert Stage("s", tools={"a": "1", "b": "2"}).key == Stage("s", tools={"b": "2", "a": "1"}).key


def test_precision_is_another_engine_beside(out: Path) -> None:
    first = toy_build(out)
    second = toy_build(out, view={**VIEW, "engine": {"precision": "int8"}})
    assert first.folder != second.folder
    assert first.folder.is_dir()


def test_run_time_values_follow_without_a_build(out: Path) -> None:
    count = Counter()
    first = toy_build(out, produce=count).with_receipt({"max_error": 1e-6})
    second = toy_build(out, produce=count, spec={**SPEC, "sampling": {"top_k": 9}})
    assert count.ran == ["target", "draft"]
    assert second.folder == first.folder
    assert open_engine(out / "toy").manifest.spec["sampling"] == {"top_k": 9}
    assert open_engine(out / "toy").manifest.parity == {"max_error": 1e-6}


@pytest.mark.parametrize("harm", ["change", "cut", "delete", "extra", "no record", "bad record"])
def test_a_broken_stage_runs_again(out: Path, harm: str) -> None:
    count = Counter()
    engine = toy_build(out, produce=count)
    folder = out / ".cache" / toy_stage("draft").id
    file = folder / "draft.onnx"
    match harm:
        case "change":
            data = bytearray(file.read_bytes())
            data[-1] ^= 1
            file.write_bytes(data)  # the engine's file too: it is the same one
        case "cut":
            file.write_bytes(b"")
        case "delete":
            file.unlink()
        case "extra":
            (folder / "other").touch()
        case "no record":
            (folder / "stage.json").unlink()
        case "bad record":
            (folder / "stage.json").write_text("{}")
    assert Store(out).cached(toy_stage("draft")) is None
    again = toy_build(out, produce=count)
    assert count.ran == ["target", "draft", "draft"]
    assert again.manifest.fingerprint == engine.manifest.fingerprint
    again.verified()
    assert left_over(out) == []


def test_a_broken_engine_is_put_together_again(out: Path) -> None:
    count = Counter()
    engine = toy_build(out, produce=count)
    (engine.folder / "draft.onnx").unlink()
    with pytest.raises(CoolsdError):
        open_engine(out / "toy").verified()
    toy_build(out, produce=count).verified()
    assert count.ran == ["target", "draft"]


def test_works_without_hard_links(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "another device")

    monkeypatch.setattr(os, "link", no_links)
    toy_build(out).verified()


def test_a_failing_stage_leaves_nothing(out: Path) -> None:
    def failing(stage: Stage) -> Callable[[Path], Mapping[str, Any]]:
        def produce(folder: Path) -> Mapping[str, Any]:
            toy_write(stage)(folder)
            if stage.name == "draft":
                raise RuntimeError("the exporter fell over")
            return {}

        return produce

    with pytest.raises(RuntimeError, match="fell over"):
        toy_build(out, produce=failing)
    assert not (out / "toy").exists()
    assert left_over(out) == []
    assert Store(out).cached(toy_stage("draft")) is None
    assert Store(out).cached(toy_stage("target")) is not None


def full_device(folder: Path) -> None:
    with open("/dev/full", "wb", buffering=0) as f:  # the kernel's own full disk
        f.write(b"x")


def native_full(folder: Path) -> None:
    raise RuntimeError("[ErrorCode:Fail] write failed: No space left on device")


@pytest.mark.parametrize("fail", [full_device, native_full])
def test_a_full_disk_is_one_line(out: Path, fail: Callable[[Path], None]) -> None:
    with pytest.raises(CoolsdError) as caught:
        Store(out).stage(toy_stage("target"), fail, need_bytes=2_500_000)
    text = str(caught.value)
    assert "no space left on the disk of" in text
    assert "expected about 2.5 MB free, found" in text
    assert "\n" not in text
    assert caught.value.exit_code == 1
    assert left_over(out) == []


def test_a_disk_too_small_is_said_before_the_work(out: Path) -> None:
    def never(folder: Path) -> None:
        raise AssertionError("ran")

    with pytest.raises(CoolsdError, match="no space left"):
        Store(out).stage(toy_stage("target"), never, need_bytes=1 << 60)


def test_a_disk_full_while_assembling(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(cache_module, "_link", full)
    with pytest.raises(CoolsdError, match="no space left"):
        toy_build(out)
    assert not (out / "toy").exists()
    assert left_over(out) == []


def test_an_output_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "engines").touch()
    with pytest.raises(CoolsdError, match="expected a folder that can be written"):
        toy_build(tmp_path / "engines")


def test_errors_of_the_work_itself_are_not_blamed_on_the_folder(out: Path, tmp_path: Path) -> None:
    def produce(folder: Path) -> None:
        (tmp_path / "weights").mkdir()
        (tmp_path / "weights").mkdir()

    with pytest.raises(FileExistsError):
        Store(out).stage(toy_stage("target"), produce)


def test_a_stage_writes_plain_files_only(out: Path) -> None:
    def link(folder: Path) -> None:
        (folder / "a").symlink_to("/etc/hostname")

    with pytest.raises(CoolsdError, match="plain files only"):
        Store(out).stage(toy_stage("target"), link)


def test_one_file_name_twice(out: Path) -> None:
    def same(folder: Path) -> None:
        (folder / "model.onnx").touch()

    store = Store(out)
    stages = [store.stage(toy_stage(name), same) for name in ("target", "draft")]
    with pytest.raises(CoolsdError, match=r"each file name once, found model.onnx of target and of draft"):
        store.assemble(stages, EngineRecord("toy", SPEC, VIEW, {}, {}))


def test_sweep_takes_what_nobody_works_at(out: Path) -> None:
    stale = out / ".tmp" / "target-0123456789abcdef.0000"
    stale.mkdir(parents=True)
    (stale / "half").touch()
    with atomic_module.Workshop(out).lock("draft-0123456789abcdef"):
        busy = out / ".tmp" / "draft-0123456789abcdef.0000"
        busy.mkdir()
        Store(out).sweep()
        assert busy.exists()
    assert not stale.exists()
    Store(out).sweep()
    assert not busy.exists()
    shutil.rmtree(out)
    Store(out).sweep()


def test_stage_names_are_words() -> None:
    for name in ("../x", "a.b", "", "A"):
        with pytest.raises(ValueError, match="stage name"):
            Stage(name)
