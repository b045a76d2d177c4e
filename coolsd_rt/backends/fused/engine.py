"""The engine whose narrow steps are fused kernels, and the proof of them before it is used.

Knows when the kernels can serve and how they are compared with the eager networks on the same device. Does not know
rounds. None of it has run on a GPU: so no kernel is believed before its numbers were seen.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import torch
from torch import Tensor

from coolsd_rt.backends.device.memory import give_back
from coolsd_rt.backends.fused.launch import Launcher
from coolsd_rt.backends.fused.network import FusedDecoder, FusedEagle
from coolsd_rt.backends.torch_eager import TorchEngine, TorchSession
from coolsd_rt.errors import CoolsdError
from coolsd_rt.models.eagle import Eagle

_LOG = logging.getLogger(__name__)
CAPABILITY = (8, 0)  # bfloat16 on tensor cores, and copies that do not wait
TOLERANCE = {torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.1}
"""Relative L2 distance from the eager networks: two roundings of one network, not a wrong one."""
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

    def steps(self, rows: int, capacity: int) -> TorchSession:
        session = super().steps(rows, capacity)
        session.step_target = self._by_kernels.step
        if self._draft_by_kernels is not None:
            session.step_draft = self._draft_by_kernels.step
        return session


def fused_if_right(engine: TorchEngine) -> TorchEngine:
    """`engine` with fused steps, where they can serve and are right; otherwise itself, and a warning if they are wrong.

    In float32 the eager networks are the reference, and stay.
    """
    if engine.like().dtype == torch.float32 or torch.cuda.get_device_capability(engine.device) < CAPABILITY:
        return engine
    made = FusedEngine(engine)
    why = why_wrong(engine, made)
    if not why:
        return made
    give_back()
    _LOG.warning("warning: steps run without fused kernels, slower and with the same result: %s", why)
    return engine


def why_wrong(engine: TorchEngine, fused: TorchEngine) -> str:
    """Why the steps of `fused` are not those of `engine`, in a line; empty if they are.

    A few steps of a guided picture on both, with random tokens over the same random caches, at most `TOLERANCE` apart.
    """
    try:
        for what, wanted, found in _both(engine, fused):
            apart = float((found.double() - wanted.double()).norm() / wanted.double().norm())
            if not apart <= TOLERANCE[engine.like().dtype]:
                return f"{what} are {apart:.2g} from the eager networks'"
    except torch.cuda.OutOfMemoryError:
        return "the GPU's memory has no room to compare them"
    except CoolsdError as error:
        return str(error)
    return ""


@torch.inference_mode()
def _both(engine: TorchEngine, fused: TorchEngine) -> Iterator[tuple[str, Tensor, Tensor]]:
    """What each step gives on both: a name, the eager networks' tensor, and the kernels'. Of logits, images' codes."""
    dims, rows = engine.dims, 2
    random = torch.Generator().manual_seed(0)
    prefix = torch.randn(rows, dims.prefix, dims.dim + dims.draft_dim, generator=random).to(engine.like())
    capacity = max(dims.prefix + sum(_STEPS), _CAPACITY)
    start = [0, dims.prefix // 2] if dims.padded else None
    mine = torch.Generator(engine.device).manual_seed(0)
    sessions = [each.open(prefix, capacity, start) for each in (engine, fused)]
    for one, other in zip(*(session.caches for session in sessions), strict=True):
        for its, theirs in zip(one, other, strict=True):
            theirs.copy_(its.normal_(generator=mine))
    pos = engine.array([capacity - sum(_STEPS), dims.prefix - 1], "int64")
    codes = engine.codes
    for size in _STEPS:
        ids = torch.randint(0, codes, (rows, size), generator=random).to(engine.device)
        told = [session.target(ids, pos) for session in sessions]
        yield "logits", told[0][0][..., :codes], told[1][0][..., :codes]
        yield "features", told[0][1], told[1][1]
        if dims.draft_kind != "none":
            given = told[0][1] if dims.draft_kind == "eagle" else None
            told = [session.draft(ids, given, pos) for session in sessions]
            yield "the draft's logits", told[0][0][..., :codes], told[1][0][..., :codes]
            yield "the draft's features", told[0][1], told[1][1]
        pos = pos + size
