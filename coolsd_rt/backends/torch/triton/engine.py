"""The engine whose narrow steps are fused kernels, and the proof of them before it is used.

Knows when the kernels can serve and how they are compared with the eager networks on the same device. Does not know
rounds. None of it has run on a GPU: so no kernel is believed before its numbers were seen.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from coolsd_rt.backends.torch.eager import TorchEngine, TorchSession
from coolsd_rt.backends.torch.triton.launch import Launcher
from coolsd_rt.backends.torch.triton.network import FusedDecoder, FusedEagle, FusedLayer, FusedStep
from coolsd_rt.device.memory import empty_cache
from coolsd_rt.errors import CoolsdError
from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.eagle import Eagle
from coolsd_rt.models.layers import Layer, cached_step, new_caches

_LOG = logging.getLogger(__name__)
CAPABILITY = (8, 0)  # bfloat16 on tensor cores, and copies that do not wait
LAYER = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 0.03}
"""How far a layer's change of what it is given may be from the eager one's, relative L2: a few roundings.

By roundings alone an eager layer as wide as LlamaGen-XL's is 0.0011 and 0.009 from float32's in half precision; one row
of 150 that is not seen makes 0.02.
"""
WHOLE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.3}
"""And of whole steps, where roundings add up: 0.044 from float32's in bfloat16 over 36 layers."""
_STEPS = (1, 2, 5, 9)  # widths of the steps compared, at two rows: without tensor cores, with them, torch's products
_CAPACITY = 160  # and more than one chunk of the cache


class FusedEngine(TorchEngine):
    """`TorchEngine` over the same networks; its sessions take narrow steps by kernels."""

    def __init__(self, engine: TorchEngine, pdl: bool = False) -> None:
        """The networks of `engine`, where they are. pdl: as `Launcher`."""
        target, draft = engine._target, engine._draft
        super().__init__(target, draft, engine._tokenizer)
        self.device = engine.device
        launcher = Launcher(engine.device, pdl)
        self._by_kernels = FusedDecoder(target, launcher)
        self._draft_by_kernels: FusedEagle | FusedDecoder | None = None
        if isinstance(draft, Eagle):
            self._draft_by_kernels = FusedEagle(draft, self._by_kernels, launcher)
        elif draft is not None:
            self._draft_by_kernels = FusedDecoder(draft, launcher)

    @property
    def both(self) -> Iterator[tuple[str, Decoder | Eagle, FusedLayer]]:
        """The networks, and the first layer of each by kernels."""
        yield "target", self._target, self._by_kernels.layers[0]
        if self._draft is not None and self._draft_by_kernels is not None:
            yield "draft", self._draft, self._draft_by_kernels.layers[0]

    def steps(self, rows: int, capacity: int) -> TorchSession:
        session = super().steps(rows, capacity)
        session.step_target = self._by_kernels.step
        if self._draft_by_kernels is not None:
            session.step_draft = self._draft_by_kernels.step
        return session


def with_triton(engine: TorchEngine) -> TorchEngine:
    """`engine` with fused steps, where they can serve and are right; otherwise itself, and a warning if they are wrong.

    In float32 the eager networks are the reference, and stay.
    """
    if engine.like().dtype == torch.float32 or torch.cuda.get_device_capability(engine.device) < CAPABILITY:
        return engine
    made = FusedEngine(engine)
    why = mismatch_reason(engine, made)
    if not why:
        return made
    empty_cache()
    _LOG.warning("warning: steps run without fused kernels, slower and with the same result: %s", why)
    return engine


def mismatch_reason(engine: TorchEngine, fused: FusedEngine) -> str:
    """Why the steps of `fused` are not those of `engine`, in a line; empty if they are.

    A layer of each network, and then a few whole steps of a guided image, over the same random caches: at most
    `LAYER` and `WHOLE` apart.
    """
    dtype = engine.like().dtype
    try:
        for what, apart in _layers(engine, fused):
            if not apart <= LAYER[dtype]:
                return f"{what} is {apart:.2g} from the eager networks'"
        for what, wanted, found in _steps(engine, fused):
            apart = _distance(found, wanted) / _norm(wanted)
            if not apart <= WHOLE[dtype]:
                return f"{what} are {apart:.2g} from the eager networks'"
    except torch.cuda.OutOfMemoryError:
        return "the GPU's memory has no room to compare them"
    except CoolsdError as error:
        return str(error)
    return ""


