"""The benchmark of a GPU check: milliseconds a step and a round, seconds an image, and how far from the floor.

Knows rounds on a device and sizes. Draws no conclusions.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch

from coolsd_rt.backends.torch.eager import TorchEngine
from coolsd_rt.device.cuda_graph import capture, on_stream
from coolsd_rt.device.program import Program
from coolsd_rt.device.round import DeviceModels, DeviceRound
from coolsd_rt.device.state import DeviceState
from coolsd_rt.law import Law
from coolsd_rt.models.vq import VQConfig, VQTokenizer
from coolsd_rt.runtime.randomness import uniform_table
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.runtime.self_decoding import DecodeRequest
from tools.gpu.environment import timed
from tools.gpu.sizes import TINY, Size, constant_rate, floor_of, networks_of

LENGTH = 5
CFG = 7.5
TOP_K = 1000
ACCEPT_LENGTH = 2.73  # COOL-SD, delta 1.1, LlamaGen-XL: the paper's table
IN_A_ROW = 5  # rounds of one timing: the host launches ahead, as it does in an image
How = Literal["eager", "graph"]


@dataclass(frozen=True)
class Row:
    """One way of decoding at one size. Times are medians; `floor` is bytes over the measured bandwidth. note: why there
    was no CUDA graph where one was asked for."""

    size: str
    tokens: int
    batch: int
    backend: str
    how: str
    way: str  # plain | COOL-SD
    round_ms: float
    floor_ms: float
    law_share: float  # the same round over models that cost nothing, over the round
    image_s: float | None  # all rounds of a batch, prefill included
    rounds: int | None
    note: str = ""

    @property
    def over_floor(self) -> float:
        return self.round_ms / self.floor_ms

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"over_floor": self.over_floor}


def request_of(tokens: int, batch: int, plain: bool, vocab: int) -> DecodeRequest:
    """Guided sampling at LlamaGen's defaults; drafts accepted at the paper's rate whatever the random weights say."""
    rate = constant_rate(ACCEPT_LENGTH, LENGTH)
    law = Law(()) if plain else Law((1.0,) * LENGTH, "target", rates=(rate,) * LENGTH)
    sampling = Sampling(cfg_scale=CFG, top_k=min(TOP_K, vocab))
    return DecodeRequest(law, sampling, uniform_table(range(batch), tokens, law.length))


@dataclass
class Subject:
    """Anything that steps, with its name."""

    backend: str
    size: Size
    steps: Callable[[int, int], DeviceModels]  # rows, capacity
    like: torch.Tensor
    weight: float  # bytes of a weight


def measure(subject: Subject, batch: int, plain: bool, how: How, bandwidth: float, rounds: int, images: int) -> Row:
    """rounds: how many are timed. images: whole batches that are timed, 0 is none."""
    size, device = subject.size, subject.like.device.type
    request = request_of(size.tokens, batch, plain, size.vocab)
    rows = 2 * batch
    steps = subject.steps(rows, subject.size.prefix + subject.size.tokens + request.length)
    state = DeviceState.empty(steps.dims, batch, rows, request.length, subject.like)
    stream = torch.cuda.Stream() if device == "cuda" else None
    with torch.inference_mode(), on_stream(stream):
        round_ms, note = _time_rounds(steps, state, request, how, rounds, device)
        law_ms, _ = _time_rounds(Hollow(steps, rows, subject.like), state, request, how, rounds, device)
    timed_too = how == "graph" and images and not note  # without a graph they take minutes
    image_s, taken = _time_images(steps, state, request, images) if timed_too else (None, None)
    at = size.prefix + size.tokens / 2
    floor = floor_of(size, rows, request.length, subject.weight, subject.like.element_size(), at)
    floor_ms = (floor.step if plain else floor.round) / bandwidth * 1e3
    return Row(
        size.name,
        size.tokens,
        batch,
        subject.backend,
        how,
        "plain" if plain else "COOL-SD",
        round_ms,
        floor_ms,
        law_ms / round_ms,
        image_s,
        taken,
        note,
    )


def _time_rounds(
    steps: DeviceModels, state: DeviceState, request: DecodeRequest, how: How, rounds: int, device: str
) -> tuple[float, str]:
    """Median milliseconds of a round from the middle of an image on, and why it is no CUDA graph if it should be."""
    one = DeviceRound(steps, state, request)
    prefix = torch.zeros(len(state.features), steps.dims.prefix, state.features.shape[-1]).to(state.features)
    steps.reset(prefix, None)
    state.reset(request, steps.dims.tokens)
    one.prefill()
    one()
    one()
    run: Callable[[], None] = one
    note = ""
    if how == "graph" and device == "cuda":
        captured = capture(one)
        run, note = captured.run, captured.graph_fallback_reason
    state.committed.fill_(steps.dims.prefix + steps.dims.tokens // 2)
    middle = state.committed.clone()
    num_pending = state.num_pending.clone()

    def again() -> None:
        for _ in range(IN_A_ROW):
            state.committed.copy_(middle)  # an image that ends would make rounds cheaper
            state.num_pending.copy_(num_pending)
            run()

    return _median(again, max(1, rounds // IN_A_ROW), device) / IN_A_ROW, note


class Hollow:
    """Steps that cost nothing: what is left of a round over them is the law, the sampling and the counters."""

    def __init__(self, steps: DeviceModels, rows: int, like: torch.Tensor) -> None:
        self.dims = steps.dims
        self._rows, self._like = rows, like
        self._made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def target(self, ids: torch.Tensor, pos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        size = ids.shape[1]
        if size not in self._made:
            logits = torch.randn(self._rows, size, self.dims.vocab, device=self._like.device)
            self._made[size] = logits, self._like.new_zeros(self._rows, size, self.dims.dim)
        return self._made[size]

    def draft(
        self, ids: torch.Tensor, features: torch.Tensor | None, pos: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self.target(ids, pos)

    def reset(self, prefix: torch.Tensor, start: torch.Tensor | None) -> None:
        """Nothing to forget."""


def _median(work: Callable[[], None], repeats: int, device: str) -> float:
    work()
    return statistics.median(timed(work, device) for _ in range(repeats)) * 1e3


def _time_images(steps: DeviceModels, state: DeviceState, request: DecodeRequest, images: int) -> tuple[float, int]:
    """Median seconds of a batch, by the host's clock, and the rounds it took. The first captures; it is not counted."""
    program = Program(steps, state, request)
    prefix = torch.zeros(len(state.features), steps.dims.prefix, state.features.shape[-1]).to(state.features)
    program.decode(request, prefix, None)
    times: list[float] = []
    rounds = 0
    for _ in range(images):
        begun = time.perf_counter()
        done = program.decode(request, prefix, None)
        times.append(time.perf_counter() - begun)
        rounds = int(np.max(done.statistics.rounds))
    return statistics.median(times), rounds


@dataclass(frozen=True)
class ImageDecoding:
    """Codes to pixels on the host, by a tokenizer of LlamaGen's own size: median seconds of a batch."""

    tokens: int
    batch: int
    seconds: float


def time_image_decoding(tokens: int, batch: int, device: str, image: VQConfig, repeats: int = 5) -> ImageDecoding:
    """With random weights. In half precision's engines convolutions may take TF32, and so they do here."""
    torch.manual_seed(0)
    engine = TorchEngine(networks_of(TINY, "cpu")[0], None, VQTokenizer(image))
    engine.to("cuda" if device == "cuda" else "cpu", "bfloat16")
    codes = np.random.default_rng(0).integers(0, image.codebook_size, (batch, tokens))
    engine.decode_images(codes)
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        engine.decode_images(codes)
        times.append(time.perf_counter() - begun)
    return ImageDecoding(tokens, batch, statistics.median(times))
