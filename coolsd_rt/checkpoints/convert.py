"""Converts a published checkpoint to one safetensors file with the network's config in its header.

Strict: every tensor is either used or known not to be part of the network, none is missing, and all shapes are checked
before any number is read. Streaming: only one tensor of the result is in memory at a time. Atomic: the file is complete
when it appears. Knows formats through `Format`. Does not know where a checkpoint was downloaded from (`hub`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from coolsd_rt import limits
from coolsd_rt.checkpoints.format import Config, ConvertOptions, Format, Given, Part, shapes_of
from coolsd_rt.checkpoints.formats import llama, llamagen, text, vq
from coolsd_rt.checkpoints.reader import CheckpointReader
from coolsd_rt.checkpoints.writer import DTYPES, NAMES, write_safetensors
from coolsd_rt.errors import UserError
from coolsd_rt.files import why_unusable
from coolsd_rt.models.config import DecoderConfig
from coolsd_rt.models.families import FAMILY_KEY, family_of
from coolsd_rt.models.finite import NumbersCheck
from coolsd_rt.store.outputs import check_output
from coolsd_rt.store.weights import TensorInfo

FORMATS: Mapping[str, Format] = {f.name: f for f in (*llamagen.FORMATS, *llama.FORMATS, *text.FORMATS, *vq.FORMATS)}
DType = Literal["keep", "float32", "float16", "bfloat16"]
_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True)
class Converted:
    """The result of a conversion.

    Attributes:
        config: the config in the header.
        tensors: number of tensors written.
        bytes: size of the file.
        dropped: number of tensors of the checkpoint that were not used.
        wrappers: the names of `reader.WRAPPERS` that were removed from tensor names.
    """

    path: Path
    family: str
    config: Mapping[str, Any]
    tensors: int
    bytes: int
    dropped: int
    seconds: float
    wrappers: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data for `convert --json`."""
        return asdict(self) | {"path": str(self.path), "seconds": round(self.seconds, 3)}


def convert(
    source: Path,
    to: Path,
    family: str | None = None,
    options: ConvertOptions | None = None,
    dtype: DType = "keep",
    on_tensor: Callable[[int, int], None] = lambda done, of: None,
    notes: Mapping[str, str] | None = None,
    *,
    overwrite: bool = False,
) -> Converted:
    """Convert the checkpoint `source` (a file, or a folder of shards) to the file `to`.

    family: a name in `FORMATS`; None detects it from the tensor names. dtype: `keep` writes each tensor as it is
    stored, and a quantised one in float32. on_tensor: called with the number of written tensors and the total. notes:
    additional metadata for the header. overwrite: whether an existing file `to` may be replaced.

    Raises:
        UserError: `source` is not a checkpoint or is of another family; `to` exists; a tensor is missing, surplus, of
            another shape, or has NaN or infinite values; or a size or family is required and not given.
        CoolsdError: the disk is full.
    """
    begun = time.perf_counter()
    check_place(source, to, overwrite)
    opened = CheckpointReader(source)
    given = Given(source, opened.tensors, opened.config, options or ConvertOptions())
    form = _format(given, family)
    config = form.config(given)
    plan, dropped = _plan(form, given, config, dtype)
    _check_ones(form, opened)
    header = {FAMILY_KEY: family_of(config).name} if isinstance(config, DecoderConfig) else {}
    header |= {k: v for k, v in asdict(config).items() if v is not None}
    tensors = sorted(plan.items(), key=lambda item: opened.order(item[1][0].sources[0]))
    numbers = NumbersCheck(source)

    def read(name: str) -> torch.Tensor:
        part, info = plan[name]
        stored = part.make(*(opened.read(key) for key in part.sources))
        return numbers.passed(part.sources, stored, stored.to(DTYPES[info.dtype]))

    infos = [(name, info) for name, (_, info) in tensors]
    metadata = {**(notes or {}), "format": "pt", "config": json.dumps(header)}
    size = write_safetensors(
        to, infos, metadata, read, lambda done: on_tensor(done, len(infos)), numbers.check, overwrite=overwrite
    )
    seconds = time.perf_counter() - begun
    return Converted(to, form.name, header, len(infos), size, dropped, seconds, opened.wrappers)


def check_place(source: Path, to: Path, overwrite: bool = False) -> None:
    """Raise UserError unless `to` can be written, is not the source, and does not exist (unless `overwrite` is on)."""
    why = why_unusable(to)
    if why != "nothing" and (why or (source.exists() and to.samefile(source))):
        found = why or "the checkpoint itself"
        raise UserError(f"--to {to}", expected="a file to write", found=found, fix="name another file")
    if not to.parent.is_dir():
        raise UserError(f"--to {to}", expected="a folder that is there", found=f"no folder {to.parent}")
    check_output(to, "--to", overwrite=overwrite)


