"""Times an engine that writes text beside transformers on the same GGUF file: `python -m tools.text.speed ENGINE FILE`.

Texts of `--tokens` tokens each, whatever end tokens come, one at a time: greedy, or at a temperature without filters.
In each turn every contender writes the same prompt; a first turn is not counted. Wall time with the prompt's prefill,
and CPU time of the process. llama.cpp is a contender where its package `llama-cpp-python` is installed. Knows the
programs. Needs what `tools.text.parity` needs.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch

from coolsd_rt import cores
from coolsd_rt.cli.entry import enter, overwrite_option
from coolsd_rt.cli.numbers import number, threads_option
from coolsd_rt.cli.paths import ENGINE, READS, WRITES
from coolsd_rt.cli.terminal import note, show_table
from coolsd_rt.files import read_lines
from coolsd_rt.limits import IMAGES, TEMPERATURE, TEXT_TOKENS
from coolsd_rt.machine import machine
from coolsd_rt.prompts.texts import readable
from coolsd_rt.runtime.drafter_names import DrafterName
from coolsd_rt.spec import with_overrides
from coolsd_rt.store.outputs import check_output, write_output
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.drawing import Job, TextBounds
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.texts import TextAsk, TextsDrawing, text_jobs
from tools.text.parity import Reference

Write = Callable[[Job], int]
"""Writes a text and returns its number of tokens."""


def llama_cpp(file: Path, tokens: int, temperature: float, threads: int) -> dict[str, Write]:
    """Return llama.cpp on the file's own quantised weights as a contender; none without its package."""
    if importlib.util.find_spec("llama_cpp") is None:
        return {}
    module = importlib.import_module("llama_cpp")
    model = module.Llama(
        str(file), n_ctx=2048, n_threads=threads, n_threads_batch=threads, seed=0, verbose=False
    )  # fmt: skip

    def write(job: Job) -> int:
        model.reset()  # else it keeps the part of the cache that both prompts share
        made = model.generate(
            list(job.encoded.ids), top_k=0, top_p=1.0, min_p=0.0, typical_p=1.0, temp=temperature, repeat_penalty=1.0
        )
        return len(list(itertools.islice(made, tokens)))  # whatever end tokens come

    return {f"llama.cpp, {file.stem.rpartition('.')[2]}": write}


def contenders(opened: OpenedEngine, file: Path, tokens: int, temperature: float, threads: int) -> dict[str, Write]:
    """Return every way to write a text, by name; transformers, the base of the ratios, comes first."""
    sampling = {"sampling.temperature": temperature, "sampling.top_k": 0, "sampling.top_p": 1.0}
    reference, bounds = Reference(file), TextBounds((), tokens)

    def theirs(job: Job) -> int:
        given = torch.tensor([list(job.encoded.ids)])
        with torch.inference_mode():
            made = reference.model.generate(
                given, attention_mask=torch.ones_like(given), max_new_tokens=tokens, min_new_tokens=tokens,
                do_sample=temperature > 0, temperature=temperature or None, top_k=0 if temperature else None,
                top_p=1.0 if temperature else None, pad_token_id=0,
            )  # fmt: skip
        return int(made.shape[1] - given.shape[1])

    def ours(drafter: DrafterName | None) -> Write:
        spec = with_overrides(opened.spec, sampling)
        settings = replace(opened.settings(spec, plain=drafter is None), bounds=bounds)
        settings = settings if drafter is None else replace(settings, drafter=drafter)

        def write(job: Job) -> int:
            (text,) = TextsDrawing(opened, [job], settings).run()
            return len(text.ids)

        return write

    precision, length, own = opened.spec.engine.precision, opened.spec.draft.length, opened.settings().drafter
    found: dict[str, Write] = {"transformers, fp32": theirs}
    found |= llama_cpp(file, tokens, temperature, threads) | {f"{precision}, plain": ours(None)}
    without: tuple[DrafterName, ...] = ("ngram", "jacobi")
    drafters = [own, *(name for name in without if name != own)]
    return found | {f"{precision}, {name} drafts of {length}": ours(name) for name in drafters}


def timed(ways: dict[str, Write], jobs: Sequence[Job]) -> dict[str, dict[str, list[float]]]:
    """Return tokens per second of wall time and of CPU time, by contender, one entry per prompt but the first."""
    found: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in ways}
    for turn, job in enumerate(jobs):
        for name, write in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            count = write(job)
            if turn:
                found[name]["wall"].append(count / (time.perf_counter() - wall))
                found[name]["cpu"].append(count / (time.process_time() - cpu))
        note(f"{turn + 1} of {len(jobs)} prompts")
    return found


def ratios(rates: dict[str, dict[str, list[float]]], kind: str) -> dict[str, float]:
    """Return the median over prompts of each contender's rate relative to the first contender's."""
    base = next(iter(rates.values()))[kind]
    return {name: statistics.median(a / b for a, b in zip(of[kind], base, strict=True)) for name, of in rates.items()}


@click.command()
@click.argument("engine", type=ENGINE)
@click.argument("file", type=READS)
@click.option("--prompts", type=READS, help="File of prompts, one per line. Default: the engine's samples.")
@click.option("-n", "count", type=number(IMAGES), default=6, show_default=True, help="Prompts, the first not counted.")
@click.option("--tokens", type=number(TEXT_TOKENS), default=100, show_default=True, help="Tokens of each text.")
@click.option("--temperature", type=number(TEMPERATURE), default=0.0, show_default=True, help="0: greedy.")
@threads_option()
@click.option("--out", type=WRITES, help="JSON file to write.")
@overwrite_option
def main(engine: Path, file: Path, out: Path | None, overwrite: bool, **given: Any) -> None:
    """Time ENGINE beside transformers on the GGUF file FILE."""
    if out is not None:
        check_output(out, "--out", overwrite=overwrite)
    threads = cores.threads_for(given["threads"])
    cores.limit_torch(threads)
    opened = OpenedEngine.at(engine, threads=threads)
    prompts, count = given["prompts"], given["count"]
    texts = read_lines(prompts)[:count] if prompts else opened.default_prompts()[:count]
    jobs = text_jobs(opened, drawing.asked(texts, 1, 0, read=readable), TextAsk())
    opened.load()
    rates = timed(contenders(opened, file, given["tokens"], given["temperature"], threads), jobs)
    wall, cpu = ratios(rates, "wall"), ratios(rates, "cpu")
    if out is not None:
        settings = {"tokens": given["tokens"], "temperature": given["temperature"]}
        document = {"machine": machine(threads), **settings, "rates": rates, "wall": wall, "cpu": cpu}
        write_output(out, (json.dumps(document, indent=1) + "\n").encode(), overwrite=overwrite)
    rows = [
        (name, f"{statistics.median(of['wall']):.1f}", f"{wall[name]:.2f}x", f"{cpu[name]:.2f}x")
        for name, of in rates.items()
    ]
    show_table(("", "tokens/s", "ratio", "ratio, CPU time"), rows)


if __name__ == "__main__":
    enter(main)
