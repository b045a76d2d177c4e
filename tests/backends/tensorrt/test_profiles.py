"""Profiles: every size that a loop asks for is inside one, and each is tuned for what it is for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coolsd_rt.backends.tensorrt.profiles import ALIGN, Profile, ProfileRange, ProfileSizes, choose, parts, profiles
from coolsd_rt.contract import (
    GraphContract,
    ModelDims,
    TensorSpec,
    condition_contract,
    draft_contract,
    image_contract,
    target_contract,
)
from coolsd_rt.errors import CoolsdError
from coolsd_rt.runtime.state import capacity

DIMS = ModelDims(
    vocab=1024,
    dim=192,
    layers=2,
    heads=3,
    head_dim=64,
    prefix=8,
    tokens=256,
    draft_layers=1,
    draft_heads=3,
    draft_head_dim=64,
)


def names(known: tuple[Profile, ...]) -> list[str]:
    return [profile.name for profile in known]


@pytest.mark.parametrize(
    ("prefix", "length", "wanted"),
    [
        (8, 5, [("step", 1, 1), ("verify", 2, 6), ("prefill", 7, 8)]),
        (120, 5, [("step", 1, 1), ("verify", 2, 6), ("prefill", 7, 120)]),
        (1, 5, [("step", 1, 1), ("verify", 2, 6)]),
        (6, 5, [("step", 1, 1), ("verify", 2, 6)]),
        (1, 0, [("step", 1, 1)]),
        (8, 0, [("step", 1, 1), ("prefill", 2, 8)]),
    ],
)
def test_steps_are_cut_where_their_work_changes(prefix: int, length: int, wanted: list[tuple[str, int, int]]) -> None:
    known = profiles(target_contract(DIMS), ProfileSizes(320, 8, length, prefix, 4))
    assert [(p.name, p.ranges["S"].least, p.ranges["S"].most) for p in known] == wanted
    assert all(p.ranges["S"].best == p.ranges["S"].most for p in known)


@given(st.integers(1, 40), st.integers(0, 9), st.integers(1, 6), st.integers(1, 90))
def test_every_step_is_the_sum_of_parts_that_have_a_profile(prefix: int, length: int, images: int, size: int) -> None:
    known = profiles(draft_contract(DIMS), ProfileSizes(320, 2 * images, length, prefix, images))
    cut = parts(known, {"R": 2, "S": size})
    assert sum(cut) == size
    assert all(choose(known, {"R": 2, "S": part}) is not None for part in cut)
    assert len(cut) == 1 or size > max(length + 1, prefix)


def test_the_capacity_holds_all_that_a_paced_loop_writes() -> None:
    for length in (0, 1, 5, 16):
        sizes = ProfileSizes.of(DIMS, length, 4)
        assert sizes.capacity % ALIGN == 0
        assert capacity(DIMS, length, paced=True) <= sizes.capacity < capacity(DIMS, length, paced=True) + ALIGN


def test_two_rows_are_the_least_where_there_is_a_cache_and_one_elsewhere() -> None:
    sizes = ProfileSizes.of(DIMS, 5, 1)
    (step, *_) = profiles(target_contract(DIMS), sizes)
    (whole,) = profiles(condition_contract(DIMS), sizes)
    assert (step.ranges["R"].least, step.ranges["R"].most) == (2, 2)
    assert whole.ranges["R"].least == 1


def test_shapes_are_those_of_the_contract_with_sizes_for_names() -> None:
    verify = profiles(target_contract(DIMS), ProfileSizes(320, 8, 5, 8, 4))[1]
    specs = {s.name: s for s in target_contract(DIMS).inputs}
    assert verify.shapes(specs["ids"]) == ((2, 2), (2, 6), (8, 6))
    assert verify.shapes(specs["k_1"]) == ((2, 3, 320, 64), (2, 3, 320, 64), (8, 3, 320, 64))
    assert verify.shapes(specs["prefix"]) == ((2, 8, 192), (2, 8, 192), (8, 8, 192))
    (whole,) = profiles(image_contract(DIMS, 64), ProfileSizes(320, 8, 5, 8, 4))
    assert whole.shapes(image_contract(DIMS, 64).inputs[0]) == ((1, 256), (1, 256), (4, 256))


def test_the_first_profile_that_fits_is_chosen_and_none_for_what_does_not() -> None:
    known = profiles(target_contract(DIMS), ProfileSizes(320, 8, 5, 8, 4))
    chosen = [choose(known, {"R": 4, "S": s}) for s in (1, 2, 6, 7, 8, 9)]
    assert chosen == [0, 1, 1, 2, 2, None]
    assert choose(known, {"R": 9, "S": 1}) is None


def test_too_many_rows_are_one_clear_line() -> None:
    known = profiles(target_contract(DIMS), ProfileSizes(320, 8, 5, 8, 4))
    with pytest.raises(CoolsdError, match="a step: expected at most 8 rows, found 10 rows; build with a larger"):
        parts(known, {"R": 10, "S": 1})


def test_profiles_come_back_from_a_manifest() -> None:
    for profile in profiles(target_contract(DIMS), ProfileSizes(320, 8, 5, 8, 4)):
        assert Profile.from_dict(profile.as_dict()) == profile


def test_a_dimension_without_a_size_is_refused() -> None:
    odd = GraphContract((TensorSpec("x", "float32", ("R", "Q")),), ())
    with pytest.raises(CoolsdError, match="expected the dimensions R, S, T and M, found Q"):
        profiles(odd, ProfileSizes(320, 8, 5, 8, 4))


def test_a_range_holds_its_ends() -> None:
    assert [n in ProfileRange(2, 3, 4) for n in (1, 2, 4, 5)] == [False, True, True, False]
