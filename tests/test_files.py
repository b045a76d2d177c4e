"""What opens the files that users and engines name: plain files, to an upper end; and which links are followed."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.files import bad_name, check_target, hub_blob, inside, is_clutter, open_plain, read_bytes, read_lines
from coolsd_rt.store import sha256_file
from coolsd_rt.store.atomic import check_folder, write_atomic
from tests.at_once import at_once


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    with at_once("opening a file", 20):
        yield


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _link_to_pipe(path: Path) -> None:
    _pipe(path.with_name("p"))
    path.symlink_to("p")


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the path of a socket has a hundred bytes
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


ODD: dict[str, tuple[Callable[[Path], None], str]] = {
    "pipe": (_pipe, "a named pipe"),
    "socket": (_socket, "a socket"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a device"),
    "link to a pipe": (_link_to_pipe, "a named pipe"),
    "folder": (lambda path: path.mkdir(), "a folder"),
    "circle": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    "nothing": (lambda path: None, "no such file"),
}


@pytest.mark.parametrize("kind", ODD)
def test_only_plain_files_are_opened(tmp_path: Path, kind: str) -> None:
    make, found = ODD[kind]
    make(tmp_path / "x")
    for read in (
        lambda path: open_plain(path, "a spec file"),
        lambda path: read_bytes(path, "a spec file", 10),
        sha256_file,
        lambda path: read_lines(path),
    ):
        with pytest.raises(UserError, match=f"found {found}"):
            read(tmp_path / "x")


def test_what_was_looked_at_and_what_is_opened_may_be_two_things(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe that takes a file's place in between is not waited for either."""
    (tmp_path / "x").write_bytes(b"x")
    _pipe(tmp_path / "pipe")
    really = os.open

    def swapped(path: Path, flags: int) -> int:
        os.replace(tmp_path / "pipe", tmp_path / "x")
        return really(path, flags)

    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises(UserError, match="found a named pipe"):
        open_plain(tmp_path / "x", "a file")


def test_a_file_deleted_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coolsd_rt.files.why_unusable", lambda path: "")
    with pytest.raises(UserError, match="found no such file"):
        open_plain(tmp_path / "x", "a file")


def test_a_folder_without_permission(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o000)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        for read in (lambda path: open_plain(path, "a file"), sha256_file):
            with pytest.raises(UserError, match="found Permission denied"):
                read(tmp_path / "closed" / "x")
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("", "empty"), ("a\0b", "NUL"), ("\udc80", "UTF-8"), ("x" * 256, "too long"),
        ("a/" * 2100, "too long"), ("ä" * 128, "too long"), ("ä" * 127, ""), ("a b", ""), ("-", ""),
    ],
)  # fmt: skip
def test_a_name_that_can_be_none(name: str, found: str) -> None:
    assert found in bad_name(name)
    assert bool(found) == bool(bad_name(name))
    if found and name:
        with pytest.raises(UserError, match=found):
            open_plain(Path(name), "a file")


def test_a_read_ends(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x" * 11)
    assert read_bytes(path, "a file", 11) == b"x" * 11
    with pytest.raises(CoolsdError, match="expected a file of at most 10 bytes, found more than 10 bytes"):
        read_bytes(path, "a file", 10)
    os.truncate(path, 1 << 40)  # a hole: no room is taken
    with pytest.raises(UserError, match="more than 10 bytes"):
        read_bytes(path, "a file", 10)


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
def test_nothing_but_a_plain_file_is_written_over(tmp_path: Path, kind: str) -> None:
    ODD[kind][0](tmp_path / "x")
    with pytest.raises(UserError, match=f"found {ODD[kind][1]}"):
        check_target(tmp_path / "x")
    with pytest.raises(UserError):
        write_atomic(tmp_path / "x", b"new")
    assert not (tmp_path / "x").is_file()


def test_standard_output_is_no_place_for_a_file(tmp_path: Path) -> None:
    """/dev/stdout is a link, to a plain file when the shell sends standard output to one."""
    with pytest.raises(UserError, match="found a device"):
        check_target(Path("/dev/null"))
    with open(tmp_path / "x", "wb") as file, pytest.raises(UserError, match="found a device"):
        check_target(Path(f"/proc/self/fd/{file.fileno()}"))


@pytest.mark.parametrize("kind", ["pipe", "device", "circle"])
def test_a_folder_to_write_into(tmp_path: Path, kind: str) -> None:
    ODD[kind][0](tmp_path / "x")
    for path in (tmp_path / "x", tmp_path / "x" / "y"):
        with pytest.raises(UserError, match="expected a folder, or a path for a new folder, found the "):
            check_folder(path)


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """The folder of a revision in a hub's cache: NAME leads to the blob of "weights"."""
    repository = tmp_path / "models--org--name"
    folder = repository / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / hashlib.sha256(b"weights").hexdigest()).write_bytes(b"weights")
    return folder


def blob(snapshot: Path) -> Path:
    return next((snapshot.parents[1] / "blobs").iterdir())


