"""Measure the demo: `python tools/emoji_quality.py engines/emoji`.

Draws trained captions with a built engine and prints, as text or `--json`: how often the nearest glyph of all trained
is the prompt's own (`retrieval`), and for each way of decoding the accept length. With `--ambiguity` also what the
model card reports: mean entropy and top-5 mass of P, and TV(P, Q) by draft position and by row of the picture.

Needs the `cpu` and `train` extras and the font.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coolsd_rt.errors import CoolsdError, UserError  # noqa: E402  (the path above makes the checkout importable)
from coolsd_rt.runtime.round import generate  # noqa: E402
from coolsd_rt.runtime.state import RoundRecord, State  # noqa: E402
from coolsd_rt.spec import Spec, with_overrides  # noqa: E402
from coolsd_rt.store import open_engine  # noqa: E402
from coolsd_rt.workflows import drawing, opening  # noqa: E402
from tools.emoji import data  # noqa: E402
from tools.emoji.quality import retrieve  # noqa: E402


class Ambiguity:
    """Sums over rounds of what P and Q looked like. Legend: L draft length, G cells a side."""

    def __init__(self, length: int, grid: int) -> None:
        self.grid = grid
        self.entropy, self.top5, self.seen = 0.0, 0.0, 0
        self.tv = np.zeros((2, length))
        self.tv_by_row = np.zeros((2, grid))

    def __call__(self, state: State, record: RoundRecord) -> None:
        """After each commit. TV counts the window indices whose context is real: up to the first rejection."""
        p, q = np.asarray(record.target), np.asarray(record.draft)
        for m in np.flatnonzero(record.active):
            kept = int(record.accepted[m])
            first = int(state.committed[m]) - kept - 1 - state.prefix
            laws = p[m, : kept + 1].astype(np.float64)
            self.entropy -= float((laws * np.log(np.maximum(laws, 1e-30))).sum())
            self.top5 += float(np.partition(laws, -5, axis=-1)[:, -5:].sum())
            self.seen += kept + 1
            judged = min(kept + 1, int(record.valid[m]))
            tv = 0.5 * np.abs(p[m, :judged] - q[m, :judged]).sum(-1)
            self.tv[0, :judged] += tv
            self.tv[1, :judged] += 1
            for i, value in enumerate(tv):
                self.tv_by_row[:, (first + i) // self.grid] += (value, 1.0)

    def as_dict(self) -> dict[str, Any]:
        mean = self.tv[0].sum() / self.tv[1].sum()
        return {
            "mean_entropy_nats": self.entropy / self.seen,
            "top5_mass": self.top5 / self.seen,
            "tv": float(mean),
            "tv_by_draft_position": (self.tv[0] / np.maximum(self.tv[1], 1)).tolist(),
            "tv_by_row": (self.tv_by_row[0] / np.maximum(self.tv_by_row[1], 1)).tolist(),
        }


def measure(
    engine_path: str, prompts: int, seed: int, mode: dict[str, Any], plain: bool, ambiguity: bool, length: int | None
) -> dict[str, Any]:
    """One way of decoding over `prompts` trained captions, chosen by `seed`. Synthetic acceptance is refused."""
    folder = open_engine(engine_path)
    spec = Spec.model_validate(folder.manifest.spec)
    if length is not None:
        spec = spec.model_copy(update={"draft": spec.draft.model_copy(update={"length": length})})
    spec = with_overrides(spec, mode)
    if spec.acceptance.rule == "synthetic":
        raise UserError("quality", expected="a rule that looks at P and Q", found="synthetic acceptance")
    verified = folder.verified()
    vocabulary = opening.load_vocabulary(verified)
    engine = opening.load_engine(verified)
    glyphs = data.choose(data.render(data.find_font()), data.COUNT)
    chosen = np.random.default_rng(seed).choice(len(glyphs.captions), prompts, replace=False)
    captions = [glyphs.captions[i] for i in chosen]
    settings = drawing.settings_of(spec, opening.load_neighbours(verified), plain=plain)
    jobs = drawing.plan(captions, 1, seed, vocabulary)
    # Neighbouring prompts must not share their random numbers: one seed each.
    jobs = [drawing.Job(j.index, j.prompt, seed + j.index, j.words, j.unknown) for j in jobs]
    trace = Ambiguity(max(settings.law.length, 1), int(engine.dims.tokens**0.5))
    pixels, parts = [], []
    for batch in drawing.batches(jobs, spec.engine.max_batch):
        session = drawing.open_session(engine, batch, vocabulary, settings)
        drawn = generate(
            session, settings.law, settings.sampling, [j.seed for j in batch], on_round=trace if ambiguity else None
        )
        pixels.append(engine.paint(drawn.codes))
        parts.append(drawn.statistics)
    whole = drawing.total(parts, settings.law.length)
    out: dict[str, Any] = {
        "retrieval": retrieve(np.concatenate(pixels), captions, glyphs).accuracy,
        "mean_acceptance_length": whole.mean_acceptance_length,
        "acceptance_by_position": whole.acceptance_by_position,
    }
    return out | (trace.as_dict() if ambiguity else {})


@click.command()
@click.argument("engine")
@click.option("--prompts", default=200, show_default=True, help="Trained captions, drawn once each.")
@click.option("--seed", default=1000, show_default=True, help="Chooses captions and randomness.")
@click.option("--cfg-scale", type=float, help="Instead of the spec's.")
@click.option("--top-k", type=int, help="Instead of the spec's.")
@click.option("--temperature", type=float, help="Instead of the spec's.")
@click.option("--draft-length", type=click.IntRange(min=1), help="Instead of the spec's.")
@click.option("--schedule", type=click.Choice(["plain", "none", "spec"]), multiple=True, default=["plain"])
@click.option("--ambiguity", is_flag=True, help="Entropy, top-5 mass and TV(P, Q) too (of the lossless rule).")
@click.option("--json", "as_json", is_flag=True)
def main(
    engine: str, prompts: int, seed: int, cfg_scale: float | None, top_k: int | None, temperature: float | None,
    draft_length: int | None, schedule: tuple[str, ...], ambiguity: bool, as_json: bool,
) -> None:  # fmt: skip
    """Retrieval and accept length of a built emoji ENGINE on trained captions."""
    asked = {"sampling.cfg_scale": cfg_scale, "sampling.top_k": top_k, "sampling.temperature": temperature}
    sampling = {k: v for k, v in asked.items() if v is not None}
    report = {}
    try:
        for way in schedule:
            mode = sampling | ({"schedule.kind": "none"} if way == "none" else {})
            traced = ambiguity and way == "none"
            report[way] = measure(engine, prompts, seed, mode, way == "plain", traced, draft_length)
    except (CoolsdError, FileNotFoundError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(report, indent=1))
        return
    for way, figures in report.items():
        for key, value in figures.items():
            shown = " ".join(f"{v:.3f}" for v in value) if isinstance(value, list) else f"{value:.3f}"
            click.echo(f"{way:6} {key:24} {shown}")


if __name__ == "__main__":
    main()
