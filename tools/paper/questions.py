"""The paper's open questions, answered on recorded rounds: `python -m tools.paper.questions engines/emoji`.

    1. Does annealing hold for L > 2? At one KL a token, every family's accept length for L = 1..8, and the optimum.
    2. What happens as TV(P, Q) grows, past the 0.4 of the paper's theory? Drafts of falling quality (`noisy_draft`).
    3. Are ambiguous tokens the rejected ones? Rejection by the entropy of P.

Knows recordings, laws and tuning. Plots are in `tools.paper.plot`. Needs the extras cpu and measure.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from coolsd_rt import limits
from coolsd_rt.cli.entry import enter, overwrite_option
from coolsd_rt.cli.numbers import number
from coolsd_rt.cli.options import moved_spec_option
from coolsd_rt.cli.paths import ENGINE, WRITES_IN
from coolsd_rt.cli.terminal import note, say
from coolsd_rt.errors import UserError
from coolsd_rt.law import Law, make_omegas
from coolsd_rt.law.traces import RecordedRounds, outlook
from coolsd_rt.prompts import Conditioner
from coolsd_rt.runtime.interface import Engine
from coolsd_rt.schedules.analysis import evaluated
from coolsd_rt.schedules.analyze import LOSSLESS
from coolsd_rt.schedules.budget import Budget
from coolsd_rt.schedules.merging import compact
from coolsd_rt.schedules.recording import Recording, record
from coolsd_rt.schedules.search import tune
from coolsd_rt.schedules.shapes import FREE
from coolsd_rt.spec import Spec, with_overrides
from coolsd_rt.store.outputs import check_output, write_output
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.drawing import Job, Settings
from coolsd_rt.workflows.opened import OpenedEngine
from tools.paper.noisy_draft import NoisyTarget

LENGTHS = tuple(range(1, 9))
NOISES = (0.6, 1.2, 2.0, 3.0, 5.0, 8.0)
BUDGET = 0.02  # nats a token
DELTA = 1.1
ENTROPY_BINS = 12
ANSWERS = "questions.json"


@dataclass(frozen=True)
class Bench:
    """An engine to record on, and what to draw."""

    engine: Engine
    conditioner: Conditioner
    spec: Spec
    batches: list[list[Job]]
    forced: tuple[int, ...] | None = None

    def record(self, length: int, engine: Engine | None = None, **settings: Any) -> Recording:
        """Lossless rounds at a draft length; `engine` and `settings` in the place of the bench's own."""
        draft = self.spec.draft.model_copy(update={"length": length})
        spec = with_overrides(self.spec.model_copy(update={"draft": draft}), LOSSLESS)
        used: Settings = replace(drawing.settings_of(spec, forced=self.forced), **settings)
        return record(engine or self.engine, self.batches, self.conditioner, used, None, {})


def open_bench(path: Path, images: int, spec_file: Path | None = None) -> Bench:
    """Raises UserError: no engine, no prompts."""
    if images < 1:
        raise UserError("images", expected="1 or more", found=str(images))
    opened = OpenedEngine.at(path, spec_file=spec_file)
    jobs = drawing.spread_jobs(opened.default_prompts(), images, 0, opened.conditioner)
    batches = [list(b) for b in drawing.batches(jobs, opened.spec.engine.max_batch)]
    return Bench(opened.engine, opened.conditioner, opened.spec, batches, opened.forced)


def cut(windows: RecordedRounds, length: int) -> RecordedRounds:
    """The same rounds, had they drafted `length` tokens."""
    w = windows
    num_drafts = np.minimum(w.num_drafts, length)
    return RecordedRounds(
        w.target[:, :length], w.draft[:, :length], w.drafts[:, :length], num_drafts, w.weight, w.image
    )


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
        recording = bench.record(length, NoisyTarget(bench.engine, noise), drafter="model")
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


@click.command()
@click.argument("engine", type=ENGINE)
@click.option(
    "-n",
    "--images",
    "images",
    type=number(limits.IMAGES),
    default=48,
    show_default=True,
    help="Number of images to record.",
)
@click.option("--out", type=WRITES_IN, default=Path("out/questions"), show_default=True)
@moved_spec_option
@overwrite_option
def command(engine: Path, images: int, out: Path, spec_file: Path | None, overwrite: bool) -> None:
    """Answer the paper's open questions on a built ENGINE: questions.json and three plots in the folder OUT.

    \b
    Example:
      python -m tools.paper.questions engines/emoji --out docs/questions
    """
    from tools.paper.plot import FILES, plots

    for name in (ANSWERS, *FILES):
        check_output(out / name, "--out", overwrite=overwrite)
    found = answer(open_bench(engine, images, spec_file), note)
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
