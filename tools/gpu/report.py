"""A GPU check's outcome as two files: JSON with everything, Markdown with what one wants to see first."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from coolsd_rt.store.atomic import check_folder, disk_errors, write_atomic
from coolsd_rt.store.outputs import is_taken


class Report:
    """Two files, rewritten whole as more is known."""

    def __init__(self, folder: Path) -> None:
        """Raises CoolsdError where `folder` cannot be written: before anything is measured."""
        self._folder, self._begun = folder, f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
        check_folder(folder)
        self.files: tuple[Path, Path] | None = None

    def write(self, outcome: dict[str, Any]) -> tuple[Path, Path]:
        """`<folder>/<gpu>-<time>.json` and `.md`."""
        gpu = outcome["environment"]["gpu"]
        name = re.sub(r"[^a-z0-9]+", "-", gpu["name"].lower()).strip("-") if gpu else "rehearsal"
        files = self.files = self.files or self._free(f"{name}-{self._begun}")
        with disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomic(files[0], (json.dumps(outcome, indent=1) + "\n").encode())
            write_atomic(files[1], markdown(outcome).encode())
        return files

    def _free(self, stem: str) -> tuple[Path, Path]:
        """Two names that no report of another check has: several may begin in one second."""
        names = (f"{stem}-{n}" if n > 1 else stem for n in count(1))
        pairs = ((self._folder / f"{name}.json", self._folder / f"{name}.md") for name in names)
        return next(pair for pair in pairs if not any(is_taken(file) for file in pair))


def markdown(outcome: dict[str, Any]) -> str:
    """The summary."""
    environment = outcome["environment"]
    gpu = environment["gpu"]
    where = (
        f"{gpu['name']}, driver {gpu['driver']}, CUDA {gpu['cuda']}"
        if gpu
        else "a rehearsal on a CPU: no figure counts"
    )
    packages = ", ".join(f"{k} {v}" for k, v in environment["packages"].items())
    lines = [f"# GPU check\n\n{where}. {packages}. {outcome['seconds']:g} s.\n"]
    if tests := outcome.get("tests"):
        last = tests["lines"][-1] if tests["lines"] else "no output"
        ran = "passed" if tests["passed"] and " passed" in last else "NONE RAN" if tests["passed"] else "FAILED"
        lines.append(f"Tests: {ran} ({last}).\n")
    if outcome.get("parity"):
        lines += [
            "| backend | precision | passed | largest logit error | identical | rounds on the device, as the host's |",
            "|---|---|---|---|---|---|",
        ]
        lines += [_proof(row) for row in outcome["parity"]]
        lines.append("")
    if bench := outcome.get("benchmark"):
        lines.append(f"Memory is read at {bench['read_bytes_per_second'] / 1e9:.0f} GB/s.\n")
        lines += [
            "| size | tokens | batch | backend | how | way | ms a round | over the floor | law | s a batch, decoding |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [_figures(row) for row in bench["rows"]]
        lines.append("")
    for one in outcome.get("image_decoding", []):
        lines.append(f"ImageDecoding {one['batch']} of {one['tokens']} codes takes {one['seconds']:.3f} s more.\n")
    if kernels := outcome.get("kernels"):
        lines += [
            "| launch, over all layers | rows | positions | blocks | overlapping | us a layer | GB/s |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [_launch(row) for row in kernels]
        lines.append("")
    lines += [f"- skipped {line}" for line in outcome["skipped"]]
    lines += [f"- FAILED: {line}" for line in outcome["failed"]]
    return "\n".join(lines) + "\n"


def _proof(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"| {row['backend']} | {row['precision']} | no: {row['error']} | | | |"
    passed = "yes" if row["passed"] else "no: " + "; ".join(row["failures"])
    error = row["max_logit_error"]
    shown = f"{error:.2g}" if isinstance(error, float) else str(error)
    alike = f"{row['identical']} of {row['images']}"
    return f"| {row['backend']} | {row['precision']} | {passed} | {shown} | {alike} | {_rounds(row.get('rounds'))} |"


def _rounds(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    near = f", {found['near_ties']} at near ties" if found["near_ties"] else ""
    why = f"; {found['graph_fallback_reason']}" if found["graph_fallback_reason"] else ""
    return f"{found['identical']} of {found['images']}{near}{why}"


def _launch(row: dict[str, Any]) -> str:
    return (
        f"| {row['launch']} | {row['rows']} | {row['positions']} | {row['blocks'] or 'default'} "
        f"| {'yes' if row['pdl'] else 'no'} | {row['microseconds']:.1f} | {row['bytes_per_second'] / 1e9:.0f} |"
    )


def _figures(row: dict[str, Any]) -> str:
    image = "" if row["image_s"] is None else f"{row['image_s']:.3f}"
    how = f"NO GRAPH: {row['note']}" if row["note"] else row["how"]
    return (
        f"| {row['size']} | {row['tokens']} | {row['batch']} | {row['backend']} | {how} | {row['way']} "
        f"| {row['round_ms']:.3f} | {row['over_floor']:.2f} | {row['law_share']:.0%} | {image} |"
    )
