"""Triton's own way from a call to a launch, without a GPU: signatures, globals, the second call of a kernel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.interpreting import run, run_interpreted

pytest.importorskip("torch")
pytest.importorskip("triton")

FOLDER = Path(__file__).parent


def test_every_kernel_is_launched_twice() -> None:
    """Triton refuses a kernel's second launch, or even the first, if a global is not equal to itself, as NaN is."""
    told: dict[str, Any] = json.loads(run(str(FOLDER / "launching.py"), "64").splitlines()[-1])
    launched = told["launched"]
    assert len(launched) == 22
    assert launched[:11] == launched[11:]
    process, draft, verdict, first, draw = launched[:5]
    assert [one["grid"] for one in launched[:5]] == [[3, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1], [6, 1, 1]]
    # Doubles where sums decide, and no tensor taken for a constant.
    assert (process["kinds"]["top_p"], process["kinds"]["u"]) == ("fp64", "constexpr")
    assert (draft["kinds"]["logits"], draft["kinds"]["u"], draft["kinds"]["tokens"]) == ("*bf16", "*fp32", "*i64")
    assert (verdict["kinds"]["omegas"], verdict["kinds"]["rates"], verdict["kinds"]["forced"]) == (
        "*fp64",
        "*fp64",
        "*u1",
    )
    assert (first["kinds"]["forced"], draw["kinds"]["u"]) == ("constexpr", "*fp32")
    window, one, second, third, commit, plain = launched[5:11]
    assert [each["grid"][0] for each in launched[5:11]] == [2] * 6
    assert [each["warps"] for each in (window, commit, plain)] == [1, 4, 1]
    # Lengths and places are numbers, so one compilation serves all drafts but the first.
    assert second == third
    assert (one["kinds"]["last"], second["kinds"]["last"]) == ("*i64", "constexpr")
    assert {one["kinds"][name] for name in ("S", "L", "i")} == {"i32"}
    assert (one["kinds"]["top_p"], one["kinds"]["least"], one["kinds"]["num_drafts"]) == ("fp64", "fp32", "*i64")
    assert (window["kinds"]["draft_allowed"], window["kinds"]["is_forced"]) == ("*u1", "*u1")
    assert (commit["kinds"]["p"], plain["kinds"]["p"], plain["kinds"]["histogram"]) == ("*fp32", "constexpr", "*i64")


def test_rounds_over_the_kernels_decide_what_the_host_decides() -> None:
    """The device's round with every kernel in Triton's interpreter, beside the loop on the host."""
    run_interpreted(FOLDER / "interpreted_rounds.py")
