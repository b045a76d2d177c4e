"""The training loop that the target and the draft share: two optimizers, a moving average, checkpoints that resume.

Matrices are trained with Muon, the rest with AdamW. Does not know losses or data.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Generic

import numpy as np
import torch
from torch import Tensor, nn

from .common import Ema, Log, M, load_checkpoint, save_checkpoint

DECAY_SHARE = 0.35  # of all steps, at the end, with a falling learning rate
_REPORT_EVERY = 20


def optimizers(
    model: nn.Module, matrices: Sequence[Tensor], lr: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """Muon for `matrices`, AdamW for the rest of the model."""
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=lr, momentum=0.95, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate(step: int, steps: int, warmup: int = 60) -> float:
    """Share of the peak learning rate: warm-up, plateau, and a linear fall over the last `DECAY_SHARE`."""
    fall = (steps - step) / max(1.0, DECAY_SHARE * steps)
    return min(1.0, (step + 1) / warmup, max(0.01, fall))


class Training(Generic[M]):
    """One model on its way: `resume`, then for each step of `remaining` an `update` with its loss."""

    def __init__(
        self, name: str, model: M, opts: list[torch.optim.Optimizer], ema: Ema[M], *, lr: float, steps: int,
        save_every: int, file: Path, log: Log,
    ) -> None:  # fmt: skip
        self.name, self.model, self.opts, self.ema = name, model, opts, ema
        self.lr, self.steps, self.step, self.log = lr, steps, 0, log
        self._save_every, self._file = save_every, file
        self._reports: list[Sequence[float]] = []
        self._clock = time.monotonic()

    def resume(self) -> dict[str, Any]:
        """Go back to the last checkpoint; what else was saved with it, nothing at the first start."""
        state = load_checkpoint(self._file)
        if state is None:
            return {}
        self.model.load_state_dict(state["model"])
        for opt, saved in zip(self.opts, state["opts"], strict=True):
            opt.load_state_dict(saved)
        self.ema.load_state_dict(state["ema"])
        self.step = int(state["step"])
        self.log(f"{self.name} resumes at step {self.step}")
        return state

    def remaining(self) -> Iterator[int]:
        """The steps still to do, each with its learning rate set."""
        self._clock = time.monotonic()
        while self.step < self.steps:
            for opt in self.opts:
                for group in opt.param_groups:
                    group["lr"] = self.lr * rate(self.step, self.steps)
            yield self.step

    def update(self, loss: Tensor, report: Sequence[float], what: str) -> None:
        """Descend. `report`: figures to be averaged in the log, where `what` names them."""
        for opt in self.opts:
            opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for opt in self.opts:
            opt.step()
        self.ema.update(self.model)
        self.step += 1
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
        save_checkpoint(
            self._file, model=self.model.state_dict(), opts=[o.state_dict() for o in self.opts],
            ema=self.ema.state_dict(), step=self.step, **more,
        )  # fmt: skip
