"""Runs training in one process or in several (through accelerate), behind one small interface.

Every process sees the same batch numbers, processes its share of each batch, and averages gradients. So the weights
equal those of one process with the whole batch, up to rounding, and all processes have the same weights. Knows devices
and sums. Does not know what is trained.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from coolsd_rt.errors import CoolsdError, MissingExtra, UserError
from coolsd_rt.limits import PROCESSES
from coolsd_rt.shown import shorten


class Process:
    """A single process. device: `cpu`, `cuda`, or None for the best available."""

    rank, count = 0, 1

    def __init__(self, device: str | None = None) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            found = f"torch {torch.__version__} that finds no GPU"
            fix = "leave --device out"
            raise CoolsdError("--device cuda", expected="an NVIDIA GPU and torch with CUDA", found=found, fix=fix)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    @property
    def main(self) -> bool:
        """Whether this process writes files and reports progress."""
        return self.rank == 0

    def average(self, parameters: Iterable[Tensor]) -> None:
        """Replace gradients, in place, by their mean over all processes."""

    def wait(self) -> None:
        """Wait until all processes have called this."""

    def agree(self, flag: bool) -> bool:
        """Whether `flag` is true in any process."""
        return flag

    def close(self) -> None:
        """Release resources at the end of training."""


class Together(Process):
    """One of several processes, started by `accelerate launch` or `torchrun`."""

    def __init__(self, device: str | None = None) -> None:
        if importlib.util.find_spec("accelerate") is None:
            raise MissingExtra("accelerate", "train", "training in several processes")
        from accelerate import Accelerator

        self._accelerator: Any = Accelerator(cpu=device == "cpu")
        self.device = self._accelerator.device
        self.rank, self.count = self._accelerator.process_index, self._accelerator.num_processes

    def average(self, parameters: Iterable[Tensor]) -> None:
        """Replace gradients, in place, by their mean over all processes."""
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = self._accelerator.reduce(parameter.grad, reduction="mean")

    def wait(self) -> None:
        """Wait until all processes have called this."""
        self._accelerator.wait_for_everyone()

    def agree(self, flag: bool) -> bool:
        """Whether `flag` is true in any process."""
        total = self._accelerator.reduce(torch.tensor(float(flag), device=self.device), reduction="sum")
        return bool(total > 0)

    def close(self) -> None:
        """End accelerate's training."""
        self._accelerator.end_training()


def here(device: str | None = None) -> Process:
    """Return this process: one of several if a launcher's environment says so."""
    told = os.environ.get("WORLD_SIZE", "1")
    if not re.fullmatch("[0-9]{1,20}", told) or int(told) not in PROCESSES:
        fix = "the launcher sets it: unset it to train in one process"
        raise UserError("WORLD_SIZE", expected=PROCESSES.said, found=shorten(repr(told)), fix=fix)
    return Together(device) if int(told) > 1 else Process(device)
