"""The estimate of a GPU's memory: its parts, and what an error proposes really fits."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coolsd_rt.backends.tensorrt.memory import CUDA, check_memory, estimate
from coolsd_rt.backends.tensorrt.profiles import ProfileSizes
from coolsd_rt.contract import ModelDims, draft_contract, target_contract
from coolsd_rt.errors import CoolsdError

XL = ModelDims(
    vocab=16384,
    dim=1280,
    layers=36,
    heads=20,
    head_dim=64,
    prefix=120,
    tokens=1024,
    draft_layers=1,
    draft_heads=20,
    draft_head_dim=64,
)
CONTRACTS = (target_contract(XL, "bfloat16"), draft_contract(XL, "bfloat16"))
SIZES = ProfileSizes.of(XL, 5, 4)
WEIGHTS = 1_600_000_000


def test_caches_are_counted_once_for_input_and_output() -> None:
    found = estimate(WEIGHTS, CONTRACTS, SIZES)
    assert found.caches == 8 * (36 + 1) * 2 * 20 * SIZES.capacity * 64 * 2
    assert found.total == WEIGHTS + found.caches + found.steps + found.scratch + CUDA
    assert found.as_dict()["total"] == found.total


def test_bound_steps_hold_the_logits_of_every_profile() -> None:
    found = estimate(0, CONTRACTS[:1], SIZES)
    assert found.steps > 8 * (1 + 6 + 120) * 16384 * 4
    assert 2 * 8 * 120 * 16384 * 4 < found.scratch < 2 * found.steps


def test_half_precision_halves_the_caches() -> None:
    full = estimate(0, (target_contract(XL), draft_contract(XL)), SIZES)
    assert full.caches == 2 * estimate(0, CONTRACTS, SIZES).caches


@given(st.integers(1, 32), st.integers(1 << 30, 40 << 30))
def test_what_an_error_proposes_fits_and_one_more_does_not(batch: int, free: int) -> None:
    sizes = ProfileSizes.of(XL, 5, batch)

    def total(images: int) -> int:
        return estimate(WEIGHTS, CONTRACTS, ProfileSizes.of(XL, 5, images)).total

    if total(batch) <= free:
        assert check_memory(WEIGHTS, CONTRACTS, sizes, free).total == total(batch)
        return
    with pytest.raises(CoolsdError) as caught:
        check_memory(WEIGHTS, CONTRACTS, sizes, free)
    found = re.search(r"max_batch (\d+) would fit", str(caught.value))
    fits = int(found[1]) if found else 0
    assert fits == 0 or total(fits) <= free
    assert total(fits + 1) > free


def test_a_gpu_that_is_too_small_for_one_image_is_told_what_it_takes() -> None:
    with pytest.raises(CoolsdError, match=r"found 1.1 GB free; a batch of 1 needs about 2\.\d GB.*int8"):
        check_memory(WEIGHTS, CONTRACTS, replace(SIZES, images=1, rows=2), 1 << 30)
