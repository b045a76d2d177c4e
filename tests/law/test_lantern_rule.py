"""LANTERN's own rule and residual against a restatement of it, one code and one number at a time.

What its published code does with one draft x (its EAGLE-1 verification, on the CPU), in words. `near` lists the other
codes, nearest first. P is float32.

1. Add up P of near[0], near[1], ... near[k - 1]; each partial sum is a float32 (accumulated in float64, then rounded).
2. The limit is a float32 too: delta, or (delta - 1) * P(x), the factor rounded before it is multiplied.
3. Lend the last partial sum that is at most the limit; accept with min(1, (P(x) + lent) / Q(x)).
4. After a rejection: if any partial sum was within the limit, Q is 0 at near[0] ... near[k]: k + 1 codes, or all that
   there are. Draw from [P - Q]_+, normalised.

Nothing of the package is used in the restatement. Where 4 leaves nothing, theirs draws any code at all; ours draws from
P as everywhere, and these cases are not compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from coolsd_rt.arrays import Floats32
from coolsd_rt.law import Law, Tolerance
from coolsd_rt.law.exact import step_law
from coolsd_rt.law.residual import residual
from coolsd_rt.ops import Verdict, verify
from tests.ops.libraries import LIBRARIES, Convert, host

CASES = 600


@dataclass(frozen=True)
class Case:
    """One draft position: P, Q float32 [V], all others of each code nearest first [V, V - 1]."""

    p: Floats32
    q: Floats32
    near: list[list[int]]
    k: int
    kind: Literal["lantern", "lantern_pp"]
    bound: float

    @property
    def law(self) -> Law:
        columns = min(self.k + 1, len(self.p) - 1)  # what an engine keeps for k
        return Law((1.0,), "lantern", Tolerance(self.kind, self.bound, np.array(self.near)[:, :columns], self.k))


def sums(case: Case, x: int) -> list[np.float32]:
    """Step 1."""
    total, out = 0.0, []
    for y in case.near[x][: case.k]:
        total += float(case.p[y])
        out.append(np.float32(total))
    return out


def limit(case: Case, x: int) -> np.float32:
    """Step 2."""
    return np.float32(case.bound) if case.kind == "lantern" else np.float32(case.bound - 1) * case.p[x]


def lent(case: Case, x: int) -> float:
    """Step 3."""
    amount = 0.0
    for total in sums(case, x):
        if total <= limit(case, x):
            amount = float(total)
    return amount


def after(case: Case, x: int) -> list[float] | None:
    """Step 4: the law of the token that replaces x; None if nothing is left."""
    zeroed = case.near[x][: case.k + 1] if any(total <= limit(case, x) for total in sums(case, x)) else []
    left = []
    for y in range(len(case.p)):
        q = 0.0 if y in zeroed else float(case.q[y])
        left.append(max(0.0, float(case.p[y]) - q))
    total = sum(left)
    return [w / total for w in left] if total >= 1e-5 else None


def output(case: Case) -> list[float] | None:
    """The law of the position's token: draft x from Q, keep it or replace it. None where nothing is left to draw."""
    law = [0.0] * len(case.p)
    for x, drawn in enumerate(map(float, case.q)):
        if drawn == 0:
            continue
        rate = min(1.0, (float(case.p[x]) + lent(case, x)) / drawn)
        law[x] += drawn * rate
        if rate < 1:
            replaced = after(case, x)
            if replaced is None:
                return None
            for y, w in enumerate(replaced):
                law[y] += drawn * (1 - rate) * w
    return law


def distribution(rng: np.random.Generator, vocab: int) -> Floats32:
    """Smooth, sparse, or in sixteenths, where ties and zeros are common."""
    kind = rng.integers(3)
    if kind == 0:
        weights = rng.dirichlet(np.full(vocab, 0.5))
    elif kind == 1:
        weights = rng.dirichlet(np.full(vocab, 0.5)) * (rng.random(vocab) < 0.6) + np.eye(vocab)[rng.integers(vocab)]
    else:
        weights = np.bincount(rng.integers(0, vocab, 16), minlength=vocab) / 16
    return np.asarray(weights / weights.sum(), np.float32)


def cases(count: int = CASES) -> Iterator[Case]:
    """Random cases; a third have a bound that equals one of the partial sums, some lend to all others but one."""
    rng = np.random.default_rng(4)
    for n in range(count):
        vocab = int(rng.integers(2, 12))
        p, q = distribution(rng, vocab), distribution(rng, vocab)
        near = [[int(y) for y in rng.permutation(vocab) if y != x] for x in range(vocab)]
        k = int(rng.integers(1, vocab)) if n % 4 else max(1, vocab - 2)
        kind: Literal["lantern", "lantern_pp"] = "lantern" if n % 2 else "lantern_pp"
        bound = float(rng.choice([0.0, 0.03, 0.1, 0.25, 1.0] if n % 2 else [1.0, 1.1, 1.37, 1.5, 2.0, 4.0]))
        case = Case(p, q, near, k, kind, bound)
        if n % 3 == 0:
            x = int(rng.integers(vocab))
            total = float(sums(case, x)[int(rng.integers(k))])
            if kind == "lantern":
                case = replace(case, bound=min(1.0, total))
            elif p[x] > 0:
                case = replace(case, bound=1.0 + total / float(p[x]))
        yield case


def compared() -> list[tuple[Case, list[float]]]:
    return [(case, law) for case in cases() if (law := output(case)) is not None]


COMPARED = compared()


def distance(a: list[float], b: NDArray[np.float64]) -> float:
    return 0.5 * sum(abs(x - float(y)) for x, y in zip(a, b, strict=True))


