"""What only a GPU can show of the fused steps: races, tensor cores, half precision, programmatic dependent launch.

pytest -m gpu tests/gpu
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from coolsd_rt.backends.torch.eager import cast_weights
from coolsd_rt.backends.torch.triton.engine import FusedEngine, mismatch_reason, with_triton
from coolsd_rt.backends.torch.triton.launch import Launcher
from coolsd_rt.backends.torch.triton.network import FusedDecoder
from coolsd_rt.device.engine import DeviceEngine
from tests.device.test_device_rounds import CASES, draw, engine_of
from tests.models.family_cases import CONFIGS, random_target, relative
from tools.gpu.sizes import SIZES, networks_of
from tools.gpu.sizes import engine_of as sized

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]
PDL = [False, True]


def pdl_or_skip(pdl: bool) -> bool:
    if pdl and torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("programmatic dependent launch begins with compute capability 9.0")
    return pdl


@pytest.mark.parametrize("pdl", PDL)
@pytest.mark.parametrize("name", CONFIGS)
def test_float32_steps_are_the_eager_ones(name: str, pdl: bool) -> None:
    """Every family's form, narrow and wider, over a cache of several chunks."""
    cfg = CONFIGS[name]
    target = random_target(cfg).cuda()
    mine = FusedDecoder(target, Launcher(torch.device("cuda"), pdl_or_skip(pdl)))
    torch.manual_seed(0)
    for rows in (1, 2, 7, 24):
        both = [target.caches(rows, 400) for _ in range(2)]
        for cache, other in zip(*both, strict=True):
            for one, its in ((cache.k, other.k), (cache.v, other.v)):
                one.normal_()
                its.copy_(one)
        prefix = torch.randn(rows, cfg.prefix, cfg.dim, device="cuda")
        pos = torch.randint(cfg.prefix, 390, (rows,), device="cuda")
        for size in (1, 2, 5):
            ids = torch.randint(0, 30, (rows, size), device="cuda")
            with torch.inference_mode():
                wanted, found = target.step(ids, pos, prefix, both[0]), mine.step(ids, pos, prefix, both[1])
            codes = cfg.layout.codes
            assert relative(found[0][..., :codes], wanted[0][..., :codes]) < 1e-4, (rows, size)
            assert relative(found[1], wanted[1]) < 1e-4, (rows, size)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_published_size_is_right_in_half_precision(dtype: str) -> None:
    engine = sized(replace(SIZES["B"], layers=4), "cuda", dtype)  # type: ignore[arg-type]
    assert mismatch_reason(engine, FusedEngine(engine)) == ""
    assert isinstance(with_triton(engine), FusedEngine)


@pytest.mark.parametrize("pdl", PDL)
def test_the_same_input_gives_the_same_bits(pdl: bool) -> None:
    """Sums are merged in their order whoever arrives last: a hundred steps, and with programs that overlap."""
    target, _ = networks_of(replace(SIZES["L"], layers=2), "cuda")
    cast_weights(target, torch.bfloat16)
    runs = [FusedDecoder(target, Launcher(torch.device("cuda"), way)) for way in (False, pdl_or_skip(pdl))]
    for rows in (2, 12):
        caches = target.caches(rows, 1024)
        for cache in caches:
            cache.k.normal_()
            cache.v.normal_()
        prefix, pos = torch.randn(rows, 120, 1024).to(torch.bfloat16).cuda(), torch.full((rows,), 900).cuda()
        ids = torch.randint(0, 32, (rows, 1)).cuda()
        first: Tensor | None = None
        with torch.inference_mode():
            for i in range(100):
                logits, _ = runs[i % 2].step(ids, pos, prefix, caches)
                first = logits.clone() if first is None else first
                assert torch.equal(logits, first)


@pytest.mark.parametrize("name", ["plain", "COOL-SD", "a draft model"])
def test_captured_rounds_decide_what_single_ones_do(name: str) -> None:
    """A graph of fused steps, replayed, against the same engine stepped by the host: in float32, but for ties."""
    case = CASES[name]
    engine = FusedEngine(engine_of(case).to("cuda", "float32"))
    device = DeviceEngine(engine)
    alike = 0
    for seeds in ((1, 2, 3), (4, 5, 6), (7, 8, 9)):
        wanted, found = draw(engine, case, seeds), draw(device, case, seeds)
        alike += int((np.asarray(found.codes) == np.asarray(wanted.codes)).all(axis=1).sum())
    assert device.graph_fallback_reason == ""
    assert alike >= 8
