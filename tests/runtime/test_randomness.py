"""The table of random numbers: its layout is a promise to every other implementation."""

from __future__ import annotations

import numpy as np

from coolsd_rt.runtime import uniform_table


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
