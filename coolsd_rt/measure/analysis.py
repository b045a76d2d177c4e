"""Figures of a recording: how ambiguous the target is, how near the draft, and what other schedules would do.

Knows windows of P and Q. Does not know engines, prompts or files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.law import Law, make_omegas
from coolsd_rt.law.traces import Outlook, outlook
from coolsd_rt.measure.recording import Recording

BINS = 5  # of entropy, with as many positions each


@dataclass(frozen=True)
class Ambiguity:
    """What P and Q look like at the positions that lossless decoding judges.

    entropy: mean of P's, nats. top5: mean mass of P's five likeliest codes. tv: mean TV(P, Q), which is the lossless
    rejection rate; by draft position [L] and by row of the picture. bins: (mean entropy, mean TV, share accepted) of
    positions from the least to the most ambiguous, as many in each.
    """

    entropy: float
    top5: float
    tv: float
    tv_by_position: tuple[float, ...]
    tv_by_row: tuple[float, ...]
    bins: tuple[tuple[float, float, float], ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "mean_entropy_nats": self.entropy,
            "top5_mass": self.top5,
            "tv": self.tv,
            "tv_by_draft_position": list(self.tv_by_position),
            "tv_by_row": list(self.tv_by_row),
            "by_entropy": [dict(zip(("entropy_nats", "tv", "accepted"), b, strict=True)) for b in self.bins],
        }


def ambiguity(recording: Recording, grid: int) -> Ambiguity:
    """grid: cells along a side of the picture. A position is judged if all drafts before it were accepted."""
    windows, length = recording.windows, recording.windows.length
    index = np.arange(length)
    judged = (index <= recording.accepted[:, None]) & (index < windows.valid[:, None])
    p, q = windows.target[judged].astype(np.float64), windows.draft[judged].astype(np.float64)
    kept = (index < recording.accepted[:, None])[judged]
    entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(-1)
    tv = 0.5 * np.abs(p - q).sum(-1)
    position = np.broadcast_to(index, judged.shape)[judged]
    row = ((recording.position[:, None] + index) // grid)[judged]
    order = np.argsort(entropy, kind="stable")
    bins = [
        (float(entropy[part].mean()), float(tv[part].mean()), float(kept[part].mean()))
        for part in np.array_split(order, min(BINS, len(order)))
    ]
    top5 = np.partition(p, -5, axis=-1)[:, -5:].sum(-1) if p.shape[-1] > 5 else p.sum(-1)
    return Ambiguity(
        float(entropy.mean()), float(top5.mean()), float(tv.mean()), _means(tv, position, length),
        _means(tv, row, grid), tuple(bins),
    )  # fmt: skip


def _means(values: NDArray[np.float64], group: NDArray[np.int64], count: int) -> tuple[float, ...]:
    sums = np.bincount(group, values, count)
    seen = np.bincount(group, minlength=count)
    return tuple(float(s / n) if n else float("nan") for s, n in zip(sums, seen, strict=True))


def schedules(length: int) -> dict[str, Law]:
    """Schedules worth comparing, by name."""
    laws = {"none (lossless)": Law(make_omegas("none", length))}
    for delta in (1.1, 1.5, 2.0):
        for kind, floor in (("exponential", None), ("exponential", 1.0), ("linear", 1.0), ("uniform", None)):
            name = f"{kind}, delta {delta:g}" + (", floor 1" if floor else "")
            laws[name] = Law(make_omegas(kind, length, delta=delta, floor=floor))  # type: ignore[arg-type]
    for beta in (0.1, 0.3):
        laws[f"excess, beta {beta:g}, nu 0.3"] = Law(make_omegas("excess", length, beta=beta, nu=0.3))
    return laws


def compare(recording: Recording, laws: dict[str, Law]) -> dict[str, Outlook]:
    """What each law would do on the recorded rounds."""
    return {name: outlook(recording.windows, law) for name, law in laws.items()}
