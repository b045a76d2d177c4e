"""An engine whose sessions decode whole batches on the device, over any models that can step.

Knows programs, single steps for requests that programs cannot serve, and how to react when memory runs out. Does not
know which models step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coolsd_rt.contract import ModelDims
from coolsd_rt.device.memory import BatchShape, Done, empty_cache, free_bytes, refused, retry_on_oom
from coolsd_rt.device.program import Programs, refusal_reason
from coolsd_rt.device.round import DeviceModels, TreeModels
from coolsd_rt.errors import CoolsdError
from coolsd_rt.runtime.interface import RowDraftSession
from coolsd_rt.runtime.self_decoding import DecodeRequest
from coolsd_rt.runtime.statistics import Generation


class DeviceBackend(Protocol):
    """The models of an engine: condition, image decoder, and sessions that step."""

    @property
    def dims(self) -> ModelDims:
        """Sizes of the engine."""
        ...

    def encode_condition(self, condition: Any) -> Tensor:
        """Return the prefix [R, W, C] of a condition."""
        ...

    def decode_images(self, codes: Any) -> NDArray[Any]:
        """Decode codes int64 [M, tokens] to pixels uint8 [M, side, side, 3], on the host."""
        ...

    def array(self, data: Any, dtype: str) -> Tensor:
        """Copy host data to the device. dtype: as in `runtime.interface.Session.asarray`."""
        ...

    def steps(self, rows: int, capacity: int) -> DeviceModels:
        """Return models with caches of zeros and a prefix of zeros."""
        ...

    def like(self) -> Tensor:
        """Return an empty tensor [0, C] of the features' dtype and device."""
        ...


class DeviceEngine:
    """`runtime.interface.Engine` and `runtime.self_decoding.WholeEngine`; its sessions are `SelfDecodingSession`s."""

    def __init__(self, models: DeviceBackend) -> None:
        self._models = models
        self._programs = Programs(models.steps, lambda steps: models.like())

    @property
    def dims(self) -> ModelDims:
        """Sizes of the engine."""
        return self._models.dims

    @property
    def graph_fallback_reason(self) -> str:
        """Why the last batch's rounds were not replays of one CUDA graph; empty if they were."""
        return self._programs.graph_fallback_reason

    def expect(self, kinds: int) -> None:
        """Keep up to `kinds` programs, as `WholeEngine.expect` says.

        If memory runs out, the oldest are dropped all the same.
        """
        self._programs.expect(kinds)

    def encode_condition(self, condition: Any) -> Tensor:
        """Return the prefix [R, W, C] of a condition."""
        return self._models.encode_condition(condition)

    def open(self, prefix: Any, capacity: int, start: Any = None) -> DeviceSession:
        """Open a session for the rows of `prefix` [R, W, C], with caches of `capacity` positions.

        start: int64 [R], the first position of each row that is not padding; None: 0.
        """
        starts = None if start is None else self._models.array(start, "int64")
        return DeviceSession(self._models, self._programs, torch.as_tensor(prefix), capacity, starts)

    def decode_images(self, codes: Any) -> NDArray[Any]:
        """Decode codes int64 [M, tokens] to pixels uint8 [M, side, side, 3]: all at once, in halves if memory runs out.

        Raises CoolsdError: too little memory for a single image.
        """
        try:
            return self._models.decode_images(codes)
        except torch.cuda.OutOfMemoryError:
            if len(codes) < 2:
                found, fix = f"{free_bytes()} bytes free", "close other programs that use the GPU"
                raise CoolsdError(
                    "GPU memory to decode an image", expected="enough free memory", found=found, fix=fix
                ) from None
        self._programs.forget()
        empty_cache()
        half = len(codes) // 2
        return np.concatenate([self.decode_images(codes[:half]), self.decode_images(codes[half:])])


