"""The steps that every training shares: two optimizers, a moving average, and a state that resumes to the same weights.

Matrices are trained with Muon, the rest with AdamW. Does not know losses, data or files.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

DECAY_SHARE = 0.35  # of all steps, at the end, with a falling learning rate
M = TypeVar("M", bound=nn.Module)


class Ema(Generic[M]):
    """Exponential moving average of a module's floating weights, with the usual warm-up of the decay."""

    def __init__(self, model: M, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.model: M = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.steps += 1
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for mine, theirs in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, weight)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "model": dict(self.model.state_dict())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps = int(state["steps"])
        self.model.load_state_dict(state["model"])


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


def _nothing(parameters: Iterable[Tensor]) -> None:
    pass


class TrainSteps(Generic[M]):
    """One model on its way: for each step of `remaining` a `descend` with its loss.

    average: makes every process's gradients their mean, in place; nothing to do in a single one.
    """

    def __init__(
        self,
        model: M,
        opts: list[torch.optim.Optimizer],
        ema: Ema[M],
        *,
        lr: float,
        steps: int,
        average: Callable[[Iterable[Tensor]], None] = _nothing,
    ) -> None:
        self.model, self.opts, self.ema = model, opts, ema
        self.lr, self.steps, self.step, self._average = lr, steps, 0, average

    def remaining(self) -> Iterator[int]:
        """The steps still to do, each with its learning rate set."""
        while self.step < self.steps:
            for opt in self.opts:
                for group in opt.param_groups:
                    group["lr"] = self.lr * rate(self.step, self.steps)
            yield self.step

    def descend(self, loss: Tensor) -> None:
        """One step of every optimizer, and of the average."""
        for opt in self.opts:
            opt.zero_grad(set_to_none=True)
        loss.backward()
        self._average(self.model.parameters())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for opt in self.opts:
            opt.step()
        self.ema.update(self.model)
        self.step += 1

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs to go on to the same weights; batches must depend on the step alone, or on
        what the caller saves beside it."""
        return {
            "model": dict(self.model.state_dict()), "opts": [o.state_dict() for o in self.opts],
            "ema": self.ema.state_dict(), "step": self.step,
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a `state`."""
        self.model.load_state_dict(state["model"])
        for opt, saved in zip(self.opts, state["opts"], strict=True):
            opt.load_state_dict(saved)
        self.ema.load_state_dict(state["ema"])
        self.step = int(state["step"])
