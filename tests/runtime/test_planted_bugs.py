"""Bugs of the kind that real code has had, each planted into the loop: the enumeration must notice every one.

`holds` is the check of `test_exact_round`; without a bug it holds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coolsd_rt import ops
from coolsd_rt.errors import CoolsdError
from coolsd_rt.law import Law, make_omegas
from coolsd_rt.runtime import Sampling, State, batch, decode, round
from tests.runtime.fakes import FakeSession, Tables, dims
from tests.runtime.tree import Method, leaves, probes

TOKENS, VOCAB = 5, 2
OMEGAS = make_omegas("exponential", 3, delta=1.1)
LAW = Law(OMEGAS)
TABLES = Tables.random(VOCAB, TOKENS, seed=6)
LEAVES = leaves(TABLES.p, TABLES.q, Method(OMEGAS), TOKENS)


def holds(law: Law = LAW, guided: bool = False) -> bool:
    scale = 2.0 if guided else 1.0  # both rows have the same tables: any scale gives the same law
    tables = Tables(TABLES.target[0], TABLES.draft[0])
    for upper in (False, True):
        session = FakeSession(tables, dims(VOCAB, TOKENS), len(LEAVES), guided=guided)
        try:
            codes = decode(session, law, Sampling(cfg_scale=scale), probes(LEAVES, TOKENS, 3, upper)).codes
        except (CoolsdError, AssertionError, IndexError):
            return False
        if codes.tolist() != [list(leaf.codes) for leaf in LEAVES]:
            return False
    return True


def test_without_a_bug_it_holds() -> None:
    assert holds()
    assert holds(guided=True)


def test_the_classic_residual_below_one() -> None:
    assert not holds(Law(OMEGAS, "residual"))


def test_the_schedule_from_the_wrong_end() -> None:
    assert not holds(Law(OMEGAS[::-1]))


def test_the_bonus_token_from_the_row_before(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ops.verify

    def planted(target: Any, *args: Any) -> Any:
        target = target.copy()
        target[:, -1] = target[:, max(0, target.shape[1] - 2)]
        return real(target, *args)

    monkeypatch.setattr(round, "verify", planted)
    assert not holds()


@pytest.mark.parametrize("error", [-1, 1])
def test_a_rollback_off_by_one(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    real = State.commit

    def planted(self: State, window: Any, accepted: Any, active: Any) -> None:
        real(self, window, accepted, active)
        self.cached = self.cached + np.where(active, error, 0)

    monkeypatch.setattr(State, "commit", planted)
    assert not holds()


def test_predicted_features_left_in_the_draft_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first draft step enters only the last accepted position, as if the rows before it were good already."""
    real = State.commit

    def planted(self: State, window: Any, accepted: Any, active: Any) -> None:
        real(self, window, accepted, active)
        self.drafted = np.where(active, self.cached - 1, self.drafted)

    monkeypatch.setattr(State, "commit", planted)
    assert not holds()


def test_cfg_rows_that_drift_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(self: Any, ids: Any) -> Any:
        return np.concatenate([ids, (ids + 1) % VOCAB])  # the unconditional row sees other tokens

    monkeypatch.setattr(batch.Batch, "both", planted)
    assert not holds(guided=True)


def test_q_filtered_unlike_p(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ops.process_logits

    def planted(logits: Any, scale: Any, temperature: float, top_k: int, top_p: float) -> Any:
        return real(logits, scale, 1.2 if logits.shape[1] == 1 else temperature, top_k, top_p)

    monkeypatch.setattr(batch, "process_logits", planted)
    assert not holds()


def test_an_acceptance_test_that_forgets_omega(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ops.verify

    def planted(target: Any, draft: Any, tokens: Any, valid: Any, omegas: Any, *args: Any) -> Any:
        return real(target, draft, tokens, valid, np.ones_like(omegas), *args)

    monkeypatch.setattr(round, "verify", planted)
    assert not holds()
