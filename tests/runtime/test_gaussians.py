"""The numbers of tries and of steps: their layout, their independence of the batch, and their distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from coolsd_rt.runtime.gaussians import TryNumbers, step_numbers
from coolsd_rt.runtime.randomness import uniform_table


def test_the_layout_is_as_stated() -> None:
    """Recomputed with Python's numbers from the words of NumPy's Philox: the uniform first, then pairs."""
    seed, position, offset, attempt = 7, 11, 2, 3
    counter = np.array([0, attempt, position + 1, 1], np.uint64)
    words = np.random.Philox(key=np.array([seed, offset], np.uint64), counter=counter).random_raw(5).tolist()
    values = [(word >> 11) * 2.0**-53 for word in words]
    noise, u = TryNumbers([seed], [position], [offset], 3)(np.array([0]), attempt)
    pairs = ((values[1], values[2]), (values[3], values[4]))
    radius = [math.sqrt(-2 * math.log1p(-v)) for v, _ in pairs]
    wanted = [
        radius[0] * math.cos(2 * math.pi * pairs[0][1]),
        radius[0] * math.sin(2 * math.pi * pairs[0][1]),
        radius[1] * math.cos(2 * math.pi * pairs[1][1]),
    ]
    np.testing.assert_allclose(noise[0], wanted, rtol=1e-14)
    assert u.tolist() == [values[0]]


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    seeds, positions, offsets = [1, 1, 2, 1], [0, 5, 5, 5], [0, 0, 0, 1]
    together = TryNumbers(seeds, positions, offsets, 5)
    for attempt in (0, 1, 900):
        noise, u = together(np.array([3, 0, 2]), attempt)
        for at, row in enumerate((3, 0, 2)):
            alone = TryNumbers([seeds[row]], [positions[row]], [offsets[row]], 5)(np.array([0]), attempt)
            np.testing.assert_array_equal(noise[at], alone[0][0])
            assert u[at] == alone[1][0]


def test_no_number_is_used_twice() -> None:
    """Seeds, positions, offsets and tries, and the uniforms of the loop: all different."""
    keys = [(seed, position, offset) for seed in (0, 1) for position in (0, 1, 2) for offset in (0, 1)]
    numbers = TryNumbers(*zip(*keys, strict=True), 2)  # type: ignore[arg-type,call-arg]
    seen = np.concatenate([numbers(np.arange(len(keys)), attempt)[1] for attempt in range(40)])
    assert len(np.unique(seen)) == len(seen)
    loop = uniform_table([0, 1], 3, 1).astype(np.float64).ravel()
    assert not np.isin(np.floor(seen * 2**24) * 2.0**-24, loop).any()


@pytest.mark.parametrize("channels", [1, 8])
def test_they_are_normal_and_uniform(channels: int) -> None:
    rows = 4000
    noise, u = TryNumbers(range(rows), [3] * rows, [0] * rows, channels)(np.arange(rows), 0)
    assert noise.shape == (rows, channels)
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(np.column_stack([noise, u]).T) - np.eye(channels + 1)).max() < 5 / math.sqrt(rows)


def test_the_layout_of_the_steps_is_as_stated() -> None:
    """Three channels take two pairs of a step, and a step begins with a pair of its own."""
    seed, position, offset, steps = 7, 11, 2, 4
    counter = np.array([0, 0, position + 1, 2], np.uint64)
    words = np.random.Philox(key=np.array([seed, offset], np.uint64), counter=counter).random_raw(20).tolist()
    values = [(word >> 11) * 2.0**-53 for word in words]
    found = step_numbers([seed], [position], [offset], steps, 3)[0]
    assert found.shape == (5, 3)
    for step in range(5):
        (v, w), (v2, w2) = values[4 * step : 4 * step + 2], values[4 * step + 2 : 4 * step + 4]
        radius, radius2 = math.sqrt(-2 * math.log1p(-v)), math.sqrt(-2 * math.log1p(-v2))
        angle = 2 * math.pi * w
        wanted = [radius * math.cos(angle), radius * math.sin(angle), radius2 * math.cos(2 * math.pi * w2)]
        np.testing.assert_allclose(found[step], wanted, rtol=1e-14)


def test_a_steps_numbers_are_its_rows_alone_and_no_tries() -> None:
    seeds, positions, offsets = [1, 1, 2, 1], [0, 5, 5, 5], [0, 0, 0, 1]
    together = step_numbers(seeds, positions, offsets, 3, 5)
    assert len(np.unique(together)) == together.size
    for row in range(4):
        alone = step_numbers(seeds[row : row + 1], positions[row : row + 1], offsets[row : row + 1], 3, 5)
        np.testing.assert_array_equal(alone[0], together[row])
    tries = TryNumbers(seeds, positions, offsets, 5)
    assert not np.isin(tries(np.arange(4), 0)[0], together).any()
    many = step_numbers(range(4000), [3] * 4000, [0] * 4000, 1, 2).reshape(4000, 4)
    assert stats.kstest(many.ravel(), "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(many.T) - np.eye(4)).max() < 5 / math.sqrt(4000)