@torch.inference_mode()
def _layers(engine: TorchEngine, fused: FusedEngine) -> Iterator[tuple[str, float]]:
    """The first layer of each network, at every width of `_STEPS`: how far it is from the eager one, of its change."""
    table = engine._target.rope
    random = torch.Generator(engine.device).manual_seed(0)
    capacity, start, pos = _places(engine)
    for name, network, mine in fused.both:
        cfg, eagle = network.cfg, isinstance(network, Eagle)
        layer, shift, from_start = cast(Layer, network.layers[0]), int(eagle), engine._target.cfg.rope.from_start
        caches = [new_caches(cfg.layer, 1, 2, capacity, engine.like())[0] for _ in range(2)]
        for one, its in zip(*caches, strict=True):
            its.copy_(one.normal_(generator=random))
        turns = table if eagle else cast(Decoder, network).rope
        for size in _STEPS:
            x = torch.empty(2, size, cfg.dim, device=engine.device).normal_(generator=random).to(engine.like())
            step = cached_step(turns, pos, size, capacity, shift, start, from_start)
            wanted = layer(x, step, caches[0])
            found = mine(x.flatten(0, 1).clone(), FusedStep(turns, pos, size, start, shift), caches[1]).view_as(x)
            # What is added to is rounded too, and its rounding is no layer's fault.
            allowance = torch.finfo(x.dtype).eps / 4 * _norm(wanted)
            apart = max(0.0, _distance(found, wanted) - allowance) if bool(found.isfinite().all()) else float("nan")
            yield f"a layer of the {name}", apart / _norm(wanted.float() - x.float())


@torch.inference_mode()
def _steps(engine: TorchEngine, fused: TorchEngine) -> Iterator[tuple[str, Tensor, Tensor]]:
    """What each step gives on both: a name, the eager networks' tensor, and the kernels'. Of logits, images' codes."""
    dims, codes = engine.dims, engine.codes
    random = torch.Generator(engine.device).manual_seed(0)
    capacity, start, pos = _places(engine)
    prefix = torch.empty(2, dims.prefix, dims.dim + dims.draft_dim, device=engine.device).normal_(generator=random)
    sessions = [each.open(prefix.to(engine.like()), capacity, start) for each in (engine, fused)]
    for one, other in zip(*(session.caches for session in sessions), strict=True):
        for its, theirs in zip(one, other, strict=True):
            theirs.copy_(its.normal_(generator=random))
    for size in _STEPS:
        ids = torch.randint(0, codes, (2, size), generator=random, device=engine.device)
        told = [session.target(ids, pos) for session in sessions]
        yield "logits", told[0][0][..., :codes], told[1][0][..., :codes]
        yield "features", told[0][1], told[1][1]
        if dims.draft_kind != "none":
            given = told[0][1] if dims.draft_kind == "eagle" else None
            told = [session.draft(ids, given, pos) for session in sessions]
            yield "the draft's logits", told[0][0][..., :codes], told[1][0][..., :codes]
            yield "the draft's features", told[0][1], told[1][1]
        pos = pos + size


def _places(engine: TorchEngine) -> tuple[int, Tensor | None, Tensor]:
    """Rows of a cache, where each of two rows begins, and where their steps do: one far on, one at the prefix' end."""
    dims = engine.dims
    capacity = max(dims.prefix + sum(_STEPS), _CAPACITY)
    start = engine.array([0, dims.prefix // 2], "int64") if dims.padded else None
    return capacity, start, engine.array([capacity - sum(_STEPS), dims.prefix - 1], "int64")


def _norm(x: Tensor) -> float:
    return float(x.double().norm())


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm())
