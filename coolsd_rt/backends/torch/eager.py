"""Eager PyTorch: the reference that engines are proven against, and the baseline they are timed against.

Knows the eager networks, on any device and in any floating type. Does not know ONNX or files of a build. Static
caches, scaled-dot-product attention, inference mode; nothing is compiled. Legend as in `coolsd_rt.contract`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coolsd_rt import cores
from coolsd_rt.checkpoints.load import load_draft, load_draft_model, load_target, load_tokenizer, model_dims
from coolsd_rt.contract import Floating, ModelDims
from coolsd_rt.errors import CoolsdError
from coolsd_rt.models.eagle import Eagle
from coolsd_rt.models.layers import Cache
from coolsd_rt.models.llamagen import LlamaGen
from coolsd_rt.models.vq import VQTokenizer

Device = Literal["cpu", "cuda"]
ALIGN = 16  # positions of a cache on a GPU


def load(
    target: Path,
    draft: Path | None,
    tokenizer: Path,
    threads: int | None = None,
    draft_kind: Literal["eagle", "model"] = "eagle",
    device: Device = "cpu",
    dtype: Floating = "float32",
) -> TorchEngine:
    """The reference with the weights of a spec. draft: None is no draft. `threads` is set for the whole process.

    threads: None is torch's own number, at most the usable cores.
    dtype: of the target's and the draft's weights, caches and features; the tokenizer stays in float32.
    Raises UserError: weights that are missing or do not fit (`models.checkpoint`). CoolsdError: no such device.
    """
    cores.limit_torch(threads)
    check_device(device)
    network = load_target(target)
    loader = load_draft if draft_kind == "eagle" else load_draft_model
    engine = TorchEngine(network, None if draft is None else loader(draft, network), load_tokenizer(tokenizer))
    return engine.to(device, dtype)


def check_device(device: Device) -> None:
    """Raise CoolsdError unless torch sees it."""
    if device == "cuda" and not torch.cuda.is_available():
        built = f"torch {torch.__version__} that finds no GPU"
        fix = "use a machine with one, or build for a CPU: coolsd-rt build SPEC.yaml --device cpu --precision fp32"
        raise CoolsdError("engine.device: cuda", expected="an NVIDIA GPU and torch with CUDA", found=built, fix=fix)


class TorchEngine:
    """`runtime.interface.Engine` over eager networks. Arrays are torch tensors on its device."""

    def __init__(self, target: LlamaGen, draft: Eagle | LlamaGen | None, tokenizer: VQTokenizer) -> None:
        self._target, self._draft, self._tokenizer = target, draft, tokenizer
        self._dims = model_dims(target.cfg, None if draft is None else draft.cfg)
        self.device = torch.device("cpu")

    def to(self, device: Device, dtype: Floating) -> TorchEngine:
        """Itself, with its networks moved and cast; RoPE tables stay in float32."""
        self.device = torch.device(device)
        for network in (self._target, self._draft):
            if network is not None:
                cast_weights(network, getattr(torch, dtype)).to(self.device)
        self._tokenizer.to(self.device)
        return self

    @property
    def dims(self) -> ModelDims:
        return self._dims

    @property
    def codes(self) -> int:
        """Ids that are an image's; those behind them are only forced."""
        return self._target.cfg.layout.codes

    @torch.inference_mode()
    def encode_condition(self, condition: Any) -> Tensor:
        ids = torch.as_tensor(condition, device=self.device)
        prefix = self._target.condition(ids)
        return torch.cat([prefix, self._draft.condition(ids)], -1) if isinstance(self._draft, LlamaGen) else prefix

    def open(self, prefix: Any, capacity: int, start: Any = None) -> TorchSession:
        session = self.steps(len(prefix), capacity)
        session.reset(torch.as_tensor(prefix), None if start is None else self.array(start, "int64"))
        return session

    def steps(self, rows: int, capacity: int) -> TorchSession:
        """A session for `rows` rows whose prefix is still to come (`TorchSession.reset`)."""
        if self.device.type == "cuda":  # attention with a mask pads any other width anew in every layer
            capacity = -(-capacity // ALIGN) * ALIGN
        return TorchSession(self._target, self._draft, self._dims, rows, capacity)

    def array(self, data: Any, dtype: str) -> Tensor:
        """Host data on the device."""
        return torch.as_tensor(data, dtype=getattr(torch, dtype), device=self.device)

    def like(self) -> Tensor:
        """[0, C], of the features' type, on the device."""
        return self._target.output.weight.new_empty(0, self._dims.dim)

    @torch.inference_mode()
    def decode_images(self, codes: Any) -> NDArray[np.uint8]:
        ids, layout = torch.as_tensor(codes, dtype=torch.int64, device=self.device), self._target.cfg.layout
        if not layout.plain:  # line ends and the end are no part of the image
            ids = ids[:, torch.from_numpy(layout.code_positions).to(self.device)]
        with _convolutions(exact=self._target.output.weight.dtype == torch.float32):
            pixels = self._tokenizer.decode(ids)
        levels: NDArray[np.uint8] = ((pixels + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return levels


def cast_weights(network: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """Parameters to `dtype`, in place; buffers (the RoPE table) keep theirs."""
    for parameter in network.parameters():
        parameter.data = parameter.data.to(dtype)
    return network


@contextlib.contextmanager
def _convolutions(exact: bool) -> Iterator[None]:
    """exact: in float32 itself. On a GPU cuDNN takes TF32 for it unless told, which is off by levels of a pixel."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = before and not exact
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


class TorchSession:
    """`runtime.interface.Session` over eager networks. Logits are float32, features of the weights' type."""

    @torch.inference_mode()
    def __init__(
        self, target: LlamaGen, draft: Eagle | LlamaGen | None, dims: ModelDims, rows: int, capacity: int
    ) -> None:
        self.dims = dims
        self._draft = draft
        # As `Decoder.step` and, its target left out, `Eagle.step`: what else steps the same networks takes their place.
        self.step_target: Callable[..., tuple[Tensor, Tensor]] = target.step
        self.step_draft: Callable[..., tuple[Tensor, Tensor]] | None = None
        if draft is not None:
            self.step_draft = partial(draft.step, target) if isinstance(draft, Eagle) else draft.step
        weight = target.output.weight
        self._whole = weight.new_zeros(rows, dims.prefix, dims.dim + dims.draft_dim)
        self._prefix, self._own_prefix = self._whole[..., : dims.dim], self._whole[..., dims.dim :]
        starts = torch.zeros(rows, dtype=torch.int64, device=weight.device)
        self._start = starts if dims.padded else None
        self._target_caches = target.caches(rows, capacity)
        self._draft_caches = draft.caches(rows, capacity) if draft is not None else []

    @torch.inference_mode()
    def reset(self, prefix: Tensor, start: Tensor | None) -> None:
        """Another batch: its prefix [R, W, C], its first positions [R], and caches of zeros, where they were."""
        self._whole.copy_(prefix)
        if self._start is not None:
            self._start.copy_(torch.zeros_like(self._start) if start is None else start)
        for cache in self.caches:
            cache.k.zero_()
            cache.v.zero_()

    @property
    def caches(self) -> list[Cache]:
        """The target's and the draft's, where their steps find them."""
        return [*self._target_caches, *self._draft_caches]

    def asarray(self, data: Any, dtype: str) -> Tensor:
        return torch.as_tensor(data, dtype=getattr(torch, dtype), device=self._prefix.device)

    @torch.inference_mode()
    def target(self, ids: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        return self.step_target(ids, pos, self._prefix, self._target_caches, self._start)

    @torch.inference_mode()
    def draft(self, ids: Tensor, features: Tensor | None, pos: Tensor) -> tuple[Tensor, Tensor]:
        if self.step_draft is not None and isinstance(self._draft, LlamaGen):
            return self.step_draft(ids, pos, self._own_prefix, self._draft_caches, self._start)
        if self.step_draft is None or features is None:
            raise CoolsdError("a draft step", expected="a draft model", found="none, or no features for it")
        features = features.to(self._prefix.dtype)
        return self.step_draft(ids, features, pos, self._prefix, self._draft_caches, self._start)
