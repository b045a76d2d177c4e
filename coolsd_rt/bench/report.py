"""The report of `bench`: rows of tables, sentences on what pays, and one JSON document with the raw samples.

Knows figures. Runs nothing. Does not know a terminal or HTML.

Names are vLLM's where it has them (`SpecDecodingStats`). One differs if rounds run without a draft (`pacing`): here
`mean_acceptance_length` is over all rounds, as everywhere in this project, since these take the time; vLLM counts only
rounds with a draft, which is `mean_acceptance_length_drafted`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from coolsd_rt.bench.break_even import BreakEven
from coolsd_rt.bench.stats import LEAST_RUNS, LEVEL, Median, Verdict, verdict
from coolsd_rt.bench.timing import Timed
from coolsd_rt.runtime.statistics import Statistics
from coolsd_rt.spec import Spec
from coolsd_rt.store import Manifest
from coolsd_rt.workflows.drawing import Job

if TYPE_CHECKING:
    from coolsd_rt.bench.at_once import AtOnce

PHASES = ("target", "draft", "verify", "device", "rest")
_SHOWN = 5  # draft positions shown in a cell; the document has all
SPEED = ("variant", "tokens/s", "s/image", "vs plain", "")
ROUNDS = ("variant", "accept length", "pays from", "accepted", "accepted by position")
TIMES = ("variant", "loop", *PHASES, "draft lengths that pay")
DEFINITIONS = {
    "median, low, high": f"median of the turns, and its {LEVEL:.0%} interval (order statistics); null with fewer than "
    f"{LEAST_RUNS} turns. Each interval holds on its own, not all at once",
    "versus_plain": "tokens a second over those of plain decoding, paired: the ratio within each turn",
    "mean_acceptance_length": "tokens a round of the target, the resampled or bonus token included, rounds without a "
    "draft too; plain decoding has 1",
    "mean_acceptance_length_drafted": "the same over rounds with a draft, 1 + num_accepted_tokens / "
    "rounds_with_drafts: vLLM's",
    "rounds_with_drafts": "rounds of an image that proposed a draft",
    "num_draft_tokens": "tokens proposed",
    "num_accepted_tokens": "proposed tokens that were kept; no bonus token",
    "draft_acceptance_rate": "num_accepted_tokens / num_draft_tokens, from 0 to 1",
    "num_accepted_tokens_per_pos": "kept tokens by draft position",
    "per_position_acceptance_rate": "num_accepted_tokens_per_pos / rounds_with_drafts, as vLLM has it",
    "acceptance_by_position": "kept among those judged at each position, all before it being kept",
    "loop": "which loop ran: the host's, which steps the engine round by round, or the device's, which runs all rounds "
    "by itself",
    "seconds_per_image_by_phase": "the median, split as the time of all turns was. The host's loop tells target, draft "
    "and verify apart; of the device's loop only the whole is known: the others are null. rest: prefix, caches, Python",
    "break_even_acceptance_length": "the mean_acceptance_length at which it would be as fast as plain decoding",
    "break_even_draft_length": "longest draft length at which a round that drafts is no slower than plain decoding, 0 "
    "if none; computed from measured acceptance and steps; null where acceptance at another length is unknown "
    "(jacobi, ngram)",
    "target_seconds_by_window": "median of the target's step over so many tokens, in the middle of an image",
}


@dataclass(frozen=True)
class BenchRow:
    """A variant and its figures.

    kind: name that was requested, such as `cool`.
    ratio: speed relative to plain decoding; None for plain decoding.
    even: break-even draft lengths; None if they are unknown.
    """

    kind: str
    timed: Timed
    rate: Median  # tokens a second
    seconds: Median  # per image
    ratio: Median | None
    even: BreakEven | None

    @property
    def name(self) -> str:
        """Name of the variant."""
        return self.timed.variant.name

    @property
    def batch(self) -> int:
        """Images per batch."""
        return len(self.timed.parts[0].rounds)

    @cached_property
    def total(self) -> Statistics:
        """Statistics over all turns."""
        return self.timed.statistics

    @property
    def verdict(self) -> Verdict | None:
        """Whether the variant pays; None for plain decoding."""
        return None if self.ratio is None else verdict(self.ratio)

    @property
    def pays_from(self) -> float | None:
        """Accept length at which this variant would be as fast as plain decoding."""
        return None if self.ratio is None else _finite(self.total.mean_acceptance_length / self.ratio.median)

    @property
    def turns(self) -> list[dict[str, float | None]]:
        """Seconds per image by phase, one dict per turn; the known ones add up to the turn's seconds."""
        out = []
        for part, seconds in zip(self.timed.parts, self.timed.seconds, strict=True):
            spent = part.seconds_by_phase(self.timed.loop)
            phases = {phase: _scaled(spent[phase], 1 / self.batch) for phase in PHASES[:-1]}
            out.append(phases | {"rest": seconds / self.batch - sum(known or 0.0 for known in phases.values())})
        return out

    @property
    def phases(self) -> dict[str, float | None]:
        """Median seconds per image, split in proportion to the time of all turns.

        None: the loop does not measure the phase.
        """
        share = self.seconds.median / sum(self.seconds.samples)
        columns = {phase: [turn[phase] for turn in self.turns] for phase in PHASES}
        return {
            phase: None if None in column else share * sum(known or 0.0 for known in column)
            for phase, column in columns.items()
        }

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        total, variant = self.total, self.timed.variant
        drafts, proposed = total.rounds_with_drafts, total.draft_tokens
        accepted, law = total.accepts.tolist(), variant.settings.law
        even = {"break_even_draft_length": None, "best_draft_length": None, "by_draft_length": None}
        return {
            "way": self.kind,
            "name": self.name,
            "loop": self.timed.loop,
            "draft": None if variant.settings.plain else variant.settings.drafter,
            "draft_length": law.length,
            "law": {"omegas": list(law.omegas), "rule": law.rule, "resampler": law.resampler},
            "tokens_per_second": self.rate.as_dict(),
            "seconds_per_image": self.seconds.as_dict(),
            "versus_plain": None if self.ratio is None else self.ratio.as_dict(),
            "verdict": self.verdict,
            "rounds": int(total.rounds.sum()),
            "rounds_with_drafts": drafts,
            "num_draft_tokens": proposed,
            "num_accepted_tokens": sum(accepted),
            "num_accepted_tokens_per_pos": accepted,
            "mean_acceptance_length": _finite(total.mean_acceptance_length),
            "tokens_per_pass": _finite(total.tokens_per_pass),
            "distance_per_token": total.distance_per_token,
            "mean_acceptance_length_drafted": 1 + sum(accepted) / drafts if drafts else None,
            "draft_acceptance_rate": sum(accepted) / proposed if proposed else None,
            "per_position_acceptance_rate": [n / drafts if drafts else None for n in accepted],
            "acceptance_by_position": [_finite(share) for share in total.acceptance_by_position],
            "degenerate_residuals": total.degenerate,
            "seconds_per_image_by_phase": self.phases,
            "samples": [{"seconds": s, "by_phase": t} for s, t in zip(self.seconds.samples, self.turns, strict=True)],
            "break_even_acceptance_length": self.pays_from,
            **(even if self.even is None else self.even.as_dict()),
        }

    def speed_cells(self) -> tuple[str, ...]:
        """Return the cells of the table `SPEED`."""
        ratio = "1" if self.ratio is None else self.ratio.text(2, "x")
        return self.name, self.rate.text(0), self.seconds.text(3), ratio, self.verdict or "the baseline"

    def round_cells(self) -> tuple[str, ...]:
        """Return the cells of the table `ROUNDS`."""
        total, proposed = self.total, self.total.draft_tokens
        shares = [f"{share:.2f}".removeprefix("0") for share in total.acceptance_by_position if math.isfinite(share)]
        return (
            self.name,
            f"{total.mean_acceptance_length:.2f}",
            "-" if self.pays_from is None else f"{self.pays_from:.2f}",
            f"{int(total.accepts.sum()) / proposed:.0%}" if proposed else "-",
            " ".join([*shares[:_SHOWN], *(["..."] if len(shares) > _SHOWN else [])]) or "-",
        )

    def time_cells(self) -> tuple[str, ...]:
        """Return the cells of the table `TIMES`."""
        shares = ["-" if s is None else f"{s / self.seconds.median:.0%}" for s in self.phases.values()]
        return self.name, self.timed.loop or "-", *shares, "-" if self.even is None else self.even.text()


