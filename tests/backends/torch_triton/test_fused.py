"""The fused steps in Triton's interpreter, in a process of its own; as they are launched; and compiled for GPUs."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from tests.interpreting import run, run_interpreted

FOLDER = Path(__file__).parent


@pytest.mark.parametrize("name", ["networks", "engine"])
def test_interpreted(name: str) -> None:
    run_interpreted(FOLDER / f"interpreted_{name}.py")


@pytest.mark.parametrize("pdl", [False, True])
def test_every_kernel_is_launched(pdl: bool) -> None:
    """By triton's own way, over a driver that does nothing: a plain and a speculative step, each twice."""
    told: dict[str, Any] = json.loads(run(str(FOLDER / "launching.py"), str(int(pdl))).splitlines()[-1])
    launched = told["launched"]
    half = len(launched) // 2
    assert launched[:half] == launched[half:]
    names = Counter(one["name"] for one in launched[:half])
    layers, steps = 3 + 1, 2  # of the target and the head, plain and wide
    assert names == {
        "embed": 2 * steps,
        "normalise": steps,
        "attend": layers * steps,
        "gemv_rows2": 4 * layers + 3,
        "product": 4 * layers + 3,
    }
    assert all(one["kinds"]["x"] == "*bf16" for one in launched if one["name"].startswith("product"))
    heads = [one for one in launched if one["kinds"].get("out") == "*fp32"]
    assert len(heads) == 2 * 2 * steps
    assert all(one["pdl"] == pdl for one in launched)
