"""Each name is the law it says; what cannot be done is left out with a reason, and mistakes are said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coolsd_rt.bench.variants import NAMES, VariantChoice, VariantRow, lines
from coolsd_rt.errors import UserError
from coolsd_rt.law import make_omegas, nearest_codes
from coolsd_rt.spec import Spec
from coolsd_rt.workflows.drawing import Settings
from tests.workflows.fakes import DIMS, FakeEngine
from tests.workflows.test_drawing import spec

NEAR = nearest_codes(np.random.default_rng(0).standard_normal((DIMS.vocab, 3)).astype(np.float32), 12)


def of(mine: Spec, near: Any = NEAR, **choice: Any) -> tuple[dict[str, VariantRow], dict[str, str]]:
    found, left = lines(mine, FakeEngine(), "fp32", VariantChoice(**choice), near)
    assert len({line.variant.name for line in found}) == len(found)
    return {line.variant.name: line for line in found}, left


def laws(mine: Spec, **choice: Any) -> dict[str, Settings]:
    return {name: line.variant.settings for name, line in of(mine, **choice)[0].items()}


def test_every_name_is_its_law() -> None:
    found = laws(spec(sampling={"cfg_scale": 2.0}, pacing={"confidence": 0.5}))
    assert list(found) == [
        "plain",
        "lossless",
        "COOL-SD, delta 1.1",
        "COOL-SD, delta 1.5",
        "COOL-SD, delta 2",
        "uniform, delta 1.1",
        "linear, delta 1.1",
        "LANTERN++",
        "LANTERN++ with G*",
        "jacobi",
        "jacobi, coupled",
        "jacobi, gumbel",
        "ngram",
        "auto, lossless",
        "auto",
    ]
    assert found["plain"].plain
    assert found.pop("auto").law == found["COOL-SD, delta 1.1"].law
    assert found.pop("auto, lossless").law == found["lossless"].law
    for name, settings in found.items():
        assert settings.sampling.cfg_scale == 2.0
        assert settings.sampling.confidence == (0.0 if name.startswith(("jacobi", "ngram")) else 0.5)
        assert (settings.drafter == "eagle") == (not name.startswith(("jacobi", "ngram")))
    assert found["lossless"].law.omegas == (1.0, 1.0, 1.0)
    for name, kind, delta, floor in (
        ("COOL-SD, delta 1.1", "exponential", 1.1, 1.0),
        ("COOL-SD, delta 1.5", "exponential", 1.5, 1.0),
        ("COOL-SD, delta 2", "exponential", 2.0, 1.0),
        ("uniform, delta 1.1", "uniform", 1.1, None),
        ("linear, delta 1.1", "linear", 1.1, 1.0),
    ):
        assert found[name].law.omegas == make_omegas(kind, 3, delta=delta, floor=floor)  # type: ignore[arg-type]
        assert found[name].law.resampler == "optimal"
    for name, resampler in (("LANTERN++", "lantern"), ("LANTERN++ with G*", "optimal")):
        law = found[name].law
        assert (law.rule, law.resampler) == ("lantern_pp", resampler)
        assert law.tolerance is not None
        assert (law.tolerance.bound, law.tolerance.lending) == (2.0, 10)
    assert found["jacobi"].drafter == "jacobi"
    assert found["jacobi, coupled"].drafter == "jacobi_coupled"
    assert found["jacobi, gumbel"].drafter == "jacobi_gumbel"
    assert found["ngram"].drafter == "ngram"
    assert found["ngram"].law == found["lossless"].law
    assert found["jacobi"].law.omegas == (1.0,) * min(15, DIMS.tokens - 1)


def test_the_specs_own_values_are_kept_where_they_belong() -> None:
    own = laws(spec(schedule={"kind": "exponential", "delta": 3.0, "nu": 0.2, "floor": None}))
    assert own["COOL-SD, delta 1.1"].law.omegas == make_omegas("exponential", 3, delta=1.1, nu=0.2)
    assert own["as the spec has it"].law.omegas == make_omegas("exponential", 3, delta=3.0, nu=0.2)
    lantern = {"rule": "lantern_pp", "factor": 3.0, "neighbours": 4}
    own = laws(spec(schedule={"kind": "none"}, acceptance=lantern, resampler={"kind": "waterfill"}))
    tolerance = own["LANTERN++"].law.tolerance
    assert tolerance is not None
    assert (tolerance.bound, tolerance.lending) == (3.0, 4)
    assert own["as the spec has it"].law.resampler == "waterfill"
    assert own["COOL-SD, delta 1.1"].law.rule == "ratio"


def test_the_specs_own_variant_is_a_row_only_if_it_is_another() -> None:
    assert "as the spec has it" not in laws(spec())  # COOL-SD at 1.1
    assert "as the spec has it" in laws(spec(), deltas=(1.2,))
    assert list(laws(spec(), names=("spec",))) == ["plain", "as the spec has it"]
    assert "as the spec has it" in laws(spec(schedule={"kind": "excess", "beta": 0.2}))


def test_names_deltas_and_lengths_are_chosen() -> None:
    assert list(laws(spec(), names=("cool",), deltas=(1.2, 1.2, 4.0))) == [
        "plain",
        "COOL-SD, delta 1.2",
        "COOL-SD, delta 4",
    ]
    found = laws(spec(), names=("lossless", "jacobi", "ngram"), draft_lengths=(1, 5), jacobi_length=7)
    assert {name: s.law.length for name, s in found.items()} == {
        "plain": 0,
        "lossless, length 1": 1,
        "lossless, length 5": 5,
        "jacobi": 7,
        "ngram, length 1": 1,
        "ngram, length 5": 5,
    }
    found = laws(spec(), names=("cool",), deltas=(2.0,), draft_lengths=(2,))
    assert found["COOL-SD, delta 2, length 2"].law.omegas == make_omegas("exponential", 2, delta=2.0, floor=1.0)


def test_lantern_needs_neighbours() -> None:
    found, left = of(spec(), near=None)
    assert not [name for name in found if "LANTERN" in name]
    assert set(left) == {"lantern++", "lantern++-gstar"}
    assert all("neighbours" in reason for reason in left.values())
    with pytest.raises(UserError, match=r"beside plain decoding.*lantern\+\+ is left out.*neighbours"):
        of(spec(), near=None, names=("lantern++",))


def test_both_residuals_of_lantern_have_as_many_neighbours_as_the_engine_has_room_for() -> None:
    """LANTERN's own reads one more column than lends: an engine of an earlier version has none to spare."""
    for columns, neighbours, lending in ((5, 64, 4), (5, 4, 4), (5, 3, 3), (12, 64, 10)):
        near = np.arange(40)[:, None] + np.arange(1, columns + 1)
        image = {"tokenizer": "vq", "weights": "w.safetensors", "neighbours": neighbours}
        found, left = of(spec(image=image), near=near % 40, names=("lantern++", "lantern++-gstar"))
        assert not left
        tolerances = [found[name].variant.settings.law.tolerance for name in ("LANTERN++", "LANTERN++ with G*")]
        assert [t.lending for t in tolerances if t is not None] == [lending] * 2
    own = spec(schedule={"kind": "none"}, acceptance={"rule": "lantern_pp", "factor": 2.0, "neighbours": 5})
    found, left = of(own, near=(np.arange(40)[:, None] + np.arange(1, 6)) % 40, names=("lantern++", "lantern++-gstar"))
    assert list(found) == ["plain", "LANTERN++ with G*"]
    assert "expected the 6 nearest codes" in left["lantern++"]


