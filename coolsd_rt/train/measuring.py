"""A draft's accept length on held-out images: from networks to `acceptance`'s arrays, batch by batch.

Knows laws along images. Does not know where images come from, or what becomes of the figures.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coolsd_rt.arrays import Floats64
from coolsd_rt.law.acceptance import overlap
from coolsd_rt.train.acceptance import Acceptance, Tally
from coolsd_rt.train.objective import Objective
from coolsd_rt.train.students import Along, Example, Student


@torch.no_grad()
def measure(
    student: Student[Any], objective: Objective, examples: Iterable[Example], omegas: tuple[float, ...], free: Tensor
) -> Acceptance:
    """Acceptance along images that the target drew at the objective's sampling.

    examples: with the spec's own CFG scale. omegas: the schedule's, [L]. free: bool [N], tokens that are not forced.
    In float32, whatever training computes in: a rounded P is another law.
    """
    tally = Tally(omegas)
    for example in examples:
        along = student.along(example, max(1, tally.length))
        tally.add(*evaluated(objective, along, example.codes, omegas, free))
    return tally.result()


def evaluated(
    objective: Objective, along: Along, codes: Tensor, omegas: tuple[float, ...], free: Tensor
) -> tuple[Floats64, Floats64]:
    """What `Tally.add` takes, float64 [2, L, M, N] each: for omega 1, and for `omegas`. Forced tokens are kept."""
    images, tokens = codes.shape
    rates, paths = (np.ones((2, len(omegas), images, tokens)) for _ in range(2))
    rows = free.clone()
    rows[: along.first] = False
    index = rows.nonzero()[:, 0]
    at = index.cpu().numpy()
    here = codes[:, index]
    p = objective.law(along.target[:, index - along.first])
    of_p = _own(p, here)
    for i, omega in enumerate(omegas):
        q = objective.law(along.drafts[i][:, index - along.first])
        for law, relaxed in enumerate((1.0, omega)):
            accepted = overlap(p, q, relaxed)
            rates[law, i][:, at] = accepted.double().sum(-1).cpu().numpy()
            mine = _own(accepted, here)
            # A code that rounding put outside P's filter was drawn all the same: then it counts as rejected.
            share = torch.where(of_p > 0, mine / of_p.clamp(min=torch.finfo(of_p.dtype).tiny), torch.zeros_like(mine))
            paths[law, i][:, at] = share.cpu().numpy()
    return rates, paths


def _own(law: Tensor, codes: Tensor) -> Tensor:
    """law [M, S, V] at the images' own codes [M, S], float64."""
    return law.gather(-1, codes[..., None])[..., 0].double()
