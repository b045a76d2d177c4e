"""What a manifest records of an engine's int8 matrices, as a sentence for `build` and `inspect`.

A manifest is data from a disk, and the facts of a stage may be anything: a record of another shape gives no sentence.
Knows the record. Does not know how it was made, and needs neither onnx nor torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coolsd_rt.shown import shorten, show
from coolsd_rt.workflows.build.code import QUANTIZATION

_LONGEST = 300  # characters of a text


def describe_forms(stages: Mapping[str, Mapping[str, Any]]) -> str:
    """How many matrices of target and draft are row-wise, on what machine that was decided, and what stood against it.

    stages: name of each stage to its facts, as a manifest has them. Empty for an engine without a choice.
    """
    record = stages.get(QUANTIZATION, {}).get(QUANTIZATION)
    if not isinstance(record, Mapping):
        return ""
    parts = [text for name in ("target", "draft") if (text := _counts(name, stages.get(name, {}).get(name)))]
    why = "measured" if record.get("asked") == "auto" else "as asked"
    note = record.get("note")
    return f"{', '.join([*parts, why])} on {_text(record.get('processor'))}" + (f"; {_text(note)}" if note else "")


def _counts(name: str, facts: Any) -> str:
    if not isinstance(facts, Mapping) or "quantised_matrices" not in facts:
        return ""
    lossy = facts.get("too_lossy")
    kept = f" ({len(lossy)} by blocks for precision)" if isinstance(lossy, Mapping) and lossy else ""
    rowwise, of = (show(facts.get(key, 0)) for key in ("rowwise_matrices", "quantised_matrices"))
    return f"{name} {rowwise} of {of} matrices row-wise{kept}"


def _text(value: Any) -> str:
    """A text of a manifest as it can be shown: one line, printable."""
    return shorten(value, _LONGEST) if isinstance(value, str) else show(value)
