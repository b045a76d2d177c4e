"""Figures of a recording: ambiguity of the target, distance of the draft, and the effect of other schedules.

Knows windows of P and Q. Does not know engines, prompts or files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.law import Law, make_omegas
from coolsd_rt.law.traces import RoundForecast, outlook
from coolsd_rt.schedules.recording import Recording

BINS = 5  # bins of entropy, with equal numbers of positions


@dataclass(frozen=True)
class Ambiguity:
    """Figures of P and Q at the positions that lossless decoding evaluates.

    Attributes:
        entropy: mean entropy of P, in nats.
        top5: mean probability of P's five most probable codes.
        tv: mean TV(P, Q), which is the lossless rejection rate.
        tv_by_position: tv by draft position, [L].
        tv_by_row: tv by row of the image; empty for texts, which have none.
        bins: (mean entropy, mean TV, share accepted) in bins of equal size, from least to most ambiguous.
    """

    entropy: float
    top5: float
    tv: float
    tv_by_position: tuple[float, ...]
    tv_by_row: tuple[float, ...]
    bins: tuple[tuple[float, float, float], ...]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        rows = {"tv_by_row": list(self.tv_by_row)} if self.tv_by_row else {}
        return {
            "mean_entropy_nats": self.entropy,
            "top5_mass": self.top5,
            "tv": self.tv,
            "tv_by_draft_position": list(self.tv_by_position),
            **rows,
            "by_entropy": [dict(zip(("entropy_nats", "tv", "accepted"), b, strict=True)) for b in self.bins],
        }


@dataclass(frozen=True)
class EvaluatedDrafts:
    """Every evaluated position of a recording, [k]. A position is evaluated if all drafts before it were accepted.

    Attributes:
        entropy: entropy of P, in nats.
        top5: probability of P's five most probable codes.
        tv: TV(P, Q).
        accepted: whether the draft was accepted.
        window: window of the recording.
        draft: draft position, from 0.
        token: index of the token in the image.
    """

    entropy: NDArray[np.float64]
    top5: NDArray[np.float64]
    tv: NDArray[np.float64]
    accepted: NDArray[np.bool_]
    window: NDArray[np.int64]
    draft: NDArray[np.int64]
    token: NDArray[np.int64]

    def by_entropy(self, bins: int) -> list[NDArray[np.int64]]:
        """Sort the positions from least to most ambiguous and split them into `bins` parts of equal size."""
        order = np.argsort(self.entropy, kind="stable")
        return list(np.array_split(order, max(1, min(bins, len(order)))))


def evaluated(recording: Recording) -> EvaluatedDrafts:
    """Return the positions that the recording's law evaluated."""
    windows = recording.windows
    index = np.arange(windows.length)
    mask = (index <= recording.accepted[:, None]) & windows.counts
    p, q = windows.target[mask].astype(np.float64), windows.draft[mask].astype(np.float64)
    return EvaluatedDrafts(
        entropy=recording.entropy[mask],
        top5=recording.top5[mask],
        tv=0.5 * np.abs(p - q).sum(-1),
        accepted=(index < recording.accepted[:, None])[mask],
        window=np.nonzero(mask)[0],
        draft=np.broadcast_to(index, mask.shape)[mask],
        token=(recording.position[:, None] + index)[mask],
    )


def ambiguity(recording: Recording, grid: int | None) -> Ambiguity:
    """Compute the figures of a recording. grid: number of cells along a side of the image; None: of texts."""
    at = evaluated(recording)
    bins = [
        (float(at.entropy[part].mean()), float(at.tv[part].mean()), float(at.accepted[part].mean()))
        for part in at.by_entropy(BINS)
    ]
    return Ambiguity(
        float(at.entropy.mean()),
        float(at.top5.mean()),
        float(at.tv.mean()),
        _means(at.tv, at.draft, recording.windows.length),
        () if grid is None else _means(at.tv, at.token // grid, grid),
        tuple(bins),
    )


def _means(values: NDArray[np.float64], group: NDArray[np.int64], count: int) -> tuple[float, ...]:
    sums = np.bincount(group, values, count)
    seen = np.bincount(group, minlength=count)
    return tuple(float(s / n) if n else float("nan") for s, n in zip(sums, seen, strict=True))


def schedules(length: int) -> dict[str, Law]:
    """Return schedules worth comparing, by name. length: draft length."""
    laws = {"none (lossless)": Law(make_omegas("none", length))}
    for delta in (1.1, 1.5, 2.0):
        for kind, floor in (("exponential", None), ("exponential", 1.0), ("linear", 1.0), ("uniform", None)):
            name = f"{kind}, delta {delta:g}" + (", floor 1" if floor else "")
            laws[name] = Law(make_omegas(kind, length, delta=delta, floor=floor))  # type: ignore[arg-type]
    for beta in (0.1, 0.3):
        laws[f"excess, beta {beta:g}, nu 0.3"] = Law(make_omegas("excess", length, beta=beta, nu=0.3))
    return laws


def compare(recording: Recording, laws: dict[str, Law]) -> dict[str, RoundForecast]:
    """Forecast what each law would do on the recorded rounds."""
    return {name: outlook(recording.windows, law) for name, law in laws.items()}
