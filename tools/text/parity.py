"""An engine that writes text beside transformers on the same GGUF file: `python -m tools.text.parity ENGINE FILE`.

    1. Logits: the prefill, single steps, and six positions at once after a rollback, relative to the largest logit.
    2. Greedy texts, token by token.

transformers runs without our code on the file that `coolsd-rt convert` made the target from. Where greedy texts part,
the distance of the two largest logits says whether rounding can have caused it. Knows both programs. Needs the extras
`cpu`, `tokens` and `text`, and the package gguf.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from coolsd_rt.cli.entry import enter, overwrite_option
from coolsd_rt.cli.numbers import number
from coolsd_rt.cli.paths import ENGINE, READS, WRITES
from coolsd_rt.cli.terminal import note, say, show_fields
from coolsd_rt.files import read_lines
from coolsd_rt.limits import IMAGES, TEXT_TOKENS
from coolsd_rt.prompts import stack
from coolsd_rt.prompts.texts import readable
from coolsd_rt.runtime.interface import Session
from coolsd_rt.runtime.state import capacity
from coolsd_rt.spec import with_overrides
from coolsd_rt.store.outputs import check_output, write_output
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.drawing import Job
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.texts import TextAsk, TextsDrawing, bounded, text_jobs

STEPS, WINDOW = 6, 6  # single steps after the prefill, and positions at once after them
Logits = NDArray[np.float32]


@dataclass
class Compared:
    """What was found. logits: largest difference by kind of step, relative to the largest logit of that step.

    partings: of greedy texts that differ: prompt, token, and how far apart the two largest logits of transformers are.
    """

    logits: dict[str, float] = field(default_factory=dict)
    texts: int = 0
    equal: int = 0
    tokens: int = 0
    partings: list[dict[str, Any]] = field(default_factory=list)

    def differ(self, kind: str, ours: Logits, theirs: Logits) -> None:
        """Add the difference of two arrays of logits [S, V]."""
        error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
        self.logits[kind] = max(self.logits.get(kind, 0.0), error)


class Reference:
    """The model by transformers, float32."""

    def __init__(self, file: Path) -> None:
        from transformers import AutoModelForCausalLM

        self.model: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)

    @torch.no_grad()
    def logits(self, ids: list[int]) -> Logits:
        """Return the logits float32 [n, V] after each of the tokens."""
        found: Logits = self.model(torch.tensor([ids])).logits[0].numpy()
        return found

    @torch.no_grad()
    def greedy(self, ids: list[int], tokens: int, ends: tuple[int, ...]) -> list[int]:
        """Return the most probable tokens, one after another, up to an end."""
        given = torch.tensor([ids])
        made = self.model.generate(
            given, attention_mask=torch.ones_like(given), max_new_tokens=tokens, do_sample=False,
            eos_token_id=list(ends), pad_token_id=ends[0],
        )  # fmt: skip
        found: list[int] = made[0, len(ids) :].tolist()
        return found


def step(session: Session, ids: list[int], pos: int) -> Logits:
    """Return the logits float32 [S, V] of a step of one row."""
    row = session.asarray(np.array([ids]), "int64"), session.asarray(np.array([pos]), "int64")
    return np.asarray(session.target(*row)[0][0])


def compare_logits(opened: OpenedEngine, job: Job, reference: Reference, out: Compared) -> None:
    """Step the engine as a round does, over tokens that transformers finds likely and over wrong ones."""
    engine, ids, start = opened.engine, list(job.encoded.ids), job.encoded.start
    rows = stack(opened.conditioner, [job.encoded], guided=False)
    session = engine.open(engine.encode_condition(rows.text), capacity(engine.dims, WINDOW), rows.start)
    width = engine.dims.prefix
    theirs = reference.logits(ids)
    out.differ("prefill", step(session, [0] * (width - start), start), theirs)
    for n in range(STEPS):
        ids.append(int(theirs[-1].argmax()))
        theirs = reference.logits(ids)
        out.differ("single steps", step(session, ids[-1:], width + n), theirs[-1:])
    at, vocab = width + STEPS, engine.dims.vocab
    wrong = [(7919 * k) % vocab for k in range(1, WINDOW + 1)]
    step(session, wrong, at)  # rejected drafts: what they leave in the caches must not be seen
    right = [int(theirs[-1].argmax()), *wrong[1:]]
    theirs = reference.logits(ids + right)[-WINDOW:]
    out.differ("six positions after a rollback", step(session, right, at), theirs)


def compare_texts(opened: OpenedEngine, jobs: list[Job], tokens: int, reference: Reference, out: Compared) -> None:
    """Write every prompt's greedy text on both sides."""
    spec = with_overrides(opened.spec, {"sampling.temperature": 0.0, "sampling.top_k": 0, "sampling.top_p": 1.0})
    settings = bounded(opened, opened.settings(spec, plain=True), tokens)
    assert settings.bounds is not None  # `bounded`
    for job in jobs:
        (text,) = TextsDrawing(opened, [job], settings).run()
        ours, theirs = list(text.ids), reference.greedy(list(job.encoded.ids), tokens, settings.bounds.ends)
        out.texts += 1
        out.equal += ours == theirs
        out.tokens += len(theirs)
        if ours != theirs:
            at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), len(ours))
            largest = np.sort(reference.logits([*job.encoded.ids, *theirs[:at]])[-1])[-2:]
            out.partings.append({"prompt": job.prompt, "token": at, "margin": float(largest[1] - largest[0])})
        note(f"{out.texts} of {len(jobs)} texts, {out.equal} equal")


@click.command()
@click.argument("engine", type=ENGINE)
@click.argument("file", type=READS)
@click.option("--prompts", type=READS, help="File of prompts, one per line. Default: the engine's samples.")
@click.option("-n", "count", type=number(IMAGES), default=20, show_default=True, help="Number of prompts.")
@click.option("--tokens", type=number(TEXT_TOKENS), default=200, show_default=True, help="Tokens of a greedy text.")
@click.option("--out", type=WRITES, help="JSON file to write.")
@overwrite_option
def main(
    engine: Path, file: Path, prompts: Path | None, count: int, tokens: int, out: Path | None, overwrite: bool
) -> None:
    """Compare ENGINE with transformers on the GGUF file FILE."""
    if out is not None:
        check_output(out, "--out", overwrite=overwrite)
    opened = OpenedEngine.at(engine)
    texts = read_lines(prompts)[:count] if prompts else opened.default_prompts()[:count]
    jobs = text_jobs(opened, drawing.asked(texts, 1, 0, read=readable), TextAsk())
    opened.load()
    reference, found = Reference(file), Compared()
    for job in jobs:
        compare_logits(opened, job, reference, found)
    compare_texts(opened, jobs, tokens, reference, found)
    if out is not None:
        write_output(out, (json.dumps(asdict(found), indent=1) + "\n").encode(), overwrite=overwrite)
    show_fields({f"logits, {kind}": f"{error:.2g}" for kind, error in found.logits.items()})
    say(f"{found.equal} of {found.texts} greedy texts are equal, {found.tokens} tokens")
    for parting in found.partings:
        say(f"parted at token {parting['token']}, margin {parting['margin']:.2g}: {parting['prompt'][:60]}")


if __name__ == "__main__":
    enter(main)
