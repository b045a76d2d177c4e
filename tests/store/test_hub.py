"""An engine in a Hugging Face cache, where every file is a link into the repository's blobs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.store import EngineFolder, open_engine
from coolsd_rt.store.manifest import MANIFEST
from tests.hub import as_snapshot
from tests.store.conftest import toy_build


@pytest.fixture
def snapshot(out: Path, tmp_path: Path) -> Path:
    toy_build(out)
    return as_snapshot(out / "toy", tmp_path / "models--org--toy")


def blob_of(link: Path) -> Path:
    return link.parent / os.readlink(link)


def test_an_engine_in_a_snapshot_is_verified(snapshot: Path) -> None:
    for place in (snapshot, open_engine(snapshot).folder):
        files = open_engine(place).verified()
        assert files.read("target.onnx").startswith(b"graph of target")
        assert not files.path("target.onnx").is_symlink()
        assert files.path("target.onnx").samefile(files.engine.folder / "target.onnx")


def test_what_is_read_is_what_was_hashed(snapshot: Path, tmp_path: Path) -> None:
    """A link that is turned round after the check leads nowhere: the file that was hashed is opened."""
    files = open_engine(snapshot).verified()
    good, link = files.read("target.onnx"), files.engine.folder / "target.onnx"
    (tmp_path / "evil").write_bytes(b"evil")
    link.unlink()
    link.symlink_to(tmp_path / "evil")
    assert files.read("target.onnx") == good == files.path("target.onnx").read_bytes()


@pytest.mark.parametrize("harm", ["content", "size", "another blob", "outside", "absolute"])
def test_a_link_to_something_else_is_refused(snapshot: Path, tmp_path: Path, harm: str) -> None:
    engine = open_engine(snapshot)
    link = engine.folder / "target.onnx"
    data = link.read_bytes()
    message = "target.onnx was changed"
    if harm in ("content", "size"):
        blob_of(link).write_bytes(bytes([data[0] ^ 1]) + data[1:] if harm == "content" else data + b"x")
        message += "" if harm == "size" else "|content with the SHA-256 in the file's name"
    else:
        target = {
            "another blob": os.readlink(engine.folder / "draft.onnx"),
            "outside": os.path.relpath(tmp_path / "copy", engine.folder),
            "absolute": str(blob_of(link).resolve()),
        }[harm]
        (tmp_path / "copy").write_bytes(data)  # the right bytes in a wrong place
        link.unlink()
        link.symlink_to(target)
        message = (
            message if harm == "another blob" else "found a link to another location; copy the files themselves: cp -rL"
        )
    with pytest.raises(CoolsdError, match=message) as caught:
        engine.verified()
    assert caught.value.exit_code == 1


def test_a_receipt_can_be_written_into_a_snapshot(snapshot: Path) -> None:
    """The manifest becomes a file of its own; the blob stays what it was."""
    engine = open_engine(snapshot)
    blob = blob_of(engine.folder / MANIFEST)
    before = blob.read_bytes()
    engine.with_receipt({"passed": True})
    assert open_engine(snapshot).manifest.parity == {"passed": True}
    assert blob.read_bytes() == before
    open_engine(snapshot).verified()


CLUTTER = (".DS_Store", "Thumbs.db", "desktop.ini", "._target.onnx", ".gitattributes")


@pytest.mark.parametrize("name", CLUTTER)
def test_what_a_file_manager_left_behind_refuses_no_engine(out: Path, name: str) -> None:
    engine = toy_build(out)
    for folder in (engine.folder, *(out / ".cache").iterdir()):
        (folder / name).touch()
    open_engine(out / "toy").verified()
    before = (engine.folder / MANIFEST).stat().st_ino
    assert toy_build(out).folder == engine.folder
    assert (engine.folder / MANIFEST).stat().st_ino == before, "kept, not built again"


@pytest.mark.parametrize("name", ["current", MANIFEST, "target.onnx"])
def test_a_pipe_in_an_engine_is_not_waited_for(out: Path, name: str) -> None:
    engine = toy_build(out)
    path = (out / "toy" if name == "current" else engine.folder) / name
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CoolsdError, match="found"):
        open_engine(out / "toy").verified()


def test_the_hint_names_a_spec_only_where_it_is(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for fix in ("coolsd-rt build SPEC.yaml", "coolsd-rt build pipelines/emoji.yaml"):
        with pytest.raises(UserError, match=f"build one: {fix}$"):
            open_engine("nothing/here")
        (tmp_path / "pipelines").mkdir(exist_ok=True)
        (tmp_path / "pipelines" / "emoji.yaml").touch()


def test_a_folder_that_is_gone(out: Path) -> None:
    engine = toy_build(out)
    with pytest.raises(CoolsdError, match="expected a folder to read"):
        EngineFolder(out / "gone", engine.manifest).verified()
