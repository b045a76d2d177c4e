"""LlamaGen at its published sizes with random weights, on the device, and the bytes that a step has to read.

Knows the networks' sizes. Times nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from coolsd_rt.backends.torch.eager import TorchEngine
from coolsd_rt.contract import Floating
from coolsd_rt.models.eagle import Eagle, EagleConfig
from coolsd_rt.models.llamagen import LlamaGen, LlamaGenConfig
from coolsd_rt.models.vq import VQConfig, VQTokenizer

PREFIX = 120  # text to image
TINY_IMAGE = VQConfig(
    codebook_size=32, codebook_dim=4, channels=8, multipliers=(1, 2), z_channels=8, res_blocks=1, norm_groups=4
)  # the tokenizer is not what is timed


@dataclass(frozen=True)
class Size:
    """A target's sizes (models.md), and the image it draws."""

    name: str
    layers: int
    heads: int
    dim: int
    ffn: int
    grid: int = 16
    vocab: int = 16384
    prefix: int = PREFIX

    def of(self, tokens: int) -> Size:
        """The same model with images of `tokens` codes."""
        return replace(self, grid=round(tokens**0.5))

    @property
    def tokens(self) -> int:
        return self.grid * self.grid


SIZES = {
    "B": Size("B", 12, 12, 768, 2048),
    "L": Size("L", 24, 16, 1024, 2816),
    "XL": Size("XL", 36, 20, 1280, 3584),
}
TINY = Size("tiny", 2, 2, 64, 96, 4, 64, 3)  # a rehearsal on a CPU


def engine_of(size: Size, device: str, dtype: Floating) -> TorchEngine:
    """The eager networks of a size on the device, in `dtype`."""
    engine = TorchEngine(*networks_of(size, device), VQTokenizer(TINY_IMAGE))
    return engine.to("cuda" if device == "cuda" else "cpu", dtype)


def networks_of(size: Size, device: str) -> tuple[LlamaGen, Eagle]:
    """Target and EAGLE head with small random weights, made on the device in float32."""
    config = LlamaGenConfig(
        vocab=size.vocab,
        dim=size.dim,
        layers=size.layers,
        heads=size.heads,
        ffn=size.ffn,
        grid=size.grid,
        prefix=size.prefix,
        words=8,
        word_dim=64,
    )
    torch.manual_seed(0)
    with torch.device(device):
        target, draft = LlamaGen(config), Eagle(EagleConfig(size.dim, size.heads, size.ffn))
    for network in (target, draft):
        _randomise(network)
    return target.eval(), draft.eval()


def _randomise(network: nn.Module) -> None:
    """As LlamaGen starts training: normal with 0.02, so that no activation grows."""
    for parameter in network.parameters():
        parameter.requires_grad_(False)
        if parameter.ndim > 1:
            parameter.normal_(std=0.02)


@dataclass(frozen=True)
class Floor:
    """Bytes that a plain step, and a round of L drafts, read at least: weights once a step, and valid cache rows."""

    step: float
    round: float


def floor_of(size: Size, rows: int, length: int, weight: float, item: int, position: float) -> Floor:
    """rows: 2 an image under CFG. weight, item: bytes of a weight, and of a number in the cache. position: how many
    cache rows are valid, a mean."""
    layer = (4 * size.dim**2 + 3 * size.dim * size.ffn) * weight
    head = size.dim * size.vocab * weight
    cache = 2 * rows * position * size.dim * item  # K and V of one layer
    step = size.layers * (layer + cache) + head
    draft = layer + cache + head + 2 * size.dim**2 * weight
    return Floor(step, step + length * draft)


def constant_rate(accept_length: float, length: int) -> float:
    """The acceptance rate r of every position with 1 + r + ... + r^L = accept_length."""
    low, high = 0.0, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        total = sum(rate**i for i in range(length + 1))
        low, high = (rate, high) if total < accept_length else (low, rate)
    return (low + high) / 2
