"""Assigns a file name to each image of a request, before anything is drawn.

A name may be free. If its file holds the very image that would be written, the image is skipped; if that file is
damaged, the image is drawn again. Any other file makes the request fail: choosing another number instead would make
file names depend on the folder's content. The contact sheet is derived: a sheet of this package is replaced if it shows
other images, any other sheet.png makes the request fail.

Knows file names and their content. Does not know engines.
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

SHOWN = "sheet"  # key in a sheet's text chunk: number of columns, and each file shown with the identity of its image
_WIDEST_ROW = 12  # most images of one prompt that the sheet shows in one row
FIX_TAKEN = "give another --out, or --overwrite to replace the existing files"
FIX_PLACE = "give another --out"


@dataclass(frozen=True)
class Placed:
    """One image and its file.

    Attributes:
        asked: the image.
        path: its file.
        said: the provenance that is written into the file.
        identity: the identity of the image.
        there: whether the file already holds this image.
    """

    asked: Asked
    path: Path
    said: Mapping[str, Any]
    identity: Identity
    there: bool


def place(
    out: Path, every: Sequence[Asked], say: Callable[[Asked], Mapping[str, Any]], overwrite: bool
) -> list[Placed]:
    """Assign a file to each image of a request, and to the contact sheet if there are several images.

    say: returns the provenance of an image. overwrite: draw every image, even if its file exists.

    Raises UserError if another file has one of the names or, with `overwrite`, if a name belongs to something other
    than a plain file; CoolsdError if images are to be drawn and `out` is read-only.
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
    """Raise UserError if `path` exists and is not a plain file, which cannot be replaced."""
    if path.exists() and (kind := why_unusable(path)):
        raise UserError(str(path), expected="a place for a file", found=kind, fix=FIX_PLACE)


def _found(path: Path, wanted: Identity) -> str:
    """Describe the file that has the image's name."""
    found = Identity.of(said_by(path))
    if found is None:
        return "a file that is no image of coolsd-rt"
    odd = [key for key, value in wanted.facts.items() if found.facts.get(key) != value]
    return f"an image with another {odd[0]}" if odd else "that image with its pixels changed"


def write_image(one: Placed, pixels: Pixels, overwrite: bool) -> bool:
    """Write a drawn image. Returns False if another run has written the same image meanwhile.

    Raises UserError if another file has appeared under the name, CoolsdError if the disk is full or the folder is not
    writable.
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
    """Create the output folder before any work starts; on exit remove it if it was created here and is empty."""
    new = not out.exists()
    with disk_errors(out):
        try:
            out.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # raised below /proc and similar file systems
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
    """Whether a file is a contact sheet of this package, including those of versions that wrote no text chunk."""
    chunks = png.text_chunks(path)
    return SHOWN in said_by(path) or (chunks.get(SOFTWARE, "").startswith("coolsd-rt ") and CHUNK not in chunks)


def write_sheet(
    out: Path, placed: Sequence[Placed], columns: int, pixels: Callable[[Placed], Pixels], overwrite: bool
) -> Path:
    """Write the contact sheet of a request, or keep the existing sheet if it shows exactly these images.

    pixels: returns the pixels of an image. Raises as `write_image` does.
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
        if is_our_sheet(path):  # another run has written it meanwhile
            return png.write_png(out, SHEET, page, said)
        found = "one that is no contact sheet of coolsd-rt, which was not there before"
        raise UserError(str(path), expected="no file yet", found=found, fix=FIX_TAKEN) from None


def finish_sheet(
    out: Path, placed: Sequence[Placed], variants: int, pixels: Callable[[Placed], Pixels], overwrite: bool
) -> Path | None:
    """Write the contact sheet of several images. Returns None for one image, which has no sheet.

    The sheet has one row per prompt if each prompt has few images (`variants`), otherwise it is about square.
    pixels: returns the pixels of an image. Raises as `write_image` does.
    """
    if len(placed) < 2:
        drop_stale_sheet(out, placed)
        return None
    columns = variants if 1 < variants <= _WIDEST_ROW else 0
    return write_sheet(out, placed, columns, pixels, overwrite)


def drop_stale_sheet(out: Path, placed: Sequence[Placed]) -> None:
    """Remove our contact sheet if it shows an image which this run replaced. For runs that write no sheet."""
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
