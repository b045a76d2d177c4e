"""Where a checkpoint lies: files that are none, the hub's cache and its links, and a hub that does not answer."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from coolsd_rt.checkpoints.convert import convert
from coolsd_rt.checkpoints.format import ConvertOptions
from coolsd_rt.checkpoints.hub import locate
from coolsd_rt.cli.main import run
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.pretrained import hub
from tests.models.test_reference_llamagen import HEADS, checkpoint

OPTIONS = ConvertOptions(size=256, heads=HEADS)
STATE = checkpoint("c2i")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
AT = f"org/name@{COMMIT}"

NONE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pipe": (os.mkfifo, "a named pipe"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "a device"),
    "a folder": (Path.mkdir, "a folder"),
    "a circle of links": (lambda path: path.symlink_to(path.name), "."),
}


def shards(folder: Path) -> Path:
    folder.mkdir(parents=True)
    names = sorted(STATE)
    for at, part in enumerate((names[:7], names[7:])):
        save_file({name: STATE[name] for name in part}, folder / f"model-{at}.safetensors")
    table = {name: f"model-{at}.safetensors" for at, part in enumerate((names[:7], names[7:])) for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": HEADS}))
    return folder


@pytest.mark.parametrize("kind", NONE)
@pytest.mark.parametrize("name", ["model-1.safetensors", "model.safetensors.index.json", "config.json"])
def test_a_part_of_a_folder_that_is_no_file(kind: str, name: str, tmp_path: Path) -> None:
    folder = shards(tmp_path / "in")
    (folder / name).unlink()
    NONE[kind][0](folder / name)
    with pytest.raises(UserError, match=NONE[kind][1]) as caught:
        convert(folder, tmp_path / "x", options=OPTIONS)
    assert name in str(caught.value)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("kind", [kind for kind in NONE if kind != "a folder"])
@pytest.mark.parametrize("name", ["c.pt", "c.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("where", ["itself", "in a folder", "of a mirror"])
def test_a_checkpoint_that_is_no_file(
    kind: str, name: str, where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "org/name").mkdir(parents=True)
    NONE[kind][0](tmp_path / "org/name" / name)
    source = {"itself": f"{tmp_path}/org/name/{name}", "in a folder": f"{tmp_path}/org/name", "of a mirror": AT}[where]
    source += f":{name}" if where == "of a mirror" else ""
    assert run(["convert", source, "--to", str(tmp_path / "x"), "--mirror", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert NONE[kind][1] in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder"])
def test_a_place_to_write_that_is_no_file(kind: str, tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "c.pt")
    NONE[kind][0](tmp_path / "x")
    with pytest.raises(UserError, match=f"expected a file to write, found {NONE[kind][1]}"):
        convert(tmp_path / "c.pt", tmp_path / "x", options=OPTIONS)


def snapshot(root: Path) -> Path:
    """A repository in the hub's cache: REPO/snapshots/COMMIT/NAME is a link to REPO/blobs/DIGEST."""
    repository = root / "models--org--name"
    folder, blobs = shards(repository / "snapshots" / COMMIT), repository / "blobs"
    blobs.mkdir()
    for file in list(folder.iterdir()):
        blob = blobs / hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(blob)
        file.symlink_to(Path("../../blobs") / blob.name)
    return folder


