"""The laws that `tools.text.served` draws texts with, by name, and the settings of each on an engine.

Knows names and run-time values of a spec. Does not know questions, files or figures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coolsd_rt.errors import UserError
from coolsd_rt.schedules.analyze import LOSSLESS
from coolsd_rt.spec import with_overrides
from coolsd_rt.workflows.drawing import Settings
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.texts import bounded

BASE = "lossless"
DELTAS = (1.1, 1.5, 2.0)
FACTOR = 2.0  # of LANTERN++
LENDING = 8  # most neighbours that lend; an engine with fewer lends as many as it has
SAMPLING: dict[str, Any] = {
    "sampling.temperature": 1.0, "sampling.top_k": 0, "sampling.top_p": 1.0, "sampling.cfg_scale": 1.0,
}  # fmt: skip
"""The target's own distribution, whatever the spec filters."""


@dataclass(frozen=True)
class ServedLaw:
    """A law with a name. changes: run-time values that are not those of lossless decoding."""

    name: str
    changes: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """Name of the folder of its texts."""
        return re.sub(r"[^a-z0-9.]+", "-", self.name.replace("+", "p").replace("*", "-star").lower()).strip("-")

    @property
    def borrows(self) -> bool:
        """Whether the law needs the engine's table of neighbours."""
        return "acceptance.rule" in self.changes


def _schedule(kind: str, delta: float, floor: float | None) -> dict[str, Any]:
    return {"schedule.kind": kind, "schedule.delta": delta, "schedule.floor": floor}


def _table() -> dict[str, ServedLaw]:
    found = [ServedLaw(BASE, {})]
    for delta in DELTAS:
        paper = {**_schedule("exponential", delta, None), "schedule.nu": 0.7}
        found.append(ServedLaw(f"cool-sd, delta {delta:g}", paper))
        found.append(ServedLaw(f"cool-sd, delta {delta:g}, floor 1", {**paper, "schedule.floor": 1.0}))
    found += [ServedLaw(f"uniform, delta {delta:g}", _schedule("uniform", delta, None)) for delta in DELTAS]
    rule = {"acceptance.rule": "lantern_pp", "acceptance.factor": FACTOR}
    found.append(ServedLaw(f"lantern++, factor {FACTOR:g}", {**rule, "resampler.kind": "lantern"}))
    found.append(ServedLaw(f"lantern++, factor {FACTOR:g}, G*", rule))
    return {law.name: law for law in found}


LAWS = _table()


def chosen(names: tuple[str, ...], opened: OpenedEngine) -> list[ServedLaw]:
    """Return the laws that are asked for, in the table's order; without names all that the engine can draw.

    Raises UserError: an unknown name, or a law that needs neighbours which the engine does not have.
    """
    for name in names:
        if name not in LAWS:
            raise UserError("--laws", expected=f"one of: {'; '.join(LAWS)}", found=name)
    columns = neighbour_columns(opened)
    wanted = [law for law in LAWS.values() if law.name in names or not names]
    if names and columns < 2 and (lacking := [law.name for law in wanted if law.borrows]):
        fix = "set text.neighbours to 9 in the spec and build it again"
        raise UserError(lacking[0], expected="an engine with neighbours", found=f"{columns} of each token", fix=fix)
    return [law for law in wanted if columns >= 2 or not law.borrows]


def neighbour_columns(opened: OpenedEngine) -> int:
    """Return the number of neighbours of each token that the engine has."""
    return 0 if opened.neighbours is None else opened.neighbours.shape[1]


def settings_of(opened: OpenedEngine, law: ServedLaw, tokens: int) -> Settings:
    """Return the settings of a law at temperature 1. tokens: the most of a text. Raises UserError as `bounded`."""
    changes = {**LOSSLESS, **SAMPLING, **law.changes}
    if law.borrows:
        changes["acceptance.neighbours"] = min(LENDING, neighbour_columns(opened) - 1)
    return bounded(opened, opened.settings(with_overrides(opened.spec, changes)), tokens)