@dataclass(frozen=True)
class TextTable:
    """A table of text cells with its title and columns."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class BenchReport:
    """The results of one run.

    rows: plain decoding comes first.
    windows: seconds of the target's step by number of tokens.
    at_once: a few variants with several images at once.
    """

    machine: Mapping[str, Any]
    command: str
    created: str  # UTC, ISO 8601
    manifest: Manifest
    spec: Spec
    turns: Sequence[Sequence[Job]]
    rows: tuple[BenchRow, ...]
    windows: Mapping[int, float]
    left_out: Mapping[str, str]  # name: reason
    warnings: tuple[str, ...]
    at_once: tuple[AtOnce, ...] = ()

    @property
    def synthetic(self) -> bool:
        """Whether drafts were accepted at fixed rates; the timings then say nothing about the models."""
        return self.spec.acceptance.rule == "synthetic"

    @property
    def note(self) -> str:
        """The engine, the machine and the sample sizes, in one line."""
        here = self.machine
        batch = len(self.turns[0])
        return (
            f"{self.manifest.name} ({self.manifest.fingerprint}, {self.spec.engine.precision}), {here['cpu']}, "
            f"{here['threads']} threads, load {here['load_average']:.1f} before; batches of {batch} image(s), "
            f"medians of {len(self.turns)} interleaved runs"
        )

    @property
    def tables(self) -> tuple[TextTable, TextTable, TextTable]:
        """The tables of speed, of rounds, and of time per phase."""
        rounds = "rounds; the accept length counts the resampled or bonus token; accepted is a share of the drafts"
        return (
            TextTable("speed", SPEED, tuple(row.speed_cells() for row in self.rows)),
            TextTable(rounds, ROUNDS, tuple(row.round_cells() for row in self.rows)),
            TextTable("time per phase", TIMES, tuple(row.time_cells() for row in self.rows)),
        )

    @property
    def verdicts(self) -> list[str]:
        """Sentences on which variants pay and which do not."""
        rows = [(row, row.ratio) for row in self.rows if row.ratio is not None]
        if len(self.turns) < LEAST_RUNS:
            slower = [row.name for row, ratio in rows if ratio.median < 1]
            found = f"too few runs ({len(self.turns)}) for a {LEVEL:.0%} interval"
            out = [f"{found}: give --runs {LEAST_RUNS} or more"]
            return out + ([f"slower than plain decoding in the median: {'; '.join(slower)}"] if slower else [])
        out = [_sentence(row, ratio) for row, ratio in rows]
        if not any(verdict(ratio) == "pays" for _, ratio in rows):
            out.append("no variant with drafts is shown to pay here: plain decoding is as good (--plain)")
        return out

    def as_dict(self) -> dict[str, Any]:
        """Return the document of `--json` and `--out`: JSON data without NaN."""
        return {
            "created": self.created,
            "command": self.command,
            "machine": dict(self.machine),
            "engine": {
                "name": self.manifest.name,
                "fingerprint": self.manifest.fingerprint,
                "precision": self.spec.engine.precision,
                "spec": self.spec.resolved(),
            },
            "synthetic": self.synthetic,
            "runs": len(self.turns),
            "batch": len(self.turns[0]),
            "turns": [[{"prompt": job.prompt, "seed": job.seed} for job in jobs] for jobs in self.turns],
            "ways": [row.as_dict() for row in self.rows],
            "target_seconds_by_window": {str(n): seconds for n, seconds in self.windows.items()},
            "at_once": [one.as_dict() for one in self.at_once],
            "left_out": dict(self.left_out),
            "verdicts": self.verdicts,
            "warnings": list(self.warnings),
            "definitions": DEFINITIONS,
        }


def _sentence(row: BenchRow, ratio: Median) -> str:
    found = verdict(ratio)
    head = "speculation does not pay" if found == "does not pay" else found
    accept = row.total.mean_acceptance_length
    rounds = f"a round brings {accept:.2f} tokens and pays from {accept / ratio.median:.2f}"
    return f"{head}: {row.name} is {ratio.text(2, 'x')} plain decoding; {rounds}"


def _scaled(value: float | None, by: float) -> float | None:
    return None if value is None else value * by


def _finite(value: float) -> float | None:
    """Return the value, or None if it is not finite: JSON has no NaN."""
    return value if math.isfinite(value) else None
