"""The fused kernels as a step of a published size launches them: how many, what they read, compiled for GPUs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from typing import Any

import pytest

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

import torch
from torch import Tensor

from coolsd_rt.backends.torch.eager import cast_weights
from coolsd_rt.backends.torch.triton.launch import Heads
from coolsd_rt.backends.torch.triton.network import FusedDecoder, FusedEagle
from tests.device.test_launches import Count
from tools.gpu.offline_steps import Launch, Notebook
from tools.gpu.sizes import SIZES, TINY, Size, networks_of

META = torch.device("meta")
SHARED = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024, 120: 99 * 1024}  # bytes that a program may ask for
LUMINA = Size("as wide as Lumina-mGPT's", 32, 32, 4096, 11008, vocab=65536)
# Bytes a thread, as in tests/ops/gpu/test_offline.py.
SPILL = 0 if tuple(map(int, metadata.version("triton").split(".")[:2])) >= (3, 9) else 16


def ints(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.int64, device=META)


def step_of(size: Size, rows: int, positions: int, pdl: bool = False, draft: bool = False) -> list[Launch]:
    """The launches of one step of the target, or of the EAGLE head, without a byte of memory."""
    target, head = networks_of(size, "meta")
    target.rope = torch.empty_like(target.rope, device=META)
    for network in (target, head):
        cast_weights(network, torch.bfloat16)
    book = Notebook(META, pdl)
    fused = FusedDecoder(target, book)
    prefix = torch.empty(rows, size.prefix, size.dim, dtype=torch.bfloat16, device=META)
    ids, pos = ints(rows, positions), ints(rows)
    if draft:
        features = prefix.new_empty(rows, positions, size.dim)
        eagle, caches = FusedEagle(head, fused, book), head.caches(rows, 1152)
        return book.noted(lambda: eagle.step(ids, features, pos, prefix, caches))
    caches = target.caches(rows, 1152)
    return book.noted(lambda: fused.step(ids, pos, prefix, caches))


@pytest.mark.parametrize(("rows", "positions"), [(2, 1), (2, 6), (16, 1)])
def test_five_launches_a_layer(rows: int, positions: int) -> None:
    """And three around them; and a head's seven."""
    names = Counter(launch.name for launch in step_of(SIZES["XL"], rows, positions))
    product = "gemv_rows2" if rows * positions == 2 else "product"
    assert names == {"embed": 1, "attend": 36, product: 4 * 36 + 1, "normalise": 1}
    assert len(step_of(SIZES["XL"], rows, positions, draft=True)) == 8


def test_the_eager_networks_enqueue_seven_times_as_many() -> None:
    """By their operators alone: one that is several kernels on a GPU counts as one, and one that may copy as none."""
    target, _ = networks_of(replace(TINY, layers=36), "cpu")
    cast_weights(target, torch.bfloat16)
    caches, prefix = target.caches(2, 32), torch.zeros(2, TINY.prefix, TINY.dim, dtype=torch.bfloat16)
    with torch.inference_mode(), Count() as count:
        target.step(torch.zeros(2, 1, dtype=torch.int64), torch.full((2,), 5), prefix, caches)
    eager, fused = count.found.total(), len(step_of(SIZES["XL"], 2, 1))
    print(f"operators of an eager step of 36 layers: {eager}; launches of a fused one: {fused}")
    assert fused == 3 + 5 * 36
    assert eager > 7 * fused


@pytest.mark.parametrize("positions", [1, 6])
def test_each_weight_is_read_once(positions: int) -> None:
    """By the launches' own tensors: what a step names of weights is the target's matrices, each once."""
    size = SIZES["B"]
    launches = step_of(size, 2, positions)
    read = Counter(id(arg) for one in launches if one.name.startswith(("product", "gemv")) for arg in matrices(one))
    assert set(read.values()) == {1}
    numbers = sum(arg.numel() for one in launches if one.name.startswith(("product", "gemv")) for arg in matrices(one))
    assert numbers == size.layers * (4 * size.dim**2 + 3 * size.dim * size.ffn) + size.dim * size.vocab