def test_a_link_of_the_hub_is_followed_to_its_blob(snapshot: Path) -> None:
    (snapshot / "sub").mkdir()
    (snapshot / "w").symlink_to(f"../../blobs/{blob(snapshot).name}")
    (snapshot / "sub" / "w").symlink_to(f"../../../blobs/{blob(snapshot).name}")
    (snapshot.parents[2] / "short").symlink_to(snapshot)  # the user's own way to the folder
    for link in (snapshot / "w", snapshot / "sub" / "w", snapshot.parents[2] / "short" / "w"):
        assert hub_blob(link) == blob(snapshot)
    assert inside(snapshot, "w") == inside(snapshot, "sub/w") == blob(snapshot)
    assert sha256_file(blob(snapshot)) == blob(snapshot).name


def test_a_blob_is_what_its_name_says(snapshot: Path) -> None:
    blob(snapshot).write_bytes(b"others")
    with pytest.raises(UserError, match="expected content with the SHA-256 in the file's name"):
        sha256_file(blob(snapshot))
    small = blob(snapshot).with_name("f" * 40)  # of git, of a small file
    small.write_bytes(b"{}")
    assert sha256_file(small) == hashlib.sha256(b"{}").hexdigest()
    elsewhere = snapshot.parents[2] / ("f" * 64)
    elsewhere.write_bytes(b"{}")
    assert sha256_file(elsewhere) == hashlib.sha256(b"{}").hexdigest()


def _absolute(snapshot: Path) -> None:
    (snapshot / "w").symlink_to(blob(snapshot))


def _other_repository(snapshot: Path) -> None:
    other = snapshot.parents[2] / "models--org--other" / "blobs"
    other.mkdir(parents=True)
    (other / "x").touch()
    (snapshot / "w").symlink_to("../../../models--org--other/blobs/x")


def _other_snapshot(snapshot: Path) -> None:
    (snapshot.parent / "def").mkdir()
    (snapshot.parent / "def" / "w").write_bytes(b"x")
    (snapshot / "w").symlink_to("../def/w")


def _two_steps(snapshot: Path) -> None:
    (snapshot.parents[1] / "blobs" / "x").symlink_to("../../outside")
    (snapshot.parents[2] / "outside").write_bytes(b"x")
    (snapshot / "w").symlink_to("../../blobs/x")


def _below_a_blob(snapshot: Path) -> None:
    (snapshot.parents[1] / "blobs" / "sub").mkdir()
    (snapshot.parents[1] / "blobs" / "sub" / "x").touch()
    (snapshot / "w").symlink_to("../../blobs/sub/x")


def _blobs_elsewhere(snapshot: Path) -> None:
    blobs = snapshot.parents[1] / "blobs"
    blobs.rename(snapshot.parents[2] / "moved")
    blobs.symlink_to("../moved")
    (snapshot / "w").symlink_to(f"../../blobs/{next(blobs.iterdir()).name}")


def _folder_elsewhere(snapshot: Path) -> None:
    """The folder of the file is a link, to a snapshot of another repository."""
    other = snapshot.parents[2] / "other"
    (other / "blobs").mkdir(parents=True)
    (other / "blobs" / "x").touch()
    (other / "snapshots" / "abc").mkdir(parents=True)
    (other / "snapshots" / "abc" / "y").symlink_to("../../blobs/x")
    (snapshot / "w").symlink_to(other / "snapshots" / "abc")


def _pipe_as_blob(snapshot: Path) -> None:
    _pipe(snapshot.parents[1] / "blobs" / "x")
    (snapshot / "w").symlink_to("../../blobs/x")


def _no_snapshot(snapshot: Path) -> None:
    snapshot.parent.rename(snapshot.parents[1] / "shots")
    (snapshot.parents[1] / "shots" / "abc" / "w").symlink_to(f"../../blobs/{blob(snapshot).name}")


REFUSED: dict[str, Callable[[Path], None]] = {
    "absolute": _absolute,
    "another repository": _other_repository,
    "another snapshot": _other_snapshot,
    "a blob that is a link": _two_steps,
    "below the blobs": _below_a_blob,
    "blobs elsewhere": _blobs_elsewhere,
    "a folder elsewhere": _folder_elsewhere,
    "a pipe": _pipe_as_blob,
    "no snapshot": _no_snapshot,
    "a circle": lambda snapshot: (snapshot / "w").symlink_to("w"),
    "nothing": lambda snapshot: (snapshot / "w").symlink_to("../../blobs/nothing"),
    "a system's file": lambda snapshot: (snapshot / "w").symlink_to("../../../../../../../../etc/passwd"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_no_other_link_is_followed(snapshot: Path, kind: str) -> None:
    REFUSED[kind](snapshot)
    root = snapshot.parents[1] / "shots" / "abc" if kind == "no snapshot" else snapshot
    name = "w/y" if kind == "a folder elsewhere" else "w"
    assert os.path.islink(root / name)
    assert inside(root, name) is None
    if kind != "a folder elsewhere":  # the folder of a file of an engine is the engine's
        assert hub_blob(root / name) is None


def test_links_that_stay_in_a_folder_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x").touch()
    (tmp_path / "w").symlink_to("sub/x")
    assert inside(tmp_path, "w") == tmp_path / "sub" / "x"
    assert inside(tmp_path, "nothing") == tmp_path / "nothing"
    assert inside(tmp_path, "../x") is None


def test_what_file_managers_leave_behind() -> None:
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._target.onnx", ".gitattributes"):
        assert is_clutter(name)
    for name in ("x.so", "target.onnx", "DS_Store", "_x", ".x", "thumbs.onnx"):
        assert not is_clutter(name)
