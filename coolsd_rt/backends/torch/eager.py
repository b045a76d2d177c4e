"""Eager PyTorch: the reference for parity, and the baseline of benchmarks.

Knows the eager networks, on any device and in any floating type. Does not know ONNX or the files of a build. Static
caches, scaled-dot-product attention, inference mode; nothing is compiled. Legend as in `coolsd_rt.contract`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from coolsd_rt import cores
from coolsd_rt.backends.description import no_images
from coolsd_rt.checkpoints.load import load_draft, load_draft_model, load_rows, load_target, load_tokenizer, model_dims
from coolsd_rt.contract import Floating, ModelDims
from coolsd_rt.errors import CoolsdError
from coolsd_rt.models.eagle import Eagle
from coolsd_rt.models.layers import Cache, Tree
from coolsd_rt.models.llamagen import LlamaGen
from coolsd_rt.models.rows import RowHead
from coolsd_rt.models.vq import VQTokenizer
from coolsd_rt.runtime.interface import Session
from coolsd_rt.runtime.mates import mates

Device = Literal["cpu", "cuda"]
ALIGN = 16  # a cache's capacity on a GPU is a multiple of this


def load(
    target: Path,
    draft: Path | None,
    tokenizer: Path | None,
    threads: int | None = None,
    draft_kind: Literal["eagle", "model", "rows"] = "eagle",
    device: Device = "cpu",
    dtype: Floating = "float32",
) -> TorchEngine:
    """Load the reference networks with the weights of a spec.

    draft: None: no draft. tokenizer: None: the target writes text.
    threads: set for the whole process; None: torch's default, at most the usable cores.
    draft_kind: what the file `draft` holds, an EAGLE head, a small model or a row head.
    dtype: of the target's and the draft's weights, caches and features; the tokenizer stays in float32.

    Raises UserError: weights that are missing or do not fit (`checkpoints.load`). CoolsdError: no such device.
    """
    cores.limit_torch(threads)
    check_device(device)
    network = load_target(target)
    loaders: dict[str, Callable[[Path, LlamaGen], Eagle | LlamaGen | RowHead]]
    loaders = {"eagle": load_draft, "model": load_draft_model, "rows": load_rows}
    image = None if tokenizer is None else load_tokenizer(tokenizer)
    engine = TorchEngine(network, None if draft is None else loaders[draft_kind](draft, network), image)
    return engine.to(device, dtype)


def check_device(device: Device) -> None:
    """Raise CoolsdError unless torch can use the device."""
    if device == "cuda" and not torch.cuda.is_available():
        built = f"torch {torch.__version__} that finds no GPU"
        fix = "use a machine with one, or build for a CPU: coolsd-rt build SPEC.yaml --device cpu --precision fp32"
        raise CoolsdError("engine.device: cuda", expected="an NVIDIA GPU and torch with CUDA", found=built, fix=fix)


class TorchEngine:
    """`runtime.interface.Engine` over eager networks. Arrays are torch tensors on its device."""

    def __init__(
        self, target: LlamaGen, draft: Eagle | LlamaGen | RowHead | None, tokenizer: VQTokenizer | None
    ) -> None:
        self._target, self._draft, self._tokenizer = target, draft, tokenizer
        self._dims = model_dims(target.cfg, None if draft is None else draft.cfg)
        self.device = torch.device("cpu")

    def to(self, device: Device, dtype: Floating) -> TorchEngine:
        """Move the networks to a device and cast their weights; return self. RoPE tables stay in float32."""
        self.device = torch.device(device)
        for network in (self._target, self._draft):
            if network is not None:
                cast_weights(network, getattr(torch, dtype)).to(self.device)
        if self._tokenizer is not None:
            self._tokenizer.to(self.device)
        return self

    @property
    def dims(self) -> ModelDims:
        """Sizes of the engine."""
        return self._dims

    @property
    def codes(self) -> int:
        """Number of image codes; larger ids can only be forced."""
        return self._target.cfg.layout.codes

    @torch.inference_mode()
    def encode_condition(self, condition: Any) -> Tensor:
        """Return the prefix [R, W, C] of a condition: ids int64 [R, W], or text features.

        The prefix of a small draft model follows in the last dimension.
        """
        ids = torch.as_tensor(condition, device=self.device)
        prefix = self._target.condition(ids)
        return torch.cat([prefix, self._draft.condition(ids)], -1) if isinstance(self._draft, LlamaGen) else prefix

    def open(self, prefix: Any, capacity: int, start: Any = None) -> TorchSession:
        """Open a session for the rows of `prefix` [R, W, C], with caches of `capacity` positions.

        start: int64 [R], the first position of each row that is not padding; None: 0.
        """
        session = self.steps(len(prefix), capacity)
        session.reset(torch.as_tensor(prefix), None if start is None else self.array(start, "int64"))
        return session

    def steps(self, rows: int, capacity: int) -> TorchSession:
        """Return a session for `rows` rows without a prefix; `TorchSession.reset` sets it."""
        if self.device.type == "cuda":  # masked attention pads any other width again in every layer
            capacity = -(-capacity // ALIGN) * ALIGN
        return TorchSession(self._target, self._draft, self._dims, rows, capacity)

    def array(self, data: Any, dtype: str) -> Tensor:
        """Copy host data to the device, as this dtype."""
        return torch.as_tensor(data, dtype=getattr(torch, dtype), device=self.device)

    def like(self) -> Tensor:
        """Return an empty tensor [0, C] of the features' dtype and device."""
        return self._target.output.weight.new_empty(0, self._dims.dim)

    @torch.inference_mode()
    def decode_images(self, codes: Any) -> NDArray[np.uint8]:
        """Decode codes int64 [M, tokens] to pixels uint8 [M, side, side, 3], on the host."""
        if self._tokenizer is None:
            raise no_images()
        ids, layout = torch.as_tensor(codes, dtype=torch.int64, device=self.device), self._target.cfg.layout
        if not layout.plain:  # line ends and the end token are not part of the image
            ids = ids[:, torch.from_numpy(layout.code_positions).to(self.device)]
        with _convolutions(exact=self._target.output.weight.dtype == torch.float32):
            pixels = self._tokenizer.decode(ids)
        levels: NDArray[np.uint8] = ((pixels + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return levels


def cast_weights(network: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """Cast the parameters of a network to `dtype` in place and return it; buffers (the RoPE table) keep their dtype."""
    for parameter in network.parameters():
        parameter.data = parameter.data.to(dtype)
    return network


@contextlib.contextmanager
def _convolutions(exact: bool) -> Iterator[None]:
    """Compute convolutions inside the context in full float32 if `exact`.

    On a GPU cuDNN uses TF32 by default, which changes pixel levels.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = before and not exact
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


class TorchSession:
    """`runtime.interface.Session` over eager networks. Logits are float32, features have the dtype of the weights."""

    @torch.inference_mode()
    def __init__(
        self, target: LlamaGen, draft: Eagle | LlamaGen | RowHead | None, dims: ModelDims, rows: int, capacity: int
    ) -> None:
        self.dims = dims
        self._draft, self._network = draft, target
        # `Decoder.step`, and `Eagle.step` with its target bound. Other implementations of the steps replace these.
        self.step_target: Callable[..., tuple[Tensor, Tensor]] = target.step
        self.step_draft: Callable[..., tuple[Tensor, Tensor]] | None = None
        cached = None if isinstance(draft, RowHead) else draft
        if cached is not None:
            self.step_draft = partial(cached.step, target) if isinstance(cached, Eagle) else cached.step
        weight = target.output.weight
        self._whole = weight.new_zeros(rows, dims.prefix, dims.dim + dims.draft_dim)
        self._prefix, self._own_prefix = self._whole[..., : dims.dim], self._whole[..., dims.dim :]
        starts = torch.zeros(rows, dtype=torch.int64, device=weight.device)
        self._start = starts if dims.padded else None
        self._target_caches = target.caches(rows, capacity)
        self._draft_caches = cached.caches(rows, capacity) if cached is not None else []

    @torch.inference_mode()
    def reset(self, prefix: Tensor, start: Tensor | None) -> None:
        """Start another batch: set its prefix [R, W, C] and start int64 [R] (None: 0), and zero the caches in place."""
        self._whole.copy_(prefix)
        if self._start is not None:
            self._start.copy_(torch.zeros_like(self._start) if start is None else start)
        for cache in self.caches:
            cache.k.zero_()
            cache.v.zero_()

    @torch.inference_mode()
    def take(self, rows: Any, other: Session | None = None) -> None:
        """Keep `rows` int64 of this session and, counted on, of `other`, with their caches, in this order.

        other: a session of the same engine, which is not used any more. Raises TypeError for one of another kind.
        """
        sessions = mates(self, other)
        index = torch.as_tensor(rows, dtype=torch.int64, device=self._whole.device)
        self._whole = torch.cat([session._whole for session in sessions])[index]
        dim = self.dims.dim
        self._prefix, self._own_prefix = self._whole[..., :dim], self._whole[..., dim:]
        if self._start is not None:
            self._start = torch.cat([session._start for session in sessions if session._start is not None])[index]
        for name in ("_target_caches", "_draft_caches"):
            layers = zip(*(getattr(session, name) for session in sessions), strict=True)
            parts = [zip(*layer, strict=True) for layer in layers]
            setattr(self, name, [Cache(*(_joined(part, index) for part in layer)) for layer in parts])

    @property
    def caches(self) -> list[Cache]:
        """Caches of the target and the draft, at the addresses that the steps use until rows are taken (`take`)."""
        return [*self._target_caches, *self._draft_caches]

    def asarray(self, data: Any, dtype: str) -> Tensor:
        """Copy host data to the session's device, as this dtype."""
        return torch.as_tensor(data, dtype=getattr(torch, dtype), device=self._prefix.device)

    @torch.inference_mode()
    def target(self, ids: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        """Step the target over ids int64 [R, S] from pos int64 [R] on: logits float32 [R, S, V], features [R, S, C]."""
        return self.step_target(ids, pos, self._prefix, self._target_caches, self._start)

    @torch.inference_mode()
    def target_tree(self, ids: Tensor, pos: Tensor, depth: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Step the target as `target` does, along the tree of depth int64 [R, S] and seen bool [R, S, S]."""
        return self.step_target(ids, pos, self._prefix, self._target_caches, self._start, tree=Tree(depth, seen))

    @torch.inference_mode()
    def draft(self, ids: Tensor, features: Tensor | None, pos: Tensor) -> tuple[Tensor, Tensor]:
        """Step the draft over ids int64 [R, S] from pos int64 [R] on: logits float32 [R, S, V], features [R, S, C].

        features: [R, S, C] for an EAGLE head, None for a small model. Raises CoolsdError: no draft model, or no
        features for an EAGLE head.
        """
        if self.step_draft is not None and isinstance(self._draft, LlamaGen):
            return self.step_draft(ids, pos, self._own_prefix, self._draft_caches, self._start)
        if self.step_draft is None or features is None:
            raise CoolsdError("a draft step", expected="a draft model", found="none, or no features for it")
        features = features.to(self._prefix.dtype)
        return self.step_draft(ids, features, pos, self._prefix, self._draft_caches, self._start)

    @torch.inference_mode()
    def draft_row(
        self, ids: Tensor, features: Tensor, end_ids: Tensor, end_features: Tensor, first_below: Tensor
    ) -> Tensor:
        """Step the row head: logits float32 [R, S, V] of all drafts of a round. Arguments: `contract.row_contract`.

        Raises CoolsdError: another draft, or none.
        """
        if not isinstance(self._draft, RowHead):
            raise CoolsdError("a step of a row head", expected="a row head", found="another draft, or none")
        features, end_features = (x.to(self._prefix.dtype) for x in (features, end_features))
        return self._draft.step(self._network, ids, features, end_ids, end_features, first_below)

    @torch.inference_mode()
    def draft_tree(
        self, ids: Tensor, features: Tensor, pos: Tensor, depth: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Step the EAGLE head as `draft` does, along the tree of depth int64 [R, S] and seen bool [R, S, S].

        Raises CoolsdError: another draft, or none.
        """
        if self.step_draft is None or not isinstance(self._draft, Eagle):
            raise CoolsdError("a draft step along a tree", expected="an EAGLE head", found="another draft, or none")
        features, tree = features.to(self._prefix.dtype), Tree(depth, seen)
        return self.step_draft(ids, features, pos, self._prefix, self._draft_caches, self._start, tree=tree)

    @torch.inference_mode()
    def move(self, pos: Any, path: Any, count: Any) -> None:
        """Move the target's cache rows of accepted paths to where a chain of the same tokens has them.

        pos int64 [R], path int64 [R, D], count int64 [R], on the host: as in `moves_of`.
        """
        device = self._whole.device
        from coolsd_rt.backends.moves import moves_of  # a start without trees does not pay for them

        rows, sources, sinks = (torch.from_numpy(x).to(device) for x in moves_of(pos, path, count))
        for cache in self._target_caches:
            for part in cache:
                part[rows, :, sinks] = part[rows, :, sources]  # the right side is a copy


def _joined(parts: Sequence[Tensor], index: Tensor) -> Tensor:
    """Return rows `index` of caches [R, H, T, D] of several sessions, padded with zeros to the longest."""
    longest = max(part.shape[2] for part in parts)
    return torch.cat([functional.pad(part, (0, 0, 0, longest - part.shape[2])) for part in parts])[index]
