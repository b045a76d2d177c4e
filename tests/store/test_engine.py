"""An engine is found by name, and no byte of it is handed out before its hash held."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.store import engine_fingerprint, hash_sources, open_engine, sha256_file, tool_versions
from coolsd_rt.store.manifest import MANIFEST, spec_path
from tests.store.conftest import toy_build


def test_files_come_from_a_verified_engine(out: Path) -> None:
    files = toy_build(out).verified()
    assert files.read("target.onnx").startswith(b"graph of target")
    assert sha256_file(files.path("target.onnx")) == files.manifest.files["target.onnx"].sha256
    with pytest.raises(CoolsdError, match=r"expected one of draft.onnx, target.onnx, found manifest.json"):
        files.path("manifest.json")


def _flip(folder: Path) -> None:
    file = folder / "draft.onnx"
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(data)


def _swap(folder: Path) -> None:
    (folder / "draft.onnx").write_bytes((folder / "target.onnx").read_bytes())


def _link(folder: Path) -> None:
    shutil.move(folder / "draft.onnx", folder.parent / "elsewhere")
    (folder / "draft.onnx").symlink_to("../elsewhere")


HARM = {
    "one bit": (_flip, r"draft.onnx was changed: expected SHA-256 [0-9a-f]{12}…, found [0-9a-f]{12}…; build it again"),
    "another of its files": (_swap, "draft.onnx was changed"),
    "cut": (lambda f: os.truncate(f / "draft.onnx", 3), "draft.onnx was changed"),
    "missing": (lambda f: (f / "draft.onnx").unlink(), "expected the file draft.onnx, found none; build it again"),
    "extra": (lambda f: (f / "x.so").touch(), "expected the manifest's files only, found the additional file x.so"),
    "extra folder": (lambda f: (f / "x").mkdir(), "found the additional file x"),
    "a link": (_link, "expected a plain file"),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_tampered_engine_is_refused(out: Path, harm: str) -> None:
    engine = toy_build(out)
    change, message = HARM[harm]
    change(engine.folder)
    found = open_engine(out / "toy")
    with pytest.raises(CoolsdError, match=message) as caught:
        found.verified()
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)


def test_a_change_after_the_check_is_seen_by_read(out: Path) -> None:
    files = toy_build(out).verified()
    _flip(files.engine.folder)
    with pytest.raises(CoolsdError, match=r"draft.onnx was changed"):
        files.read("draft.onnx")


def test_the_hint_names_the_spec_it_was_built_from(out: Path, tmp_path: Path) -> None:
    (tmp_path / "pipelines").mkdir()
    spec = tmp_path / "pipelines" / "toy.yaml"
    spec.touch()
    engine = toy_build(out, spec_file=spec)
    assert spec_path(engine.folder, engine.manifest) == spec
    assert engine.manifest.spec_file == "../pipelines/toy.yaml"
    _flip(engine.folder)
    with pytest.raises(CoolsdError, match=f"coolsd-rt build {re.escape(str(spec))}"):
        engine.verified()
    spec.unlink()
    assert spec_path(engine.folder, engine.manifest) is None


def edit(folder: Path, **changes: Any) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _files(name: str, **changes: Any) -> dict[str, Any]:
    return {"files": {name: {"sha256": "0" * 64, "size": 1, "role": "target", **changes}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema_version: expected 1, found 2"),
        ({"build_view": {"engine": {"precision": "int8"}}}, "fingerprint: expected"),
        ({"fingerprint": "0" * 16}, "fingerprint: expected"),
        ({"stages": {}}, "fingerprint: expected"),
        (_files("../x"), r'files.../x: expected a file name of .*, found "../x"'),
        (_files("x", sha256="short"), r'files.x.sha256: expected a SHA-256, 64 hex.*, found "short"'),
        (_files("x", size=-1), r"files.x.size: expected at least 0, found -1"),
        (_files("x", size=1.0), r"files.x.size: expected a whole number, found 1.0"),
        (_files("x", role="nobody"), r"files.x.role: expected one of draft, target, found nobody"),
        ({"surprise": 1}, "surprise: expected no such key, found 1"),
        ({"spec": {"engine": {"precision": "fp16"}}}, r"build_view.*: expected .*, as in its spec, found"),
        ({"created": "yesterday"}, 'created: expected a time in UTC such as .*, found "yesterday"'),
    ],
)
def test_an_edited_manifest_is_refused(out: Path, changes: dict[str, Any], message: str) -> None:
    edit(toy_build(out).folder, **changes)
    with pytest.raises(CoolsdError, match=message):
        open_engine(out / "toy")


def test_an_edited_stage_is_refused(out: Path) -> None:
    engine = toy_build(out)
    stages = json.loads((engine.folder / MANIFEST).read_text())["stages"]
    stages["draft"]["inputs"]["files"]["draft.weights"] = "bb"
    edit(engine.folder, stages=stages)
    with pytest.raises(CoolsdError, match=r"stages.draft: expected key"):
        open_engine(out / "toy")


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff", '{"a": NaN}'])
def test_a_manifest_that_is_not_one(out: Path, text: str) -> None:
    (toy_build(out).folder / MANIFEST).write_text(text)
    with pytest.raises(CoolsdError, match="expected a manifest of schema version 1"):
        open_engine(out / "toy")


@pytest.mark.parametrize("word", ["", "../../etc", "g" * 16, "0" * 17, "\xff" * 16])
def test_current_is_a_fingerprint(out: Path, word: str) -> None:
    toy_build(out)
    (out / "toy" / "current").write_text(word)
    with pytest.raises(CoolsdError, match="expected a fingerprint"):
        open_engine(out / "toy")


def test_current_points_at_nothing_or_at_another(out: Path) -> None:
    engine = toy_build(out)
    (out / "toy" / "current").write_text("0" * 16)
    with pytest.raises(CoolsdError, match="expected its current build 0000000000000000, found none"):
        open_engine(out / "toy")
    engine.folder.rename(out / "toy" / ("0" * 16))
    with pytest.raises(CoolsdError, match="expected its own manifest"):
        open_engine(out / "toy")


def test_no_engine(out: Path, tmp_path: Path) -> None:
    toy_build(out)
    with pytest.raises(UserError, match=r"found nothing; there is: .*engines/toy"):
        open_engine(out / "tay")
    with pytest.raises(UserError, match=r"found a folder without an engine; there is: .*engines/toy"):
        open_engine(out)
    spec = tmp_path / "toy.yaml"
    spec.touch()
    with pytest.raises(UserError, match=r"found a file; this file is a spec; build it: coolsd-rt build .*toy.yaml"):
        open_engine(spec)
    with pytest.raises(UserError, match="found nothing; build one"):
        open_engine(tmp_path / "none" / "toy")


def test_receipt(out: Path) -> None:
    engine = toy_build(out)
    after = engine.with_receipt({"fp32": {"max_error": 1e-6}})
    assert open_engine(out / "toy").manifest == after.manifest
    assert after.manifest.parity == {"fp32": {"max_error": 1e-6}}
    assert after.manifest.fingerprint == engine.manifest.fingerprint
    after.verified()


def test_an_engine_can_be_copied_elsewhere_and_read_only(out: Path, tmp_path: Path) -> None:
    engine = toy_build(out)
    copy = tmp_path / "edge"
    shutil.copytree(engine.folder, copy)
    copy.chmod(0o555)
    try:
        open_engine(copy).verified().read("draft.onnx")
    finally:
        copy.chmod(0o755)


def test_fingerprint_depends_on_stages_and_view() -> None:
    base = engine_fingerprint({"a": "1"}, {"x": 1})
    assert re.fullmatch("[0-9a-f]{16}", base)
    assert base == engine_fingerprint({"a": "1"}, {"x": 1})
    assert base != engine_fingerprint({"a": "2"}, {"x": 1})
    assert base != engine_fingerprint({"a": "1"}, {"x": 2})


def test_hash_of_sources(tmp_path: Path) -> None:
    for root in ("a", "b"):
        (tmp_path / root).mkdir()
        (tmp_path / root / "m.py").write_text("x = 1")
        (tmp_path / root / "notes.txt").write_text(root)
    assert hash_sources([tmp_path / "a"]) == hash_sources([tmp_path / "b"]) == hash_sources([tmp_path / "a/m.py"])
    (tmp_path / "b/m.py").write_text("x = 2")
    assert hash_sources([tmp_path / "a"]) != hash_sources([tmp_path / "b"])


def test_tool_versions() -> None:
    found = tool_versions(["numpy", "no-such-distribution"])
    assert list(found) == ["numpy"]
