"""From networks to arrays: rates and paths are the law's own at every token, and forced tokens are kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coolsd_rt.law import Law
from coolsd_rt.law.position import position_law
from coolsd_rt.ops import process_logits
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.train.measuring import evaluated
from coolsd_rt.train.objective import Objective
from coolsd_rt.train.students import Along

OMEGAS = (1.7, 0.6)


@pytest.mark.parametrize("first", [0, 1])
def test_rates_and_paths_are_the_laws(first: int) -> None:
    torch.manual_seed(0)
    sampling, tokens, codes = Sampling(top_k=5, temperature=0.8), 6, 9
    target, *drafts = (torch.randn(3, tokens - first, codes) for _ in range(3))
    nothing = torch.zeros(())
    p, *qs = (process_logits(x, None, 0.8, 5, 1.0).double().numpy() for x in (target, *drafts))
    drawn = torch.from_numpy(np.argmax(p, -1))
    x = torch.cat([torch.zeros(3, first, dtype=torch.int64), drawn], dim=1)
    free = torch.ones(tokens, dtype=torch.bool)
    free[3] = False
    rates, paths = evaluated(Objective(sampling), Along(first, target, drafts, [nothing] * 2), x, OMEGAS, free)
    assert rates.shape == paths.shape == (2, 2, 3, tokens)
    for law, omegas in enumerate(((1.0, 1.0), OMEGAS)):
        for i in range(2):
            accepted, _ = position_law(p, qs[i], Law(omegas), i)
            own = drawn.numpy()[..., None]
            share = (np.take_along_axis(accepted, own, -1) / np.take_along_axis(p, own, -1))[..., 0]
            for n in range(first, tokens):
                wanted = (1.0, 1.0) if n == 3 else (accepted.sum(-1)[:, n - first], share[:, n - first])
                assert np.allclose(rates[law, i][:, n], wanted[0], atol=1e-6), (law, i, n)
                assert np.allclose(paths[law, i][:, n], wanted[1], atol=1e-5), (law, i, n)
