"""Checks that the files of an engine belong together, before anything is drawn.

Compares the sizes in the manifest with its spec, the prompt files with those that the graphs were built with, and the
table of neighbours with the codes. A wrong file would not make a run fail: the engine would silently draw from another
distribution than the model's. Knows manifests and tables. Does not know backends or how an image is drawn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from coolsd_rt.backends.description import NEIGHBOURS_FILE, Description, dtype_of
from coolsd_rt.errors import CoolsdError
from coolsd_rt.prompts import Conditioner, check_fit, conditioner_files
from coolsd_rt.prompts.load import ids_of
from coolsd_rt.shown import show
from coolsd_rt.spec import Spec
from coolsd_rt.spec.load import dotted
from coolsd_rt.spec.messages import problems_of
from coolsd_rt.store import EngineFolder, VerifiedEngine
from coolsd_rt.store.arrays import ArrayError, parse_npy
from coolsd_rt.store.manifest import MANIFEST, rebuild_hint

_ROWS_AT_A_TIME = 4096


def spec_of(folder: EngineFolder) -> Spec:
    """Return the spec in an engine's manifest. Raises CoolsdError if this version does not accept that spec."""
    data = folder.manifest.spec
    try:
        return Spec.model_validate(data)
    except ValidationError as error:
        first, fix = problems_of(error, data)[0], _fix(folder)
        place = f"{folder.folder / MANIFEST}: {dotted(('spec', *first.path))}"
        raise CoolsdError(place, expected=first.expected, found=first.found, fix=fix) from error


def description_of(folder: EngineFolder) -> Description:
    """Return the sizes and graphs in an engine's manifest.

    Raises CoolsdError if the manifest's contract is malformed, has a number out of range, or disagrees with the spec or
    the stages of the manifest.
    """
    where, fix = f"{folder.folder / MANIFEST}", _fix(folder)
    made, spec = Description.from_dict(folder.manifest.contract, where, fix), spec_of(folder)
    engine, tree = spec.engine, spec.tree is not None
    sides: list[tuple[str, object, object]] = [
        ("draft_length", spec.draft.length, made.draft_length),
        ("dtype", dtype_of(engine.precision, engine.device), made.dtype),
        ("propose", engine.backend == "onnxruntime" and engine.device == "cpu" and not tree, made.propose),
        ("tree", tree, made.tree),
    ]
    stage = folder.manifest.stages.get("image")
    built = stage.inputs["spec"] if stage else {}
    sides += [("side", built["side"], made.side)] if "side" in built else []
    sides += [("forced", built["forced"], made.forced is not None)] if "forced" in built else []
    for name, expected, found in sides:
        if type(expected) is not type(found) or expected != found:
            shown = f"{show(expected)}, as at build time"
            raise CoolsdError(f"{where}: contract.{name}", expected=shown, found=show(found), fix=fix)
    return made


def check_conditioner(verified: VerifiedEngine, conditioner: Conditioner) -> None:
    """Raise CoolsdError unless `conditioner` reads prompts with the files that the engine's graphs were built with."""
    folder, manifest = verified.engine, verified.manifest
    fix = _fix(folder)
    read = {key: digest for stage in manifest.stages.values() for key, digest in stage.inputs["files"].items()}
    for name, key in conditioner_files(spec_of(folder).condition).items():
        if name not in manifest.files:  # the request supplies this file itself
            continue
        found = manifest.files[name].sha256
        if read.get(key, found) != found:
            expected = f"SHA-256 {read[key][:12]}…, the file that its graphs were built with"
            raise CoolsdError(str(verified.path(name)), expected=expected, found=f"{found[:12]}…", fix=fix)
    check_fit(conditioner, description_of(folder).dims)
    ids = ids_of(conditioner)
    rows = next((stage.facts["ids"] for stage in manifest.stages.values() if "ids" in stage.facts), ids)
    if ids is not None and ids != rows:
        expected = f"{show(rows)} of them, the rows of the target's embedding"
        raise CoolsdError("the condition ids that the engine reads", expected=expected, found=str(ids), fix=fix)


def neighbours_of(verified: VerifiedEngine) -> NDArray[np.int64] | None:
    """Return the nearest codes of each code, int64 [V, k], or None if the engine was built without them.

    Ids that are not image codes (line end, image end) have rows too, so that every id can be looked up.

    Raises CoolsdError if the table does not fit the engine: wrong shape or dtype, written by a stage that does not
    produce it, a code out of range, a code listed as its own neighbour, or a code listed twice in a row.
    """
    folder, manifest = verified.engine, verified.manifest
    if NEIGHBOURS_FILE not in manifest.files:
        return None
    made, spec, fix = description_of(folder), spec_of(folder), _fix(folder)
    what, role = str(verified.path(NEIGHBOURS_FILE)), manifest.files[NEIGHBOURS_FILE].role
    if role not in ("image", "codes"):
        raise CoolsdError(f"{what}: its stage", expected="image or codes", found=role, fix=fix)
    # The ids after the codes are those of forced positions (line end, image end).
    codes = made.dims.vocab - len({i for i in made.forced or () if i >= 0})
    least = min(spec.neighbours, codes - 1)
    try:
        table = parse_npy(verified.read(NEIGHBOURS_FILE))
    except ArrayError as error:
        raise CoolsdError(what, expected="a table of codes", found=str(error), fix=fix) from error
    fits = table.ndim == 2 and len(table) == codes and least <= table.shape[1] < codes
    if table.dtype != np.dtype("<i4") or not fits:
        expected = f"int32 [{codes}, {least}], the {least} nearest of each code"
        raise CoolsdError(what, expected=expected, found=f"{table.dtype} {list(table.shape)}", fix=fix)
    for start in range(0, codes, _ROWS_AT_A_TIME):
        _check_rows(table[start : start + _ROWS_AT_A_TIME], start, codes, what, fix)
    # At a forced position P and Q are point masses on such an id; elsewhere its probability is 0. So the content of
    # its row has no effect.
    return np.vstack([table, np.repeat(table[:1], made.dims.vocab - codes, axis=0)]).astype(np.int64)


def _check_rows(rows: NDArray[np.int32], start: int, codes: int, what: str, fix: str) -> None:
    ordered = np.sort(rows, axis=1)
    own = np.arange(start, start + len(rows), dtype=np.int32)[:, None]
    faults = (
        ((rows < 0) | (rows >= codes), f"codes from 0 to {codes - 1}"),
        (rows == own, "other codes than the row's own"),
        (np.pad(ordered[:, 1:] == ordered[:, :-1], ((0, 0), (0, 1))), "each code once in a row"),
    )
    for wrong, expected in faults:
        if wrong.any():
            row, column = (int(i) for i in np.argwhere(wrong)[0])
            value = (ordered if expected.startswith("each") else rows)[row, column]
            raise CoolsdError(f"{what}: row {start + row}", expected=expected, found=f"{value}", fix=fix)


def _fix(folder: EngineFolder) -> str:
    return rebuild_hint(folder.folder, folder.manifest)
