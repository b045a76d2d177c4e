"""YAML scalars are those of YAML 1.2, which is what an editor shows."""

from __future__ import annotations

import math
from typing import Any

import pytest

from coolsd_rt.spec.yaml_text import parse

SCALARS: dict[str, Any] = {
    "no": "no", "on": "on", "yes": "yes", "true": True, "False": False, "~": None, "null": None, "": None,
    "1": 1, "+1": 1, "-1": -1, "010": 10, "0x10": 16, "0o10": 8, "1_000": "1_000", "1:30": "1:30",
    "1e-3": 0.001, "1.": 1.0, ".5": 0.5, "-2.5e+3": -2500.0, ".inf": math.inf, "-.inf": -math.inf,
    "2026-01-01": "2026-01-01", "'1'": "1", '"null"': "null", "=": "=",
}  # fmt: skip


@pytest.mark.parametrize("text", SCALARS)
def test_scalars(text: str) -> None:
    value = parse(f"a: {text}".encode()).data["a"]
    assert value == SCALARS[text]
    assert type(value) is type(SCALARS[text])


def test_nan() -> None:
    assert math.isnan(parse(b"a: .nan").data["a"])


def test_lines_of_keys_and_items() -> None:
    source = parse(b"\xef\xbb\xbfa:\n  b: 1\n  c:\n    - 2\n    - 3\n")
    assert source.data == {"a": {"b": 1, "c": [2, 3]}}
    assert [source.line(p) for p in [(), ("a",), ("a", "b"), ("a", "c"), ("a", "c", 1)]] == [1, 1, 2, 3, 5]
    assert source.line(("a", "c", 7)) == 3  # the nearest that stands there
