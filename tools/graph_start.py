"""What the start of each graph's ONNX Runtime session costs, by how the graph is stored.

    python -m tools.graph_start engines/emoji --runs 7

Forms, in turns: the weights in the graph's file, the weights in a file beside it (mapped), and the graph as ONNX
Runtime has optimised it for this machine, with its weights beside it. Two more columns are the hash of what a form
reads, which has to be checked before it is parsed, and a session whose threads spin as long as ONNX Runtime's default.
Milliseconds of CPU time of this process, medians. Knows ONNX Runtime's options. Does not know what a graph computes.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import click
import onnx

from coolsd_rt import cores, limits
from coolsd_rt.backends.onnxruntime.graph import CPU, session_options
from coolsd_rt.backends.registry import LoadOptions
from coolsd_rt.captured import native_words
from coolsd_rt.cli.entry import enter, overwrite_option
from coolsd_rt.cli.numbers import number, threads_option
from coolsd_rt.cli.output import say, show_table
from coolsd_rt.cli.paths import ENGINE, WRITES
from coolsd_rt.machine import machine
from coolsd_rt.store.hashing import sha256_file
from coolsd_rt.store.outputs import check_output, write_output
from coolsd_rt.workflows.opened import OpenedEngine

with native_words([]):
    import onnxruntime as ort

FORMS = ("inside", "beside", "stored", "hash", "default spin")
_SETTLES = 0.06  # seconds after which the threads of a new session do not spin any more


def forms_of(path: Path, folder: Path, threads: int) -> dict[str, Callable[[], object]]:
    """What is timed of one graph, by the name of the form. folder: an empty folder for its files."""
    inside, beside, stored = (folder / f"{name}.onnx" for name in FORMS[:3])
    onnx.save(onnx.load(path), inside)
    model = onnx.load(inside)
    onnx.save(model, beside, save_as_external_data=True, location=f"{beside.name}.data", size_threshold=1024)

    def options() -> Any:
        return session_options(LoadOptions(threads=threads), folder)

    def as_it_comes() -> Any:
        made = ort.SessionOptions()
        made.intra_op_num_threads, made.inter_op_num_threads = threads, 1
        made.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "4")
        return made

    def start(file: Path, made: Any) -> object:
        return ort.InferenceSession(file.read_bytes(), made, providers=[CPU])

    writing = options()
    writing.optimized_model_filepath = str(stored)
    names = "session.optimized_model_external_initializers_"
    writing.add_session_config_entry(f"{names}file_name", f"{stored.name}.data")
    writing.add_session_config_entry(f"{names}min_size_in_bytes", "1024")
    start(inside, writing)

    def from_stored() -> object:
        made = options()
        made.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return start(stored, made)

    return {
        "inside": lambda: start(inside, options()),
        "beside": lambda: start(beside, options()),
        "stored": from_stored,
        "hash": lambda: sha256_file(inside),
        "default spin": lambda: start(inside, as_it_comes()),
    }


def measure(engine: Path, runs: int, threads: int) -> dict[str, dict[str, float]]:
    """Milliseconds of CPU time by graph and form; `megabytes` is the size of the graph."""
    opened = OpenedEngine.at(engine, threads=threads)
    found: dict[str, dict[str, float]] = {}
    for name, record in opened.description.graphs.items():
        path = opened.verified.path(record.file)
        with tempfile.TemporaryDirectory() as folder:
            forms = forms_of(path, Path(folder), threads)
            seconds: dict[str, list[float]] = {form: [] for form in FORMS}
            for _ in range(runs):
                for form, act in forms.items():
                    began = time.process_time()
                    kept = act()
                    time.sleep(_SETTLES)
                    seconds[form].append(time.process_time() - began)
                    del kept
            size = (Path(folder) / "inside.onnx").stat().st_size
        found[name] = {"megabytes": round(size / 1e6, 1), **{f: round(median(s) * 1e3, 1) for f, s in seconds.items()}}
    return found


@click.command()
@click.argument("engine", type=ENGINE)
@click.option("--runs", type=number(limits.RUNS), default=7, show_default=True, help="Sessions of each form.")
@threads_option()
@click.option("--json", "json_file", type=WRITES, help="Write the figures as JSON to this file.")
@overwrite_option
def main(engine: Path, runs: int, threads: int | None, json_file: Path | None, overwrite: bool) -> None:
    """Time the sessions of the graphs of ENGINE, as they could be stored."""
    if json_file is not None:
        check_output(json_file, "--json", overwrite=overwrite)
    count = threads or cores.here().threads
    found = measure(engine, runs, count)
    say(f"milliseconds of CPU time, medians of {runs}, {count} threads")
    show_table(("graph", "MB", *FORMS), [(name, *(f"{x:.0f}" for x in row.values())) for name, row in found.items()])
    if json_file is not None:
        text = json.dumps({"machine": machine(count), "runs": runs, "graphs": found}, indent=2)
        write_output(json_file, f"{text}\n".encode(), overwrite=overwrite)


if __name__ == "__main__":
    enter(main)
