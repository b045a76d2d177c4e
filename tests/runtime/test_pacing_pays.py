"""Pacing by costs, in simulated batches: never much slower than plain decoding, and near the best fixed choice."""

from __future__ import annotations

import numpy as np
import pytest

from coolsd_rt.runtime.costs import DrafterName, RoundCosts
from coolsd_rt.runtime.pacing import AutoPacer
from tests.runtime.costs import costs_of

DEMO: dict[int, tuple[float, ...]] = {  # plain rounds by number of drafts: engines of ours, by images at once
    1: (1.0, 1.18, 1.26, 1.43, 1.49, 1.5),
    2: (1.0, 1.4, 1.5, 1.75, 2.0, 2.2),
    4: (1.0, 1.45, 1.7, 1.95, 2.2, 2.6),
    8: (1.0, 1.55, 1.9, 2.3, 2.7, 3.1),
}


def simulated(costs: RoundCosts, chances: dict[DrafterName, float], fixed: int | None, seed: int) -> float:
    """Plain rounds that a batch of 256 tokens an image takes. fixed: drafts of every round; None: the pacer's."""
    tokens, rng = 256, np.random.default_rng(seed)
    pacer = AutoPacer(costs, tokens)
    done, spent = np.ones(costs.images, np.int64), 0.0
    verify, plain = costs.verify[0], costs.plain[0]
    drafts = [seconds[0] for _, seconds in costs.drafts]
    of_each = [chances[name] for name, _ in costs.drafts]
    while (active := done < tokens).any():
        most = np.minimum(np.maximum(tokens - done - 1, 0), costs.length)
        sure = rng.random(costs.images)
        choice = pacer.before(sure, most, active)
        count = np.minimum(most, fixed) * active if fixed is not None else choice.num_drafts
        drafter = 0 if fixed is not None else choice.drafter
        made = int(count.max())
        counted = count
        if made and fixed is None:
            counted = pacer.after(rng.random((costs.images, made)), count)
        run = (rng.random((costs.images, costs.length)) < of_each[drafter]).cumprod(axis=1).sum(axis=1)
        accepted = np.minimum(run, counted) * active
        if fixed is None:
            pacer.learn(accepted, counted, active)
        done += np.where(active, accepted + 1, 0)
        without = fixed is None and len(pacer.retired) == len(drafts) and not made
        spent += plain if without else drafts[drafter][made] + verify[int(counted.max())]
    return spent / plain


@pytest.mark.parametrize("images", list(DEMO))
@pytest.mark.parametrize("rate", [0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9])
def test_never_slower_than_plain_and_near_the_best_fixed_length(images: int, rate: float) -> None:
    """By the costs' own account, at every acceptance rate: within 3% of plain decoding, and 15% of the best
    length, which nobody tells it."""
    costs = costs_of(DEMO[images], images, 0.98, eagle=(0.0, 0.25, 0.45, 0.6, 0.75, 0.75))
    chances: dict[DrafterName, float] = {"eagle": rate}
    auto = [simulated(costs, chances, None, seed) for seed in range(8)]
    lengths = range(1, costs.length + 1)
    fixed = [float(np.mean([simulated(costs, chances, n, seed) for seed in range(4)])) for n in lengths]
    plain = 255.0
    assert np.mean(auto) <= plain / 0.97
    assert np.mean(auto) <= min(plain, *fixed) / 0.85


@pytest.mark.parametrize(("eagle", "jacobi"), [(0.8, 0.3), (0.3, 0.8), (0.6, 0.6), (0.1, 0.1)])
def test_the_better_drafter_is_used(eagle: float, jacobi: float) -> None:
    lines = {"eagle": (0.0, 0.25, 0.45, 0.6, 0.75, 0.75), "jacobi": (0.0,) * 6}
    both = costs_of(DEMO[1], 1, 0.98, **lines)
    chances: dict[DrafterName, float] = {"eagle": eagle, "jacobi": jacobi}
    alone = [
        float(
            np.mean([simulated(costs_of(DEMO[1], 1, 0.98, **{name: line}), chances, None, seed) for seed in range(8)])
        )
        for name, line in lines.items()
    ]
    together = np.mean([simulated(both, chances, None, seed) for seed in range(8)])
    assert together <= min(255.0, *alone) / 0.85
