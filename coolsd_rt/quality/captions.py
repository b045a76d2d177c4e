"""Captions by id, and the reference image of each id. Reads two formats of captions, and a folder of images.

    [{"id": 139, "caption": "A woman stands ..."}, ...]                  a list; ids are numbers or words
    {"images": [{"id": 139, ...}], "annotations": [{"image_id": 139, "id": 37, "caption": "..."}, ...]}     COCO

COCO has about five captions per image; the one with the lowest annotation id is taken. The id of an image is in its
file name: 139.png, 000000000139.jpg, COCO_val2014_000000000139.jpg. Captions and images are matched by id, so the order
of a file or a folder has no effect. Knows ids, captions and file names. Does not open images.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from coolsd_rt.errors import UserError
from coolsd_rt.files import read_json, why_unusable
from coolsd_rt.limits import RESULT_BYTES

SUFFIXES = (".png", ".jpg", ".jpeg")
_SHOWN = 3  # ids shown in an error
_WORD = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"  # an id that is a safe file name
_FORMATS = 'a list of {"id", "caption"}, or COCO\'s captions ("images" and "annotations")'
Id = Annotated[int, Field(ge=0, lt=2**63)] | Annotated[str, Field(pattern=rf"^{_WORD}$")]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    id: Id
    caption: str


class _Image(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    id: Id


class _Annotation(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    id: int
    image_id: Id
    caption: str


class _Coco(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    images: list[_Image]
    annotations: list[_Annotation]


def canonical(name: int | str) -> str:
    """Return an id in the form that is compared and used in file names: no leading zeros, no COCO prefix."""
    text = str(name)
    if numbered := re.fullmatch(r"(?:COCO_[A-Za-z0-9]+_)?0*(\d+)", text, re.ASCII):
        return numbered[1]
    return text


def order(name: str) -> tuple[bool, int, str]:
    """Return the sort key of an id: numbers first, by value, then words."""
    return (False, int(name), "") if name.isdecimal() else (True, 0, name)


def seed_offset(name: str) -> int:
    """Return the number that an id adds to `--seed`: its value, or 63 bits of the SHA-256 of a word.

    Independent of order.
    """
    return int(name) if name.isdecimal() else int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def read_prompts(path: Path) -> dict[str, str]:
    """Read captions by canonical id, in the order of ids.

    Raises UserError if the file is not in a known format, an id occurs twice, an image has no caption or a caption has
    no image.
    """
    data = read_json(path, f"JSON: {_FORMATS}", RESULT_BYTES, stdin=True)
    try:
        captions = _coco(path, data) if isinstance(data, dict) else _list(path, data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("constrained", "function")))
        raise UserError(str(path), expected=_FORMATS, found=f"{where or 'the file'}: {first['msg']}") from error
    if not captions:
        raise UserError(str(path), expected="at least one caption", found="none")
    if empty := [name for name, caption in captions.items() if not caption.strip()]:
        raise UserError(str(path), expected="a caption of every id", found=f"nothing for {shown(empty)}")
    return {name: captions[name].strip() for name in sorted(captions, key=order)}


def _list(path: Path, data: Any) -> dict[str, str]:
    entries = TypeAdapter(list[_Entry]).validate_python(data)
    _once(str(path), [entry.id for entry in entries])
    return {canonical(entry.id): entry.caption for entry in entries}


def _coco(path: Path, data: Mapping[str, Any]) -> dict[str, str]:
    coco = _Coco.model_validate(data)
    _once(f"{path}: images", [image.id for image in coco.images])
    known = {canonical(image.id) for image in coco.images}
    first: dict[str, _Annotation] = {}
    for annotation in coco.annotations:
        name = canonical(annotation.image_id)
        there = first.get(name)
        if there is not None and there.id == annotation.id:
            raise UserError(f"{path}: annotations", expected="every id once", found=f"{annotation.id} again")
        if there is None or annotation.id < there.id:
            first[name] = annotation
    if strange := set(first) - known:
        raise UserError(f"{path}: annotations", expected="captions of its images", found=f"of {shown(strange)}")
    if bare := known - set(first):
        raise UserError(f"{path}: images", expected="a caption of every image", found=f"none of {shown(bare)}")
    return {name: annotation.caption for name, annotation in first.items()}


def read_references(folder: Path, ids: Iterable[str]) -> dict[str, Path]:
    """Find the image of every id, in the order of ids.

    Raises UserError: a file is missing, surplus, or one of two for an id.
    """
    if (found := why_unusable(folder) or "a file") != "a folder":
        raise UserError(str(folder), expected="a folder of reference images, named by their ids", found=found)
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not files:
        raise UserError(str(folder), expected=f"images ({', '.join(SUFFIXES)}) named by their ids", found="none")
    _once(str(folder), [path.stem for path in files], [path.name for path in files])
    there, wanted = {canonical(path.stem): path for path in files}, set(ids)
    problems = []
    if missing := wanted - set(there):
        problems.append(f"{len(missing)} missing ({shown(missing)})")
    if surplus := set(there) - wanted:
        problems.append(f"{len(surplus)} that no prompt has ({', '.join(_some(there, surplus))})")
    if problems:
        fix = "make a folder with the images of these prompts and no others"
        raise UserError(str(folder), expected=f"the images of the {len(wanted)} ids", found=_and(problems), fix=fix)
    return {name: there[name] for name in sorted(wanted, key=order)}


def _some(files: Mapping[str, Path], ids: Iterable[str]) -> list[str]:
    names = sorted(ids, key=order)
    return [files[name].name for name in names[:_SHOWN]] + (["..."] if len(names) > _SHOWN else [])


def _and(parts: Sequence[str]) -> str:
    return " and ".join(parts)


def _once(what: str, ids: Sequence[int | str], names: Sequence[str] | None = None) -> None:
    """Raise UserError if two ids are equal in their canonical form."""
    seen: dict[str, int] = {}
    for at, name in enumerate(ids):
        if (before := seen.setdefault(canonical(name), at)) != at:
            pair = names or [str(i) for i in ids]
            raise UserError(what, expected="every id once", found=f"{canonical(name)} as {pair[before]} and {pair[at]}")


def shown(ids: Iterable[str]) -> str:
    """Format the first few ids, in order."""
    names = sorted(ids, key=order)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
