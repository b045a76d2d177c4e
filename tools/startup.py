"""Start-up of `coolsd-rt generate`: CPU time and wall time from the start of the process to its first token.

    python -m tools.startup engines/emoji
    python -m tools.startup engines/emoji --runs 15 --plain --tree ../before --tree .

Each run is a new process that does what the command does, up to the first time that its loop reports tokens, where it
ends. The parts are cumulative: when Python reaches its first line, when the command is imported, when the engine's
files are hashed, when the engine is loaded, and at the first token. Several trees (checkouts of coolsd-rt) take turns,
and the medians of their runs are shown side by side. Plans and other records of the machine go to a folder of their
own, which a first process of each tree fills: it is not counted.

Linux: the start of a process is read from a clock that all processes share. Knows processes, and the names of the
functions whose ends are the parts. Does not know how they work.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click

from coolsd_rt import cores, limits
from coolsd_rt.cli.entry import enter, gathered, overwrite_option
from coolsd_rt.cli.numbers import number, threads_option
from coolsd_rt.cli.output import say, show_table
from coolsd_rt.cli.paths import ENGINE, FOLDER, WRITES
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.machine import machine
from coolsd_rt.store import open_engine
from coolsd_rt.store.outputs import check_output, write_output

PARTS = ("python", "imports", "hashed", "loaded", "first token")
"""When each was reached, in this order."""
CLOCKS = ("cpu", "wall")
_ROOT = Path(__file__).resolve().parents[1]

# What a process runs. `watched` puts a mark at the end of a function; the functions are looked up when they are called.
CHILD = """
import os, sys, time
marks = {}
def mark(name):
    marks.setdefault(name, {"cpu": time.process_time(), "wall": time.monotonic() - float(os.environ["STARTED"])})
mark("python")
import coolsd_rt.cli.__main__ as entry
entry.hold_back_during_imports()
getattr(entry, "set_defaults", bool)()
from coolsd_rt.cli.main import run
import coolsd_rt.cli.generate as verb
mark("imports")
from dataclasses import replace
import coolsd_rt.backends, coolsd_rt.store.engine
def watched(owner, attribute, name):
    inner = getattr(owner, attribute)
    def call(*args, **kwargs):
        result = inner(*args, **kwargs)
        mark(name)
        return result
    setattr(owner, attribute, call)
watched(coolsd_rt.store.engine.EngineFolder, "verified", "hashed")
watched(coolsd_rt.backends, "load", "loaded")
def first(done, accept_length):
    mark("first token")
    import json
    marks["modules"] = sorted(sys.modules)
    with open(os.environ["MARKS"], "w") as file:
        json.dump(marks, file)
    os._exit(0)
inner = verb.generate
verb.generate = lambda engine, request, listener: inner(engine, request, replace(listener, tokens=first))
sys.exit(run(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Request:
    """What each process draws.

    options: of `coolsd-rt generate`.
    """

    engine: Path
    prompt: str
    options: tuple[str, ...] = ()

    def run(self, tree: Path, cache: Path) -> dict[str, Any]:
        """Return the marks of one process: part to clock to seconds, and `modules`, the names of those imported.

        Raises CoolsdError if the process ends without a token.
        """
        with tempfile.TemporaryDirectory() as out:
            marks = Path(out) / "marks.json"
            words = ["generate", str(self.engine.resolve()), "-p", self.prompt, "--out", f"{out}/images", *self.options]
            env = {**os.environ, "PYTHONPATH": str(tree.resolve()), "COOLSD_CACHE": str(cache), "MARKS": str(marks)}
            env["STARTED"] = repr(time.monotonic())
            done = subprocess.run(
                [sys.executable, "-c", CHILD, *words],
                env=env,
                cwd=out,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if not marks.is_file():
                found = (done.stderr.strip().splitlines() or ["nothing"])[-1]
                raise CoolsdError("the process", expected="a first token", found=found)
            found_marks: dict[str, Any] = json.loads(marks.read_text(encoding="utf-8"))
        return found_marks


def measure(trees: Sequence[Path], request: Request, runs: int) -> dict[str, list[dict[str, Any]]]:
    """Marks of `runs` processes of each tree, in turns, by the tree's path. Raises as `Request.run` does."""
    with tempfile.TemporaryDirectory() as folder:
        caches = {str(tree): Path(folder) / str(i) for i, tree in enumerate(trees)}
        found: dict[str, list[dict[str, Any]]] = {str(tree): [] for tree in trees}
        for turn in range(runs + 1):
            for tree in trees:
                marks = request.run(tree, caches[str(tree)])
                if turn:  # the first writes records and compiled modules
                    found[str(tree)].append(marks)
    return found


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Median seconds of each part by clock, and the median number of imported modules."""
    parts = {
        clock: {part: round(median(run[part][clock] for run in runs), 4) for part in PARTS if part in runs[0]}
        for clock in CLOCKS
    }
    return {**parts, "modules": median(len(run["modules"]) for run in runs)}


@dataclass(frozen=True)
class _Options:
    """Value of each option that says what to measure, by its name in click."""

    engine: Path
    trees: tuple[Path, ...]
    runs: int
    prompt: str
    plain: bool
    draft: str | None
    threads: int | None

    @property
    def words(self) -> list[str]:
        """The options of `coolsd-rt generate`."""
        words = ["--plain"] * self.plain + (["--draft", self.draft] if self.draft else [])
        return [*words, *(["--threads", str(self.threads)] if self.threads else [])]


@click.command()
@click.argument("engine", type=ENGINE)
@click.option("--tree", "trees", type=FOLDER, multiple=True, help="Checkout to measure. Repeatable; default: this one.")
@click.option("--runs", type=number(limits.RUNS), default=11, show_default=True, help="Processes of each tree.")
@click.option("-p", "--prompt", default="red apple", show_default=True, help="Prompt of the image.")
@click.option("--plain", is_flag=True, help="Decode without a draft.")
@click.option("--draft", type=click.Choice(["jacobi", "jacobi-coupled"]), help="Draft from the target's last round.")
@threads_option()
@click.option("--json", "json_file", type=WRITES, help="Write every run as JSON to this file.")
@overwrite_option
@gathered(_Options)
def main(given: _Options, json_file: Path | None, overwrite: bool) -> None:
    """Time the start of `coolsd-rt generate ENGINE`, up to the first token, in new processes."""
    if json_file is not None:
        check_output(json_file, "--json", overwrite=overwrite)
    open_engine(given.engine)
    for tree in given.trees:
        if not (tree / "coolsd_rt").is_dir():
            raise UserError("--tree", expected="a checkout with the folder coolsd_rt", found=str(tree))
    found = measure(given.trees or (_ROOT,), Request(given.engine, given.prompt, tuple(given.words)), given.runs)
    medians = {tree: summary(marks) for tree, marks in found.items()}
    for clock in CLOCKS:
        name = "CPU" if clock == "cpu" else "wall"
        say(f"{name} seconds since the start of the process, medians of {given.runs} processes")
        rows = [(part, *(f"{one[clock][part]:.3f}" for one in medians.values())) for part in PARTS]
        show_table(("", *medians), rows)
    say("modules at the first token: " + ", ".join(str(one["modules"]) for one in medians.values()))
    if json_file is not None:
        here = machine(given.threads or cores.here().threads)
        text = json.dumps({"machine": here, "options": given.words, "medians": medians, "runs": found}, indent=2)
        write_output(json_file, f"{text}\n".encode(), overwrite=overwrite)


if __name__ == "__main__":
    enter(main)
