"""How far roundings alone move a layer as wide as LlamaGen-XL's, beside what the check before use allows."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from coolsd_rt.backends.torch.eager import cast_weights
from coolsd_rt.backends.torch.triton.engine import LAYER
from coolsd_rt.models.layers import Cache, cached_step
from tools.gpu.sizes import SIZES, networks_of


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_roundings_are_within_it_and_a_lost_row_is_not_far(dtype: torch.dtype) -> None:
    half, _ = networks_of(replace(SIZES["XL"], layers=1), "cpu")
    cast_weights(half, dtype)
    exact = copy.deepcopy(half)
    cast_weights(exact, torch.float32)
    torch.manual_seed(0)
    x, pos = torch.randn(2, 5, 1280).to(dtype), torch.tensor([150, 119])
    step = cached_step(half.rope, pos, 5, 176)
    cache = half.caches(2, 176)[0]
    cache.k.normal_()
    cache.v.normal_()
    full = Cache(cache.k.float(), cache.v.float())
    assert step.mask is not None
    lost = step._replace(mask=step.mask & (torch.arange(176) != 60))
    wanted = exact.layers[0](x.float(), step, Cache(full.k.clone(), full.v.clone()))
    change = (wanted - x.float()).norm()
    rounded = float((half.layers[0](x, step, cache).float() - wanted).norm() / change)
    without = float((exact.layers[0](x.float(), lost, full) - wanted).norm() / change)
    print(f"{dtype}: roundings {rounded:.4f}, a row of the cache that is not seen {without:.4f}")
    assert 2 * rounded < LAYER[dtype]
    assert without > LAYER[torch.float16]
