"""Tiny trainings: a request on the tiny pipeline, and networks that a test can step by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coolsd_rt.spec import load_spec
from coolsd_rt.train.config import TrainConfig

PROMPTS = ("red apple", "blue star", "green leaf", "red star", "blue leaf", "green apple")


def request(spec: Path, out: Path, **more: Any) -> TrainConfig:
    """self:6, six steps of two images, measured on two; `more` replaces."""
    usual: dict[str, Any] = {
        "data": "self:6",
        "prompts": PROMPTS,
        "steps": 6,
        "batch": 2,
        "every": 3,
        "held_out": 2,
        "device": "cpu",
    }
    return TrainConfig(load_spec(spec), out=out, **{**usual, **more})
