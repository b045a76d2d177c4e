"""`coolsd-rt batch` as users run it: a process of its own, with a real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coolsd_rt
from coolsd_rt.workflows.generate.identity import PIXELS, said_by

ROOT = Path(coolsd_rt.__file__).parents[1]
WORDS = ("red apple", "rocket", "penguin", "top hat")


@dataclass(frozen=True)
class BatchDone:
    """How a run ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """What --json printed."""
        document: dict[str, Any] = json.loads(self.out)
        return document


def start(*words: object, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start the verb."""
    return subprocess.Popen(
        [sys.executable, "-m", "coolsd_rt.cli", "batch", *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def batch(*words: object, environment: Mapping[str, str] | None = None) -> BatchDone:
    """Run the verb to its end."""
    process = start(*words, environment=environment)
    out, err = process.communicate(timeout=300)
    return BatchDone(process.returncode, out, err)


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any] | str]) -> Path:
    """Write rows; a text is a line as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def plain_rows(count: int) -> list[dict[str, Any]]:
    """Rows of different prompts, some with settings of their own."""
    rows: list[dict[str, Any]] = [{"prompt": WORDS[k % len(WORDS)], "id": f"image {k}"} for k in range(count)]
    for k in range(0, count, 7):
        rows[k] |= {"plain": True, "seed": k}
    for k in range(3, count, 11):
        rows[k] |= {"temperature": 0.7, "top_k": 5}
    return rows


def digests(out: Path) -> dict[str, str]:
    """The digest of the pixels of each image of a folder of PNG files, by the file's name."""
    return {path.name: said_by(path)[PIXELS] for path in out.glob("images/[!.]*/*.png")}


def files(out: Path) -> dict[str, bytes]:
    """Every file of a job that another run has to write alike, by its name."""
    paths = [*out.glob("images/**/*"), *out.glob("parts/*"), out / "plan.json", out / "batch.json"]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths if path.is_file()}