def matrices(launch: Launch) -> Iterator[Tensor]:
    """Its weight, and its gate."""
    return (arg for arg in (launch.args[2], launch.args[3]) if arg is not None)


def test_programs_are_enough_to_fill_a_gpu() -> None:
    """Of every launch that reads weights: more than the 132 processors of an H200."""
    for rows, positions in ((2, 1), (2, 6), (16, 1)):
        for launch in step_of(SIZES["XL"], rows, positions):
            if launch.name.startswith("product"):
                assert launch.grid[0] * (launch.grid[1] if len(launch.grid) > 1 else 1) >= 132, launch.options


# Not Lumina for sm_80: sm_89 has its instructions, and room for less.
@pytest.mark.parametrize(
    ("size", "arch"),
    [*((SIZES["XL"], arch) for arch in (80, 89, 90, 120)), *((LUMINA, arch) for arch in (89, 90, 120))],
    ids=lambda value: value.name.split("'")[0] if isinstance(value, Size) else str(value),
)
def test_they_compile_and_fit(size: Size, arch: int) -> None:
    """Nothing spills, no program asks for more shared memory than there is, and weights are read 16 bytes at a time."""
    done: set[Any] = set()
    one_layer = replace(size, layers=1)
    for rows, positions, draft in ((2, 1, False), (2, 1, True), (2, 6, False), (2, 6, True), (16, 6, False)):
        for launch in step_of(one_layer, rows, positions, draft=draft):
            if launch.key in done:
                continue
            done.add(launch.key)
            made = launch.compiled(arch)
            print(f"sm_{arch}", launch.name, launch.grid, made.registers, made.spilled, made.shared)
            assert made.spilled <= SPILL, launch
            assert made.shared <= SHARED[arch], launch
            assert made.registers * made.warps * 32 <= 65536
            if launch.name == "gemv_rows2":
                assert made.ptx.count("v4.b32") >= 8
            if launch.name in ("product", "attend"):
                assert "mma.sync" in made.ptx


def test_overlapping_launches_ask_for_weights_and_then_wait() -> None:
    """In the code: the next kernel is let go, all weights are under way, and then the kernel before is waited for.

    What another kernel may still write is read behind that alone.
    """
    for launch in step_of(replace(SIZES["XL"], layers=1), 2, 1, pdl=True):
        ptx = launch.compiled(90).ptx
        begin, wait = ptx.index("griddepcontrol.launch_dependents"), ptx.index("griddepcontrol.wait")
        early = [at for at in range(wait) if ptx.startswith("ld.global", at)]
        assert begin < wait
        if launch.name == "gemv_rows2":
            assert len(early) >= 8
            assert begin < early[0]
        else:
            assert early == []


@pytest.mark.parametrize("arch", [89, 90])
@pytest.mark.parametrize(
    ("groups", "positions", "width"), [(2, 9, 64), (3, 6, 64), (8, 6, 128), (1, 32, 128), (1, 32, 100), (4, 8, 48)]
)
def test_attention_of_any_shape_compiles_and_fits(groups: int, positions: int, width: int, arch: int) -> None:
    """Queries that share keys, tall steps, heads that fill no block."""
    book, shared = Notebook(META), 2
    heads = Heads(shared, groups, width, True, True, 1e-5)
    qkv = torch.empty(2, positions, (groups + 2) * shared * width, dtype=torch.bfloat16, device=META)
    cache = qkv.new_empty(2, shared, 512, width)
    table = torch.empty(400, width // 2, 2, device=META)
    [launch] = book.noted(lambda: book.attend(qkv, heads, table, ints(2), ints(2), (cache, cache), 1))
    made = launch.compiled(arch)
    print(f"sm_{arch}", groups, positions, width, made.registers, made.spilled, made.shared)
    assert made.shared <= SHARED[arch]
    assert made.spilled <= 128
