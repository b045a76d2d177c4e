"""The demo's training loop: the steps of `coolsd_rt.train.loop` with a log, and a checkpoint every so many of them.

Does not know losses or data.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coolsd_rt.train.checkpoint import load_tree, save_tree
from coolsd_rt.train.loop import Ema, M, TrainSteps

from .common import Log

_REPORT_EVERY = 20


@dataclass(frozen=True)
class TrainSettings:
    """Settings of a stage. batch: images per step. pool: tokenisations kept per glyph. fuse: compile the layers.
    save_every: steps between checkpoints."""

    steps: int
    batch: int
    lr: float
    seed: int = 0
    device: str = "cpu"
    pool: int = 64
    fuse: bool = False
    save_every: int = 100


class Training(TrainSteps[M]):
    """One model on its way: `resume`, then for each step of `remaining` an `update` with its loss."""

    def __init__(
        self,
        name: str,
        model: M,
        opts: list[torch.optim.Optimizer],
        ema: Ema[M],
        settings: TrainSettings,
        folder: Path,
    ) -> None:
        super().__init__(model, opts, ema, lr=settings.lr, steps=settings.steps)
        self.name, self.log = name, Log(folder / f"{name}.log")
        self._save_every, self._file = settings.save_every, folder / f"{name}.safetensors"
        self._reports: list[Sequence[float]] = []
        self._clock = time.monotonic()

    def resume(self) -> dict[str, Any]:
        """Go back to the last checkpoint; what else was saved with it, nothing at the first start."""
        state = load_tree(self._file)
        if state is None:
            return {}
        self.restore(state["training"])
        self.log(f"{self.name} resumes at step {self.step}")
        self._clock = time.monotonic()
        return state

    def update(self, loss: Tensor, report: Sequence[float], what: str) -> None:
        """Descend. `report`: figures to be averaged in the log, where `what` names them."""
        self.descend(loss)
        self._reports.append(report)
        if self.step % _REPORT_EVERY == 0:
            mean = np.mean(self._reports, axis=0)
            pace = (time.monotonic() - self._clock) / len(self._reports)
            self.log(f"{self.name} step {self.step} {what} {' '.join(f'{v:.4f}' for v in mean)} {pace:.2f} s/step")
            self._reports, self._clock = [], time.monotonic()

    @property
    def due(self) -> bool:
        """Whether a checkpoint should be written now."""
        return self.step % self._save_every == 0 or self.step == self.steps

    def save(self, **more: Any) -> None:
        """Everything that `resume` needs, and `more`."""
        save_tree(self._file, {"training": self.state(), **more})