def test_there_are_cases_of_every_kind() -> None:
    assert len(COMPARED) > 500
    assert sum(case.k + 1 == len(case.p) - 1 for case, _ in COMPARED) > 50
    assert sum(case.k == len(case.p) - 1 for case, _ in COMPARED) > 50  # no code more than those that lend
    tied = [
        (case, x)
        for case, _ in COMPARED
        for x in range(len(case.p))
        if any(0 < total == limit(case, x) for total in sums(case, x))
    ]
    assert len(tied) > 100


def test_the_law_is_theirs() -> None:
    for case, theirs in COMPARED:
        ours, _ = step_law(case.p, case.q, 1.0, "lantern", case.law.tolerance)
        assert distance(theirs, ours) < 1e-6, case


@pytest.mark.parametrize("library", list(LIBRARIES))
def test_the_round_accepts_and_replaces_as_theirs(library: str) -> None:
    """`verify`, at both ends of every interval: just within the rate and just over it, and each replacement."""
    to = LIBRARIES[library]
    for case, _ in COMPARED[:200]:
        for x in np.flatnonzero(case.q > 0.01):
            rate = (float(case.p[x]) + lent(case, int(x))) / float(case.q[x])
            assert accepted(case, int(x), min(0.999999, rate - 1e-5), to) or rate < 1e-5
            if rate > 0.9999:
                continue
            assert not accepted(case, int(x), rate + 1e-5, to)
            wanted = after(case, int(x))
            assert wanted is not None
            edges = np.cumsum([0.0, *wanted])
            for y, width in enumerate(wanted):
                if width > 1e-3:
                    assert replaced(case, int(x), (edges[y] + edges[y + 1]) / 2, to) == y


def accepted(case: Case, x: int, u: float, to: Convert) -> bool:
    return int(host(_verdict(case, x, max(u, 0.0), 0.5, to).accepted)[0]) == 1


def replaced(case: Case, x: int, v: float, to: Convert) -> int:
    return int(host(_verdict(case, x, 0.9999999, v, to).token)[0])


def _verdict(case: Case, x: int, u: float, v: float, to: Convert) -> Verdict:
    tolerance = case.law.tolerance
    assert tolerance is not None
    return verify(
        to(np.stack([case.p, case.p])[None]),
        to(case.q[None, None]),
        to(np.array([[x]])),
        to(np.array([1])),
        to(np.ones(1)),
        to(np.array([[u]])),
        to(np.array([[v, v]])),
        "lantern",
        tolerance=replace(tolerance, near=to(tolerance.near)),
    )


def test_every_other_residual_keeps_its_law_whatever_the_extra_column() -> None:
    """G*, waterfill and the others do not see the column that only LANTERN's own residual reads."""
    for case, _ in COMPARED[:200]:
        tolerance = case.law.tolerance
        assert tolerance is not None
        bare = replace(tolerance, near=tolerance.near[:, : case.k])
        for kind in ("optimal", "waterfill", "residual", "target"):
            with_it, without = (step_law(case.p, case.q, 1.0, kind, t)[0] for t in (tolerance, bare))
            assert np.array_equal(with_it, without)


def summed(case: Case) -> NDArray[np.float64]:
    """The law of the token, as the sum over every code that may be rejected of the draw that follows."""
    tolerance = case.law.tolerance
    assert tolerance is not None
    p, q = case.p.astype(np.float64), case.q.astype(np.float64)
    law = np.minimum(q, p + tolerance.everywhere(case.p))
    rejected = q - law
    for x in np.flatnonzero(rejected > 0):
        zeroed = tolerance.zeroed(case.p, np.array(x))
        weights = np.asarray(residual(p, q, 1.0, "lantern", zeroed=zeroed)[0])
        law = law + rejected[x] * weights / weights.sum()
    return np.asarray(law, np.float64)


def test_the_law_of_a_position_is_the_sum_over_the_rejected_codes() -> None:
    for case, _ in COMPARED:
        assert np.allclose(step_law(case.p, case.q, 1.0, "lantern", case.law.tolerance)[0], summed(case), atol=1e-12)


@pytest.mark.parametrize("bug", ["k codes", "float64", "k + 2 codes", "the rejected code too"])
def test_planted_rules_are_told_apart(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is another law than theirs in some of the cases: the comparison would notice it."""
    if bug == "float64":
        monkeypatch.setattr(Tolerance, "_sum", lambda self, xp, lent, own: _in_float64(self, lent, own))
    real = Tolerance.zeroed

    def planted(self, p, tokens):  # type: ignore[no-untyped-def]
        mask = real(self, p, tokens)
        row = self.near[tokens][..., 0] if mask.ndim == 1 else None
        assert row is not None
        if bug == "k codes" and mask.any() and self.columns > self.lending:
            mask[self.near[int(tokens), self.lending]] = False
        if bug == "k + 2 codes" and mask.any():
            mask |= np.cumsum(~mask) == 1
        if bug == "the rejected code too" and mask.any():
            mask[int(tokens)] = True
        return mask

    monkeypatch.setattr(Tolerance, "zeroed", planted)
    assert sum(distance(theirs, summed(c)) > 1e-6 for c, theirs in COMPARED) > 5


def _in_float64(tolerance: Tolerance, lent: Floats32, own: Floats32) -> NDArray[np.float64]:
    """Sums and limit as float64 has them: a sum that rounds to the bound, from above, is over it."""
    partial = np.cumsum(lent.astype(np.float64), axis=-1)
    limit = tolerance.bound if tolerance.kind == "lantern" else (tolerance.bound - 1) * own.astype(np.float64)
    return np.asarray(np.where(partial <= limit, partial, 0.0).max(-1), np.float64)
