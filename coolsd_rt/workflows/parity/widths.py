"""Tests whether an engine's results depend on the width of a step or on the other images of the batch.

The same tokens go through the target three ways: in steps of L + 1 positions, in steps of one position, and in steps of
one position with the first image alone in its session. Bitwise equal results mean that no decision depends on either.
Does not know the backend or thresholds.

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

TOKENS = 64  # per image: enough for the cache to grow, and few enough for a 7B model


@dataclass(frozen=True)
class WidthDependence:
    """Largest differences of a logit.

    Attributes:
        width: between wide steps and steps of one position.
        mates: between steps beside other images and alone; 0 if there was one image.
        images: number of images compared.
    """

    width: float
    mates: float
    images: int

    @property
    def exact(self) -> bool:
        """Whether all results were bitwise equal."""
        return self.width == 0 and self.mates == 0

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        return {"exact": self.exact, "width": self.width, "mates": self.mates, "images": self.images}


def compare_widths(
    engine: Engine, jobs: Sequence[Job], conditioner: Conditioner, settings: Settings, codes: Host
) -> WidthDependence:
    """Step `engine` in all three ways over the first tokens of the images `codes` int64 [M, n] of `jobs`."""
    wide = max(1, settings.law.length) + 1
    images, rows = len(jobs), 2 if settings.sampling.guided else 1
    tokens = codes[:, :TOKENS]
    ways = {(images, wide), (images, 1), (1, 1)}
    logits = {
        (some, width): _logits(*_open(engine, jobs[:some], conditioner, settings), tokens[:some], rows, width)
        for some, width in ways
    }
    beside, alone = logits[images, 1], logits[1, 1]
    first = beside.reshape(rows, images, *beside.shape[1:])[:, 0]
    return WidthDependence(_gap(logits[images, wide], beside), _gap(first, alone), images)


def _open(engine: Engine, jobs: Sequence[Job], conditioner: Conditioner, settings: Settings) -> tuple[Session, int]:
    """Return a session, and the first position that it stores."""
    rows = drawing.prefix_rows(jobs, conditioner, settings.sampling.guided)
    size = capacity(engine.dims, max(1, settings.law.length))
    return engine.open(engine.encode_condition(rows.text), size, rows.start), engine.dims.first(rows.start)


def _logits(session: Session, first: int, tokens: Host, rows: int, width: int) -> Host:
    """Return logits [R, tokens, V] of the last prefix position and all tokens but the last, in steps of `width`."""
    images, count = tokens.shape
    prefix = session.dims.prefix

    def step(ids: Host, pos: int) -> Host:
        both = np.concatenate([ids] * rows)
        out = session.target(session.asarray(both, "int64"), session.asarray(np.full(len(both), pos), "int64"))[0]
        return host(out).copy()

    parts = [step(np.zeros((images, prefix - first), np.int64), first)[:, -1:]]
    for at in range(0, count - 1, width):
        parts.append(step(tokens[:, at : min(at + width, count - 1)], prefix + at))
    return np.concatenate(parts, axis=1)


def _gap(a: Host, b: Host) -> float:
    return float(np.abs(a.astype(np.float64) - b).max())
