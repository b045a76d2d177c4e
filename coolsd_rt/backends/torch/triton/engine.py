"""An engine whose narrow steps are fused kernels, and the check of these kernels before they are used.

Knows when the kernels can serve and how they are compared with the eager networks on the same device. Does not know
rounds. Nothing here has run on a GPU, so the kernels are used only if their results match.
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
"""Largest relative L2 distance between a layer's change of its input and the eager layer's: a few roundings.

From roundings alone, an eager layer as wide as LlamaGen-XL's differs from float32 by 0.0011 in float16 and 0.009 in
bfloat16; attention that misses one row of 150 gives 0.02.
"""
WHOLE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.3}
"""Likewise for whole steps, where roundings add up: bfloat16 differs from float32 by 0.044 over 36 layers."""
_STEPS = (1, 2, 5, 9)  # positions of the compared steps, at two rows: without tensor cores, with them, torch's products
_CAPACITY = 160  # more than one chunk of the cache


class FusedEngine(TorchEngine):
    """`TorchEngine` over the same networks; its sessions run narrow steps with fused kernels."""

    def __init__(self, engine: TorchEngine, pdl: bool = False) -> None:
        """Share the networks of `engine`. pdl: as in `Launcher`."""
        target, draft = engine._target, engine._draft
        super().__init__(target, draft, engine._tokenizer)
        self.device = engine.device
        launcher = Launcher(engine.device, pdl)
        self._by_kernels = FusedDecoder(target, launcher)
        self._draft_by_kernels: FusedEagle | FusedDecoder | None = None
        if isinstance(draft, Eagle):
            self._draft_by_kernels = FusedEagle(draft, self._by_kernels, launcher)
        elif isinstance(draft, Decoder):
            self._draft_by_kernels = FusedDecoder(draft, launcher)

    @property
    def both(self) -> Iterator[tuple[str, Decoder | Eagle, FusedLayer]]:
        """Name, network and first fused layer of the target and, if there is one, the draft."""
        yield "target", self._target, self._by_kernels.layers[0]
        if isinstance(self._draft, Decoder | Eagle) and self._draft_by_kernels is not None:
            yield "draft", self._draft, self._draft_by_kernels.layers[0]

    def steps(self, rows: int, capacity: int) -> TorchSession:
        """Return a session for `rows` rows that runs narrow steps with fused kernels."""
        session = super().steps(rows, capacity)
        session.step_target = self._by_kernels.step
        if self._draft_by_kernels is not None:
            session.step_draft = self._draft_by_kernels.step
        return session


def with_triton(engine: TorchEngine) -> TorchEngine:
    """Return an engine with fused steps if they can serve and are correct; otherwise `engine`.

    A mismatch is logged as a warning. In float32 the eager networks are the reference and are always used.
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
    """Return why the steps of `fused` differ from those of `engine`, in one line; empty if they agree.

    Compares a layer of each network, then a few whole steps of a guided image, over the same random caches. They may
    differ by at most `LAYER` and `WHOLE`.
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
    """Yield, for the first layer of each network at every width of `_STEPS`, its distance from the eager layer.

    The distance is relative to the layer's change of its input.
    """
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
            # The input is rounded too; an allowance excludes this rounding from the layer's error.
            allowance = torch.finfo(x.dtype).eps / 4 * _norm(wanted)
            apart = max(0.0, _distance(found, wanted) - allowance) if bool(found.isfinite().all()) else float("nan")
            yield f"a layer of the {name}", apart / _norm(wanted.float() - x.float())


@torch.inference_mode()
def _steps(engine: TorchEngine, fused: TorchEngine) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield the results of each step on both engines: a name, the eager tensor, and the kernels'.

    Logits are compared at image codes only.
    """
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
    """Return the capacity of the caches, and start and position of two rows.

    One row is far on, the other at the end of the prefix.
    """
    dims = engine.dims
    capacity = max(dims.prefix + sum(_STEPS), _CAPACITY)
    start = engine.array([0, dims.prefix // 2], "int64") if dims.padded else None
    return capacity, start, engine.array([capacity - sum(_STEPS), dims.prefix - 1], "int64")


def _norm(x: Tensor) -> float:
    return float(x.double().norm())


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm())
