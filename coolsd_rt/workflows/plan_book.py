"""The record of plans: chosen once for an engine, a machine and a kind of request, and the same ever after.

A plan depends on the clock. Were it chosen anew for each request, a seed would draw another image each time. So it is
read from the record wherever there is one: the same request draws the same images on the same machine. Deleting the
record, or setting `COOLSD_CACHE` to another folder, chooses again.

    <cache>/plans/<fingerprint>-<machine>.json      COOLSD_CACHE, else $XDG_CACHE_HOME/coolsd-rt or ~/.cache/coolsd-rt

Knows files and what a machine is. Does not know how a plan is chosen. A folder that cannot be written costs the record,
not the drawing: plans then hold for the process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coolsd_rt.errors import CoolsdError
from coolsd_rt.files import read_json
from coolsd_rt.limits import DRAFT_LENGTH
from coolsd_rt.runtime.drafter_names import DRAFTERS
from coolsd_rt.store.atomic import write_atomic
from coolsd_rt.store.hashing import sha256_json
from coolsd_rt.workflows.plans import PLAIN, Choice, DraftPlan

LOCK_SECONDS = 1800.0  # how long to wait for another process that chooses; the system frees the lock of one that ends
VERSION = 2
LARGEST = 1 << 20  # bytes of a record


def cache_folder() -> Path:
    """The folder of records. Nothing is made."""
    if own := os.environ.get("COOLSD_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "coolsd-rt"


def record_file(fingerprint: str, machine: Mapping[str, Any]) -> Path:
    """The record of an engine on a machine. machine: JSON data that says all that changes how fast rounds are."""
    return cache_folder() / "plans" / f"{fingerprint[:16]}-{sha256_json(machine)[:12]}.json"


@dataclass
class PlanBook:
    """The plans of one engine on this machine. Safe for several processes.

    machine: as `record_file` takes it.
    """

    fingerprint: str
    machine: Mapping[str, Any]
    _known: dict[tuple[str, int], DraftPlan] = field(default_factory=dict)

    def get(self, request: Mapping[str, Any], images: int, choose: Callable[[], Choice]) -> DraftPlan:
        """Return the recorded plan of a request, or the one that `choose` gives, which is recorded.

        request: JSON data that says all that changes which plan is best, the number of images excepted.
        """
        if (known := self.find(request, images)) is not None:
            return known
        key = sha256_json(request)[:16]
        plan = self._known[key, images] = self._recorded(key, request, images, choose)
        return plan

    def find(self, request: Mapping[str, Any], images: int) -> DraftPlan | None:
        """Return the recorded plan of a request; None if it has to be chosen. Makes nothing.

        A record is replaced whole, so it is read without a lock.
        """
        key = sha256_json(request)[:16]
        if (key, images) not in self._known:
            try:
                path = record_file(self.fingerprint, self.machine)
            except RuntimeError:  # no home
                return None
            plan = _find(_read(path).get(key, {}).get("plans"), images, request)
            if plan is None:
                return None
            self._known[key, images] = plan
        return self._known[key, images]

    def _recorded(self, key: str, request: Mapping[str, Any], images: int, choose: Callable[[], Choice]) -> DraftPlan:
        path = self._path()
        if path is None:
            return choose().plan
        from filelock import FileLock, Timeout  # not needed where a plan is on record

        lock = FileLock(f"{path}.lock")
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except (Timeout, OSError):
            return choose().plan
        try:
            record = _read(path)
            entry = record.setdefault(key, {"request": dict(request), "plans": {}})
            plan = _find(entry.get("plans"), images, request)
            if plan is None:
                choice = choose()
                entry["plans"] = {**_plans(entry.get("plans")), str(images): choice.as_dict()}
                self._write(path, record)
                plan = choice.plan
            return plan
        finally:
            lock.release()

    def _write(self, path: Path, record: dict[str, Any]) -> None:
        whole = {"version": VERSION, "machine": dict(self.machine), "requests": record}
        with suppress(OSError, CoolsdError):
            write_atomic(path, (json.dumps(whole, indent=1) + "\n").encode())

    def _path(self) -> Path | None:
        """The record, its folder made; None where that is not possible."""
        try:
            path = record_file(self.fingerprint, self.machine)
            path.parent.mkdir(parents=True, exist_ok=True)
        except (OSError, RuntimeError):  # no home
            return None
        return path


def _read(path: Path) -> dict[str, Any]:
    """The entries of a record by key of the request; none of a file that is not one of ours."""
    try:
        whole = read_json(path, "a record of plans", LARGEST)
    except CoolsdError:
        return {}
    requests = whole.get("requests") if isinstance(whole, dict) and whole.get("version") == VERSION else None
    return {k: v for k, v in requests.items() if isinstance(v, dict)} if isinstance(requests, dict) else {}


def _plans(entry: Any) -> dict[str, Any]:
    """The choices of an entry by number of images, as text; none of what is not one of ours."""
    return {k: v for k, v in entry.items() if isinstance(v, dict)} if isinstance(entry, dict) else {}


def _find(entry: Any, images: int, request: Mapping[str, Any]) -> DraftPlan | None:
    """The plan for that many images; None if it has to be chosen.

    A plan that this request could not have chosen (an edited record) is none.
    """
    try:
        plan = DraftPlan.of(_plans(entry)[str(images)])
    except (CoolsdError, KeyError):
        return None
    length, drafters = request.get("draft_length", DRAFT_LENGTH.high), request.get("drafters", DRAFTERS)
    return plan if plan == PLAIN or (plan.length <= length and plan.drafter in drafters) else None
