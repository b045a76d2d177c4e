"""Atomic writes of files and folders, and one-line errors for a full disk.

Knows the file system. Does not know what is written.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.files import check_target, kind_of

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.EXDEV)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
_NEARLY_NONE = 1 << 20
_ABANDONED = 3600.0  # seconds


class NameTaken(UserError):
    """A file exists that must not be replaced."""

    def __init__(self, path: Path) -> None:
        fix = "give another name, or --overwrite to replace it"
        super().__init__(str(path), expected="no file of that name", found="one", fix=fix)


def human(size: float) -> str:
    """Format a number of bytes for people: "1.5 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise ValueError(size)


def existing(path: Path) -> Path:
    """Return `path`, or the nearest parent folder that exists."""
    while not os.path.exists(path) and path != path.parent:  # False rather than an error without permission
        path = path.parent
    return path


def free_bytes(path: Path) -> int:
    """Return the free space, in bytes, of the disk that holds `path` or would hold it."""
    return shutil.disk_usage(existing(path.absolute())).free


def no_space(where: Path, need: int) -> CoolsdError:
    """Return the error for a full disk. need: required bytes; 0 if unknown."""
    expected = f"about {human(need)} free" if need else "more free"
    return CoolsdError(
        f"no space left on the disk of {where}",
        expected=expected,
        found=human(free_bytes(where)),
        fix="free some space, or choose another disk",
    )


def _concerns(name: object, where: Path) -> bool:
    """Whether an error's file is `where`, inside it, or a folder above it."""
    if not isinstance(name, str | Path):
        return False
    path, root = Path(name).absolute(), where.absolute()
    return path.is_relative_to(root) or root.is_relative_to(path)


@contextmanager
def disk_errors(where: Path, need: int = 0) -> Iterator[None]:
    """Convert errors of a full disk or an unwritable folder to a CoolsdError. need: required bytes; 0 if unknown."""
    try:
        if need and free_bytes(where) < need:
            raise no_space(where, need)
        yield
    except OSError as e:
        if e.errno in _FULL:
            raise no_space(where, need) from e
        if e.errno in _REFUSED and _concerns(e.filename, where):
            expected, found = "a folder that can be written", f"{e.strerror} ({e.filename})"
            raise CoolsdError(str(where), expected=expected, found=found, fix="choose another place") from e
        raise
    except (CoolsdError, KeyboardInterrupt):
        raise
    except Exception as e:
        # Native libraries report a full disk in various messages, so check the free space.
        if "no space left" in str(e).lower() or free_bytes(where) < _NEARLY_NONE:
            raise no_space(where, need) from e
        raise


def check_folder(path: Path) -> None:
    """Raise UserError if `path`, or anything above it, exists and is not a folder."""
    there = existing(path.absolute())
    link = next((p for p in (path.absolute(), *path.absolute().parents) if os.path.islink(p)), None)
    found = ""
    if not there.is_dir():
        kind = kind_of(there.stat().st_mode).removeprefix("a ").removeprefix("plain ")
        found = f"the {kind} {there}"
    elif link is not None and not os.path.exists(link):
        found = f"the link {link}, which leads nowhere"
    if found:
        fix = "choose another folder"
        raise UserError(str(path), expected="a folder, or a path for a new folder", found=found, fix=fix)


def fsync_path(path: Path) -> None:
    """Flush one file or folder to the disk.

    Called before a rename, so that the new name never refers to unwritten data.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot sync a folder
            raise
    finally:
        os.close(fd)


@contextmanager
def atomic_file(path: Path, *, replace: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file for writing; on exit flush it and rename it to `path`. Removed if the block raises.

    replace: whether an existing file may be replaced. If not, an existing file, also one that appears meanwhile, raises
    NameTaken and stays unchanged. Raises UserError if something other than a plain file would be lost.
    """
    check_target(path)
    temp = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temp.open("xb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        if replace:
            os.replace(temp, path)
        else:
            _take_name(temp, path)
    finally:
        temp.unlink(missing_ok=True)
    fsync_path(path.parent)


def _take_name(temp: Path, path: Path) -> None:
    """Give a finished file its name without replacing an existing one.

    A hard link fails where a rename would replace.
    """
    try:
        os.link(temp, path)
    except FileExistsError:
        raise NameTaken(path) from None
    except OSError as e:
        if e.errno not in _NO_LINKS:
            raise
        _reserve_name(temp, path)


def _reserve_name(temp: Path, path: Path) -> None:
    """Do the same on a file system without hard links: an empty file reserves the name until the rename."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        raise NameTaken(path) from None
    try:
        os.replace(temp, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def sweep_abandoned(path: Path) -> None:
    """Remove temporary files of `path` that killed writers left: those not written to for an hour."""
    _sweep(path.parent, f".{path.name}.*.tmp")


def sweep_folder(folder: Path) -> None:
    """Remove what `sweep_abandoned` removes, of every file of a folder."""
    _sweep(folder, ".*.tmp")


def _sweep(folder: Path, pattern: str) -> None:
    for old in folder.glob(pattern):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > _ABANDONED:
                old.unlink()


def write_atomic(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write `data` to `path` as `atomic_file` does."""
    with atomic_file(path, replace=replace) as f:
        f.write(data)


def publish(temp: Path, final: Path) -> None:
    """Flush a finished folder and rename it to `final`.

    An existing folder there, known to be broken, is moved aside first.
    """
    for file in temp.iterdir():
        fsync_path(file)
    fsync_path(temp)
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.exists():
        aside = temp.with_name(f"{temp.name}.old")
        os.rename(final, aside)
        os.rename(temp, final)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        os.rename(temp, final)
    fsync_path(final.parent)


class Workshop:
    """Locks and temporary folders of one output folder.

    A temporary folder is named after the lock that guards it. So the holder of the lock knows that any folder with that
    name was left by a killed build.
    """

    def __init__(self, out: Path) -> None:
        self.temps, self.locks = out / ".tmp", out / ".locks"

    @contextmanager
    def lock(self, name: str, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
        """Hold the lock `name`. `on_wait(name)` is called once if another process holds it."""
        from filelock import FileLock, Timeout  # for builds: an engine that runs locks nothing

        self.locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.locks / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if on_wait is not None:
                on_wait(name)
            lock.acquire()
        try:
            self._sweep(name)
            yield
        finally:
            lock.release()

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """Create a temporary folder; removed on exit unless it was renamed. The lock `name` must be held."""
        temp = self.temps / f"{name}.{secrets.token_hex(4)}"
        temp.mkdir(parents=True)
        try:
            yield temp
        finally:
            shutil.rmtree(temp, ignore_errors=True)

    def sweep_all(self) -> None:
        """Remove the folders that killed builds left. Folders whose lock is held belong to running builds and stay."""
        from filelock import FileLock, Timeout

        names = {p.name.split(".")[0] for p in self.temps.iterdir()} if self.temps.is_dir() else set()
        for name in names:
            lock = FileLock(self.locks / f"{name}.lock")
            try:
                self.locks.mkdir(parents=True, exist_ok=True)
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                self._sweep(name)
            finally:
                lock.release()

    def _sweep(self, name: str) -> None:
        for stale in self.temps.glob(f"{name}.*"):
            shutil.rmtree(stale, ignore_errors=True)