class DeviceSession:
    """A batch on the device. Caches are allocated by their first user: a program, or a single step."""

    def __init__(
        self, models: DeviceBackend, programs: Programs, prefix: Tensor, capacity: int, start: Tensor | None
    ) -> None:
        self._models, self._programs = models, programs
        self._prefix, self._capacity, self._start = prefix, capacity, start
        self._steps: DeviceModels | None = None

    @property
    def dims(self) -> ModelDims:
        """Sizes of the engine."""
        return self._models.dims

    def refusal_reason(self, request: DecodeRequest) -> str:
        """Return which part of the request the device loop does not support; empty if it supports all.

        As `SelfDecodingSession.refusal_reason`.
        """
        return refusal_reason(request)

    def decode(self, request: DecodeRequest) -> Generation:
        """Decode a whole batch, as `SelfDecodingSession.decode`.

        Raises CoolsdError: a request that the device loop does not support; too little GPU memory for the batch; NaN in
        the models' output.
        """
        if reason := refusal_reason(request):
            raise CoolsdError("a device's round", expected="a request that it can run", found=reason)

        def work() -> Generation:
            program = self._programs.get(request, len(self._prefix), self._capacity)
            return program.decode(request, self._prefix, self._start)

        return self._retry_on_oom(work, len(request.uniforms), request.length)

    def asarray(self, data: Any, dtype: str) -> Tensor:
        """Copy host data to the device, as this dtype."""
        return self._models.array(data, dtype)

    def target(self, ids: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        """Step the target over ids int64 [R, S] from pos int64 [R] on: logits float32 [R, S, V], features [R, S, C]."""
        return self._step(lambda: self._own.target(ids, pos), ids)

    def draft(self, ids: Tensor, features: Tensor | None, pos: Tensor) -> tuple[Tensor, Tensor]:
        """Step the draft over ids int64 [R, S] from pos int64 [R] on: logits float32 [R, S, V], features [R, S, C].

        features: [R, S, C] for an EAGLE head, None for a small model.
        """
        return self._step(lambda: self._own.draft(ids, features, pos), ids)

    def draft_row(
        self, ids: Tensor, features: Tensor, end_ids: Tensor, end_features: Tensor, first_below: Tensor
    ) -> Tensor:
        """Step a row head, as `runtime.interface.RowDraftSession.draft_row`.

        Raises CoolsdError: models without one.
        """
        models = self._own
        if not isinstance(models, RowDraftSession):
            raise CoolsdError("a step of a row head", expected="models with one", found=type(models).__name__)
        logits: Tensor = models.draft_row(ids, features, end_ids, end_features, first_below)
        return logits

    def target_tree(self, ids: Tensor, pos: Tensor, depth: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Step the target as `target` does, along the tree of depth int64 [R, S] and seen bool [R, S, S].

        Raises CoolsdError: models that step along chains alone.
        """
        models = self._on_trees
        return self._step(lambda: models.target_tree(ids, pos, depth, seen), ids)

    def draft_tree(
        self, ids: Tensor, features: Tensor, pos: Tensor, depth: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Step the EAGLE head as `draft` does, along the tree of depth int64 [R, S] and seen bool [R, S, S].

        Raises CoolsdError: models that step along chains alone.
        """
        models = self._on_trees
        return self._step(lambda: models.draft_tree(ids, features, pos, depth, seen), ids)

    def move(self, pos: Any, path: Any, count: Any) -> None:
        """Move the target's cache rows of accepted paths to where a chain of the same tokens has them.

        pos int64 [R], path int64 [R, D], count int64 [R], on the host. Raises CoolsdError: models without trees.
        """
        self._on_trees.move(pos, path, count)

    @property
    def _on_trees(self) -> TreeModels:
        models = self._own
        if not isinstance(models, TreeModels):
            raise CoolsdError("a step along a tree", expected="models that take trees", found=type(models).__name__)
        return models

    @property
    def _own(self) -> DeviceModels:
        if self._steps is None:
            steps = self._models.steps(len(self._prefix), self._capacity)
            steps.reset(self._prefix, self._start)
            self._steps = steps
        return self._steps

    def _step(self, step: Callable[[], tuple[Tensor, Tensor]], ids: Tensor) -> tuple[Tensor, Tensor]:
        """Run a step and copy its results: the next step may overwrite them, and the host loop keeps them."""
        rows = len(self._prefix)
        images = rows // 2 if rows % 2 == 0 else rows  # an even number of rows is most likely guided
        return self._retry_on_oom(lambda: _own_copy(step()), images, ids.shape[1] - 1)

    def _retry_on_oom(self, work: Callable[[], Done], images: int, length: int) -> Done:
        """Return `work()`; if memory runs out, free what earlier batches left and try once more."""

        def why() -> CoolsdError:
            item = self._models.like().element_size()
            self._programs.forget()
            empty_cache()
            batch = BatchShape(self.dims, images, len(self._prefix), self._capacity, length, item)
            return refused(batch, free_bytes())

        return retry_on_oom(work, self._programs.forget, why)


def _own_copy(outputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return outputs[0].clone(), outputs[1].clone()
