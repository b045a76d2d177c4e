"""Measures a draft's accept length on held-out images: computes the arrays for `acceptance` batch by batch.

Knows distributions along images. Does not know where images come from or how the figures are used.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coolsd_rt.arrays import Floats64, Ints
from coolsd_rt.law.acceptance import overlap
from coolsd_rt.train.acceptance import Acceptance, Tally
from coolsd_rt.train.objective import Objective
from coolsd_rt.train.students import Along, Example, Student


@torch.no_grad()
def measure(
    student: Student[Any],
    objective: Objective,
    examples: Iterable[Example],
    omegas: tuple[float, ...],
    free: Tensor,
    most: Ints | None = None,
) -> Acceptance:
    """Return the acceptance along images that the target drew with the objective's sampling.

    examples: with the spec's CFG scale. omegas: the schedule's, [L]. free: bool [N], tokens that are not forced.
    most: int64 [N], as in `Tally`. Computed in float32 whatever precision training uses, because rounding P would
    change the distribution.
    """
    tally = Tally(omegas, most)
    for example in examples:
        along = student.along(example, max(1, tally.length))
        tally.add(*evaluated(objective, along, example.codes, omegas, free))
    return tally.result()


def evaluated(
    objective: Objective, along: Along, codes: Tensor, omegas: tuple[float, ...], free: Tensor
) -> tuple[Floats64, Floats64]:
    """Return the arguments of `Tally.add`, float64 [2, L, M, N] each, for omega 1 and for `omegas`.

    Forced tokens count as accepted.
    """
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
            # Rounding can put a drawn code outside P's filter: it counts as rejected.
            share = torch.where(of_p > 0, mine / of_p.clamp(min=torch.finfo(of_p.dtype).tiny), torch.zeros_like(mine))
            paths[law, i][:, at] = share.cpu().numpy()
    return rates, paths


def _own(law: Tensor, codes: Tensor) -> Tensor:
    """Return law [M, S, V] at the images' codes [M, S], float64."""
    return law.gather(-1, codes[..., None])[..., 0].double()
