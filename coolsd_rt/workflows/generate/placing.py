"""The files of a request, before anything is drawn: existing images, free names, and names taken by other files.

A name is free, or has the very image that would get it (that one is skipped; one of it that is damaged is drawn again),
or something else: then the request is refused, since a number that depends on the folder would make neither the same
command nor a list of files repeatable. The contact sheet is derived: one of ours is replaced where it shows other
images, somebody else's sheet.png is refused like any other file.

Knows names and what stands there. Does not know engines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coolsd_rt.arrays import Pixels
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.files import why_unusable
from coolsd_rt.store.atomic import NameTaken, disk_errors
from coolsd_rt.store.outputs import check_writable, is_taken
from coolsd_rt.workflows import png
from coolsd_rt.workflows.drawing import Asked
from coolsd_rt.workflows.generate.identity import PIXELS, Identity, Standing, said_by, sha256_pixels, standing
from coolsd_rt.workflows.png import CHUNK, SHEET, SOFTWARE

SHOWN = "sheet"  # key in a sheet's text chunk: its columns, and each file it shows with the identity of its image
_WIDEST_ROW = 12  # images of one prompt that the sheet still shows as one row
FIX_TAKEN = "give another --out, or --overwrite to replace the existing files"
FIX_PLACE = "give another --out"


@dataclass(frozen=True)
class Placed:
    """One image and its file. there: the file is that image already. said: what the file's text chunk says."""

    asked: Asked
    path: Path
    said: Mapping[str, Any]
    identity: Identity
    there: bool


def place(
    out: Path, every: Sequence[Asked], say: Callable[[Asked], Mapping[str, Any]], overwrite: bool
) -> list[Placed]:
    """A file for each image of a request, and for the contact sheet of several.

    say: an image's provenance. overwrite: nothing counts as there. Raises UserError: a name has something else, or,
    with `overwrite`, something that is no plain file. CoolsdError: there is something to draw and `out` is read-only.
    """
    placed, taken = [], []
    for one in every:
        path, said = out / png.file_name(one.index, len(every), one.prompt), say(one)
        identity = Identity.of(said)
        if identity is None:
            raise ValueError("a provenance without an identity")
        found = Standing.ABSENT if overwrite else standing(path, identity)
        _check_plain(path)
        if found is Standing.OTHER:
            taken.append((path, _found(path, identity)))
        placed.append(Placed(one, path, said, identity, found is Standing.SAME))
    if len(every) > 1:
        _check_plain(out / SHEET)
        if not overwrite and is_taken(out / SHEET) and not is_our_sheet(out / SHEET):
            taken.append((out / SHEET, "a file that is no contact sheet of coolsd-rt"))
    if taken:
        path, text = taken[0]
        more = f", and {len(taken) - 1} more of the names taken" if len(taken) > 1 else ""
        raise UserError(str(path), expected="no file, or the image asked for", found=text + more, fix=FIX_TAKEN)
    if not all(one.there for one in placed):
        check_writable(out)
    return placed


def _check_plain(path: Path) -> None:
    """Raise UserError if something has the name that no file can take the place of."""
    if path.exists() and (kind := why_unusable(path)):
        raise UserError(str(path), expected="a place for a file", found=kind, fix=FIX_PLACE)


def _found(path: Path, wanted: Identity) -> str:
    """What is there in the place of an image, in words."""
    found = Identity.of(said_by(path))
    if found is None:
        return "a file that is no image of coolsd-rt"
    odd = [key for key, value in wanted.facts.items() if found.facts.get(key) != value]
    return f"an image with another {odd[0]}" if odd else "that image with its pixels changed"


def write_image(one: Placed, pixels: Pixels, overwrite: bool) -> bool:
    """Write an image that was drawn; False if it appeared meanwhile, from a run beside this one.

    Raises UserError: another file appeared in its place. CoolsdError: no space, a folder that cannot be written.
    """
    said = {**one.said, PIXELS: sha256_pixels(pixels)}
    replace = overwrite or standing(one.path, one.identity) is Standing.DAMAGED
    try:
        png.write_png(one.path.parent, one.path.name, pixels, said, replace=replace)
    except NameTaken:
        if standing(one.path, one.identity) is Standing.SAME:
            return False
        found = f"{_found(one.path, one.identity)}, which was not there before"
        raise UserError(str(one.path), expected="no file yet", found=found, fix=FIX_TAKEN) from None
    return True


@contextlib.contextmanager
def output_folder(out: Path) -> Iterator[None]:
    """The output folder, made before any work is done; removed again if it was made here and stayed empty."""
    new = not out.exists()
    with disk_errors(out):
        try:
            out.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # below /proc and its like
            fix = "choose another folder"
            found = str(error.strerror)
            raise CoolsdError(str(out), expected="a folder that can be made", found=found, fix=fix) from error
    try:
        yield
    finally:
        if new:
            with contextlib.suppress(OSError):
                out.rmdir()


def is_our_sheet(path: Path) -> bool:
    """Whether a file is a contact sheet of ours: it says so, or it is one of a version that said nothing."""
    chunks = png.text_chunks(path)
    return SHOWN in said_by(path) or (chunks.get(SOFTWARE, "").startswith("coolsd-rt ") and CHUNK not in chunks)


def write_sheet(
    out: Path, placed: Sequence[Placed], columns: int, pixels: Callable[[Placed], Pixels], overwrite: bool
) -> Path:
    """Write the contact sheet of a request, or leave one that shows these very images.

    pixels: of an image. Raises as `write_image`.
    """
    path, shown = out / SHEET, placed[: png.SHEET_LIMIT]
    images = [{"file": one.path.name, "identity": one.identity.digest} for one in shown]
    said = {SHOWN: {"columns": columns, "images": images}}
    if not overwrite and said_by(path) == said and _is_whole(path):
        return path
    page = png.sheet([pixels(one) for one in shown], [one.asked.prompt for one in shown], columns)
    try:
        return png.write_png(out, SHEET, page, said, replace=overwrite or is_our_sheet(path))
    except NameTaken:
        if is_our_sheet(path):  # of a run beside this one
            return png.write_png(out, SHEET, page, said)
        found = "one that is no contact sheet of coolsd-rt, which was not there before"
        raise UserError(str(path), expected="no file yet", found=found, fix=FIX_TAKEN) from None


def finish_sheet(
    out: Path, placed: Sequence[Placed], variants: int, pixels: Callable[[Placed], Pixels], overwrite: bool
) -> Path | None:
    """The contact sheet of several images: a row a prompt if each has a few (`variants`), else about square.

    Of one image there is none. pixels: of an image. Raises as `write_image`.
    """
    if len(placed) < 2:
        drop_stale_sheet(out, placed)
        return None
    columns = variants if 1 < variants <= _WIDEST_ROW else 0
    return write_sheet(out, placed, columns, pixels, overwrite)


def drop_stale_sheet(out: Path, placed: Sequence[Placed]) -> None:
    """After a run that makes no sheet: remove one of ours that shows an image which this run has replaced."""
    path = out / SHEET
    said = said_by(path).get(SHOWN)
    images = said.get("images") if isinstance(said, dict) else None
    if not isinstance(images, list):
        return
    entries = [entry for entry in images if isinstance(entry, dict) and isinstance(entry.get("file"), str)]
    shown = {entry["file"]: entry.get("identity") for entry in entries}
    if any(shown.get(one.path.name, one.identity.digest) != one.identity.digest for one in placed):
        path.unlink(missing_ok=True)


def _is_whole(path: Path) -> bool:
    try:
        png.check_whole(path)
    except UserError:
        return False
    return True
