"""The forms of int8 products beside each other: steps and whole images of some engines, in turns.

    python -m tools.int8_forms engines/a engines/b --runs 31 --images 11

Engines of one model, for instance of specs that differ in `engine.quantization`. Two clocks: CPU time of the process
with one thread, which another process on the machine changes least, and wall time with `--threads`. A step is of one
image under guidance (two rows), at the end of the image, with one position and with as many as a round verifies. An
image is drawn plain, lossless and by COOL-SD at delta 1.1, with the engine's draft and with Jacobi drafts. Each turn
has a seed of its own, since engines of another form accept other drafts. Ratios are medians of the ratios of each turn.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

from coolsd_rt import cores, limits
from coolsd_rt.cli.entry import enter, overwrite_option
from coolsd_rt.cli.numbers import number, threads_option
from coolsd_rt.cli.output import say, show_table
from coolsd_rt.cli.paths import ENGINE, WRITES
from coolsd_rt.errors import UserError
from coolsd_rt.machine import machine
from coolsd_rt.runtime.interface import Engine
from coolsd_rt.spec import Spec, with_jacobi, with_overrides
from coolsd_rt.store.outputs import check_output, write_output
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.drawing import Settings
from coolsd_rt.workflows.opened import OpenedEngine

Call = Callable[[int], object]
"""Of the number of the turn."""
PLAIN, LOSSLESS, RELAXED = "plain", "lossless", "COOL-SD, delta 1.1"
_STEPS = 8  # of one measurement


def steps_of(engine: Engine, widths: tuple[int, ...]) -> dict[str, Call]:
    """A step of each width at the end of an image, by name. One image, two rows."""
    d, rng = engine.dims, np.random.default_rng(0)
    prefix = rng.standard_normal((2, d.prefix, d.dim + d.draft_dim)).astype(np.float32)
    session = engine.open(prefix, d.positions)
    calls: dict[str, Call] = {}
    for width in widths:
        ids, pos = rng.integers(0, d.vocab, (2, width)), np.full(2, d.positions - width)

        def call(turn: int, ids: Any = ids, pos: Any = pos) -> None:
            for _ in range(_STEPS):
                session.target(ids, pos)

        calls[f"step of {width}"] = call
    return calls


def images_of(opened: OpenedEngine, prompt: str | None, runs: int) -> dict[str, Call]:
    """An image in each way of decoding, by name; of an engine with given accept rates, with those.

    prompt: None is the first that the spec has for trials.
    """
    texts = [prompt] if prompt is not None else opened.default_prompts()[:1]
    jobs = drawing.spread_jobs(texts, runs + 1, 0, opened.conditioner)
    ways: dict[str, tuple[Spec, bool]] = {PLAIN: (opened.spec, True)}
    if opened.spec.acceptance.rule == "synthetic":
        ways["the spec's accept rates"] = (opened.spec, False)
    else:
        base = with_overrides(opened.spec, {"acceptance.rule": "ratio"})
        lossless = with_overrides(base, {"schedule.kind": "none"})
        relaxed = with_overrides(base, {"schedule.kind": "exponential", "schedule.delta": 1.1})
        for name, spec in ((LOSSLESS, lossless), (RELAXED, relaxed)):
            ways[name] = (spec, False)
            ways[f"{name}, Jacobi"] = (with_jacobi(spec, base.draft.length), False)
    settings = {name: opened.settings(spec, plain=plain) for name, (spec, plain) in ways.items()}

    def call(turn: int, chosen: Settings) -> None:
        drawing.draw(opened.engine, [jobs[turn]], opened.conditioner, chosen)

    return {f"image, {name}": partial(call, chosen=chosen) for name, chosen in settings.items()}


def in_turns(
    calls: Mapping[str, Mapping[str, Call]], runs: int, clock: Callable[[], float]
) -> dict[str, dict[str, list[float]]]:
    """Seconds of each call of each engine: name of the call to engine to one number a turn."""
    names = list(next(iter(calls.values())))
    found: dict[str, dict[str, list[float]]] = {name: {engine: [] for engine in calls} for name in names}
    for turn in range(-1, runs):
        for name in names:
            for engine, made in calls.items():
                start = clock()
                made[name](turn + 1)
                if turn >= 0:  # the first turn binds memory
                    found[name][engine].append(clock() - start)
    return found


def summary(found: Mapping[str, Mapping[str, list[float]]]) -> dict[str, dict[str, Any]]:
    """Medians in milliseconds (of a step, or an image), the median ratio of the first engine's time to each, and of
    an engine's plain image to its images of other ways."""
    out: dict[str, dict[str, Any]] = {}
    plain = found.get(f"image, {PLAIN}", {})
    for name, by_engine in found.items():
        first = next(iter(by_engine.values()))
        many = _STEPS if name.startswith("step") else 1
        out[name] = {
            engine: {
                "milliseconds": round(median(seconds) / many * 1e3, 3),
                "faster": _ratio(first, seconds),
                **({} if name.startswith("step") else {"over_plain": _ratio(plain[engine], seconds)}),
            }
            for engine, seconds in by_engine.items()
        }
    return out


