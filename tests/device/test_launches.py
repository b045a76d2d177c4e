"""How often a round enqueues something beside the models: over models that cost nothing, views left out.

A round is as long as its launches at the sizes that matter; what one of them computes is next to nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from coolsd_rt.contract import ModelDims
from coolsd_rt.device.round import DeviceRound
from coolsd_rt.device.state import DeviceState
from coolsd_rt.law import Law
from coolsd_rt.runtime.randomness import uniform_table
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.runtime.self_decoding import DecodeRequest
from tests.device.test_device_rounds import CASES, Case
from tests.tiny import TARGET

IMAGES = 3
FIVE = Law((1.1,) * 5)
VIEWS = {
    "alias", "detach", "expand", "flatten", "select", "slice", "split", "split_with_sizes", "t", "transpose", "unbind",
    "unflatten", "unsqueeze", "view",
}  # fmt: skip
ALLOCATIONS = {"empty", "new_empty"}


class Free:
    """Models whose outputs are there before they are asked."""

    def __init__(self, dims: ModelDims, rows: int) -> None:
        self.dims, self._rows = dims, rows
        self._made: dict[int, tuple[Tensor, Tensor]] = {}
        self.gaps = 0  # inputs that a model might copy before it reads them

    def target(self, ids: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        width = ids.shape[1]
        self.gaps += (not ids.is_contiguous()) + (not pos.is_contiguous())
        if width not in self._made:
            sizes = (self.dims.vocab, TARGET.dim)
            logits, features = (torch.randn(self._rows, width, size) for size in sizes)
            self._made[width] = logits, features
        return self._made[width]

    def draft(self, ids: Tensor, features: Tensor | None, pos: Tensor) -> tuple[Tensor, Tensor]:
        return self.target(ids, pos)

    def reset(self, prefix: Tensor, start: Tensor | None) -> None:
        """Nothing to forget."""


class Count(TorchDispatchMode):
    """What is enqueued, by name; a copy that an operator of ours would make of a tensor with gaps is one too."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        space, name = function._schema.name.split("::")
        if name not in VIEWS | ALLOCATIONS:
            self.found[name] += 1
        if space == "coolsd":
            given = [*args, *(kwargs or {}).values()]
            self.found["a copy"] += sum(isinstance(x, Tensor) and not x.is_contiguous() for x in given)
        return function(*args, **(kwargs or {}))


def launches(case: Case) -> int:
    """Of a round, in the middle of an image."""
    rows = IMAGES * (1 + case.sampling.guided)
    dims = ModelDims(
        TARGET.vocab,
        TARGET.dim,
        TARGET.layers,
        TARGET.heads,
        TARGET.dim // TARGET.heads,
        TARGET.prefix,
        TARGET.tokens,
        1,
        TARGET.heads,
        TARGET.dim // TARGET.heads,
    )
    forced = None if case.forced is None else np.asarray(case.forced)
    table = uniform_table(range(IMAGES), TARGET.tokens, case.law.length)
    request = DecodeRequest(case.law, case.sampling, table, forced, case.drafter)
    state = DeviceState.empty(dims, IMAGES, rows, case.law.length, torch.empty(0, TARGET.dim))
    free = Free(dims, rows)
    one = DeviceRound(free, state, request)
    with torch.inference_mode():
        state.reset(request, TARGET.tokens)
        one.prefill()
        one()
        free.gaps, count = 0, Count()
        with count:
            one()
    print(dict(count.found), free.gaps)
    return sum(count.found.values()) + free.gaps


@pytest.mark.parametrize(
    ("case", "most"),
    [
        (CASES["plain"], 4),  # window, process_logits, verify, commit
        (CASES["plain without CFG"], 4),
        (Case(FIVE, Sampling(cfg_scale=2.0)), 11),  # five drafts; features of the fresh, and of what was drafted
        (Case(FIVE, Sampling(cfg_scale=2.0), forced=CASES["forced"].forced), 11),
        (Case(FIVE, Sampling(cfg_scale=2.0, confidence=0.15, draft_confidence=0.12)), 11),
        (Case(FIVE, Sampling(cfg_scale=2.0), "model"), 9),
    ],
    ids=["plain", "plain without CFG", "COOL-SD", "forced", "paced", "a draft model"],
)
def test_a_round_enqueues_no_more(case: Case, most: int) -> None:
    assert launches(case) <= most


def test_the_count_counts() -> None:
    count = Count()
    with count:
        x = torch.zeros(2, 3)
        x[:, 1:].add_(1)
    assert count.found == {"zeros": 1, "add_": 1}
