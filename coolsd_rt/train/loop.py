"""The training steps common to all drafts, with a state that resumes to the same weights.

Two optimizers and a moving average: matrices are trained with Muon, all other weights with AdamW. Knows optimizers and
schedules of the learning rate. Does not know losses, data or files.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

DECAY_SHARE = 0.35  # share of all steps, at the end, with a decaying learning rate
M = TypeVar("M", bound=nn.Module)


class Ema(Generic[M]):
    """Exponential moving average of a module's floating-point weights, with a warm-up of the decay."""

    def __init__(self, model: M, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.model: M = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the weights of `model`."""
        self.steps += 1
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for mine, theirs in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, weight)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of updates and the averaged weights."""
        return {"steps": self.steps, "model": dict(self.model.state_dict())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict`."""
        self.steps = int(state["steps"])
        self.model.load_state_dict(state["model"])


def optimizers(
    model: nn.Module, matrices: Sequence[Tensor], lr: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """Return Muon for `matrices` and AdamW for all other weights of the model."""
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=lr, momentum=0.95, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate(step: int, steps: int, warmup: int = 60) -> float:
    """Return the learning rate relative to its peak.

    It has a warm-up, a plateau, and a linear decay over the last `DECAY_SHARE`.
    """
    fall = (steps - step) / max(1.0, DECAY_SHARE * steps)
    return min(1.0, (step + 1) / warmup, max(0.01, fall))


def _nothing(parameters: Iterable[Tensor]) -> None:
    pass


class TrainSteps(Generic[M]):
    """The steps of a training of one model. Call `descend` once with the loss of each step of `remaining`.

    average: replaces gradients, in place, by their mean over all processes; does nothing in a single process.
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
        """Yield the remaining steps, each after setting its learning rate."""
        while self.step < self.steps:
            for opt in self.opts:
                for group in opt.param_groups:
                    group["lr"] = self.lr * rate(self.step, self.steps)
            yield self.step

    def descend(self, loss: Tensor) -> None:
        """Take one step of every optimizer, and update the average."""
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
        """Return everything that `restore` needs to continue to the same weights.

        Batches must depend only on the step, or on values that the caller saves too.
        """
        return {
            "model": dict(self.model.state_dict()), "opts": [o.state_dict() for o in self.opts],
            "ema": self.ema.state_dict(), "step": self.step,
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a `state`."""
        self.model.load_state_dict(state["model"])
        for opt, saved in zip(self.opts, state["opts"], strict=True):
            opt.load_state_dict(saved)
        self.ema.load_state_dict(state["ema"])
        self.step = int(state["step"])
