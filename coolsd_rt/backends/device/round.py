"""One round on the device: no shape depends on a number, and nothing comes to the host. So it can be one CUDA graph.

Knows the contract's steps, the law's ops and the state. Does not know graphs of CUDA, nor when a batch is done. The
steps are those of `coolsd_rt.runtime.round`, with these differences, none of which changes a token:

- every picture is given L drafts, also where fewer count (`valid`): near its end, or where pacing wants none;
- the draft's first step is L + 1 wide, whatever the last round decided: what the padding writes is overwritten;
- a NaN sets a bit that is read later instead of raising at once.

Legend: M pictures, R rows (2M under CFG, all conditional first), W prefix length, N image tokens, L draft length,
V codes, S positions of a step.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor

from coolsd_rt.backends.device.state import DeviceState
from coolsd_rt.contract import ModelDims
from coolsd_rt.ops.gpu import draft_sample, process_logits, verify
from coolsd_rt.runtime.randomness import ACCEPT, DRAFT, RESAMPLE
from coolsd_rt.runtime.whole import Request


class Steps(Protocol):
    """The models with caches at fixed addresses. A step enqueues work; it neither waits nor copies to the host."""

    @property
    def dims(self) -> ModelDims: ...

    def target(self, ids: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]: ...

    def draft(self, ids: Tensor, features: Tensor | None, pos: Tensor) -> tuple[Tensor, Tensor]: ...

    def reset(self, prefix: Tensor, start: Tensor | None) -> None:
        """Another batch of as many rows: caches are zeros again."""
        ...


class Window(NamedTuple):
    """What a round may use; window index i counts from the first undecided token."""

    active: Tensor  # bool [M]
    valid: Tensor  # int64 [M] drafts that count
    uniforms: Tensor  # float32 [M, L + 1, 3]
    scale: Tensor | None  # float32 [M, L + 1]
    forced: Tensor | None  # int64 [M, L + 1], -1 = free


class DeviceRound:
    """The prefill and the round of one kind of request, over one set of models and one state."""

    def __init__(self, steps: Steps, state: DeviceState, request: Request) -> None:
        """request: only what is compiled in is read of it: L, the law's kind, sampling settings, the source."""
        self.steps, self.state, self.dims = steps, state, steps.dims
        self._law, self._sampling = request.law, request.sampling
        self._paired, self._pinned = request.sampling.guided, request.forced is not None
        self._eagle = request.source == "eagle"
        self._length = request.length
        device = state.codes.device
        self._pictures = len(state.codes)
        self._rows = torch.arange(self._pictures * (1 + self._paired), device=device)
        self._offsets = torch.arange(self._length + 1, device=device)
        self._rules: dict[str, Any] = {
            "temperature": request.sampling.temperature,
            "top_k": request.sampling.top_k,
            "top_p": request.sampling.top_p,
        }

    def prefill(self) -> None:
        """The prefix through target and draft, and image token 0 from P at position W - 1."""
        state, width = self.state, self.dims.prefix
        blank = self._rows.new_zeros(len(self._rows), width)
        pos = blank[:, 0]
        logits, features = self.steps.target(blank, pos)
        last = features[:, -1].clone()  # a step's outputs are the next step's
        first = logits[:, -1:].clone()
        if self._length and self._eagle and width > 1:
            self.steps.draft(blank[:, 1:], features[:, :-1], pos)
        elif self._length and not self._eagle:
            self.steps.draft(blank, None, pos)
        at = state.committed.new_zeros(self._pictures, 1)
        p = process_logits(first, self._scale(at), forced=self._forced(at), **self._rules)
        u = state.uniforms[:, :1, 0, RESAMPLE]
        none = state.committed.new_zeros(self._pictures)
        _, token, _, fault = verify(
            p, p[:, :0], at[:, :0], none, state.omegas[:0], u[:, :0], u, None, None, "target"
        )  # fmt: skip
        state.codes[:, 0] = token
        state.committed.fill_(width + 1)
        state.fresh.fill_(1)
        state.features[:, 0] = last
        state.fault.copy_(fault)
        state.sure.copy_(self._confident(p[:, 0]))

    def __call__(self) -> None:
        """One round of every unfinished picture; finished ones ride along."""
        state, prefix = self.state, self.dims.prefix
        window = self._window()
        drafts, q = self._draft(window)
        valid = self._shortened(q, window.valid)
        pending = state.codes.gather(1, (state.committed - prefix - 1)[:, None])
        logits, features = self.steps.target(
            self._both(torch.cat([pending, drafts], dim=1)), self._both(state.committed - 1)
        )
        p = process_logits(logits, window.scale, forced=window.forced, **self._rules)
        accepted, token, degenerate, fault = self._verify(window, p, q, drafts, valid)
        if self._length:
            state.features.copy_(features)
        row = p.gather(1, accepted[:, None, None].expand(-1, 1, p.shape[-1]))[:, 0]
        state.sure.copy_(self._confident(row))
        state.fault.bitwise_or_(torch.where(window.active, fault, 0))
        state.count(accepted, valid, degenerate, window.active)
        state.commit(prefix, drafts, token, accepted, window.active)

    def _window(self) -> Window:
        state = self.state
        remaining = self.dims.prefix + self.dims.tokens - state.committed
        active = remaining > 0
        at = (state.committed - self.dims.prefix)[:, None] + self._offsets
        at = at.clamp(max=self.dims.tokens - 1)
        uniforms = state.uniforms[self._rows[: self._pictures, None], at, self._offsets]
        valid = torch.where(state.sure, (remaining - 1).clamp(0, self._length), 0)
        return Window(active, valid, uniforms, self._scale(at), self._forced(at))

    def _draft(self, window: Window) -> tuple[Tensor, Tensor]:
        """L drafts of each picture, int64 [M, L], and the Q each was drawn from, [M, L, V]."""
        state, vocab = self.state, self.dims.vocab
        if not self._length:
            return state.codes.new_zeros(self._pictures, 0), state.uniforms.new_zeros(self._pictures, 0, vocab)
        behind = state.committed - state.fresh
        known = (behind - self.dims.prefix)[:, None] + self._offsets
        ids = state.codes.gather(1, known.clamp(max=self.dims.tokens - 1))
        # A head's row is a feature's position, one before the token that it is paired with.
        shift = 1 if self._eagle else 0
        given = state.features if self._eagle else None
        logits, guessed = self.steps.draft(self._both(ids), given, self._both(behind - shift))
        last = self._both(state.fresh - 1)
        logits, guessed = logits[self._rows, last][:, None], guessed[self._rows, last][:, None]
        tokens: list[Tensor] = []
        laws: list[Tensor] = []
        for i in range(self._length):
            if i:
                pos = self._both(state.committed + (i - 1 - shift))
                logits, guessed = self.steps.draft(self._both(tokens[-1]), guessed if self._eagle else None, pos)
            one = slice(i, i + 1)
            token, q = draft_sample(
                logits, None if window.scale is None else window.scale[:, one], window.uniforms[:, one, DRAFT],
                forced=None if window.forced is None else window.forced[:, one], **self._rules,
            )  # fmt: skip
            tokens.append(token)
            laws.append(q)
        return torch.cat(tokens, dim=1), torch.cat(laws, dim=1)

    def _verify(
        self, window: Window, p: Tensor, q: Tensor, drafts: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        state, length = self.state, self._length
        forced = None if window.forced is None else window.forced[:, :length] >= 0
        rates = None if self._law.rates is None else state.rates
        accept, resample = window.uniforms[:, :length, ACCEPT], window.uniforms[..., RESAMPLE]
        out = verify(p, q, drafts, valid, state.omegas, accept, resample, forced, rates, self._law.resampler)
        return cast("tuple[Tensor, Tensor, Tensor, Tensor]", out)

    def _shortened(self, q: Tensor, valid: Tensor) -> Tensor:
        """Drafts end before the first Q that is unsure. With a NaN among those that could count none is cut: the
        verdict has to find it."""
        least = self._sampling.draft_confidence
        if not least or not self._length:
            return valid
        sure = (q.amax(-1) >= least).to(torch.int64)
        broken = q[..., 0].isnan() & (self._offsets[:-1] < valid[:, None])  # such a row is NaN from end to end
        return torch.where(broken.any(1), valid, torch.minimum(valid, sure.cumprod(1).sum(1)))

    def _confident(self, p: Tensor) -> Tensor:
        """bool [M] of P [M, V], where the last token was drawn."""
        least = self._sampling.confidence
        return p.amax(-1) >= least if least else torch.ones_like(self.state.sure)

    def _scale(self, at: Tensor) -> Tensor | None:
        return self.state.scales[at] if self._paired else None

    def _forced(self, at: Tensor) -> Tensor | None:
        return self.state.forced[at] if self._pinned else None

    def _both(self, x: Tensor) -> Tensor:
        """Per picture -> per row: the CFG rows of a picture share tokens and positions."""
        return torch.cat([x, x]) if self._paired else x
