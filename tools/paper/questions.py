"""The paper's open questions, answered on recorded rounds: `python -m tools.paper.questions engines/emoji`.

    1. Does annealing hold for L > 2? At one KL a token, every family's accept length for L = 1..8, and the optimum.
    2. What happens as TV(P, Q) grows, past the 0.4 of the paper's theory? Drafts of falling quality (`noisy_draft`).
    3. Are ambiguous tokens the rejected ones? Rejection by the entropy of P.

`--table` answers the first two in one table, of an engine that draws images or of one that writes text
(`tools.paper.across`). Knows recordings, laws and tuning. Plots are in `tools.paper.plot`. Needs the extras cpu and
measure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from coolsd_rt import limits
from coolsd_rt.cli.entry import enter, overwrite_option
from coolsd_rt.cli.numbers import number
from coolsd_rt.cli.options import moved_spec_option, sample_prompts_option
from coolsd_rt.cli.paths import ENGINE, WRITES_IN
from coolsd_rt.cli.terminal import note, say, say_lines
from coolsd_rt.cli.text_options import max_tokens_option
from coolsd_rt.errors import UserError
from coolsd_rt.law import Law, make_omegas
from coolsd_rt.law.traces import RecordedRounds, outlook
from coolsd_rt.prompts import Conditioner
from coolsd_rt.runtime.interface import Engine
from coolsd_rt.schedules.analysis import evaluated
from coolsd_rt.schedules.analyze import LOSSLESS, noun_of
from coolsd_rt.schedules.budget import Budget
from coolsd_rt.schedules.merging import compact
from coolsd_rt.schedules.recording import Recording, record
from coolsd_rt.schedules.search import tune
from coolsd_rt.schedules.shapes import FREE
from coolsd_rt.spec import Spec, with_overrides
from coolsd_rt.store.outputs import check_output, write_output
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.drawing import Job, Settings, TextBounds
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.texts import bounded
from tools.paper.across import WANTED, Wanted, cut, markdown, table
from tools.paper.noisy_draft import NoisyTarget
from tools.text.served_laws import SAMPLING

LENGTHS = tuple(range(1, 9))
NOISES = (0.6, 1.2, 2.0, 3.0, 5.0, 8.0)
BUDGET = 0.02  # nats a token
DELTA = 1.1
ENTROPY_BINS = 12
ANSWERS = "questions.json"
PILOT_TOKENS = 16  # of a text in a pilot


@dataclass(frozen=True)
class Bench:
    """An engine to record on, and what to draw."""

    engine: Engine
    conditioner: Conditioner
    spec: Spec
    batches: list[list[Job]]
    forced: tuple[int, ...] | None = None
    bounds: TextBounds | None = None

    def record(self, length: int, engine: Engine | None = None, **settings: Any) -> Recording:
        """Lossless rounds at a draft length; `engine` and `settings` in the place of the bench's own."""
        draft = self.spec.draft.model_copy(update={"length": length})
        spec = with_overrides(self.spec.model_copy(update={"draft": draft}), LOSSLESS)
        used: Settings = replace(drawing.settings_of(spec, forced=self.forced), bounds=self.bounds, **settings)
        return record(engine or self.engine, self.batches, self.conditioner, used, None, {})

    def noisy(self, noise: float, length: int, *, few: bool = False) -> Recording:
        """Lossless rounds of a noisy draft. few: of the first batch."""
        bench = replace(self, batches=self.batches[:1]) if few else self
        if few and self.bounds is not None:
            limit = PILOT_TOKENS if self.bounds.limit is None else min(self.bounds.limit, PILOT_TOKENS)
            bench = replace(bench, bounds=replace(self.bounds, limit=limit))
        return bench.record(length, NoisyTarget(self.engine, noise), drafter="model")


def open_bench(
    path: Path,
    images: int,
    spec_file: Path | None = None,
    max_tokens: int | None = None,
    prompts: Sequence[str] = (),
) -> Bench:
    """Texts are of the target's own distribution, whatever the spec filters. prompts: none: those of the spec.

    Raises UserError: no engine, no prompts, or a most number of tokens that the engine has not."""
    if images < 1:
        raise UserError("images", expected="1 or more", found=str(images))
    opened = OpenedEngine.at(path, spec_file=spec_file)
    jobs = drawing.spread_jobs(prompts or opened.default_prompts(), images, 0, opened.conditioner)
    batches = [list(b) for b in drawing.batches(jobs, opened.spec.engine.max_batch)]
    bounds, spec = opened.settings().bounds, opened.spec
    if bounds is not None or max_tokens is not None:
        bounds = bounded(opened, opened.settings(), max_tokens).bounds  # or says that images have no such number
        spec = with_overrides(spec, SAMPLING)
    return Bench(opened.engine, opened.conditioner, spec, batches, opened.forced, bounds)


def by_length(windows: RecordedRounds, budget: float = BUDGET) -> list[dict[str, Any]]:
    """Accept length of every family at `budget` nats of KL a token, for each L up to the recorded one."""
    rows = []
    for length in range(1, windows.length + 1):
        part = cut(windows, length)
        tuned = tune(part, Budget("kl", budget, None))
        found = {j.name: j.outlook.accept_length for j in tuned.judged}
        free = next(j for j in tuned.judged if j.name == FREE)
        lossless = outlook(part, Law((1.0,) * length)).accept_length
        rows.append({"length": length, "lossless": lossless, "accept_length": found, "optimum": list(free.omegas)})
    return rows


