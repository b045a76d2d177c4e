"""Bugs of the kind that real code has had, each planted into the loop: the enumeration must notice every one.

Those of the law's own arithmetic are in `test_planted_law_bugs`. Without a bug every world holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coolsd_rt.arrays import Array, Floats64
from coolsd_rt.law import Law, make_omegas
from coolsd_rt.ops import process_logits, sample, verify
from coolsd_rt.runtime import State
from coolsd_rt.runtime.randomness import ACCEPT, DRAFT, RESAMPLE
from tests.runtime.fakes import FakeSession, Tables
from tests.runtime.planting import World, holds, plant, plant_in_arguments
from tests.runtime.tree import Method

OMEGAS = make_omegas("exponential", 3, delta=1.1)
PAPER = World(Tables.random(2, 5, seed=6), Method(OMEGAS), 2, 5)
GUIDED = World(Tables.random(3, 4, seed=9, spread=0.5), Method((1.4, 0.6)), 3, 4, scales=(3.0, 2.0, 1.0, 0.5))
FILTERED = World(Tables.random(3, 4, seed=2), Method((1.4, 0.6)), 3, 4, top_k=2)
WORLDS = {"paper": PAPER, "guided": GUIDED, "filtered": FILTERED}


@pytest.mark.parametrize("name", list(WORLDS))
def test_without_a_bug_it_holds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does planting as such break anything."""
    assert holds(WORLDS[name])
    for real in (verify, sample, process_logits):
        plant_in_arguments(monkeypatch, real, lambda arguments: None)
    assert holds(WORLDS[name])


def test_the_classic_residual_below_one() -> None:
    """Planted: [P - Q]_+ after a rejection, at every omega."""
    assert not holds(PAPER, Law(OMEGAS, "residual"))


def test_a_schedule_that_runs_backwards() -> None:
    """Planted: omega_L first."""
    assert not holds(PAPER, Law(OMEGAS[::-1]))


def test_a_schedule_counted_from_the_end_where_drafts_are_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: at the image's end the last omegas are taken. Every whole window is right."""

    def change(arguments: dict[str, Any]) -> None:
        omegas = arguments["omegas"]
        arguments["omegas"] = np.asarray(OMEGAS[len(OMEGAS) - len(omegas) :])

    plant_in_arguments(monkeypatch, verify, change)
    assert not holds(PAPER)


def test_an_acceptance_test_that_forgets_omega(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: drafts are kept with min(1, P / Q)."""

    def change(arguments: dict[str, Any]) -> None:
        arguments["omegas"] = np.ones_like(arguments["omegas"])

    plant_in_arguments(monkeypatch, verify, change)
    assert not holds(PAPER)


def test_draft_probabilities_rounded_to_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: drafts are drawn from Q, and judged by a Q of 8 bits."""

    def change(arguments: dict[str, Any]) -> None:
        q = arguments["draft"]
        bits = np.asarray(q, np.float32).view(np.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)  # to the nearest, ties to even
        arguments["draft"] = rounded.view(np.float32).astype(q.dtype)

    plant_in_arguments(monkeypatch, verify, change)
    assert not holds(PAPER)


@pytest.mark.parametrize("row", ["before", "first"])
def test_the_bonus_token_from_another_row(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: after a window that was kept whole, the token is drawn from P_L, or P_1, for P_{L+1}."""

    def change(arguments: dict[str, Any]) -> None:
        target = arguments["target"].copy()
        target[:, -1] = target[:, max(0, target.shape[1] - 2) if row == "before" else 0]
        arguments["target"] = target

    plant_in_arguments(monkeypatch, verify, change)
    assert not holds(PAPER)


@pytest.mark.parametrize("error", [-1, 1])
def test_a_rollback_off_by_one(error: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the target's cache is taken for one row shorter, or longer, than what was kept."""
    real = State.commit

    def planted(self: State, window: Any, accepted: Any, active: Any) -> None:
        real(self, window, accepted, active)
        self.cached = self.cached + np.where(active, error, 0)

    monkeypatch.setattr(State, "commit", planted)
    assert not holds(PAPER)


def test_predicted_features_left_in_the_draft_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the first draft step enters the last accepted position only, as if the rows before it were good."""
    real = State.commit

    def planted(self: State, window: Any, accepted: Any, active: Any) -> None:
        real(self, window, accepted, active)
        self.drafted = np.where(active, self.cached - 1, self.drafted)

    monkeypatch.setattr(State, "commit", planted)
    assert not holds(PAPER)


def test_the_number_that_rejected_draws_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the token after a rejection is drawn with the uniform that rejected the draft."""

    def change(arguments: dict[str, Any]) -> None:
        u = arguments["u_resample"].copy()
        count = arguments["u_accept"].shape[1]
        u[:, :count] = arguments["u_accept"]
        arguments["u_resample"] = u

    plant_in_arguments(monkeypatch, verify, change)
    assert not holds(PAPER)


def shared_by_attempts(table: Floats64) -> Floats64:
    return np.repeat(table[:, :, :1], table.shape[2], axis=2)


def shared_by_purposes(one: int, other: int) -> Callable[[Floats64], Floats64]:
    def numbers(table: Floats64) -> Floats64:
        table = table.copy()
        table[..., other] = table[..., one]
        return table

    return numbers


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param(shared_by_attempts, id="attempts"),
        pytest.param(shared_by_purposes(DRAFT, ACCEPT), id="draft-accept"),
        pytest.param(shared_by_purposes(DRAFT, RESAMPLE), id="draft-resample"),
    ],
)
def test_a_position_that_uses_its_numbers_twice(numbers: Callable[[Floats64], Floats64]) -> None:
    """Planted: after a rejection a position is drafted from the same uniforms again; or one serves two purposes."""
    assert not holds(PAPER, numbers=numbers)


