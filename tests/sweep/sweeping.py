"""What the tests of sweeps share: a fake engine on a disk, references, a feature network, a sweep of four points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from coolsd_rt.workflows import opening
from coolsd_rt.workflows.png import write_png
from tests.tiny import IMAGE, networks, write_weights
from tests.workflows.conftest import build_fake
from tests.workflows.fakes import SIDE, FakeEngine

PROMPTS = ("red apple", "green apple", "yellow star")
SWEEP = """\
version: 1
images: 5
prompts: prompts.txt
set: {pacing.confidence: 0}
points:
  plain: {plain: true}
  lossless: {set: {schedule.kind: none}}
  cool-sd: {set: {schedule.kind: exponential}, grid: {schedule.delta: [1.2, 2]}}
quality:
  frechet: {network: features.safetensors}
  retrieval: {references: refs}
"""


def fake_engine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[FakeEngine]]:
    """The engine's path, and every fake that was loaded for it."""
    loaded: list[FakeEngine] = []

    def load(verified: object, threads: int | None = None, *_: object) -> FakeEngine:
        loaded.append(FakeEngine())
        return loaded[-1]

    monkeypatch.setattr(opening, "load_engine", load)
    torch.set_num_threads(1)  # for images of 8 x 8 more threads only wait for each other
    folder.mkdir(exist_ok=True)
    return build_fake(folder).folder.parent, loaded


def write_sweep(folder: Path, *pairs: str) -> Path:
    """write_sweep(folder, old, new, ...): the sweep above with pieces replaced, and the files it names."""
    folder.mkdir(exist_ok=True)
    (folder / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    write_weights(folder / "features.safetensors", networks()[2], IMAGE)
    rng = np.random.default_rng(0)
    for prompt in PROMPTS:
        write_png(folder / "refs", f"{prompt.replace(' ', '-')}.png", rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8))
    text = SWEEP
    for old, new in zip(pairs[::2], pairs[1::2], strict=True):
        assert old in text
        text = text.replace(old, new)
    path = folder / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    return path
