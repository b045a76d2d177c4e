"""Whether the slots of all engines fit in memory, estimated before anything is loaded.

Knows sizes of caches and files, and where Linux says how much memory is left. Does not know engines' processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from coolsd_rt.contract import ModelDims
from coolsd_rt.errors import UserError
from coolsd_rt.runtime.drafter_names import WITHOUT_MODEL
from coolsd_rt.runtime.state import capacity
from coolsd_rt.serve.facts import ServedEngine
from coolsd_rt.spec.networks import EagleDraft
from coolsd_rt.store.atomic import human
from coolsd_rt.workflows.drawing import drafter_of

_ITEM = {"float32": 4, "float16": 2, "bfloat16": 2}
_PROCESS = 150 << 20  # bytes of Python and its libraries
_ROWS = 2  # of an image under guidance
_COPIES = 2  # of the caches: while images enter or leave, the old ones and the new


def slot_bytes(engine: ServedEngine) -> int:
    """Return the bytes of one slot: the caches of target and draft for both rows of an image."""
    description, spec = engine.opened.description, engine.opened.spec
    dims = description.dims
    drafts = spec.draft.nodes if isinstance(spec.draft, EagleDraft) else spec.draft.length
    length = 0 if drafter_of(spec.draft) in WITHOUT_MODEL else drafts
    positions = capacity(dims, max(length, description.draft_length), paced=True)
    return _ROWS * _COPIES * positions * _numbers(dims) * _ITEM[description.dtype]


def _numbers(dims: ModelDims) -> int:
    """Numbers of one position in the caches of one row."""
    return 2 * (dims.layers * dims.heads * dims.head_dim + dims.draft_layers * dims.draft_heads * dims.draft_head_dim)


def engine_bytes(engine: ServedEngine) -> int:
    """Return the bytes that an engine's process needs without images: its files, as they are in memory."""
    return _PROCESS + sum(record.size for record in engine.opened.manifest.files.values())


def check_memory(engines: Sequence[ServedEngine], available: int | None) -> None:
    """Raise UserError if the engines do not fit with all their slots. available: bytes; None is unknown."""
    if available is None:
        return
    fixed = sum(engine_bytes(engine) for engine in engines)
    slots = sum(engine.slots * slot_bytes(engine) for engine in engines)
    if fixed + slots <= available:
        return
    one = sum(slot_bytes(engine) for engine in engines)
    most = max(0, available - fixed) // one
    found = f"about {human(fixed + slots)} for {' and '.join(str(engine.slots) for engine in engines)} slots"
    fix = f"give --slots {most}" if most else "serve fewer or smaller engines"
    raise UserError("memory", expected=f"at most the available {human(available)}", found=found, fix=fix)


def available_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes that processes may still take: of the machine, or of a cgroup with less. None is unknown.

    root: the folder in which `proc` and `sys` are.
    """
    return min((*_of_machine(root), *_of_groups(root)), default=None)


def _of_machine(root: Path) -> Iterator[int]:
    for line in _text(root / "proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            yield from (number * 1024 for number in _numeral(rest.removesuffix("kB")))


def _of_groups(root: Path) -> Iterator[int]:
    """What each cgroup of version 2 leaves: this process's own and all above it."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        if line.startswith("0::"):
            parts = [part for part in PurePosixPath(line[3:]).parts if part not in ("/", "..")]
            for count in range(len(parts), -1, -1):
                folder = (root / "sys/fs/cgroup").joinpath(*parts[:count])
                most, used = _numeral(_text(folder / "memory.max")), _numeral(_text(folder / "memory.current"))
                yield from (max(0, high - now) for high, now in zip(most, used, strict=False))


def _numeral(text: str) -> list[int]:
    text = text.strip()
    return [int(text)] if text.isdecimal() and len(text) < 20 else []


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""
