"""What `coolsd-rt generate` imports before its first token: a budget of modules, and those that it must do without.

Modules are counted, not seconds: a machine may be slow at any moment.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from coolsd_rt.store import EngineFolder
from tools.startup import PARTS, Request

ROOT = Path(__file__).resolve().parents[1]
OURS, OTHERS = 120, 300
"""The most modules of this package, and of other packages but the standard library. Raise them for a reason alone."""
NEVER = {
    "PIL": "an image is written after it is drawn",
    "array_api_compat": "NumPy is an array-API library itself",
    "coolsd_rt.models.families": "an engine has its sizes in its manifest",
    "coolsd_rt.pretrained": "tokenizers and text encoders, of conditions that have one",
    "coolsd_rt.prompts.t5": "a text encoder, of a condition that has one",
    "coolsd_rt.prompts.tokens": "a tokenizer, of a condition that has one",
    "coolsd_rt.spec.yaml_text": "a manifest is JSON",
    "coolsd_rt.store.cache": "for builds",
    "filelock": "for builds, and to choose a plan",
    "numpy.f2py": "imported by every `from numpy import *`",
    "numpy.testing": "imported by every `from numpy import *`",
    "onnx": "for builds",
    "rich": "there is no terminal",
    "safetensors": "for builds",
    "torch": "for builds",
    "yaml": "a manifest is JSON",
}
"""Modules that no request needs before its first token, and why."""


def excess(names: Iterable[str]) -> list[str]:
    """What is imported that should not be: modules of `NEVER`, and numbers above the budget."""
    names = list(names)
    found = [f"{bad}: {why}" for bad, why in NEVER.items() if any(f"{name}.".startswith(f"{bad}.") for name in names)]
    tops = [name.partition(".")[0] for name in names]
    ours = sum(top == "coolsd_rt" for top in tops)
    others = sum(top not in (*sys.stdlib_module_names, "coolsd_rt", "__main__") for top in tops)
    found += [f"{ours} modules of coolsd_rt, at most {OURS}"] * (ours > OURS)
    return found + [f"{others} modules of other packages, at most {OTHERS}"] * (others > OTHERS)


@pytest.mark.parametrize("options", [("--plain",), (), ("--draft", "jacobi", "--draft-length", "3")])
def test_only_what_it_needs_is_imported_before_the_first_token(
    tiny_engine: EngineFolder, tmp_path: Path, options: tuple[str, ...]
) -> None:
    marks = Request(tiny_engine.folder, "red apple", (*options, "--threads", "1")).run(ROOT, tmp_path)
    assert excess(marks["modules"]) == []
    assert {"numpy", "onnxruntime", "coolsd_rt.runtime.round"} <= set(marks["modules"])
    reached = [marks[part]["cpu"] for part in PARTS]
    assert reached == sorted(reached)


def test_a_module_too_many_is_named() -> None:
    """The names as they would be with the import that is to be found."""
    assert excess(["rich", "rich.progress", "coolsd_rt.store", "numpy", "json"]) == ["rich: there is no terminal"]
    assert excess(["coolsd_rt.prompts.t5_encoder", "coolsd_rt.prompts.tokens"]) == [
        "coolsd_rt.prompts.tokens: a tokenizer, of a condition that has one"
    ]
    assert excess(f"coolsd_rt.a{i}" for i in range(OURS + 1)) == [f"{OURS + 1} modules of coolsd_rt, at most {OURS}"]
    assert excess(f"b{i}.c" for i in range(OTHERS + 1)) == [f"{OTHERS + 1} modules of other packages, at most {OTHERS}"]
    assert excess([*(f"json.a{i}" for i in range(999)), "__main__"]) == []
