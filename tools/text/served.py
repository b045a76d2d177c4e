"""Draws texts under many laws: `python -m tools.text.served ENGINE QUESTIONS --out FOLDER`. Does relaxation serve text?

One text for each law, question and sample, at temperature 1, through the chat template. Sample s of question q has the
same seed under every law, so that laws are compared by pairs. QUESTIONS is a file of JSON lines as MT-Bench's; only
first turns are asked. Sample 0 of all laws comes first, then sample 1: stopped at any time, laws have equally many. The
same command continues. `python -m tools.text.served_report FOLDER` compares the laws.

Knows the order of the work. Does not know how a round's figures are computed (`served_rounds`), nor how they are
compared. Needs the extras cpu and tokens.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from coolsd_rt import cores, limits
from coolsd_rt.cli.entry import enter, gathered
from coolsd_rt.cli.numbers import number, threads_option
from coolsd_rt.cli.paths import ENGINE, READS, WRITES_IN
from coolsd_rt.cli.terminal import note, say
from coolsd_rt.ranges import whole
from coolsd_rt.schedules.recording import LOOP
from coolsd_rt.spec import with_overrides
from coolsd_rt.store.results import Arrays
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.drawing import Job, Settings
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.texts import TextAsk, encode
from tools.text.served_laws import LAWS, SAMPLING, chosen, settings_of
from tools.text.served_rounds import TextRounds
from tools.text.served_texts import FORMAT, Question, ServedFolder, packed, read_questions

SAMPLES = whole(1, 1000)
BATCH = 4


@dataclass(frozen=True)
class ServedOptions:
    """The options of the command. laws: empty: all that the engine can draw. batch: texts at once."""

    engine: Path
    questions: Path
    out: Path
    samples: int
    max_tokens: int
    batch: int
    seed: int
    threads: int | None
    laws: tuple[str, ...]


class ServedDrawing:
    """The texts of an engine that are to be drawn, and those that are there."""

    def __init__(self, opened: OpenedEngine, questions: Sequence[Question], options: ServedOptions) -> None:
        """Raises UserError: a question that does not fit, a law that the engine cannot draw, another folder."""
        self._opened, self._options, self._questions = opened, options, questions
        self._encoded = [encode(opened, one.prompt, TextAsk()) for one in questions]
        # Questions of like length share a batch: its prefix is as long as its longest prompt.
        order = sorted(range(len(questions)), key=lambda k: (len(self._encoded[k].ids), k))
        self._batches = [
            list(part) for part in (order[i : i + options.batch] for i in range(0, len(order), options.batch))
        ]
        self._laws = [(law, settings_of(opened, law, options.max_tokens)) for law in chosen(options.laws, opened)]
        self.folder = ServedFolder.claimed(options.out, self._head())
        for law, settings in self._laws:
            self.folder.claim_law(law, _described(settings))

    def _head(self) -> dict[str, Any]:
        options = self._options
        return {
            "format": FORMAT, "engine": self._opened.manifest.fingerprint, "draft": self._opened.spec.draft.model,
            "draft_length": self._opened.spec.draft.length, "seed": options.seed, "max_tokens": options.max_tokens,
            "sampling": with_overrides(self._opened.spec, SAMPLING).sampling.model_dump(),
            "questions": [one.as_dict() for one in self._questions], "batches": self._batches,
        }  # fmt: skip

    def run(self) -> None:
        """Draw everything that is not there. Raises CoolsdError for a broken file or engine."""
        work = [
            (sample, law, settings, batch)
            for sample in range(self._options.samples)
            for law, settings in self._laws
            for batch in range(len(self._batches))
        ]
        left = [one for one in work if not self.folder.has(one[1], one[0], one[3])]
        note(f"{len(work) - len(left)} of {len(work)} batches are there, of up to {self._options.batch} texts each")
        began, tokens = time.perf_counter(), 0
        for done, (sample, law, settings, batch) in enumerate(left, start=1):
            drawn = self.folder.get(law, sample, batch, partial(self._draw, settings, sample, batch))
            tokens += int(drawn["length"].sum())
            seconds = time.perf_counter() - began
            rest = seconds / done * (len(left) - done) / 3600
            note(f"sample {sample}, {law.name}: batch {batch + 1} of {len(self._batches)}; "
                 f"{tokens / seconds:.1f} tokens/s, {rest:.2f} hours left")  # fmt: skip

    def _draw(self, settings: Settings, sample: int, batch: int) -> Arrays:
        """Draw one batch of one sample."""
        picked, bounds = self._batches[batch], settings.bounds
        assert bounds is not None  # `settings_of`
        first = self._options.seed + sample * len(self._questions)
        jobs = [Job(k, self._questions[k].prompt, drawing.image_seed(first, k), self._encoded[k]) for k in picked]
        rounds = TextRounds(settings.law, bounds.ends, len(jobs))
        opened = self._opened
        made = drawing.draw(opened.engine, jobs, opened.conditioner, settings, loop=LOOP, on_round=rounds)
        assert made.lengths is not None  # of texts
        there = np.arange(self._options.max_tokens) < made.lengths[:, None]
        ids = np.where(there, made.codes[:, : self._options.max_tokens], -1)
        kept = [tuple(row[:n].tolist()) for row, n in zip(ids, made.lengths, strict=True)]
        return {
            "question": np.array(picked), "ids": ids, "length": made.lengths,
            "ended": np.array([one[-1] in bounds.ends for one in kept]),
            "text": packed([opened.text_reader.decode(one) for one in kept]), "rounds": rounds.rounds,
            "expected": rounds.expected, "kl": rounds.kl, "kl_revealed": rounds.kl_revealed,
            "log_likelihood": rounds.log_likelihood, "bins": rounds.bins,
        }  # fmt: skip


def _described(settings: Settings) -> dict[str, Any]:
    """Return the law of the settings, as JSON data."""
    tolerance = settings.law.tolerance
    lends = {} if tolerance is None else {"factor": tolerance.bound, "neighbours": tolerance.lending}
    return {**settings.law_as_dict(), **lends}


@click.command()
@click.argument("engine", type=ENGINE)
@click.argument("questions", type=READS)
@click.option("--out", type=WRITES_IN, required=True, help="Folder of the texts; the same command continues it.")
@click.option("--samples", type=number(SAMPLES), default=8, show_default=True, help="Texts of a question, each law.")
@click.option("--max-tokens", type=number(limits.TEXT_TOKENS), default=128, show_default=True, help="Most of a text.")
@click.option("--batch", type=number(limits.MAX_BATCH), default=BATCH, show_default=True, help="Texts drawn at once.")
@click.option("--seed", type=number(limits.SEED), default=0, show_default=True, help="Seed of the first text.")
@click.option("--laws", multiple=True, metavar="NAME",
              help=f"A law to draw; repeat it for several. Default: all. One of: {'; '.join(LAWS)}.")  # fmt: skip
@threads_option()
@gathered(ServedOptions)
def main(options: ServedOptions) -> None:
    """Draw texts of ENGINE for the first turns of QUESTIONS, under every law.

    \b
    Example:
      python -m tools.text.served engines/NAME QUESTIONS.jsonl --out out/served
    """
    questions = read_questions(options.questions)
    threads = cores.threads_for(options.threads)
    cores.limit_torch(threads)
    opened = OpenedEngine.at(options.engine, threads=threads)
    work = ServedDrawing(opened, questions, options)
    work.run()
    say(f"{options.out}: {options.samples} samples of {len(questions)} questions")


if __name__ == "__main__":
    enter(main)
