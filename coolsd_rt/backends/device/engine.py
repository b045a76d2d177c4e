"""An engine whose sessions decode where their arrays live, over anything that steps.

Knows programs, and the per-step session for what they cannot serve. Does not know which models step.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from coolsd_rt.backends.device.program import Programs, servable
from coolsd_rt.backends.device.round import Steps
from coolsd_rt.contract import ModelDims
from coolsd_rt.errors import CoolsdError
from coolsd_rt.runtime.statistics import Generation
from coolsd_rt.runtime.whole import Request


class Models(Protocol):
    """Engine-wide: the condition, the tokenizer, and sessions that step."""

    @property
    def dims(self) -> ModelDims: ...

    def prefix(self, words: Any) -> Tensor: ...

    def paint(self, codes: Any) -> NDArray[Any]: ...

    def array(self, data: Any, dtype: str) -> Tensor:
        """Host data on the device. dtype as `runtime.interface.Session.asarray`."""
        ...

    def steps(self, rows: int, capacity: int) -> Steps:
        """Models with caches of zeros, and a prefix of zeros."""
        ...

    def like(self) -> Tensor:
        """[0, C], of the features' type, on the device."""
        ...


class DeviceEngine:
    """`runtime.interface.Engine`; its sessions are `runtime.whole.WholeSession`s."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._programs = Programs(models.steps, lambda steps: models.like())

    @property
    def dims(self) -> ModelDims:
        return self._models.dims

    def prefix(self, words: Any) -> Tensor:
        return self._models.prefix(words)

    def open(self, prefix: Any, capacity: int, start: Any = None) -> DeviceSession:
        starts = None if start is None else self._models.array(start, "int64")
        return DeviceSession(self._models, self._programs, torch.as_tensor(prefix), capacity, starts)

    def paint(self, codes: Any) -> NDArray[Any]:
        return self._models.paint(codes)


class DeviceSession:
    """A batch. Its caches are made by what uses them first: a program's own, or those of single steps."""

    fused_length = 0

    def __init__(self, models: Models, programs: Programs, prefix: Tensor, capacity: int, start: Tensor | None) -> None:
        self._models, self._programs = models, programs
        self._prefix, self._capacity, self._start = prefix, capacity, start
        self._steps: Steps | None = None

    @property
    def dims(self) -> ModelDims:
        return self._models.dims

    def decode(self, request: Request) -> Generation | None:
        """As `WholeSession`; for laws and sources that the device's round has."""
        if not servable(request):
            return None
        program = self._programs.get(request, len(self._prefix), self._capacity)
        return program.decode(request, self._prefix, self._start)

    def asarray(self, data: Any, dtype: str) -> Tensor:
        return self._models.array(data, dtype)

    def target(self, ids: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        return _own_copy(self._own.target(ids, pos))

    def draft(self, ids: Tensor, features: Tensor | None, pos: Tensor) -> tuple[Tensor, Tensor]:
        return _own_copy(self._own.draft(ids, features, pos))

    def propose(self, *args: Any) -> tuple[Tensor, Tensor]:
        raise CoolsdError("a device's session", expected="single draft steps", found="a call of the fused draft")

    @property
    def _own(self) -> Steps:
        if self._steps is None:
            self._steps = self._models.steps(len(self._prefix), self._capacity)
            self._steps.reset(self._prefix, self._start)
        return self._steps


def _own_copy(outputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """A device's step may answer in memory that its next one overwrites; the host's loop keeps what it is given."""
    return outputs[0].clone(), outputs[1].clone()
