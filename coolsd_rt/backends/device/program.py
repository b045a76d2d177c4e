"""A batch from its prefill to its last token: rounds one after another, on a GPU as replays of one CUDA graph.

Knows when a batch is done, and CUDA graphs. Does not know what a round does. The host launches rounds ahead and looks
at an asynchronous copy of the counters every few of them; a round after the end moves nothing. CUDA has not been run
where this was written; on a CPU the same rounds run one by one.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable

import numpy as np
import torch
from torch import Tensor

from coolsd_rt.backends.device.round import DeviceRound, Steps
from coolsd_rt.backends.device.state import DeviceState
from coolsd_rt.errors import CoolsdError
from coolsd_rt.ops.gpu import raise_fault
from coolsd_rt.runtime.statistics import Generation
from coolsd_rt.runtime.whole import Request

EVERY = 4  # rounds between two looks at the counters
AHEAD = 2  # looks that may be under way before the host waits for the oldest
WARM = 2  # rounds that run before the graph is captured: kernels are compiled and libraries loaded in them
PROGRAMS = 2  # kept with their memory: a server's batches mostly ask for the same


class Program:
    """Models, state and the captured round of one kind of request. Serves one batch at a time."""

    def __init__(self, steps: Steps, state: DeviceState, request: Request) -> None:
        self.steps, self.state = steps, state
        self._round = DeviceRound(steps, state, request)
        self._run: Callable[[], None] = self._round
        self._cuda = state.codes.is_cuda
        self._captured = False

    @torch.inference_mode()
    def decode(self, request: Request, prefix: Tensor, start: Tensor | None) -> Generation:
        """All rounds. Raises CoolsdError: NaN in the models' output."""
        begun = request.clock()
        dims, state = self.steps.dims, self.state
        self.steps.reset(prefix, start)
        state.reset(request, dims.tokens)
        self._round.prefill()
        watch = _Watch(self, request)
        for _ in range(dims.tokens):  # a round decides a token at least
            if watch.done():
                break
            self.step(watch.rounds)
            watch.launched()
        watch.finish()
        statistics = state.statistics()
        statistics.seconds["target"] = request.clock() - begun
        return Generation(state.codes[:, : dims.tokens].cpu().numpy().copy(), statistics)

    def step(self, done: int) -> None:
        """Enqueue a round; `done` were before it in this batch."""
        if self._cuda and not self._captured and done == WARM:
            self._run = capture(self._round)
            self._captured = True
        self._run()

    def counters(self) -> Tensor:
        """int64 [3, M]: decided tokens of each picture, its rounds, and fault bits."""
        decided = self.state.committed - self.steps.dims.prefix
        return torch.stack([decided, self.state.rounds, self.state.fault.to(torch.int64)])


def capture(function: Callable[[], None]) -> Callable[[], None]:
    """`function` as a CUDA graph. Capturing runs nothing."""
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


class _Watch:
    """How far the batch is, as far as the host has heard."""

    def __init__(self, program: Program, request: Request) -> None:
        self._program, self._request = program, request
        self._tokens = program.steps.dims.tokens
        self._cuda = program.state.codes.is_cuda
        self._every = EVERY if self._cuda else 1
        self._under_way: deque[tuple[Tensor, torch.cuda.Event]] = deque()
        self.rounds = 0
        self._finished = False

    def launched(self) -> None:
        """A round was enqueued."""
        self.rounds += 1
        if self.rounds % self._every:
            return
        counters = self._program.counters()
        if not self._cuda:
            self._heard(counters)
            return
        host = torch.empty(counters.shape, dtype=counters.dtype, pin_memory=True)
        host.copy_(counters, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._under_way.append((host, event))

    def done(self) -> bool:
        """Whether all pictures are known to be full. Waits only when `AHEAD` looks are still under way."""
        while self._under_way and (len(self._under_way) > AHEAD or self._under_way[0][1].query()):
            host, event = self._under_way.popleft()
            event.synchronize()
            self._heard(host)
        return self._finished

    def finish(self) -> None:
        """Wait for the end. Raises CoolsdError on a fault, or if pictures are not full after all."""
        self._under_way.clear()
        self._heard(self._program.counters().cpu())
        if not self._finished:
            found = f"{int(self._program.counters()[0].min())} of {self._tokens}"
            raise CoolsdError("a batch on the device", expected="all tokens decided", found=found)

    def _heard(self, counters: Tensor) -> None:
        values = counters.numpy()
        raise_fault(values[2])
        self._finished = bool((values[0] >= self._tokens).all())
        if self._request.on_progress is not None:
            decided, rounds = int(values[0].sum()), int(values[1].sum())
            length = (decided - values.shape[1]) / max(1, rounds)  # a picture's first token is the prefill's
            self._request.on_progress(decided, length)


class Programs:
    """The last few programs, by what is compiled into them."""

    def __init__(self, make: Callable[[int, int], Steps], like: Callable[[Steps], Tensor]) -> None:
        """make: rows and capacity to models with caches. like: a tensor [..., C] of the features' type and device."""
        self._make, self._like = make, like
        self._kept: OrderedDict[Hashable, Program] = OrderedDict()

    def get(self, request: Request, rows: int, capacity: int) -> Program:
        """The program for `request`; made at its first use."""
        key = _key(request, rows, capacity)
        program = self._kept.pop(key, None)
        if program is None:
            while len(self._kept) >= PROGRAMS:  # its memory first
                self._kept.popitem(last=False)
            steps = self._make(rows, capacity)
            pictures = rows // 2 if request.sampling.guided else rows
            state = DeviceState.empty(steps.dims, pictures, rows, request.length, self._like(steps))
            program = Program(steps, state, request)
        self._kept[key] = program
        return program


def servable(request: Request) -> bool:
    """Whether a device's round knows the request's law and source. The others are stepped from the host."""
    law = request.law
    plain = not request.length
    known = law.tolerance is None and law.resampler in ("optimal", "residual", "target")
    return known and (plain or request.source in ("eagle", "model")) and request.uniforms.dtype == np.float32


def _key(request: Request, rows: int, capacity: int) -> Hashable:
    s, law = request.sampling, request.law
    rules = (s.temperature, s.top_k, s.top_p, s.confidence, s.draft_confidence, s.guided)
    compiled = (law.length, law.resampler, law.rates is None, request.forced is None, request.source)
    return (rows, capacity, rules, compiled)
