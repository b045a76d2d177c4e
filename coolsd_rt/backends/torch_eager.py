"""Eager PyTorch: the reference that engines are proven against, and the baseline they are timed against.

Knows the eager networks. Does not know ONNX or files of a build. Static caches, scaled-dot-product attention,
inference mode; nothing is compiled. Legend as in `coolsd_rt.contract`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coolsd_rt.contract import ModelDims
from coolsd_rt.errors import CoolsdError
from coolsd_rt.models.checkpoint import load_draft, load_draft_model, load_target, load_tokenizer, model_dims
from coolsd_rt.models.eagle import Eagle
from coolsd_rt.models.llamagen import LlamaGen
from coolsd_rt.models.vq import VQTokenizer


def load(
    target: Path,
    draft: Path | None,
    tokenizer: Path,
    threads: int | None = None,
    draft_kind: Literal["eagle", "model"] = "eagle",
) -> TorchEngine:
    """The reference with the weights of a spec. draft: None is no draft. `threads` is set for the whole process.

    Raises UserError: weights that are missing or do not fit (`models.checkpoint`).
    """
    if threads is not None:
        torch.set_num_threads(threads)
    network = load_target(target)
    loader = load_draft if draft_kind == "eagle" else load_draft_model
    return TorchEngine(network, None if draft is None else loader(draft, network), load_tokenizer(tokenizer))


class TorchEngine:
    """`runtime.interface.Engine` over eager networks. Arrays are torch tensors on the CPU."""

    def __init__(self, target: LlamaGen, draft: Eagle | LlamaGen | None, tokenizer: VQTokenizer) -> None:
        self._target, self._draft, self._tokenizer = target, draft, tokenizer
        self._dims = model_dims(target.cfg, None if draft is None else draft.cfg)

    @property
    def dims(self) -> ModelDims:
        return self._dims

    @torch.inference_mode()
    def prefix(self, words: Any) -> Tensor:
        ids = torch.as_tensor(words, dtype=torch.int64)
        prefix: Tensor = self._target.cls_embedding(ids)
        return torch.cat([prefix, self._draft.cls_embedding(ids)], -1) if isinstance(self._draft, LlamaGen) else prefix

    def open(self, prefix: Any, capacity: int) -> TorchSession:
        return TorchSession(self._target, self._draft, self._dims, torch.as_tensor(prefix), capacity)

    @torch.inference_mode()
    def paint(self, codes: Any) -> NDArray[np.uint8]:
        pixels = self._tokenizer.decode(torch.as_tensor(codes, dtype=torch.int64))
        levels: NDArray[np.uint8] = ((pixels + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        return levels


class TorchSession:
    """`runtime.interface.Session` over eager networks."""

    def __init__(
        self, target: LlamaGen, draft: Eagle | LlamaGen | None, dims: ModelDims, prefix: Tensor, capacity: int
    ) -> None:
        self.dims = dims
        self._target, self._draft = target, draft
        self._prefix, self._own_prefix = prefix[..., : dims.dim], prefix[..., dims.dim :]
        with torch.inference_mode():
            self._target_caches = target.caches(len(prefix), capacity)
            self._draft_caches = draft.caches(len(prefix), capacity) if draft is not None else []

    @property
    def fused_length(self) -> int:
        return 0

    def asarray(self, data: Any, dtype: str) -> Tensor:
        return torch.as_tensor(data, dtype=getattr(torch, dtype))

    @torch.inference_mode()
    def target(self, ids: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        return self._target.step(ids, pos, self._prefix, self._target_caches)

    @torch.inference_mode()
    def draft(self, ids: Tensor, features: Tensor | None, pos: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self._draft, LlamaGen):
            return self._draft.step(ids, pos, self._own_prefix, self._draft_caches)
        if self._draft is None or features is None:
            raise CoolsdError("a draft step", expected="a draft model", found="none, or no features for it")
        return self._draft.step(self._target, ids, features, pos, self._prefix, self._draft_caches)

    def propose(
        self, ids: Tensor, features: Tensor, pos: Tensor, count: Tensor, uniforms: Tensor, scale: Tensor,
        temperature: float, top_k: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        raise CoolsdError("the eager reference", expected="single draft steps", found="a call of the fused draft")
