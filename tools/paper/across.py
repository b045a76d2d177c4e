"""One table of the schedules over draft lengths and TV(P, Q), for engines of images and of texts.

The draft is the target itself with noise on its logits (`noisy_draft`), as much of it as brings TV(P, Q) near each of
the wanted values; the TV that was measured is what the table says. At each noise rounds of the longest length are
recorded once, and shorter ones are their first drafts. Every shape is brought to one KL a token by its estimate, on the
same held-out rounds.

Knows recordings and tuning. Does not know files or engines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np

from coolsd_rt.law import Law
from coolsd_rt.law.traces import RecordedRounds, outlook
from coolsd_rt.schedules.analysis import evaluated
from coolsd_rt.schedules.budget import Budget
from coolsd_rt.schedules.merging import compact, merge
from coolsd_rt.schedules.recording import Recording
from coolsd_rt.schedules.search import FIT, tune
from coolsd_rt.schedules.shapes import FREE, split

PILOT_LENGTH = 2
SHAPES = {
    "the paper's": "exponential",
    "floored": "exponential, floor 1",
    "linear": "linear, floor 1",
    "uniform": "uniform",
    "excess": "excess, nu 0.3",
    "optimum": FREE,
}


@dataclass(frozen=True)
class Wanted:
    """The rows: draft lengths, values of TV(P, Q) to come near, and noises to try for them."""

    lengths: tuple[int, ...] = (2, 4, 5, 8)
    distances: tuple[float, ...] = (0.2, 0.3, 0.4, 0.5, 0.6)
    pilots: tuple[float, ...] = (0.4, 0.8, 1.2, 1.8, 2.6, 4.0)


WANTED = Wanted()


class NoisyRounds(Protocol):
    """Records lossless rounds of drafts of a noise. few: of some of the images or texts only."""

    def __call__(self, noise: float, length: int, *, few: bool = False) -> Recording: ...


@dataclass(frozen=True)
class Cell:
    """One row: an architecture at a draft length and a noise.

    tv: measured, at the positions that lossless decoding evaluates. rounds: recorded ones. lossless, accept_length:
    tokens a round, by column of the table; on the held-out rounds. kl: what each shape has there, nats a token.
    """

    architecture: str
    length: int
    noise: float
    tv: float
    rounds: int
    lossless: float
    accept_length: dict[str, float]
    kl: dict[str, float]
    optimum: list[float]


def cut(windows: RecordedRounds, length: int) -> RecordedRounds:
    """The same rounds, had they drafted `length` tokens."""
    w = windows
    return replace(
        w,
        target=w.target[:, :length],
        draft=w.draft[:, :length],
        drafts=w.drafts[:, :length],
        num_drafts=np.minimum(w.num_drafts, length),
    )


def first_drafts(recording: Recording, length: int) -> Recording:
    """The same recording, had its rounds drafted `length` tokens."""
    return replace(
        recording,
        windows=cut(recording.windows, length),
        entropy=recording.entropy[:, :length],
        top5=recording.top5[:, :length],
    )


def noises(record: NoisyRounds, wanted: Wanted) -> list[float]:
    """A noise for each TV, from pilots with few rounds: on the line between the two nearest, or the last of them.

    Values that no pilot reaches share the last noise, which is there once.
    """
    found = [distance(record(noise, PILOT_LENGTH, few=True)) for noise in wanted.pilots]
    rising = np.maximum.accumulate([0.0, *found])
    between = np.interp(wanted.distances, rising, [0.0, *wanted.pilots])
    return list(dict.fromkeys(float(noise) for noise in between))


def distance(recording: Recording) -> float:
    """TV(P, Q) at the positions that were evaluated."""
    return float(evaluated(recording).tv.mean())


def cell(recording: Recording, architecture: str, length: int, noise: float, budget: float) -> Cell:
    """The row of one length."""
    part = first_drafts(recording, length)
    windows = compact(part.windows if part.windows.merged else merge(part.windows))
    tuned = {j.name: j for j in tune(windows, Budget("kl", budget, None)).judged}
    held = split(windows, FIT)[1]
    return Cell(
        architecture,
        length,
        noise,
        distance(part),
        len(part.accepted),
        outlook(held, Law((1.0,) * length)).accept_length,
        {column: tuned[name].outlook.accept_length for column, name in SHAPES.items()},
        {column: tuned[name].outlook.kl_per_token for column, name in SHAPES.items()},
        list(tuned[FREE].omegas),
    )


def table(
    record: NoisyRounds,
    architecture: str,
    budget: float,
    say: Callable[[str], None],
    wanted: Wanted = WANTED,
) -> list[dict[str, Any]]:
    """All rows of an architecture, as JSON data."""
    say("noises for each TV")
    rows = []
    for noise in noises(record, wanted):
        recording = record(noise, max(wanted.lengths))
        say(f"noise {noise:.2f}: TV {distance(recording):.3f}, {len(recording.accepted)} rounds")
        rows += [asdict(cell(recording, architecture, length, noise, budget)) for length in wanted.lengths]
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table of accept lengths, the best of the spec's shapes in bold."""
    names = list(SHAPES)
    lines = ["| | L | TV(P, Q) | lossless | " + " | ".join(names) + " |", "|---" * (4 + len(names)) + "|"]
    for row in rows:
        best = max(value for name, value in row["accept_length"].items() if name != "optimum")
        values = [
            f"**{value:.3f}**" if value == best and name != "optimum" else f"{value:.3f}"
            for name, value in row["accept_length"].items()
        ]
        head = f"| {row['architecture']} | {row['length']} | {row['tv']:.3f} | {row['lossless']:.3f} | "
        lines.append(head + " | ".join(values) + " |")
    return "\n".join(lines)
