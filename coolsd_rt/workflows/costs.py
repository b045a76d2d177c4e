"""The costs that pacing `auto` decides by: measured once for an engine on a machine, and recorded.

A choice that depended on the clock of the moment would draw another image each time. So the seconds of a round are
measured when an engine first draws batches of a size, and read from the record ever after: the same request draws the
same images on the same machine. Deleting the record, or setting `COOLSD_CACHE` to another folder, measures again.

    <cache>/costs/<fingerprint>-<machine>.json      COOLSD_CACHE, else $XDG_CACHE_HOME/coolsd-rt or ~/.cache/coolsd-rt

Knows files and what a machine is. Does not know the loop. A folder that cannot be written costs the record, not the
drawing: the costs then hold for the process.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from coolsd_rt.errors import CoolsdError
from coolsd_rt.files import read_json
from coolsd_rt.runtime.costs import RoundCosts
from coolsd_rt.store.atomic import write_atomic
from coolsd_rt.store.hashing import sha256_json

LOCK_SECONDS = 120.0  # how long to wait for another process that measures
VERSION = 1
LARGEST = 1 << 20  # bytes of a record


def cache_folder() -> Path:
    """The folder of records. Nothing is made."""
    if own := os.environ.get("COOLSD_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "coolsd-rt"


def record_file(fingerprint: str, machine: dict[str, Any]) -> Path:
    """The record of an engine on a machine. machine: JSON data that says all that changes how fast rounds are."""
    return cache_folder() / "costs" / f"{fingerprint[:16]}-{sha256_json(machine)[:12]}.json"


@dataclass
class CostBook:
    """The costs of one engine on this machine, by the kind of request. Safe for several processes.

    machine: as `record_file` takes it. on_measure: called with the number of images before rounds are timed. seconds:
    spent on measuring by this process.
    """

    fingerprint: str
    machine: dict[str, Any]
    on_measure: Callable[[int], None] = lambda images: None
    seconds: float = 0.0
    _known: dict[str, RoundCosts] = field(default_factory=dict)

    def get(self, kind: str, images: int, measure: Callable[[], RoundCosts]) -> RoundCosts:
        """The recorded costs of a kind of request, or those that `measure` gives, which are recorded."""
        key = f"{kind}, {images} images"
        if key not in self._known:
            self._known[key] = self._recorded(key, images, measure)
        return self._known[key]

    def _recorded(self, key: str, images: int, measure: Callable[[], RoundCosts]) -> RoundCosts:
        path = self._path()
        if path is None:
            return self._measured(images, measure)
        lock = FileLock(f"{path}.lock")
        try:
            with lock.acquire(timeout=LOCK_SECONDS):
                return self._read_or_measure(path, key, images, measure)
        except (Timeout, OSError):
            return self._measured(images, measure)

    def _read_or_measure(self, path: Path, key: str, images: int, measure: Callable[[], RoundCosts]) -> RoundCosts:
        record = _read(path)
        with suppress(CoolsdError):
            if key in record:
                return RoundCosts.of(record[key])
        costs = self._measured(images, measure)
        whole = {"version": VERSION, "machine": self.machine, "costs": {**record, key: costs.as_dict()}}
        with suppress(OSError, CoolsdError):
            write_atomic(path, (json.dumps(whole, indent=1) + "\n").encode())
        return costs

    def _measured(self, images: int, measure: Callable[[], RoundCosts]) -> RoundCosts:
        self.on_measure(images)
        began = time.perf_counter()
        try:
            return measure()
        finally:
            self.seconds += time.perf_counter() - began

    def _path(self) -> Path | None:
        """The record, its folder made; None where that is not possible."""
        try:
            path = record_file(self.fingerprint, self.machine)
            path.parent.mkdir(parents=True, exist_ok=True)
        except (OSError, RuntimeError):  # no home
            return None
        return path


def _read(path: Path) -> dict[str, Any]:
    """The costs of a record by kind of request; none of a file that is not one of ours."""
    try:
        whole = read_json(path, "a record of round costs", LARGEST)
    except CoolsdError:
        return {}
    costs = whole.get("costs") if isinstance(whole, dict) and whole.get("version") == VERSION else None
    return {k: v for k, v in costs.items() if isinstance(v, dict)} if isinstance(costs, dict) else {}
