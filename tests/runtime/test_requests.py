"""What a request may say: sampling, forced tokens, seeds, draft length. And what is counted of it."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.law import Law
from coolsd_rt.runtime import LoopHooks, Sampling, Statistics, generate
from tests.runtime.fakes import FakeSession, Tables, dims

TOKENS = 4
TABLES = Tables.random(3, TOKENS)


def fake(images: int = 1) -> FakeSession:
    return FakeSession(TABLES, dims(3, TOKENS), images)


@pytest.mark.parametrize(
    "settings",
    [
        {"cfg_scale": math.nan}, {"cfg_scale": [1.0, math.inf]}, {"temperature": math.nan}, {"temperature": -1.0},
        {"cfg_interval": -2}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_p": math.nan},
    ],
)  # fmt: skip
def test_bad_sampling_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="expected"):
        Sampling(**settings)


def test_guidance_is_needed_only_where_a_scale_is_not_one() -> None:
    assert not Sampling().guided
    assert not Sampling(cfg_scale=[1.0, 1.0]).guided
    assert Sampling(cfg_scale=[1.0, 2.0]).guided
    assert Sampling(cfg_scale=0.0).guided
    assert Sampling(cfg_scale=2.0).scales(3).tolist() == [2.0, 2.0, 2.0]
    with pytest.raises(UserError, match="one per image token"):
        Sampling(cfg_scale=[1.0, 2.0]).scales(3)


@pytest.mark.parametrize(
    ("interval", "scales"), [(-1, [3, 3, 3, 3]), (0, [3, 3, 1, 1]), (1, [3, 3, 3, 1]), (2, [3] * 4), (99, [3] * 4)]
)
def test_guidance_ends_after_the_decode_step_that_is_named(interval: int, scales: list[float]) -> None:
    """LlamaGen counts decode steps from 0 after the prefill, which draws token 0; the step named is still guided."""
    sampling = Sampling(cfg_scale=3.0, cfg_interval=interval)
    assert sampling.scales(4).tolist() == scales
    assert sampling.guided
    assert not Sampling(cfg_interval=interval).guided


def test_an_interval_ends_a_list_of_scales_too() -> None:
    assert Sampling(cfg_scale=[2.0, 3.0, 4.0], cfg_interval=0).scales(3).tolist() == [2.0, 3.0, 1.0]


@pytest.mark.parametrize("forced", [[-1] * 3, [-1, -1, -1, 3], [-2, -1, -1, -1], [[-1] * 4]])
def test_bad_forced_tokens_are_refused(forced: Any) -> None:
    with pytest.raises(UserError, match="forced"):
        generate(fake(), Law((1.0,)), Sampling(), [0], forced)


def test_a_draft_longer_than_the_image_is_refused() -> None:
    with pytest.raises(UserError, match="draft length"):
        generate(fake(), Law((1.0,) * (TOKENS + 1)), Sampling(), [0])


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_bad_seeds_are_refused(seed: int) -> None:
    with pytest.raises(UserError, match="seed"):
        generate(fake(), Law(()), Sampling(), [seed])


def test_all_tokens_can_be_forced() -> None:
    result = generate(fake(2), Law((0.1, 0.1)), Sampling(), [0, 1], [2, 0, 1, 2])
    assert result.codes.tolist() == [[2, 0, 1, 2]] * 2
    assert result.statistics.rounds.tolist() == [1, 1]  # nothing forced is ever rejected


@pytest.mark.parametrize("length", [0, 2])
def test_nan_logits_fail_loudly(length: int) -> None:
    broken = Tables(TABLES.target[0].copy(), TABLES.draft[0])
    broken.target[0][1:] = math.nan
    with pytest.raises(CoolsdError):
        generate(FakeSession(broken, dims(3, TOKENS), 1), Law((1.0,) * length), Sampling(), [0])


def test_statistics_of_known_rounds() -> None:
    stats = Statistics.empty(2, 3)
    yes, both = np.array([False, True]), np.array([True, True])
    stats.record(np.array([3, 0]), np.array([3, 3]), np.array([False, True]), both, np.arange(2))
    stats.record(
        np.array([9, 1]), np.array([0, 1]), np.array([True, False]), yes, np.arange(2)
    )  # the first is finished
    assert stats.rounds.tolist() == [1, 2]
    assert stats.accepted_histogram.tolist() == [1, 1, 0, 1]
    assert stats.attempts.tolist() == [3, 1, 1]
    assert stats.accepts.tolist() == [2, 1, 1]
    assert stats.acceptance_by_position == [2 / 3, 1.0, 1.0]
    assert stats.mean_acceptance_length == pytest.approx((4 + 1 + 2) / 3)
    assert stats.degenerate == 1
    assert math.isnan(Statistics.empty(1, 1).mean_acceptance_length)


def test_tokens_add_up_and_so_do_the_seconds() -> None:
    ticks = itertools.count()
    result = generate(
        fake(3), Law((1.2, 0.8)), Sampling(), [1, 2, 3], hooks=LoopHooks(clock=lambda: float(next(ticks)))
    )
    stats = result.statistics
    assert int(stats.rounds.sum()) + int(stats.accepts.sum()) == 3 * (TOKENS - 1)
    assert int(stats.accepted_histogram.sum()) == int(stats.rounds.sum())
    assert sum(stats.seconds.values()) == next(ticks) - 1  # no moment is lost or counted twice
    assert all(stats.seconds[phase] > 0 for phase in ("target", "draft", "verify", "other"))


def test_the_loop_needs_no_torch() -> None:
    code = "import coolsd_rt.runtime, coolsd_rt.law.exact, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