def test_a_snapshot_is_read_by_its_links(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its path, and where a copy of the hub's cache is the mirror."""
    plain = convert(shards(tmp_path / "plain"), tmp_path / "plain.safetensors", options=OPTIONS).path.read_bytes()
    folder = snapshot(tmp_path / "hub")
    assert convert(folder, tmp_path / "x", options=OPTIONS).path.read_bytes() == plain
    assert locate(AT, tmp_path / "hub") == folder
    arguments = ["--to", str(tmp_path / "y"), "--mirror", str(tmp_path / "hub"), "--size", "256"]
    assert run(["convert", AT, *arguments]) == 0
    assert (tmp_path / "y").read_bytes() == plain
    assert locate(f"{AT}:config.json", tmp_path / "hub") == folder / "config.json"
    with pytest.raises(UserError, match="none of them"):  # a commit counts there
        locate(f"org/name@{COMMIT[::-1]}", tmp_path / "hub")


@pytest.mark.parametrize("name", ["model-1.safetensors", "model.safetensors.index.json", "config.json"])
def test_a_link_out_of_its_repository_is_refused(name: str, tmp_path: Path) -> None:
    folder = snapshot(tmp_path / "hub")
    link = folder / name
    outside = tmp_path / name
    outside.write_bytes(link.read_bytes())
    link.unlink()
    for target in (outside, os.path.relpath(outside, folder)):
        link.symlink_to(target)
        with pytest.raises(
            UserError, match=r"expected a file, or a link to a blob of its repository.*cp -rL"
        ) as caught:
            convert(folder, tmp_path / "x", options=OPTIONS)
        assert name in str(caught.value)
        link.unlink()
    link.write_bytes(outside.read_bytes())  # a copy is a way out
    assert convert(folder, tmp_path / "x", options=OPTIONS)


def test_a_damaged_blob_is_seen(tmp_path: Path) -> None:
    """safetensors has no checksums, but a blob is named by its digest."""
    folder = snapshot(tmp_path / "hub")
    blob = (folder / "model-1.safetensors").resolve()
    data = bytearray(blob.read_bytes())
    data[-5] ^= 1
    blob.write_bytes(data)
    with pytest.raises(UserError, match="expected content with the SHA-256 in the file's name"):
        convert(folder, tmp_path / "x", options=OPTIONS)


def test_links_of_ones_own_are_followed(tmp_path: Path) -> None:
    folder = shards(tmp_path / "disk")
    (tmp_path / "here").mkdir()
    for file in folder.iterdir():
        (tmp_path / "here" / file.name).symlink_to(file)
    assert convert(tmp_path / "here", tmp_path / "x", options=OPTIONS)


class Session:
    """The hub's HTTP session."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.asked = error, 0

    def head(self, url: str, timeout: float) -> None:
        assert 0 < timeout <= 10
        self.asked += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """huggingface_hub with an empty cache, which says what it was asked for."""
    module = pytest.importorskip("huggingface_hub")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    asked: list[tuple[Any, ...]] = []

    def missing(repo: str, file: str = "", *, revision: str, local_files_only: bool = False, **more: Any) -> str:
        asked.append((repo, file, local_files_only))
        if local_files_only:
            raise module.errors.LocalEntryNotFoundError("not there")
        raise AssertionError("the hub is asked, and tries for half a minute")

    monkeypatch.setattr(module, "hf_hub_download", missing)
    monkeypatch.setattr(module, "snapshot_download", missing)
    module.asked = asked
    return module


@pytest.mark.parametrize("inside", ["", ":c2i.pt"])
def test_no_network_is_found_out_by_one_request(
    library: Any, inside: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what it tries before it tries, and names the way out."""
    session, said = Session(OSError("Name or service not known")), []
    monkeypatch.setattr(library, "get_session", lambda: session)
    with pytest.raises(CoolsdError) as caught:
        locate(AT + inside, say=lambda line: said.append((line, session.asked)))
    assert said == [(f"asking {library.constants.ENDPOINT} for {AT}{inside}", 0)]
    assert session.asked == 1
    assert all(local for _, _, local in library.asked)
    for word in ("Name or service not known", "--mirror DIR", "DIR/org/name", "\n"):
        assert (word in str(caught.value)) == (word != "\n")
    assert run(["convert", AT + inside, "--to", str(tmp_path / "x")]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"asking {library.constants.ENDPOINT} for ")
    assert printed.out == ""


def test_a_name_server_that_does_not_answer_is_not_waited_for(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    forever = threading.Event()

    class Waiting(Session):
        def head(self, url: str, timeout: float) -> None:
            forever.wait()

    monkeypatch.setattr(hub, "CONNECT_SECONDS", -0.99)  # one second is added for the request's own limit
    monkeypatch.setattr(library, "get_session", Waiting)
    assert "no answer from" in hub.no_answer()
    forever.set()


def test_offline_by_choice_asks_nobody(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session()
    said: list[str] = []
    monkeypatch.setattr(library, "get_session", lambda: session)
    monkeypatch.setattr(library.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CoolsdError, match=r"HF_HUB_OFFLINE is set; .*--mirror DIR"):
        locate(f"{AT}:c2i.pt", say=said.append)
    assert session.asked == 0
    assert said == []


@pytest.mark.parametrize("inside", ["", ":model.safetensors"])
def test_what_is_in_the_cache_needs_no_network(
    library: Any, inside: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").touch()
    session = Session(OSError("no network"))
    monkeypatch.setattr(library, "get_session", lambda: session)

    def cached(repo: str, *file: str, revision: str, local_files_only: bool = False, **more: Any) -> str:
        assert local_files_only
        return str(tmp_path / "".join(file))

    monkeypatch.setattr(library, "hf_hub_download", cached)
    monkeypatch.setattr(library, "snapshot_download", cached)
    assert locate(AT + inside) == tmp_path / inside[1:]
    assert session.asked == (0 if inside else 1)
