"""The table of random numbers: its layout is a promise to every other implementation."""

from __future__ import annotations

import numpy as np
from scipy.stats import kstest

from coolsd_rt.runtime import uniform_table
from coolsd_rt.runtime.randomness import exponentials


def test_values_are_24_bit_fractions() -> None:
    table = uniform_table([0, 1], tokens=500, length=4)
    assert table.shape == (2, 500, 5, 3)
    assert table.dtype == np.float32
    assert table.min() >= 0
    assert table.max() < 1
    steps = table.astype(np.float64) * 2**24
    np.testing.assert_array_equal(steps, np.round(steps))
    assert abs(table.mean() - 0.5) < 5 / np.sqrt(12 * table.size)


def test_the_layout() -> None:
    """key = (seed, offset), counter = position + 1, words = draft, accept, resample, spare."""
    seed, offset, position = 2**63 + 5, 3, 17
    stream = np.random.Philox(key=np.array([seed, offset], np.uint64), counter=position)  # counts before it draws
    words = stream.random_raw(4)
    expected = [int(word) >> 40 for word in words[:3]]
    found = uniform_table([seed], tokens=20, length=3)[0, position, offset]
    assert (found.astype(np.float64) * 2**24).astype(int).tolist() == expected


def test_a_shorter_draft_or_image_sees_the_same_numbers() -> None:
    long = uniform_table([7], tokens=12, length=5)
    np.testing.assert_array_equal(uniform_table([7], tokens=12, length=2), long[:, :, :3])
    np.testing.assert_array_equal(uniform_table([7], tokens=5, length=5), long[:, :5])


def test_a_image_depends_on_its_own_seed_alone() -> None:
    both = uniform_table([3, 4], tokens=6, length=2)
    np.testing.assert_array_equal(uniform_table([4], tokens=6, length=2)[0], both[1])
    assert (both[0] != both[1]).all()


def test_no_number_comes_up_twice() -> None:
    words = uniform_table([0], tokens=64, length=4).ravel()
    assert len(np.unique(words)) >= words.size - 1  # 24 bits: a chance collision is possible


def test_noise_is_exponential_and_follows_from_both_numbers() -> None:
    noise = exponentials(0.25, 0.75, 200_000)
    assert noise.min() > 0
    assert kstest(noise, "expon").pvalue > 1e-4
    np.testing.assert_array_equal(noise[:100], exponentials(0.25, 0.75, 100))  # a smaller vocabulary has its start
    for others in ((0.25, 0.75 + 2.0**-24), (0.25 + 2.0**-24, 0.75), (0.75, 0.25)):
        other = exponentials(*others, 200_000)
        assert abs(np.corrcoef(noise, other)[0, 1]) < 0.01


def test_the_layout_of_noise() -> None:
    """key = (first + second * 2^24, 2^40) of 24-bit numbers, one 64-bit word a code, of which the top 52 bits count."""
    words = np.random.Philox(key=np.array([5 + (7 << 24), 1 << 40], np.uint64)).random_raw(3)
    expected = [-np.log(((int(word) >> 12) + 0.5) / 2**52) for word in words]
    assert exponentials(5 / 2**24, 7 / 2**24, 3).tolist() == expected
