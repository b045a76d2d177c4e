"""Siblings are drawn without replacement; a tree's verdict is that of a chain where it is one; broken input is refused.

The laws of both are enumerated in `tests.runtime.test_exact_trees`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coolsd_rt.errors import CoolsdError
from coolsd_rt.law.siblings import NO_TOKEN
from coolsd_rt.ops import sample, verify
from coolsd_rt.ops.tree import draw_siblings, verify_tree
from tests.ops.libraries import LIBRARIES, Convert, host

RNG = np.random.default_rng(3)


@pytest.fixture(params=list(LIBRARIES))
def to(request: pytest.FixtureRequest) -> Convert:
    return LIBRARIES[request.param]


def distributions(*shape: int) -> Any:
    weights = RNG.random(shape).astype(np.float32) ** 3
    return weights / weights.sum(-1, keepdims=True)


def test_siblings_differ_and_the_first_is_a_plain_draw(to: Convert) -> None:
    q, u = distributions(50, 3, 6), RNG.random((50, 3, 6)).astype(np.float32)
    found = host(draw_siblings(to(q), to(u)))
    assert all(sorted(row) == list(range(6)) for row in found.reshape(-1, 6).tolist())
    np.testing.assert_array_equal(found[..., 0], host(sample(to(q), to(u[..., 0]))))


@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2.0**-24])
def test_siblings_that_are_not_there(u: float, to: Convert) -> None:
    """Two codes have weight, whatever the numbers are; a forced token is alone."""
    q = np.array([[[0.0, 0.25, 0.0, 0.75]], [[0.0, 0.0, 1.0, 0.0]]], np.float32)
    found = host(draw_siblings(to(q), to(np.full((2, 1, 3), u, np.float32))))
    assert sorted(found[0, 0, :2].tolist()) == [1, 3]
    assert found[0, 0, 2] == NO_TOKEN
    assert found[1, 0].tolist() == [2, NO_TOKEN, NO_TOKEN]


def test_the_law_of_the_second_sibling() -> None:
    """Of 200,000 draws: within 5 standard errors of q_x q_y / (1 - q_x)."""
    q, n = np.array([0.5, 0.3, 0.15, 0.05]), 200_000
    found = draw_siblings(np.tile(q, (n, 1, 1)), RNG.random((n, 1, 2)))[:, 0]
    for x in range(4):
        for y in range(4):
            wanted = 0.0 if x == y else q[x] * q[y] / (1 - q[x])
            share = float(np.mean((found[:, 0] == x) & (found[:, 1] == y)))
            assert abs(share - wanted) <= 5 * np.sqrt(wanted * (1 - wanted) / n)


def test_a_chain_has_the_verdict_of_a_chain(to: Convert) -> None:
    """To the last bit, with any number of drafts that count, forced tokens and omegas on both sides of 1."""
    images, length, vocab = 400, 3, 5
    p, q = distributions(images, length + 1, vocab), distributions(images, length, vocab)
    u = RNG.random((images, length + 1, 3)).astype(np.float32)
    tokens = sample(q, u[:, :length, 0])
    num_drafts = RNG.integers(0, length + 1, images)
    omegas = np.tile([1.4, 1.0, 0.5], (images, 1))
    forced = RNG.random((images, length)) < 0.1
    numbers = (to(u[:, :length, 1]), to(u[..., 2]))
    given = (to(p), to(q), to(tokens), to(num_drafts), to(omegas), *numbers)
    chain, tree = verify(*given, "optimal", to(forced)), verify_tree(*given, (1, 1, 1), to(forced))
    for name in ("accepted", "token", "degenerate"):
        np.testing.assert_array_equal(host(getattr(chain, name)), host(getattr(tree, name)))
    assert len(set(host(chain.accepted).tolist())) == length + 1
    np.testing.assert_array_equal(host(tree.path), np.tile(np.arange(length), (images, 1)))


def one_tree() -> dict[str, Any]:
    """Three rows of a (2, 1) tree: P, Q, drafts and numbers that accept the first sibling and its child."""
    q = distributions(3, 3, 4)
    tokens = np.concatenate([draw_siblings(q[:, :1], RNG.random((3, 1, 2)))[:, 0], np.ones((3, 2), np.int64)], axis=1)
    return {
        "target": distributions(3, 5, 4),
        "draft": q,
        "tokens": tokens,
        "num_drafts": np.full(3, 2),
        "omegas": np.ones((3, 2)),
        "u_accept": np.zeros((3, 4), np.float32),
        "u_resample": np.full((3, 5), 0.5, np.float32),
        "widths": (2, 1),
    }


@pytest.mark.parametrize(("of", "where"), [("target", 0), ("target", 1), ("target", 3), ("draft", 0), ("draft", 1)])
def test_nan_on_the_path_is_refused(of: str, where: int, to: Convert) -> None:
    """After the root, the first child, or the leaf that the token after it is drawn below."""
    given = one_tree()
    given[of][1, where] = np.nan
    with pytest.raises(CoolsdError):
        verify_tree(**{k: v if k == "widths" else to(v) for k, v in given.items()})


@pytest.mark.parametrize(("of", "where"), [("target", 2), ("target", 4), ("draft", 2)])
def test_nan_beside_the_path_does_not_matter(of: str, where: int, to: Convert) -> None:
    given = one_tree()
    whole = verify_tree(**given)
    given[of][:, where] = np.nan
    found = verify_tree(**{k: v if k == "widths" else to(v) for k, v in given.items()})
    np.testing.assert_array_equal(host(found.token), whole.token)
    assert host(found.path).tolist() == [[0, 2]] * 3


@pytest.mark.parametrize("sibling", [0, 1])
def test_a_sibling_that_q_does_not_have_is_refused(sibling: int, to: Convert) -> None:
    given = one_tree()
    given["draft"][1, 0, given["tokens"][1, sibling]] = 0.0
    with pytest.raises(CoolsdError, match="cannot be verified"):
        verify_tree(**{k: v if k == "widths" else to(v) for k, v in given.items()})