def _ratio(before: list[float], after: list[float]) -> float:
    return round(median(a / b for a, b in zip(before, after, strict=True)), 3)


def _cell(one: Mapping[str, float]) -> str:
    over = f"; {one['over_plain']:.2f}x plain" if "over_plain" in one else ""
    return f"{one['milliseconds']:.3g} ({one['faster']:.2f}x{over})"


def measure(engines: list[Path], runs: int, images: int, threads: int, prompt: str | None = None) -> dict[str, Any]:
    """Figures of both clocks, as JSON data. images: 0 draws none.

    Raises UserError: engines of different sizes, or of one name.
    """
    if len({path.name for path in engines}) < len(engines):
        raise UserError("engines", expected="folders of different names", found="one name twice")
    out: dict[str, Any] = {"machine": machine(threads), "runs": runs, "images": images, "clocks": {}}
    clocks: tuple[tuple[str, int, Callable[[], float]], ...] = (
        ("CPU time, 1 thread", 1, time.process_time),
        (f"wall time, {threads} threads", threads, time.perf_counter),
    )
    for label, count, clock in clocks:
        opened = {path.name: OpenedEngine.at(path, threads=count) for path in engines}
        if len({o.description.dims for o in opened.values()}) > 1:
            raise UserError("engines", expected="engines of one model", found="engines of different sizes")
        widths = tuple(sorted({1, next(iter(opened.values())).description.draft_length + 1}))
        steps = {name: steps_of(one.engine, widths) for name, one in opened.items()}
        found = in_turns(steps, runs, clock)
        if images:
            drawn = {name: images_of(one, prompt, images) for name, one in opened.items()}
            found |= in_turns(drawn, images, clock)
        out["clocks"][label] = summary(found)
    return out


@click.command()
@click.argument("engines", type=ENGINE, nargs=-1, required=True)
@click.option("--runs", type=number(limits.RUNS), default=31, show_default=True, help="Turns of steps.")
@click.option("--images", type=number(limits.RUNS), default=11, show_default=True, help="Turns of images.")
@click.option("--steps-only", is_flag=True, help="Draw no images.")
@click.option("-p", "--prompt", help="Prompt of the images; default: one of the spec's.")
@threads_option()
@click.option("--json", "json_file", type=WRITES, help="Write the figures as JSON to this file.")
@overwrite_option
def main(
    engines: tuple[Path, ...],
    runs: int,
    images: int,
    steps_only: bool,
    prompt: str | None,
    threads: int | None,
    json_file: Path | None,
    overwrite: bool,
) -> None:
    """Time steps and images of ENGINES in turns. Ratios are to the first engine."""
    if json_file is not None:
        check_output(json_file, "--json", overwrite=overwrite)
    found = measure(list(engines), runs, 0 if steps_only else images, threads or cores.here().threads, prompt)
    drawn = f" and {images} images" if not steps_only else ""
    for label, table in found["clocks"].items():
        say(f"{label}, medians of {runs} steps{drawn}, milliseconds (times as fast as {engines[0].name})")
        rows = [(name, *(_cell(one) for one in by_engine.values())) for name, by_engine in table.items()]
        show_table(("", *(path.name for path in engines)), rows)
    if json_file is not None:
        write_output(json_file, (json.dumps(found, indent=2) + "\n").encode(), overwrite=overwrite)


if __name__ == "__main__":
    enter(main)