def test_synthetic_acceptance_is_one_variant() -> None:
    rates = {"rule": "synthetic", "rates": [0.9, 0.5, 0.1]}
    mine = spec(schedule={"kind": "none"}, acceptance=rates)
    found, left = of(mine)
    assert list(found) == ["plain", "synthetic acceptance", "auto"]
    assert found["synthetic acceptance"].variant.settings.law.rates == (0.9, 0.5, 0.1)
    assert set(left) == set(NAMES) - {"auto"}
    with pytest.raises(UserError, match=r"acceptance\.rates: expected 2 values.*found 3"):
        of(mine, draft_lengths=(2,))


def test_a_draft_that_gets_better_in_the_window_is_known_by_its_source() -> None:
    refining = {name for name, line in of(spec())[0].items() if line.refines}
    assert refining == {"jacobi", "jacobi, coupled", "jacobi, gumbel", "ngram"}
    found, _ = of(spec(draft={"model": "jacobi", "length": 4}), names=("lossless",))
    assert found["lossless"].refines


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"names": ("fast",)}, "--variant: expected one of lossless, cool"),
        ({"deltas": ()}, "--delta: expected at least one"),
        ({"deltas": (float("nan"),)}, "deltas[0]: expected a number from 0 to 1e6, found NaN"),
        ({"deltas": (-1.0,)}, "deltas[0]: expected a number from 0 to 1e6, found -1.0"),
        ({"draft_lengths": (0,)}, "draft_lengths[0]: expected a whole number from 1 to 65536, found 0"),
        ({"draft_lengths": (3, 17)}, "--draft-length: expected from 1 to the image's 16 tokens, found 17"),
        ({"jacobi_length": 17}, "--jacobi-length"),
        ({"jacobi_length": 0}, "jacobi_length: expected a whole number from 1 to 65536, found 0"),
    ],
)
def test_mistakes_are_said(choice: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as stopped:
        of(spec(), **choice)
    assert said in str(stopped.value)


def test_a_custom_schedule_has_its_own_length() -> None:
    mine = spec(schedule={"kind": "custom", "values": [1.3, 1.2, 1.1]})
    assert laws(mine)["as the spec has it"].law.omegas == (1.3, 1.2, 1.1)
    with pytest.raises(UserError, match=r"schedule\.values: expected 2 values"):
        of(mine, draft_lengths=(2,))
    assert "lossless, length 2" in laws(mine, names=("lossless",), draft_lengths=(2,))


def test_only_auto_chooses_its_drafts() -> None:
    """Whatever the spec's pacing: the others are what it is compared with. Thresholds that the spec states stay."""
    for pacing, confidence in (({}, 0.0), ({"kind": "auto"}, 0.0), ({"confidence": 0.5}, 0.5)):
        found = laws(spec(schedule={"kind": "none"}, pacing=pacing))
        assert "auto, lossless" not in found
        assert found["auto"].law == found["lossless"].law
        assert found["auto"].sampling.confidence == 0.0
        assert found["lossless"].sampling.confidence == confidence
