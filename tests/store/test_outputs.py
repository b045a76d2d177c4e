"""Single files of results: a name that is taken stays as it is, whoever took it and whenever."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.store.atomic import NameTaken, write_atomic
from coolsd_rt.store.outputs import check_output, write_output


def without_links(*_: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.fixture(params=["links", "no links"])
def names(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system with hard links, and one without."""
    if request.param == "no links":
        monkeypatch.setattr(os, "link", without_links)


@pytest.mark.usefixtures("names")
def test_a_new_file_is_whole_and_a_taken_name_is_left(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"first", replace=False)
    with pytest.raises(NameTaken):
        write_atomic(tmp_path / "a", b"second", replace=False)
    assert (tmp_path / "a").read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.usefixtures("names")
def test_of_many_writers_of_one_name_one_wins_and_the_others_know(tmp_path: Path) -> None:
    """Each writer's data is its own, so that the winner's file shows a mixture."""
    lost: list[int] = []
    start = threading.Barrier(8)

    def write(k: int) -> None:
        start.wait()
        try:
            write_atomic(tmp_path / "a", bytes([k]) * 4096, replace=False)
        except NameTaken:
            lost.append(k)

    threads = [threading.Thread(target=write, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = set(range(8)) - set(lost)
    assert (tmp_path / "a").read_bytes() == bytes([winner]) * 4096
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.usefixtures("names")
def test_an_interruption_leaves_neither_a_file_nor_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a", b"data", replace=False)
    monkeypatch.undo()
    monkeypatch.setattr(os, "link", without_links)
    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a", b"data", replace=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_plain_file_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, found in (("pipe", "a named pipe"), ("folder", "a folder"), ("/dev/null", "a device")):
        with pytest.raises(UserError, match=f"expected a file, found {found}"):
            check_output(tmp_path / name, "--out", overwrite=overwrite)


def test_a_link_counts_as_a_file_even_if_it_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"--out .*link: expected no file of that name.*--overwrite"):
        check_output(tmp_path / "link", "--out")
    with pytest.raises(UserError):
        write_output(tmp_path / "link", b"data")
    assert not (tmp_path / "nowhere").exists()


def test_the_same_bytes_are_no_other_file(tmp_path: Path) -> None:
    assert write_output(tmp_path / "new" / "a", b"data")
    assert not write_output(tmp_path / "new" / "a", b"data")
    with pytest.raises(UserError):
        write_output(tmp_path / "new" / "a", b"more")
    assert write_output(tmp_path / "new" / "a", b"more", overwrite=True)
    assert (tmp_path / "new" / "a").read_bytes() == b"more"


def test_a_folder_that_cannot_be_written_is_known_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # tests may run as root
    for path in (tmp_path / "a", tmp_path / "new" / "a"):
        with pytest.raises(CoolsdError, match="expected a folder that can be written") as caught:
            check_output(path, "--out")
        assert caught.value.exit_code == 1
