"""`coolsd-rt bench`: time every variant of decoding that an engine supports, side by side in one run.

    1. Open the engine; create the variants of its spec (`variants`).
    2. Draw the same images with every variant, in turns (`timing`); after each turn, time the target's step alone over
       windows of every length.
    3. Compute medians, intervals and ratios to plain decoding (`stats`), and the draft length up to which a round is
       worth its time (`break_even`).

Knows engines and prompts. Does not know how figures are shown (`report`, `html`). Needs scipy.
"""

from __future__ import annotations

import shlex
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np

from coolsd_rt import cores, limits
from coolsd_rt.bench.at_once import KINDS, SIZES, AtOnce
from coolsd_rt.bench.break_even import BreakEven, break_even, tokens_by_length
from coolsd_rt.bench.report import BenchReport, BenchRow
from coolsd_rt.bench.stats import Median, paired_ratio
from coolsd_rt.bench.timing import Timed, Variant, take_turns
from coolsd_rt.bench.variants import AUTO, VariantChoice, VariantRow, lines
from coolsd_rt.errors import UserError
from coolsd_rt.machine import machine
from coolsd_rt.prompts import Conditioner
from coolsd_rt.spec import Spec, with_overrides
from coolsd_rt.spec.fields import Probability, Seed, Threads, check_fields
from coolsd_rt.spec.section import Within
from coolsd_rt.workflows import drawing, opening
from coolsd_rt.workflows.drawing import Job, TextBounds
from coolsd_rt.workflows.generate.run import SYNTHETIC, unknown_words
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.planning import plan_for, with_plan

TEXT_TOKENS = 128  # tokens of each text that is timed
_PROBES = 8  # timed steps of each window after each turn


@dataclass(frozen=True)
class BenchConfig:
    """What to time.

    runs: turns of each variant.
    batch: images drawn at once. None: one, and beside it a few variants at every size of `at_once.SIZES`.
    prompts: empty: those beside the spec's vocabulary, taken evenly.
    seed: image k of all has seed + k, with every variant.
    choice: the variants to time.
    confidence, draft_confidence: of pacing; None: the spec's.
    threads: threads of the engine; None: the usable cores.
    """

    engine: Path
    runs: Annotated[int, Within(limits.RUNS)] = 6
    batch: Annotated[int, Within(limits.MAX_BATCH)] | None = None
    prompts: tuple[str, ...] = ()
    seed: Seed = 0
    choice: VariantChoice = field(default_factory=VariantChoice)
    confidence: Probability | None = None
    draft_confidence: Probability | None = None
    spec_file: Path | None = None
    threads: Threads | None = None
    reading: opening.PromptInputs = field(default_factory=opening.PromptInputs)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Images at once: of the main tables, then of the table of sizes, whatever the engine's limit is."""
        if self.batch is not None:
            return (self.batch,)
        return (1, *SIZES) if self.kinds_at_once else (1,)

    @property
    def kinds_at_once(self) -> tuple[str, ...]:
        """Variants that are timed at every size: those of `at_once.KINDS` that were asked for."""
        return tuple(name for name in KINDS if not self.choice.names or name in self.choice.names)

    @property
    def pacing(self) -> dict[str, float]:
        """Pacing values that replace those of the spec."""
        both = {"confidence": self.confidence, "draft_confidence": self.draft_confidence}
        return {key: value for key, value in both.items() if value is not None}

    def command(self, threads: int) -> str:
        """Return the command that repeats the run on the same machine."""
        choice = self.choice
        options: list[tuple[str, Sequence[object]]] = [
            ("--runs", [self.runs]),
            ("--batch", [] if self.batch is None else [self.batch]),
            ("--seed", [self.seed]),
            ("--prompt", self.prompts),
            ("--variant", choice.names),
            ("--delta", [f"{delta:g}" for delta in choice.deltas]),
            ("--draft-length", choice.draft_lengths),
            ("--jacobi-length", [] if choice.jacobi_length is None else [choice.jacobi_length]),
            *((f"--{key.replace('_', '-')}", [f"{value:g}"]) for key, value in self.pacing.items()),
            ("--spec", [] if self.spec_file is None else [self.spec_file]),
            ("--threads", [threads]),
            ("--features", [p] if (p := self.reading.features) else []),
            ("--text-encoder", [p] if (p := self.reading.text_encoder) else []),
        ]
        words = [str(word) for option, values in options for value in values for word in (option, value)]
        return shlex.join(["coolsd-rt", "bench", str(self.engine), *words])


