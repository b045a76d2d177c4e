"""Fused steps beside the eager networks, every kernel in Triton's interpreter. Run by `test_fused`.

In float32 both do the same arithmetic in another order, so the distance is that of rounding; half precision is beside
float32 networks of the same weights, where the fused step may not be further off than twice the eager one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from coolsd_rt.backends.torch.eager import cast_weights
from coolsd_rt.backends.torch.triton.launch import Launcher, WeightView
from coolsd_rt.backends.torch.triton.network import FusedDecoder, FusedEagle
from coolsd_rt.models.config import DecoderConfig
from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.layers import Cache
from tests.models.family_cases import (
    CAPACITY,
    CONFIGS,
    HEADS,
    ROWS,
    eager,
    image,
    random_draft,
    random_target,
    relative,
    stepped,
)

CPU = torch.device("cpu")
ROUNDING = 2e-5


def fused(target: Decoder) -> FusedDecoder:
    return FusedDecoder(target, Launcher(CPU))


# A kernel's program is slow here. So a layer and two heads of the cache where the claim needs no more: layers that
# follow each other are in the first form, heads that share keys in Lumina's.
ONE_LAYER: dict[str, DecoderConfig] = {name: replace(cfg, layers=1) for name, cfg in CONFIGS.items()}
ANOLE: DecoderConfig = replace(ONE_LAYER["anole"], heads=2)
FORMS: dict[str, DecoderConfig] = {
    **ONE_LAYER,
    "llamagen": CONFIGS["llamagen"],
    "anole": ANOLE,
    "one key head": replace(ONE_LAYER["lumina-mgpt"], heads=8, kv_heads=1),  # type: ignore[call-arg]
}


@pytest.mark.parametrize("name", FORMS)
def test_a_family_s_steps_are_the_eager_ones(name: str) -> None:
    """Prefill, single steps, verifications, rollback, ragged rows, padding, in the form of every family."""
    cfg = FORMS[name]
    target, given = random_target(cfg), image(cfg)
    mine, prefix, caches = fused(target), target.condition(given.condition), target.caches(ROWS, CAPACITY)
    wanted = stepped(cfg, given.tokens, eager(target, given))
    found = stepped(cfg, given.tokens, lambda ids, pos: mine.step(ids, pos, prefix, caches, given.start))
    for one, other in zip(wanted, found, strict=True):
        assert relative(other.logits, one.logits) < ROUNDING, (one.row, one.at)
        assert relative(other.features, one.features) < ROUNDING, (one.row, one.at)


@pytest.mark.parametrize("form", HEADS)
@pytest.mark.parametrize("name", ["llamagen-t2i", "anole"])
def test_a_head_s_steps_are_the_eager_ones(name: str, form: str) -> None:
    cfg = FORMS[name]
    target, given = random_target(cfg), image(cfg)
    head = random_draft(target, **HEADS[form])
    mine = FusedEagle(head, fused(target), Launcher(CPU))
    both = [head.caches(ROWS, CAPACITY) for _ in range(2)]
    prefix, pos = target.condition(given.condition), torch.zeros(ROWS, dtype=torch.int64)
    for size in (cfg.prefix - 1, 3, 1, 5):
        ids, features = torch.randint(0, 30, (ROWS, size)), torch.randn(ROWS, size, cfg.dim)
        wanted = head.step(target, ids, features, pos, prefix, both[0], given.start)
        found = mine.step(ids, features, pos, prefix, both[1], given.start)
        for one, other in zip(wanted, found, strict=True):
            assert relative(other[..., : cfg.layout.codes], one[..., : cfg.layout.codes]) < ROUNDING, size
        pos = pos + torch.tensor([size, 1, size])


# Sizes that fill no block: 3 heads of 20, an odd ffn, and more keys than one program takes.
ODD: DecoderConfig = replace(ONE_LAYER["llamagen"], dim=60, heads=3, ffn=83, grid=18, vocab=37)  # type: ignore[call-arg]


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_long_caches_with_rows_never_written(rows: int) -> None:
    """Programs of a head merge their chunks; what lies behind a row's last token is NaN here, and not read."""
    target = random_target(ODD)
    mine, capacity, old = fused(target), 331, torch.tensor([300, 127, 128, 5, 256])[:rows]
    torch.manual_seed(rows)
    both = [target.caches(rows, capacity) for _ in range(2)]
    for cache, other in zip(*both, strict=True):
        for one, its in ((cache.k, other.k), (cache.v, other.v)):
            one.normal_()
            its.copy_(one)
            for r, many in enumerate(old):
                its[r, :, int(many) :] = float("nan")
    prefix = torch.randn(rows, ODD.prefix, ODD.dim)
    for size in (1, 3, 6):
        ids = torch.randint(0, 37, (rows, size))
        wanted, found = target.step(ids, old, prefix, both[0]), mine.step(ids, old, prefix, both[1])
        assert relative(found[0], wanted[0]) < ROUNDING
        assert relative(found[1], wanted[1]) < ROUNDING
        for cache, other in zip(*both, strict=True):
            for r, many in enumerate(old):
                new = slice(int(many), int(many) + size)
                torch.testing.assert_close(other.k[r, :, new], cache.k[r, :, new], atol=1e-4, rtol=1e-4)
                assert other.v[r, :, new.stop :].isnan().all()
        old = old + 1