def _format(given: Given, family: str | None) -> Format:
    text.check_architecture(given)
    if family is not None:
        if family not in FORMATS:
            raise UserError("--family", expected=f"one of {', '.join(FORMATS)}", found=family)
        if mark := FORMATS[family].lacking(given.tensors):
            fits = ", ".join(f.name for f in FORMATS.values() if f.fits(given.tensors)) or "no known family"
            expected = f"a checkpoint of {family}, with a tensor {_readable(mark)}"
            raise UserError(str(given.path), expected=expected, found=f"one of {fits}")
        return FORMATS[family]
    form = next((f for f in FORMATS.values() if f.fits(given.tensors)), None)
    if form is None:
        names = ", ".join(list(given.tensors)[:3])
        fix = "give --family NAME to see the missing tensors"
        expected = f"a checkpoint of {', '.join(FORMATS)}"
        raise UserError(str(given.path), expected=expected, found=f"tensors {names}, ...", fix=fix)
    alike = [f.name for f in FORMATS.values() if f.marks == form.marks]
    if len(alike) > 1:
        fix = f"give --family {' or --family '.join(alike)}"
        raise UserError("--family", expected=f"{' or '.join(alike)}: their tensors are alike", found="nothing", fix=fix)
    return form


def _readable(mark: str) -> str:
    """Return the first name that a pattern matches, for messages."""
    return mark.split("|")[0].removeprefix(".*").replace("\\", "")


def _plan(form: Format, given: Given, config: Config, dtype: DType) -> tuple[dict[str, tuple[Part, TensorInfo]], int]:
    """Return the source and dtype of every tensor to write, and the number of unused ones. Raises UserError."""
    plan: dict[str, tuple[Part, TensorInfo]] = {}
    for name, shape in shapes_of(config).items():
        part = form.part(name, given, config)
        plan[name] = part, TensorInfo(_check_part(given, name, shape, part, dtype), shape)
    used = {key for part, _ in plan.values() for key in part.sources}
    rest = [key for key in given.tensors if key not in used]
    surplus = [key for key in rest if not form.drops(key)]
    if surplus:
        more = f" and {len(surplus) - 1} more" if len(surplus) > 1 else ""
        found = f"{list(given.tensors[surplus[0]].shape)}{more}"
        what = f"{given.path}: {surplus[0]}"
        raise UserError(what, expected=f"no such tensor in a checkpoint of {form.name}", found=found)
    return plan, len(rest)


def _check_part(given: Given, name: str, shape: tuple[int, ...], part: Part, dtype: DType) -> str:
    """Return the dtype to write a tensor in. Raises UserError if a source tensor is missing or has another shape."""
    for key in part.sources:
        info = given.tensors.get(key)
        if info is None:
            what = f"{given.path}: {key}"
            raise UserError(what, expected=f"a tensor, for {name} {list(shape)}", found="none")
        if info.dtype not in DTYPES:
            raise UserError(f"{given.path}: {key}", expected=f"one of {', '.join(DTYPES)}", found=info.dtype)
    shapes = ", ".join(str(list(given.tensors[key].shape)) for key in part.sources)
    try:
        infos = [given.tensors[key] for key in part.sources]
        made = part.make(*(torch.empty(info.shape, dtype=DTYPES[info.dtype], device="meta") for info in infos))
    except Exception:  # with unexpected shapes the conversion can raise anything
        made = None
    if made is None or tuple(made.shape) != shape:
        what = f"{given.path}: {', '.join(part.sources)}"
        raise UserError(what, expected=f"{name} {list(shape)} of them", found=f"shape {shapes}")
    return NAMES[made.dtype] if dtype == "keep" else _TYPES[dtype]


def _check_ones(form: Format, opened: CheckpointReader) -> None:
    for name in filter(form.is_ones, opened.tensors):
        value = opened.read(name)
        if other := int((value != 1).sum()):
            found = f"{other} of {value.numel()} that are not"
            raise UserError(f"{opened.path}: {name}", expected="factors that are all 1", found=found)


def named_options(
    size: int | None, heads: int | None, prefix: int | None, cell: int | None = None, length: int | None = None
) -> ConvertOptions:
    """Return options as given on a command line.

    Raises UserError if one is not positive, or `cell` fits no tokenizer.
    """
    options = ConvertOptions(size, heads, prefix, cell, length)
    if cell not in (None, 8, 16):
        raise UserError("--cell", expected="8 or 16", found=str(cell))
    ends = {"size": limits.PIXELS, "heads": limits.HEADS, "prefix": limits.PREFIX, "cell": limits.CELL}
    ends["length"] = limits.TEXT_TOKENS
    for name, value in asdict(options).items():
        if value is not None:
            ends[name].check(f"--{name}", value)
    return options
