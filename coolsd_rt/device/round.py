"""One round on the device, in a form that a CUDA graph can hold.

No shape depends on a value, and nothing is copied to the host. Knows the contract's steps, the law's ops and the state.
Does not know CUDA graphs, nor when a batch is done. The steps are those of `coolsd_rt.runtime.round`, with these
differences, none of which changes a token:

- every image gets L drafts, even if fewer count (`num_drafts`): near its end, or when pacing allows none;
- the draft's first step is L + 1 positions wide, whatever the last round decided: cache rows written for padding are
  overwritten later;
- a NaN sets a fault bit that is read later, instead of raising at once.

Legend: M images, R rows (2M under CFG, all conditional first), W prefix length, N image tokens, L draft length, V
codes, S positions of a step.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from coolsd_rt.contract import ModelDims
from coolsd_rt.device.round_ops import commit, draft_token, window
from coolsd_rt.device.state import DeviceState
from coolsd_rt.device.window import DeviceWindow
from coolsd_rt.ops.gpu import process_logits, verify
from coolsd_rt.runtime.randomness import RESAMPLE
from coolsd_rt.runtime.self_decoding import DecodeRequest


class DeviceModels(Protocol):
    """Models with caches at fixed addresses. A step enqueues work; it neither waits nor copies to the host."""

    @property
    def dims(self) -> ModelDims:
        """Sizes of the engine."""
        ...

    def target(self, ids: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        """Enqueue a step of the target over ids int64 [R, S] from pos int64 [R] on.

        Returns logits float32 [R, S, V] and features [R, S, C].
        """
        ...

    def draft(self, ids: Tensor, features: Tensor | None, pos: Tensor) -> tuple[Tensor, Tensor]:
        """Enqueue a step of the draft, as `target`. features: [R, S, C] for an EAGLE head, None for a small model."""
        ...

    def reset(self, prefix: Tensor, start: Tensor | None) -> None:
        """Start another batch of the same number of rows, and zero the caches in place.

        prefix: [R, W, C].
        start: int64 [R], the first position of each row that is not padding; None: 0.
        """
        ...


@runtime_checkable
class TreeModels(DeviceModels, Protocol):
    """Models that step along trees, for a loop on the host. Round by round on the device there are chains alone."""

    def target_tree(self, ids: Tensor, pos: Tensor, depth: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Step the target along the tree of depth int64 [R, S] and seen bool [R, S, S]; otherwise as `target`."""
        ...

    def draft_tree(
        self, ids: Tensor, features: Tensor, pos: Tensor, depth: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Step the EAGLE head along a tree, as `target_tree`. features: [R, S, C]."""
        ...

    def move(self, pos: Any, path: Any, count: Any) -> None:
        """Move the target's cache rows of accepted paths. pos int64 [R], path int64 [R, D], count int64 [R]."""
        ...


class DeviceRound:
    """The prefill and the round of one kind of request, over one set of models and one state."""

    def __init__(self, steps: DeviceModels, state: DeviceState, request: DecodeRequest) -> None:
        """Allocate the window.

        request: supplies only the settings that are compiled in: L, the law's kind, sampling settings, the drafter.
        """
        self.steps, self.state, self.dims = steps, state, steps.dims
        self._law, self._sampling = request.law, request.sampling
        self._paired, self._pinned = request.sampling.guided, request.forced is not None
        self._eagle = request.drafter == "eagle"
        # A row of an EAGLE head is the position of its feature, one before the token that it is paired with.
        self._shift = 1 if self._eagle else 0
        self._length = request.length
        self._rows = torch.arange(len(state.features), device=state.codes.device)
        paced = bool(request.sampling.draft_confidence)
        self._window = DeviceWindow.empty(state, self.dims.vocab, self._pinned, paced)
        self._rules: dict[str, Any] = {
            "temperature": request.sampling.temperature,
            "top_k": request.sampling.top_k,
            "top_p": request.sampling.top_p,
        }

    def prefill(self) -> None:
        """Run the prefix through target and draft, and draw image token 0 from P at position W - 1."""
        state, width = self.state, self.dims.prefix
        blank = self._rows.new_zeros(len(self._rows), width)
        pos = blank[:, 0]
        logits, features = self.steps.target(blank, pos)
        last = features[:, -1].clone()  # the next step overwrites this step's outputs
        first = logits[:, -1:].clone()
        if self._length and self._eagle and width > 1:
            self.steps.draft(blank[:, 1:], features[:, :-1], pos)
        elif self._length and not self._eagle:
            self.steps.draft(blank, None, pos)
        none = torch.zeros_like(state.committed)
        at = none[:, None]
        scale = state.scales[at] if self._paired else None
        p = process_logits(first, scale, forced=state.forced[at] if self._pinned else None, **self._rules)
        u = state.uniforms[:, :1, 0, RESAMPLE]
        _, token, _, fault = verify(p, p[:, :0], at[:, :0], none, state.omegas[:0], u[:, :0], u, None, None, "target")
        state.codes[:, 0] = token
        state.committed.fill_(width + 1)
        state.num_pending.fill_(1)
        state.features[:, 0] = last
        state.fault.copy_(fault)
        if least := self._sampling.confidence:
            state.draft_allowed.copy_(p[:, 0].amax(-1) >= least)
        else:
            state.draft_allowed.fill_(True)

    def __call__(self) -> None:
        """Run one round of every unfinished image; finished images are computed too, without effect."""
        state, w, length = self.state, self._window, self._length
        self._open()
        self._draft()
        logits, features = self.steps.target(w.ids, w.pos[length])
        p = process_logits(logits, w.scale, forced=w.forced, **self._rules)
        rates = None if self._law.rates is None else state.rates
        accepted, token, degenerate, fault = verify(
            p,
            w.q,
            w.drafts,
            w.num_drafts,
            state.omegas,
            w.u_accept,
            w.u_resample,
            w.is_forced,
            rates,
            self._law.resampler,
        )
        if length and self._eagle:
            state.features.copy_(features)
        least = self._sampling.confidence
        commit(
            accepted,
            token,
            degenerate,
            fault,
            w.num_drafts,
            w.drafts,
            p if least else None,
            least,
            self.dims.prefix,
            state.codes,
            state.committed,
            state.num_pending,
            state.draft_allowed,
            state.rounds,
            state.histogram,
            state.attempts,
            state.accepts,
            state.degenerate,
            state.proposed,
            state.fault,
        )

    def _open(self) -> None:
        """Prepare the round: uniforms, limits and positions of its steps."""
        state, w = self.state, self._window
        window(
            state.codes,
            state.committed,
            state.num_pending,
            state.draft_allowed,
            state.uniforms,
            state.scales if self._paired else None,
            state.forced if self._pinned else None,
            self.dims.prefix,
            self._shift,
            w.num_drafts,
            w.u_draft,
            w.u_accept,
            w.u_resample,
            w.scale,
            w.forced,
            w.is_forced,
            w.first,
            w.ids,
            w.pos,
            w.last,
        )

    def _draft(self) -> None:
        """Draft L tokens for each image: a step of the draft, then a token drawn from its Q."""
        w = self._window
        features = self.state.features if self._eagle else None
        for i in range(self._length):
            logits, guessed = self.steps.draft(w.token if i else w.first, features, w.pos[i])
            if self._eagle:
                features = guessed if i else guessed[self._rows, w.last][:, None]
            draft_token(
                logits,
                None if i else w.last,
                w.u_draft,
                w.scale,
                w.forced,
                i,
                **self._rules,
                least=self._sampling.draft_confidence,
                num_drafts=w.num_drafts,
                peaks=w.peaks,
                q=w.q,
                drafts=w.drafts,
                ids=w.ids,
                token=w.token,
            )