# The last width is more than a program of one or two rows takes at once.
@pytest.mark.parametrize(("outputs", "width", "rows"), [
    *((24, 60, rows) for rows in (1, 2, 3, 16)), *((40, 1300, rows) for rows in (1, 2, 3, 16)),
    (8, 4500, 1), (8, 4500, 2),
])  # fmt: skip
def test_products(outputs: int, width: int, rows: int) -> None:
    """Every ending of a product, summed in one part and in several; scratch is zeros again behind it."""
    torch.manual_seed(width)
    run = Launcher(CPU)
    x, w, gate = torch.randn(rows, width), torch.randn(outputs, width), torch.randn(outputs, width)
    gain, bias, residual = torch.rand(width) + 0.5, torch.randn(outputs), torch.randn(rows, outputs)
    normed = torch.nn.functional.rms_norm(x, (width,), eps=1e-5) * gain
    silu = torch.nn.functional.silu
    for weights, wanted, more in (
        (WeightView(w), x @ w.T, None),
        (WeightView(w, bias=bias), x @ w.T + bias, None),
        (WeightView(w), residual + x @ w.T, residual),
        (WeightView(w, gain, 1e-5), normed @ w.T, None),
        (WeightView(w, gain, 1e-5, gate), silu(normed @ w.T) * (normed @ gate.T), None),
    ):
        found = run.product(x, weights, torch.full((rows, outputs), torch.nan), more)
        assert relative(found, wanted) < ROUNDING
        assert not run._counters[0].any()


def in_another_order(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Programs of a launch run in a random order from here on: who arrives last is another."""
    builder = importlib.import_module("triton.runtime.interpreter").interpreter_builder
    kept = type(builder).set_grid_idx

    def shuffled(self: Any, x: int, y: int, z: int) -> None:
        width, height = self.grid_dim[:2]
        order = np.random.default_rng(seed).permutation(width * height)
        place = int(order[x * height + y])
        kept(self, place // height, place % height, z)

    monkeypatch.setattr(type(builder), "set_grid_idx", shuffled)


def test_who_arrives_last_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    run, target, capacity = Launcher(CPU), random_target(ODD), 400
    x, w = torch.randn(12, 1300), torch.randn(24, 1300)
    prefix, pos, ids = torch.randn(2, ODD.prefix, ODD.dim), torch.tensor([310, 150]), torch.randint(0, 37, (2, 3))
    seen = []
    for seed in range(4):
        torch.manual_seed(1)
        caches = target.caches(2, capacity)
        for cache in caches:
            cache.k.normal_()
            cache.v.normal_()
        if seed:
            in_another_order(monkeypatch, seed)
        product = run.product(x, WeightView(w), torch.full((12, 24), torch.nan))
        seen.append((product, *fused(target).step(ids, pos, prefix, caches)))
    for other in seen[1:]:
        for one, its in zip(seen[0], other, strict=True):
            assert torch.equal(one, its)


def test_a_product_may_end_in_its_residual() -> None:
    x, w, residual = torch.randn(12, 600), torch.randn(20, 600), torch.randn(12, 20)
    wanted = residual + x @ w.T
    assert relative(Launcher(CPU).product(x, WeightView(w), residual, residual), wanted) < ROUNDING


@pytest.mark.parametrize("rows", [2, 6, 17])
def test_half_precision_is_no_further_off_than_eager(rows: int) -> None:
    exact, half = random_target(ANOLE), random_target(ANOLE)
    cast_weights(half, torch.float16)
    cast_weights(exact, torch.float16)
    cast_weights(exact, torch.float32)
    mine, pos = fused(half), torch.zeros(rows, dtype=torch.int64)
    caches = [exact.caches(rows, 16), half.caches(rows, 16), half.caches(rows, 16)]
    torch.manual_seed(rows)
    prefix = torch.randn(rows, 6, 64).half()
    steps: list[Callable[..., tuple[Tensor, Tensor]]] = [exact.step, half.step, mine.step]
    off = np.zeros(2)
    for _ in range(2):
        ids = torch.randint(0, 32, (rows, 1))
        told = [step(ids, pos, prefix.to(c[0].k.dtype), c) for step, c in zip(steps, caches, strict=True)]
        assert told[2][0].dtype == torch.float32
        assert told[2][1].dtype == torch.float16
        off += [float((t[1].float() - told[0][1]).norm()) for t in told[1:]]
        pos = pos + 1
    assert 0 < off[1] < 2 * off[0]


@pytest.mark.parametrize(("name", "rows", "size", "kernels"), [
    ("llamagen", 16, 8, True), ("llamagen", 20, 8, False), ("llamagen", 1, 32, True), ("llamagen", 1, 33, False),
    ("lumina-mgpt", 1, 16, True), ("lumina-mgpt", 1, 17, False),
])  # fmt: skip
def test_caches_are_shared_with_wide_steps(
    monkeypatch: pytest.MonkeyPatch, name: str, rows: int, size: int, kernels: bool
) -> None:
    """A step too wide or too tall for kernels is the network's own, over the same caches."""
    cfg = ONE_LAYER[name]
    target = random_target(cfg)
    mine, caches = fused(target), target.caches(rows, 80)
    prefix, pos = torch.randn(rows, cfg.prefix, 64), torch.zeros(rows, dtype=torch.int64)
    ids = torch.randint(0, 32, (rows, size))
    reference: list[Cache] = target.caches(rows, 80)
    launched: list[str] = []
    kept = Launcher._run

    def noted(self: Launcher, name: str, *args: Any, **constants: Any) -> None:
        launched.append(name)
        kept(self, name, *args, **constants)

    monkeypatch.setattr(Launcher, "_run", noted)
    mine.step(ids, pos, prefix, caches)
    assert bool(launched) == kernels
    target.step(ids, pos, prefix, reference)
    wanted, found = (
        target.step(ids[:, :1], pos + size, prefix, reference),
        mine.step(ids[:, :1], pos + size, prefix, caches),
    )
    assert relative(found[0][..., :32], wanted[0][..., :32]) < ROUNDING