@dataclass(frozen=True)
class BenchCallbacks:
    """Callbacks that report progress.

    warning: called with each warning.
    start: called with the numbers of variants and turns; the warm-up counts as a turn.
    variant: called with the name of a variant after it has drawn a batch.
    """

    warning: Callable[[str], None] = lambda line: None
    start: Callable[[int, int], None] = lambda variants, turns: None  # the warm-up counts as a turn
    variant: Callable[[str], None] = lambda name: None  # drawn once


@dataclass
class StepSeconds:
    """Times the target's step over 1..most tokens in the middle of an image, by number of tokens."""

    variant: Variant  # the variant with the longest draft, whose session has caches for all windows
    jobs: Sequence[Job]
    conditioner: Conditioner
    clock: Callable[[], float] = time.perf_counter
    seconds: dict[int, list[float]] = field(default_factory=dict)

    def __call__(self) -> None:
        """Time each window `_PROBES` times, in turns, after one untimed step of each."""
        settings, dims = self.variant.settings, self.variant.engine.dims
        session = drawing.open_session(self.variant.engine, self.jobs, self.conditioner, settings)
        rows = len(self.jobs) * (2 if settings.sampling.guided else 1)
        most = settings.law.length + 1
        at = max(0, min(dims.prefix + dims.tokens // 2, dims.positions - most))
        pos = session.asarray(np.full(rows, at, np.int64), "int64")
        windows = [(n, session.asarray(np.zeros((rows, n), np.int64), "int64")) for n in range(1, most + 1)]
        for turn in range(1 + _PROBES):
            for n, ids in windows:
                began = self.clock()
                logits, _ = session.target(ids, pos)
                float(logits[0, 0, 0])  # wait for a device that works asynchronously
                if turn:
                    self.seconds.setdefault(n, []).append(self.clock() - began)

    @property
    def medians(self) -> dict[int, float]:
        """Median seconds of a step by number of tokens."""
        return {n: statistics.median(seconds) for n, seconds in self.seconds.items()}


def bench(request: BenchConfig, listener: BenchCallbacks | None = None) -> BenchReport:
    """Time every requested variant.

    Raises:
        UserError: no engine, a value out of range, no prompts, nothing to compare; before anything is drawn.
        CoolsdError: a broken engine.
    """
    listener = listener or BenchCallbacks()
    opened = OpenedEngine.at(request.engine, request.reading, cores.threads_for(request.threads), request.spec_file)
    spec = opened.spec
    size, *more = request.sizes
    if size > spec.engine.max_batch:
        expected = f"from 1 to the engine's {spec.engine.max_batch} (engine.max_batch)"
        raise UserError("--batch", expected=expected, found=str(size))
    spec = with_overrides(spec, {f"pacing.{key}": value for key, value in request.pacing.items()})
    conditioner = opened.conditioner
    turns = _turns(request, opened, size)
    threads = cores.threads_for(opened.threads)
    here, created = machine(threads), datetime.now(UTC).isoformat(timespec="seconds")
    engine, near = opened.engine, opened.neighbours
    chosen, left_out = lines(spec, engine, spec.engine.precision, request.choice, near)
    chosen = [_of_engine(line, opened, turns[0]) for line in chosen]
    warnings = list(unknown_words([job for jobs in turns for job in jobs]))
    warnings += [f"{name} is left out: {reason}" for name, reason in left_out.items()]
    warnings += [SYNTHETIC] if spec.acceptance.rule == "synthetic" else []
    for line in warnings:
        listener.warning(line)
    longest = max((line.variant for line in chosen), key=lambda variant: variant.settings.law.length)
    windows = StepSeconds(longest, turns[0], conditioner)
    timed = _timed(chosen, turns, conditioner, listener, between=windows)
    reasons = [entry.graph_fallback_reason for entry in timed] if spec.engine.device == "cuda" else []
    for reason in dict.fromkeys(filter(None, reasons)):
        warnings.append(f"rounds ran without a CUDA graph: {reason}")
        listener.warning(warnings[-1])
    rows = _rows(chosen, timed, windows.medians, size)
    sizes = [n for n in more if n <= spec.engine.max_batch]
    return BenchReport(
        machine=here,
        command=request.command(threads),
        created=created,
        manifest=opened.manifest,
        spec=spec,
        turns=turns,
        rows=rows,
        at_once=tuple(_at_once(request, opened, spec, n, listener) for n in sizes),
        windows=windows.medians,
        left_out=left_out,
        warnings=tuple(warnings),
    )


def _of_engine(line: VariantRow, opened: OpenedEngine, jobs: Sequence[Job]) -> VariantRow:
    """The row with the engine's forced tokens and, under pacing `auto`, the plan for a batch such as `jobs`.

    Texts are written up to `TEXT_TOKENS`, whatever end tokens come.
    """
    settings, name = replace(line.variant.settings, forced=opened.forced), line.variant.name
    if opened.spec.writes == "text":  # texts of one length, so that variants do the same work
        limit = min(TEXT_TOKENS, opened.description.dims.tokens)
        settings = replace(settings, bounds=TextBounds((), limit))
    if line.kind == AUTO:
        plan = plan_for(opened.engine, jobs, opened.conditioner, settings, opened.plans)
        settings, name = with_plan(settings, plan), f"{name}: {plan}"
    return replace(line, variant=replace(line.variant, settings=settings, name=name))


def _at_once(request: BenchConfig, opened: OpenedEngine, spec: Spec, size: int, listener: BenchCallbacks) -> AtOnce:
    """Time the variants `KINDS`, as far as they were asked for, with `size` images at once."""
    choice = replace(request.choice, names=request.kinds_at_once, draft_lengths=())
    turns = _turns(request, opened, size)
    chosen, _ = lines(spec, opened.engine, spec.engine.precision, choice, None)
    chosen = [_of_engine(line, opened, turns[0]) for line in chosen]
    timed = _timed(chosen, turns, opened.conditioner, listener, f"{size} images, ")
    return AtOnce(size, _rows(chosen, timed, {}, size))


def _timed(
    chosen: Sequence[VariantRow],
    turns: Sequence[Sequence[Job]],
    conditioner: Conditioner,
    listener: BenchCallbacks,
    mark: str = "",
    between: Callable[[], None] = lambda: None,
) -> list[Timed]:
    """Time the variants in turns, and report each. mark: put before their names. between: called after each turn."""
    listener.start(len(chosen), len(turns) + 1)
    variants = [line.variant for line in chosen]
    tell = listener.variant
    return take_turns(variants, turns, conditioner, lambda variant: tell(mark + variant.name), between=between)


def _turns(request: BenchConfig, opened: OpenedEngine, size: int) -> list[Sequence[Job]]:
    texts: Sequence[str] = request.prompts or opened.default_prompts()
    jobs = drawing.spread_jobs(texts, request.runs * size, request.seed, opened.conditioner)
    return list(drawing.batches(jobs, size))


def _rows(
    chosen: Sequence[VariantRow], timed: Sequence[Timed], windows: dict[int, float], batch: int
) -> tuple[BenchRow, ...]:
    """Return the rows of the report; the first is plain decoding. windows: empty where they were not timed."""
    plain = timed[0]
    step = plain.round_seconds(0)
    return tuple(
        BenchRow(
            kind=line.kind,
            timed=entry,
            rate=Median.of(entry.rates),
            seconds=Median.of([seconds / batch for seconds in entry.seconds]),
            ratio=None if entry is plain else paired_ratio(entry.rates, plain.rates),
            even=None if line.refines or not windows else _even(entry, step, windows),
        )
        for line, entry in zip(chosen, timed, strict=True)
    )


def _even(entry: Timed, step: float | None, windows: dict[int, float]) -> BreakEven | None:
    length = entry.variant.settings.law.length
    whole = entry.round_seconds(length)
    if not length or step is None or whole is None:
        return None
    if entry.variant.settings.sampling.draft_confidence:
        return None  # only confident drafts were evaluated: the acceptance of drafts that were cut is unknown
    total = entry.statistics
    tokens = tokens_by_length(total.accepts.tolist(), total.attempts.tolist())
    return break_even(tokens, step, whole, {n: windows[n] for n in range(1, length + 2)})
