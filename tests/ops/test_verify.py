"""The verdict, row by row against a plain loop, and the same on both libraries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from coolsd_rt.errors import CoolsdError
from coolsd_rt.law import RESAMPLERS, Resampler
from coolsd_rt.ops import Verdict, sample, verify
from tests.ops.libraries import LIBRARIES, Convert, host
from tests.runtime.tree import level

OMEGAS = np.array([1.6, 1.0, 0.4])


def literal(row: tuple[Any, ...], kind: str) -> tuple[int, int]:
    """Steps 3 to 5 of one row, as the method has them."""
    p, q, tokens, num_drafts, u, v = row
    for i in range(num_drafts):
        x = tokens[i]
        if u[i] * q[i, x] < OMEGAS[i] * p[i, x]:
            continue
        capped = np.minimum(q[i], OMEGAS[i] * p[i])
        if kind == "waterfill":
            return i, pick(np.maximum(level(p[i], capped) * p[i] - capped, 0), v[i])
        kept = {"optimal": capped, "residual": q[i], "lantern": q[i], "target": 0 * q[i]}[kind]
        return i, pick(np.maximum(p[i] - kept, 0), v[i])
    return num_drafts, pick(p[num_drafts], v[num_drafts])


def pick(weights: NDArray[Any], u: float) -> int:
    return int(np.flatnonzero(np.cumsum(weights.astype(np.float64)) > u * weights.astype(np.float64).sum())[0])


def case(rows: int, length: int, vocab: int, seed: int) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    p, q = (rng.exponential(size=(rows, n, vocab)) ** 2 for n in (length + 1, length))
    p[rng.random(p.shape) < 0.2] = 0
    p, q = ((w / w.sum(-1, keepdims=True)).astype(np.float32) for w in (p, q))
    u = (rng.integers(0, 2**24, (3, rows, length + 1)) * 2.0**-24).astype(np.float32)
    return {
        "target": p, "draft": q, "tokens": sample(q, u[0][:, :length]), "num_drafts": rng.integers(0, length + 1, rows),
        "u_accept": u[1][:, :length], "u_resample": u[2],
    }  # fmt: skip


def run(given: dict[str, NDArray[Any]], to: Convert, kind: Resampler = "optimal", **more: Any) -> Verdict:
    return verify(**{k: to(v) for k, v in given.items()}, omegas=to(OMEGAS), resampler=kind, **more)


@pytest.mark.parametrize("library", list(LIBRARIES))
@pytest.mark.parametrize("kind", RESAMPLERS)
def test_against_a_plain_loop(library: str, kind: Resampler) -> None:
    given = case(rows=400, length=3, vocab=16, seed=1)
    verdict = run(given, LIBRARIES[library], kind)
    names = ("target", "draft", "tokens", "num_drafts", "u_accept", "u_resample")
    expected = [literal(row, kind) for row in zip(*(given[n] for n in names), strict=True)]
    assert host(verdict.accepted).tolist() == [n for n, _ in expected]
    assert host(verdict.token).tolist() == [x for _, x in expected]
    assert len({n for n, _ in expected}) == 4  # the case is not one-sided


@pytest.mark.parametrize("vocab", [4, 1000, 16384])
def test_both_libraries_agree_to_the_token(vocab: int) -> None:
    given = case(rows=40, length=3, vocab=vocab, seed=vocab)
    a, b = (run(given, to) for to in LIBRARIES.values())
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(host(x), host(y))


def test_a_row_does_not_see_its_neighbours() -> None:
    given = case(rows=30, length=3, vocab=8, seed=2)
    together = run(given, np.asarray)
    for row in range(30):
        alone = run({k: v[row : row + 1] for k, v in given.items()}, np.asarray)
        assert [int(x[0]) for x in alone] == [int(x[row]) for x in together]


@pytest.mark.parametrize("library", list(LIBRARIES))
def test_no_drafts_is_plain_sampling(library: str) -> None:
    to = LIBRARIES[library]
    given = case(rows=5, length=3, vocab=8, seed=3)
    short = {k: v[:, : 1 if k in ("target", "u_resample") else 0] if v.ndim > 1 else 0 * v for k, v in given.items()}
    verdict = verify(**{k: to(v) for k, v in short.items()}, omegas=to(OMEGAS[:0]), resampler="optimal")
    assert host(verdict.accepted).tolist() == [0] * 5
    np.testing.assert_array_equal(host(verdict.token), sample(given["target"][:, 0], given["u_resample"][:, 0]))
    assert not host(verdict.degenerate).any()


@pytest.mark.parametrize("library", list(LIBRARIES))
def test_a_degenerate_rejection_draws_from_p_and_is_flagged(library: str) -> None:
    to = LIBRARIES[library]
    given = case(rows=2, length=3, vocab=4, seed=4)
    given["target"][:, :3] = given["draft"]
    given["num_drafts"][:] = 3
    given["u_accept"][:] = [[0.0, 0.0, 0.5], [0.0, 0.0, 0.1]]  # omega 0.4 at the last: the first row rejects
    for kind, flags in (("residual", [True, False]), ("optimal", [False, False])):
        verdict = run(given, to, kind)  # type: ignore[arg-type]
        assert host(verdict.accepted).tolist() == [2, 3]
        assert host(verdict.degenerate).tolist() == flags
    verdict = run(given, to, "residual")
    assert int(verdict.token[0]) == pick(given["target"][0, 2], given["u_resample"][0, 2])


@pytest.mark.parametrize("library", list(LIBRARIES))
def test_a_forced_token_is_kept_whatever_omega_says(library: str) -> None:
    to = LIBRARIES[library]
    given = case(rows=1, length=3, vocab=4, seed=5)
    given["target"][:] = given["draft"][:] = np.eye(4, dtype=np.float32)[2]
    given["tokens"][:], given["num_drafts"][:], given["u_accept"][:] = 2, 3, 0.999
    assert int(run(given, to).accepted[0]) == 2  # the law alone rejects at omega 0.4
    forced = to(np.array([[False, False, True]]))
    assert int(run(given, to, forced=forced).accepted[0]) == 3


@pytest.mark.parametrize("library", list(LIBRARIES))
@pytest.mark.parametrize("broken", ["target", "draft"])
def test_nan_fails_loudly_and_only_where_it_counts(library: str, broken: str) -> None:
    to = LIBRARIES[library]
    given = case(rows=2, length=3, vocab=4, seed=6)
    given["num_drafts"][:] = [3, 1]
    given[broken][1, 2] = np.nan  # beyond the drafts of that row
    run(given, to)
    given[broken][0, 1] = np.nan
    with pytest.raises(CoolsdError, match="cannot be verified"):
        run(given, to)


def test_a_token_of_another_q_fails_loudly() -> None:
    given = case(rows=1, length=3, vocab=4, seed=7)
    given["num_drafts"][:] = 3
    given["draft"][0, 1, given["tokens"][0, 1]] = 0.0
    with pytest.raises(CoolsdError, match="not drawn from this Q"):
        run(given, np.asarray)
