"""A request for texts: takes a built engine and prompts, returns texts and figures.

    1. Open the engine, apply the request's run-time values to its spec. The hash of each file is verified first.
    2. Turn the prompts into tokens. Choose how rounds draft, under pacing `auto`.
    3. Write at most `engine.max_batch` texts at once, in slots.

Knows the order of the steps. Does not know terminals or how a token is decided.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coolsd_rt.prompts.texts import readable
from coolsd_rt.runtime.statistics import Statistics
from coolsd_rt.spec.fields import DraftLength, Flag, Images, Seed, TextTokens, Threads, check_fields
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.plans import DraftPlan
from coolsd_rt.workflows.prepared import Prepared
from coolsd_rt.workflows.texts import TextAsk, TextPart, TextsDrawing, WrittenText, bounded, text_jobs


@dataclass(frozen=True)
class WriteConfig:
    """A request of the user. Fields are checked on construction.

    Attributes:
        variants: texts per prompt.
        raw: prompts are continued as they are, without the chat template.
        system: message of the system before each prompt.
        max_tokens: most tokens of a text; None: as many as the engine has.
        overrides, draft_length, plain, draft, threads: as in `GenerateConfig`.
    """

    prompts: Sequence[str]
    variants: Images = 1
    seed: Seed = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    draft_length: DraftLength | None = None
    plain: Flag = False
    threads: Threads | None = None
    draft: str | None = None
    raw: Flag = False
    system: str | None = None
    max_tokens: TextTokens | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class WriteReport:
    """The texts of a request, in the order of the prompts, and figures. Times are wall seconds.

    seconds: of writing, without loading the engine and without trials of plans. plan: as in `GenerateReport`.
    """

    texts: tuple[WrittenText, ...]
    seconds: float
    seconds_load: float
    statistics: Statistics
    plan: DraftPlan | None = None

    @property
    def tokens(self) -> int:
        """Tokens of all texts."""
        return sum(len(text.ids) for text in self.texts)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON document of `generate --json`."""
        s = self.statistics
        return {
            "texts": [text.as_dict() for text in self.texts],
            "plan": None if self.plan is None else self.plan.as_dict(),
            "tokens": self.tokens,
            "seconds": self.seconds,
            "tokens_per_second": self.tokens / self.seconds if self.seconds else float("nan"),
            "mean_acceptance_length": s.mean_acceptance_length,
            "acceptance_by_position": s.acceptance_by_position,
            "rounds": int(s.rounds.sum()),
            "degenerate_residuals": s.degenerate,
            "seconds_load": self.seconds_load,
        }


@dataclass(frozen=True)
class WriteCallbacks:
    """Callbacks that report progress.

    Attributes:
        start: called with the number of texts, before the first token.
        part: called with what a text gained; None: parts are not wanted.
        finished: called with each finished text.
        measuring: as in `GenerateCallbacks`, with texts for images.
    """

    start: Callable[[int], None] = lambda texts: None
    part: Callable[[TextPart], None] | None = None
    finished: Callable[[WrittenText], None] = lambda text: None
    measuring: Callable[[int], None] = lambda texts: None


def write(engine: str | Path, request: WriteConfig, listener: WriteCallbacks | None = None) -> WriteReport:
    """Write the texts of a request with a built engine (`engines/NAME` or the folder of a fingerprint).

    Raises UserError for an engine that draws images, a refused prompt or value; CoolsdError if the engine is broken.
    """
    listener = listener or WriteCallbacks()
    began = time.perf_counter()
    opened = OpenedEngine.at(engine, threads=request.threads)
    opened.text_reader  # noqa: B018 (an engine that draws images is refused before anything else)
    prepared = Prepared.of(opened, request)
    prepared = prepared.with_asked(bounded(opened, prepared.asked, request.max_tokens))
    every = drawing.asked(request.prompts, request.variants, request.seed, read=readable)
    jobs = text_jobs(opened, every, TextAsk(request.raw, request.system))
    prepared = prepared.recorded(len(jobs))
    opened.load(prepared.later_graphs)
    load = time.perf_counter() - began
    prepared = prepared.planned(jobs, len(jobs), on_choose=listener.measuring)
    listener.start(len(jobs))
    drawn = TextsDrawing(opened, jobs, prepared.settings)
    texts: dict[int, WrittenText] = {}
    for event in drawn.events(parts=listener.part is not None):
        if isinstance(event, WrittenText):
            texts[event.job.index] = event
            listener.finished(event)
        elif listener.part is not None:
            listener.part(event)
    ordered = tuple(texts[job.index] for job in jobs)
    return WriteReport(ordered, drawn.seconds, load, drawn.statistics, prepared.plan)
