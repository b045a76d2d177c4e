"""Each launch of a fused layer by itself, on a GPU: microseconds, and how fast it reads; with other blocks, too.

Knows the launches of a layer and their bytes. Draws no conclusions. A launch is timed over all layers of a network in
one CUDA graph, so that no weight is read from a cache.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from coolsd_rt.backends.torch.eager import cast_weights
from coolsd_rt.backends.torch.triton.launch import Blocks, Launcher, WeightView
from coolsd_rt.backends.torch.triton.network import FusedDecoder, FusedLayer, FusedStep
from coolsd_rt.device.cuda_graph import capture, on_stream
from coolsd_rt.errors import CoolsdError
from coolsd_rt.models.layers import Cache
from tools.gpu.environment import timed
from tools.gpu.sizes import Size, networks_of

STEPS = ((2, 1), (2, 6), (16, 1))  # rows, positions: a plain step, a verification, eight images
_REPEATS = 9
_DEFAULT = Blocks()
OTHERS: dict[str, tuple[bool, Blocks]] = {  # whether for two rows, and the blocks
    "numbers 8192": (True, replace(_DEFAULT, numbers=8192)),
    "numbers 32768": (True, replace(_DEFAULT, numbers=32768)),
    "4 warps": (True, replace(_DEFAULT, few_warps=4)),
    "16 warps": (True, replace(_DEFAULT, few_warps=16)),
    "deep 128": (False, replace(_DEFAULT, deep=128)),
    "deep 128, 6 stages": (False, replace(_DEFAULT, deep=128, stages=6)),
    "32 columns": (False, replace(_DEFAULT, columns=32)),
    "3 stages": (False, replace(_DEFAULT, stages=3)),
    "528 programs": (False, replace(_DEFAULT, programs=528)),
}


@dataclass(frozen=True)
class Timing:
    """One kind of launch. bytes: what it has to read of weights, or of the cache."""

    launch: str
    rows: int
    positions: int
    blocks: str
    pdl: bool
    microseconds: float
    bytes: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"bytes_per_second": self.bytes / self.microseconds * 1e6}


class Bench:
    """The layers of a size, their caches and one step's inputs, on the GPU in bfloat16."""

    def __init__(self, size: Size, position: int) -> None:
        self._network, _ = networks_of(size, "cuda")
        cast_weights(self._network, torch.bfloat16)
        self._size, self._position = size, position

    def timings(self, late: Callable[[], bool], broken: Callable[[str, Exception], None]) -> Iterator[Timing]:
        """The default first, without and with overlapping launches; then others, until it is late.

        broken: told of a choice that fails; the next one is tried.
        """
        choices = [("", _DEFAULT, pdl, step) for pdl in (False, True) for step in STEPS]
        for name, (few, blocks) in OTHERS.items():
            choices += [(name, blocks, False, step) for step in STEPS if (step[0] * step[1] == 2) == few]
        for name, blocks, pdl, (rows, positions) in choices:
            if late():
                return
            try:
                yield from self._all(rows, positions, name, blocks, pdl)
            except (RuntimeError, CoolsdError) as error:
                broken(f"launches of {rows} x {positions}, {name or 'default'}, overlapping {pdl}", error)

    def _all(self, rows: int, positions: int, name: str, blocks: Blocks, pdl: bool) -> Iterator[Timing]:
        device = torch.device("cuda")
        launcher = Launcher(device, pdl, blocks)
        layers = FusedDecoder(self._network, launcher).layers
        caches = self._network.caches(rows, self._position + positions)
        pos = torch.full((rows,), self._position, device=device)
        step = FusedStep(self._network.rope, pos, positions, None)
        for what, work in launches(launcher, layers, caches, step, rows * positions).items():
            if name and what == "attend":  # has no blocks to choose
                continue
            read = self._bytes(what, layers[0], rows)
            yield Timing(what, rows, positions, name, pdl, _microseconds(work, len(layers)), read)

    def _bytes(self, what: str, layer: FusedLayer, rows: int) -> int:
        if what == "attend":
            return 2 * rows * self._position * self._size.dim * 2
        chosen = [getattr(layer, what)] if what != "layer" else [layer.qkv, layer.wo, layer.up, layer.down]
        weights = sum(w.w.nbytes + (0 if w.gate is None else w.gate.nbytes) for w in chosen)
        return weights + (self._bytes("attend", layer, rows) if what == "layer" else 0)


def launches(
    launcher: Launcher, layers: list[FusedLayer], caches: list[Cache], step: FusedStep, count: int
) -> dict[str, Callable[[], None]]:
    """Each launch of a layer, over all layers; and whole layers. count: rows times positions."""
    first = layers[0]
    like = first.qkv.w
    inputs = {name: like.new_empty(count, getattr(first, name).w.shape[1]).normal_() for name in ("qkv", "wo", "down")}
    inputs["up"] = inputs["qkv"]
    outputs = {name: like.new_empty(count, getattr(first, name).w.shape[0]) for name in ("qkv", "wo", "up", "down")}
    qkv = like.new_empty(count, first.qkv.w.shape[0]).normal_()

    def product(name: str) -> Callable[[], None]:
        def work() -> None:
            for layer in layers:
                weights: WeightView = getattr(layer, name)
                launcher.product(inputs[name], weights, outputs[name])

        return work

    def attend() -> None:
        for layer, cache in zip(layers, caches, strict=True):
            step.attend(launcher, qkv, layer.heads, cache)

    def whole() -> None:
        x: Tensor = inputs["qkv"].clone()
        for layer, cache in zip(layers, caches, strict=True):
            x = layer(x, step, cache)

    return {**{name: product(name) for name in outputs}, "attend": attend, "layer": whole}


def _microseconds(work: Callable[[], None], layers: int) -> float:
    """Of one layer: the median of a few replays of all of them in one graph."""
    with torch.inference_mode(), on_stream(torch.cuda.Stream()):
        work()
        run = capture(work).run
        run()
        return statistics.median(timed(run, "cuda") for _ in range(_REPEATS)) / layers * 1e6
