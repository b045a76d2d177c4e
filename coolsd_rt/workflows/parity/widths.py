"""Whether an engine's numbers depend on what shares a step with them: the step's width, and the other images' rows.

The same tokens go through the target three ways: in steps of L + 1 positions, one position at a time, and one position
at a time with the first image alone in its session. Equal bits mean that a decision depends on neither. Does not know
which backend steps, nor thresholds.

Legend as in `coolsd_rt.contract`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coolsd_rt.arrays import Host
from coolsd_rt.prompts import Conditioner
from coolsd_rt.runtime.interface import Engine, Session
from coolsd_rt.runtime.state import capacity
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.drawing import Job, Settings
from coolsd_rt.workflows.parity.distance import host

TOKENS = 64  # of each image that are stepped on: enough for a cache to grow, and few enough for a model of 7B


@dataclass(frozen=True)
class WidthDependence:
    """width: largest difference of a logit between wide steps and steps of one position. mates: between steps of one
    position beside other images and alone; 0 if there was one image."""

    width: float
    mates: float
    images: int

    @property
    def exact(self) -> bool:
        return self.width == 0 and self.mates == 0

    def as_dict(self) -> dict[str, Any]:
        return {"exact": self.exact, "width": self.width, "mates": self.mates, "images": self.images}


def compare_widths(
    engine: Engine, jobs: Sequence[Job], conditioner: Conditioner, settings: Settings, codes: Host
) -> WidthDependence:
    """Step `engine` over the first tokens of the images `codes` int64 [M, tokens], drawn for `jobs`, in each way."""
    wide = max(1, settings.law.length) + 1
    images, rows = len(jobs), 2 if settings.sampling.guided else 1
    tokens = codes[:, : min(TOKENS, engine.dims.tokens)]
    ways = {(images, wide), (images, 1), (1, 1)}
    logits = {
        (some, width): _logits(_open(engine, jobs[:some], conditioner, settings), tokens[:some], rows, width)
        for some, width in ways
    }
    beside, alone = logits[images, 1], logits[1, 1]
    first = beside.reshape(rows, images, *beside.shape[1:])[:, 0]
    return WidthDependence(_gap(logits[images, wide], beside), _gap(first, alone), images)


def _open(engine: Engine, jobs: Sequence[Job], conditioner: Conditioner, settings: Settings) -> Session:
    rows = drawing.prefix_rows(jobs, conditioner, settings.sampling.guided)
    size = capacity(engine.dims, max(1, settings.law.length))
    return engine.open(engine.encode_condition(rows.text), size, rows.start)


def _logits(session: Session, tokens: Host, rows: int, width: int) -> Host:
    """Logits [R, tokens, V] of the prefix's last position and all tokens but the last, in steps of `width`."""
    images, count = tokens.shape
    prefix = session.dims.prefix

    def step(ids: Host, pos: int) -> Host:
        both = np.concatenate([ids] * rows)
        out = session.target(session.asarray(both, "int64"), session.asarray(np.full(len(both), pos), "int64"))[0]
        return host(out).copy()

    parts = [step(np.zeros((images, prefix), np.int64), 0)[:, -1:]]
    for at in range(0, count - 1, width):
        parts.append(step(tokens[:, at : min(at + width, count - 1)], prefix + at))
    return np.concatenate(parts, axis=1)


def _gap(a: Host, b: Host) -> float:
    return float(np.abs(a.astype(np.float64) - b).max())
