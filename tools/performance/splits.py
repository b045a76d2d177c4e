"""Where the seconds of one image go, as a user waits for it: `coolsd-rt generate` in a process of its own.

    start       the process begins, imports, checks hashes, loads the engine; and ends
    target      steps of the target, the prefill with them
    draft       steps of the draft
    law         probabilities, sampling, acceptance, residuals
    decoder     codes to pixels; the condition, and room for the caches
    rest        Python of the rounds, files

They add up to the wall time of the process.

Knows the command and its JSON. Does not know engines.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coolsd_rt.errors import CoolsdError

PARTS = ("start", "target", "draft", "law", "decoder", "rest")
WAYS = {"plain": ("--plain",), "COOL-SD, delta 1.1": ("--pacing", "manual"), "auto": ("--pacing", "auto")}
"""Rows, and the options of each. The spec's law is COOL-SD at delta 1.1, or has fixed accept rates."""


def process(engine: Path, prompt: str, options: Sequence[str], threads: int) -> dict[str, Any]:
    """Draw one image in a fresh process; return its parts in seconds. Raises CoolsdError if it fails."""
    with tempfile.TemporaryDirectory() as out:
        words = ["generate", str(engine), "-p", prompt, "--out", out, "--threads", str(threads), "--json", *options]
        command = [sys.executable, "-m", "coolsd_rt.cli", *words]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wall = time.perf_counter() - began
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise CoolsdError("an image in a process of its own", expected="it to be drawn", found=lines[-1])
    return split(json.loads(done.stdout), wall)


def split(told: Mapping[str, Any], wall: float) -> dict[str, Any]:
    """Return the parts of `wall` seconds of a process by what its JSON says; `start` is what is not drawing."""
    spent = {
        "start": wall - told["seconds"],
        "target": told["seconds_target"] or 0.0,
        "draft": told["seconds_draft"] or 0.0,
        "law": told["seconds_verify"] or 0.0,
        "decoder": told["seconds_image"],
    }
    return {"parts": {**spent, "rest": wall - sum(spent.values())}, "wall": wall}