def test_guidance_after_the_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: probabilities are mixed, not logits."""

    def planted(logits: Any, scale: Any, temperature: float, top_k: int, top_p: float) -> Any:
        probs = process_logits(logits, None, temperature, top_k, top_p)
        images = len(probs) // 2
        cond, uncond = probs[:images], probs[images:]
        mixed = np.maximum(uncond + (cond - uncond) * scale[..., None], 1e-9)
        return mixed / mixed.sum(-1, keepdims=True)

    plant(monkeypatch, process_logits, planted)
    assert not holds(GUIDED)


def test_a_scale_for_the_whole_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: guidance has the scale of the window's first position, where `cfg_interval` ends inside it."""

    def change(arguments: dict[str, Any]) -> None:
        arguments["scale"] = np.repeat(arguments["scale"][:, :1], arguments["scale"].shape[1], axis=1)

    plant_in_arguments(monkeypatch, process_logits, change)
    assert not holds(GUIDED)


class Drifting(FakeSession):
    """The unconditional row is given a token of its own, as if each row of a pair were sampled by itself."""

    def target(self, ids: Array, pos: Array) -> tuple[Array, Array]:
        ids = ids.copy()
        ids[self.images :, -1] = (ids[self.images :, -1] + 1) % self.dims.vocab
        return super().target(ids, pos)


def test_cfg_rows_that_drift_apart() -> None:
    """Also where both rows have the same tables, so that only the contexts differ."""
    assert not holds(GUIDED, session=Drifting)
    t = GUIDED.tables
    twins = replace(GUIDED, tables=Tables(t.target[0], t.draft[0]))
    assert holds(twins)
    assert not holds(twins, session=Drifting)


@pytest.mark.parametrize("side", ["target", "draft"])
@pytest.mark.parametrize("change", [{"top_k": 0}, {"temperature": 1.2}], ids=["top-k", "temperature"])
def test_p_and_q_filtered_differently(side: str, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: one of the two is not cut to the likeliest codes, or has a temperature of its own."""
    last = [""]

    class Told(FakeSession):
        def target(self, ids: Array, pos: Array) -> tuple[Array, Array]:
            last[0] = "target"
            return super().target(ids, pos)

        def draft(self, ids: Array, features: Array, pos: Array) -> tuple[Array, Array]:
            last[0] = "draft"
            return super().draft(ids, features, pos)

    plant_in_arguments(monkeypatch, process_logits, lambda a: a.update(change) if last[0] == side else None)
    assert not holds(FILTERED, session=Told)


def test_a_draw_that_can_land_on_a_code_without_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the first code whose cumulative weight reaches u, where it has to pass it; seen at u = 0."""

    def planted(weights: Any, u: Any) -> Any:
        cdf = np.cumsum(weights, axis=-1)
        return (cdf < (u * cdf[..., -1])[..., None]).sum(-1)

    world = World(Tables.random(3, 4, seed=3, zeros=True), Method((1.0, 1.0)), 3, 4)
    assert holds(world)
    plant(monkeypatch, sample, planted)
    assert not holds(world)
