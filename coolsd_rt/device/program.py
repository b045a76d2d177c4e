"""Decode a batch from its prefill to its last token: rounds one after another, on a GPU as replays of one CUDA graph.

Knows when a batch is done, and CUDA graphs. Does not know what a round does. The host launches rounds ahead of the
device and polls an asynchronous copy of the counters every few rounds; it never launches more rounds than are certainly
needed. A round after the end changes nothing. CUDA has not been run where this was written; on a CPU the same rounds
run one by one.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable

import numpy as np
import torch
from torch import Tensor

from coolsd_rt.arrays import Ints
from coolsd_rt.device.cuda_graph import Captured, capture, on_stream
from coolsd_rt.device.round import DeviceModels, DeviceRound
from coolsd_rt.device.state import DeviceState
from coolsd_rt.errors import CoolsdError
from coolsd_rt.law import DEVICE_RESAMPLERS
from coolsd_rt.ops.gpu import raise_fault
from coolsd_rt.runtime.progress import Progress
from coolsd_rt.runtime.self_decoding import WHOLE, DecodeRequest
from coolsd_rt.runtime.statistics import Generation

POLL_EVERY_ROUNDS = 4  # rounds between two polls of the counters
MAX_PENDING_POLLS = 2  # polls that may be pending before the host waits for the oldest
WARMUP_ROUNDS = 2  # rounds before the graph is captured: they compile kernels and load libraries
PROGRAMS = 2  # programs kept with their memory: most batches of a server need the same ones


class Program:
    """Models, state and the captured round for one kind of request. Serves one batch at a time."""

    def __init__(self, steps: DeviceModels, state: DeviceState, request: DecodeRequest) -> None:
        self.steps, self.state = steps, state
        self._round = DeviceRound(steps, state, request)
        self._captured: Captured | None = None
        device = state.codes.device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @torch.inference_mode()
    def decode(self, request: DecodeRequest, prefix: Tensor, start: Tensor | None) -> Generation:
        """Run all rounds of a batch. Raises CoolsdError: NaN in the models' output.

        prefix: [R, W, C].
        start: int64 [R], the first position of each row that is not padding; None: 0.
        """
        with on_stream(self._stream):
            return self._decode(request, prefix, start)

    def _decode(self, request: DecodeRequest, prefix: Tensor, start: Tensor | None) -> Generation:
        begun = request.clock()
        dims, state = self.steps.dims, self.state
        self.steps.reset(prefix, start)
        state.reset(request, dims.tokens)
        self._round.prefill()
        watch = _Watch(self, request)
        for _ in range(dims.tokens):  # a round decides at least one token
            if watch.done():
                break
            self.step(watch.rounds)
            watch.launched()
        watch.finish()
        statistics = state.statistics()
        codes = self.codes()
        statistics.seconds["device"] = request.clock() - begun
        if (mean := watch.round_seconds) is not None:
            statistics.time_round(request.length, mean)
        return Generation(codes, statistics, "device", self.graph_fallback_reason)

    def step(self, done: int) -> None:
        """Enqueue a round. done: number of earlier rounds of this batch."""
        if self._stream is not None and self._captured is None and done == WARMUP_ROUNDS:
            self._captured = capture(self._round)
        (self._round if self._captured is None else self._captured.run)()

    @property
    def graph_fallback_reason(self) -> str:
        """Why rounds are not replays of one CUDA graph; empty if they are, or will be."""
        if self._stream is None:
            return "not on a GPU"
        return "" if self._captured is None else self._captured.graph_fallback_reason

    def codes(self) -> Ints:
        """Return a host copy of the tokens, int64 [M, N], after all rounds that were enqueued."""
        codes: Ints = self.state.codes.cpu().numpy().copy()
        return codes

    def counters(self) -> Tensor:
        """Return int64 [3, M]: decided tokens of each image, its rounds, and its fault bits."""
        decided = self.state.committed - self.steps.dims.prefix
        return torch.stack([decided, self.state.rounds, self.state.fault.to(torch.int64)])


class _Watch:
    """The progress of a batch, as far as the host knows it."""

    def __init__(self, program: Program, request: DecodeRequest) -> None:
        self._program, self._request = program, request
        self._tokens, self._most = program.steps.dims.tokens, request.length + 1
        self._cuda = program.state.codes.is_cuda
        self._every = POLL_EVERY_ROUNDS if self._cuda else 1
        self._under_way: deque[tuple[Tensor, torch.cuda.Event, int]] = deque()
        self.rounds = 0
        self._needed = -(-(self._tokens - 1) // self._most)  # lower bound of the number of rounds
        self._finished = False
        self._times: list[tuple[int, float]] = []  # first and last notification: rounds done, time

    @property
    def round_seconds(self) -> float | None:
        """Mean wall seconds of a round, between the first and the last notification of the host.

        None if there was only one. Thus it excludes the prefill and the work of a program's first rounds: compiling
        kernels, capturing a graph.
        """
        if len(self._times) < 2:
            return None
        (first, began), (last, ended) = self._times
        return (ended - began) / (last - first)

    def launched(self) -> None:
        """Count a round that was enqueued, and start a poll of the counters if one is due."""
        self.rounds += 1
        if self.rounds % self._every and self.rounds < self._needed:
            return
        counters = self._program.counters()
        if not self._cuda:
            self._heard(counters, self.rounds)
            return
        self._under_way.append((*_on_its_way(counters), self.rounds))

    def done(self) -> bool:
        """Return whether all images are known to be full.

        Waits if more than `MAX_PENDING_POLLS` polls are pending, or if the next round may be unnecessary.
        """
        while self._under_way:
            host, event, rounds = self._under_way[0]
            if not (len(self._under_way) > MAX_PENDING_POLLS or self.rounds >= self._needed or event.query()):
                break
            self._under_way.popleft()
            event.synchronize()
            self._heard(host, rounds)
        return self._finished

    def finish(self) -> None:
        """Wait for the end. Raises CoolsdError on a fault, or if images are not full."""
        self._under_way.clear()
        self._heard(self._program.counters().cpu(), self.rounds)
        if not self._finished:
            found = f"{int(self._program.counters()[0].min())} of {self._tokens}"
            raise CoolsdError("a batch on the device", expected="all tokens decided", found=found)

    def _heard(self, counters: Tensor, rounds: int) -> None:
        """Process the counters after `rounds` rounds."""
        values = counters.numpy()
        raise_fault(values[2])
        if not self._times or rounds > self._times[-1][0]:
            self._times[1:] = [(rounds, self._request.clock())]
        left = self._tokens - int(values[0].min())
        self._finished = left <= 0
        self._needed = rounds + -(-left // self._most)
        if self._request.on_progress is not None:
            decided, done = values[0].copy(), int(values[1].sum())
            length = (
                (int(decided.sum()) - len(decided)) / done if done else float("nan")
            )  # the prefill drew each first token
            self._request.on_progress(Progress(decided, length, self._program.codes))


def _on_its_way(counters: Tensor) -> tuple[Tensor, torch.cuda.Event]:
    """Start a copy to the host; it is complete once the returned event has happened."""
    host = torch.empty(counters.shape, dtype=counters.dtype, pin_memory=True)
    host.copy_(counters, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return host, event


class Programs:
    """The most recently used programs, by the settings compiled into them."""

    def __init__(self, make: Callable[[int, int], DeviceModels], like: Callable[[DeviceModels], Tensor]) -> None:
        """Create an empty collection.

        make: returns models with caches for a number of rows and a capacity.
        like: returns a tensor [..., C] of the features' dtype and device.
        """
        self._make, self._like = make, like
        self._kept: OrderedDict[Hashable, Program] = OrderedDict()
        self._most = PROGRAMS

    def expect(self, kinds: int) -> None:
        """Keep as many programs as `kinds`, and at least `PROGRAMS`; as `WholeEngine.expect`."""
        self._most = max(PROGRAMS, kinds)

    def get(self, request: DecodeRequest, rows: int, capacity: int) -> Program:
        """Return the program for `request`; it is created at its first use."""
        key = _key(request, rows, capacity)
        program = self._kept.pop(key, None)
        if program is None:
            while len(self._kept) >= self._most:  # free its memory first
                self._kept.popitem(last=False)
            steps = self._make(rows, capacity)
            images = rows // 2 if request.sampling.guided else rows
            state = DeviceState.empty(steps.dims, images, rows, request.length, self._like(steps))
            program = Program(steps, state, request)
        self._kept[key] = program
        return program

    def forget(self) -> None:
        """Drop all programs and free their memory."""
        self._kept.clear()

    @property
    def graph_fallback_reason(self) -> str:
        """`Program.graph_fallback_reason` of the last program used; empty before the first."""
        return next(reversed(self._kept.values())).graph_fallback_reason if self._kept else ""


def refusal_reason(request: DecodeRequest) -> str:
    """Return which part of the request the device loop does not support; empty if it supports all.

    The host loop steps requests that are not supported.
    """
    law = request.law
    if request.extent != WHOLE:
        return "texts, which end at a token"
    if law.tolerance is not None:
        return f"the rule {law.rule}"
    if law.resampler not in DEVICE_RESAMPLERS:
        return f"the resampler {law.resampler}"
    if request.length and request.drafter not in ("eagle", "model"):
        return f"drafts of the kind {request.drafter}"
    return "" if request.uniforms.dtype == np.float32 else f"uniforms of the type {request.uniforms.dtype}"


def _key(request: DecodeRequest, rows: int, capacity: int) -> Hashable:
    s, law = request.sampling, request.law
    rules = (s.temperature, s.top_k, s.top_p, s.confidence, s.draft_confidence, s.guided)
    compiled = (law.length, law.resampler, law.rates is None, request.forced is None, request.drafter)
    return (rows, capacity, rules, compiled)
