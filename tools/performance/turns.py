"""Contenders take turns, and a record keeps every turn that is done: an interrupted run goes on where it was.

    OUT/run/run.json      what the figures are of: engines, threads, turns
    OUT/run/turns.json    one entry for each turn, floor or process that was timed

A machine that gets slower or warmer affects all contenders, since they draw A B C A B C. The first image of each
contender is not timed: caches grow, code is compiled, plans are tried.

Knows records and contenders. Does not know tables.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from coolsd_rt.files import read_json, why_unusable
from coolsd_rt.limits import RESULT_BYTES
from coolsd_rt.store.results import claim, save
from tools.performance.contenders import COMPILED, Contender, Field

Entry = dict[str, Any]
FIRST = "first"
"""Name of the entry that has the seconds of a contender's first image."""


class Record:
    """Entries by key. Each is written when it is made. Raises as `claim` does: the folder has other results."""

    def __init__(self, folder: Path, head: Mapping[str, Any]) -> None:
        self._path = folder / "turns.json"
        claim(folder, "run.json", head, "the same comparison")
        self._entries: dict[str, Entry] = {}
        if why_unusable(self._path) != "nothing":
            self._entries = read_json(self._path, "turns of a comparison", RESULT_BYTES, fix="remove it")

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def get(self, key: str, make: Callable[[], Entry]) -> Entry:
        """Return an entry, made and kept if it is not there."""
        if key not in self._entries:
            self._entries[key] = make()
            save(self._path, (json.dumps(self._entries) + "\n").encode())
        return self._entries[key]

    def below(self, prefix: str) -> list[Entry]:
        """Return the entries whose keys begin with `prefix/`, in the order in which they were made."""
        return [entry for key, entry in self._entries.items() if key.startswith(f"{prefix}/")]


class Turns:
    """Draws the turns of one model. on_turn: called after each with the contender's key."""

    def __init__(self, name: str, field: Field, turns: int, record: Record, on_turn: Callable[[str], None]) -> None:
        self._name, self._field, self._turns = name, field, turns
        self._record, self._on_turn = record, on_turn
        self._warm: set[str] = set()
        self._jobs = {n: field.jobs(n, turns) for n in {one.images for one in field.contenders}}
        self.left_out: dict[str, str] = {}

    @property
    def count(self) -> int:
        """Turns of all contenders."""
        return self._turns * len(self._field.contenders)

    def run(self, between: Sequence[Callable[[int], None]] = ()) -> None:
        """Draw what the record does not have. between: called with the number of each turn after it."""
        for turn in range(self._turns):
            for one in self._field.contenders:
                if one.key not in self.left_out:
                    self._turn(one, turn)
                self._on_turn(one.key)
            for other in between:
                other(turn)

    def _turn(self, one: Contender, turn: int) -> None:
        key, jobs = f"{self._name}/{one.key}/{turn}", self._jobs[one.images]
        if key in self._record:
            return
        if one.key not in self._warm:
            began = time.perf_counter()
            try:
                one.draw(jobs[0])
            except RuntimeError as error:
                if one.name != COMPILED:
                    raise
                self.left_out[one.key] = _line(error)  # no compiler, or a version of it that Inductor does not take
                return
            self._warm.add(one.key)
            seconds = time.perf_counter() - began
            self._record.get(f"{self._name}/{FIRST}/{one.key}", lambda: {"seconds": seconds})
        self._record.get(key, lambda: one.draw(jobs[turn]).as_dict())


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200]