def by_distance(bench: Bench, noises: tuple[float, ...], length: int, budget: float = BUDGET) -> list[dict[str, Any]]:
    """Each noise: TV(P, Q), and what lossless, delta 1.1 and the families at one budget do there."""
    laws = {
        "lossless": Law((1.0,) * length),
        "paper": Law(make_omegas("exponential", length, delta=DELTA)),
        "floor": Law(make_omegas("exponential", length, delta=DELTA, floor=1.0)),
        "uniform": Law(make_omegas("uniform", length, delta=DELTA)),
    }
    rows = []
    for noise in noises:
        recording = bench.noisy(noise, length)
        windows = compact(recording.windows)
        row: dict[str, Any] = {"noise": noise, "tv": float(evaluated(recording).tv.mean()), "laws": {}}
        for name, law in laws.items():
            o = outlook(windows, law)
            row["laws"][name] = {
                "accept_length": o.accept_length, "kl_per_token": o.kl_per_token,
                "tv_round": o.tv_round, "tv_round_error": o.tv_round_error,
            }  # fmt: skip
        tuned = tune(recording.windows, Budget("kl", budget, None))
        row["accept_length_at_budget"] = {j.name: j.outlook.accept_length for j in tuned.judged}
        row["optimum"] = list(next(j for j in tuned.judged if j.name == FREE).omegas)
        rows.append(row)
    return rows


def by_ambiguity(recording: Recording, bins: int = ENTROPY_BINS) -> list[dict[str, float]]:
    """Judged positions by the entropy of P, as many in each bin: rejected, and by how much Q is off there."""
    at = evaluated(recording)
    return [
        {
            "entropy": float(at.entropy[part].mean()),
            "top5": float(at.top5[part].mean()),
            "rejected": float(1 - at.accepted[part].mean()),
            "tv": float(at.tv[part].mean()),
            "positions": len(part),
        }
        for part in at.by_entropy(bins)
    ]


def answer(
    bench: Bench, say: Callable[[str], None], lengths: tuple[int, ...] = LENGTHS, noises: tuple[float, ...] = NOISES
) -> dict[str, Any]:
    """All three, as JSON data."""
    say("recording rounds of the engine's own draft")
    recording = bench.record(max(lengths))
    say("annealing by draft length")
    lengths_rows = by_length(recording.windows)
    say("drafts of falling quality")
    distance = by_distance(bench, noises, bench.spec.draft.length)
    return {
        "images": sum(len(b) for b in bench.batches),
        "kl_per_token": BUDGET,
        "delta": DELTA,
        "by_length": lengths_rows,
        "by_distance": distance,
        "by_ambiguity": by_ambiguity(recording),
    }


def write_table(
    bench: Bench, out: Path, tell: Callable[[str], None], wanted: Wanted = WANTED, *, overwrite: bool
) -> str:
    """Write the table of an engine's architecture; return it with that of the other one, if it is in the folder."""
    architecture = noun_of(bench.spec)
    rows = table(bench.noisy, architecture, BUDGET, tell, wanted)
    limit = None if bench.bounds is None else bench.bounds.limit
    document = {
        "architecture": architecture,
        "engine": bench.spec.name,
        "recorded": sum(len(b) for b in bench.batches),
        "max_tokens": limit,
        "kl_per_token": BUDGET,
        "rows": rows,
    }
    write_output(out / f"{architecture}.json", (json.dumps(document, indent=1) + "\n").encode(), overwrite=overwrite)
    found = [out / f"{name}.json" for name in ("images", "texts")]
    every = [json.loads(path.read_text(encoding="utf-8"))["rows"] for path in found if path.is_file()]
    return markdown([row for rows in every for row in rows])


@click.command()
@click.argument("engine", type=ENGINE)
@click.option(
    "-n",
    "--images",
    "images",
    type=number(limits.IMAGES),
    default=48,
    show_default=True,
    help="Number of images, or of texts, to record.",
)
@click.option("--out", type=WRITES_IN, default=Path("out/questions"), show_default=True)
@click.option("--table", "tabled", is_flag=True, help="Only the table of schedules over draft length and TV(P, Q).")
@sample_prompts_option
@max_tokens_option
@moved_spec_option
@overwrite_option
def command(
    engine: Path,
    images: int,
    out: Path,
    tabled: bool,
    prompts: tuple[str, ...],
    max_tokens: int | None,
    spec_file: Path | None,
    overwrite: bool,
) -> None:
    """Answer the paper's open questions on a built ENGINE: questions.json and three plots in the folder OUT.

    With --table: images.json or texts.json in OUT, and the tables of both files printed.

    \b
    Example:
      python -m tools.paper.questions engines/emoji --out docs/questions
      python -m tools.paper.questions engines/smollm2-135m --table -n 16 --max-tokens 64 --out docs/questions
    """
    from tools.paper.plot import FILES, plots

    if tabled:
        bench = open_bench(engine, images, spec_file, max_tokens, prompts)
        check_output(out / f"{noun_of(bench.spec)}.json", "--out", overwrite=overwrite)
        say_lines(write_table(bench, out, note, overwrite=overwrite))
        return
    for name in (ANSWERS, *FILES):
        check_output(out / name, "--out", overwrite=overwrite)
    found = answer(open_bench(engine, images, spec_file, max_tokens, prompts), note)
    drawn = plots(found)
    write_output(out / ANSWERS, (json.dumps(found, indent=1) + "\n").encode(), overwrite=overwrite)
    for name, data in drawn.items():
        write_output(out / name, data, overwrite=overwrite)
    say(f"{out}: {ANSWERS} and {len(drawn)} plots")


def main() -> None:
    """Entry point."""
    enter(command)


if __name__ == "__main__":
    main()
