"""A tiny config of every registered family, random networks of them, and the steps that each has to survive.

A family that is registered without a case here fails the conformance tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from coolsd_rt.models.config import DecoderConfig, EagleConfig
from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.eagle import Eagle
from coolsd_rt.models.families.anole import AnoleConfig
from coolsd_rt.models.families.janus import JanusConfig
from coolsd_rt.models.families.llama import LlamaConfig
from coolsd_rt.models.families.llamagen import CaptionConfig, ClassConfig, LlamaGenConfig
from coolsd_rt.models.families.lumina import LuminaConfig

_SIZES: dict[str, Any] = {"vocab": 32, "dim": 64, "layers": 2, "heads": 2, "ffn": 96, "grid": 4}
CONFIGS: Mapping[str, DecoderConfig] = {
    "llamagen": LlamaGenConfig(**_SIZES, prefix=3, words=20, word_dim=16),
    "llamagen-c2i": ClassConfig(**_SIZES, classes=10),
    "llamagen-t2i": CaptionConfig(**_SIZES, prefix=6, text_dim=24),
    "lumina-mgpt": LuminaConfig(**_SIZES | {"vocab": 34, "heads": 4}, kv_heads=2, prefix=6, text=50),
    "anole": AnoleConfig(**_SIZES | {"heads": 4}, prefix=6, text=50),
    "llama": LlamaConfig(
        **{k: v for k, v in _SIZES.items() if k != "grid"} | {"heads": 4}, kv_heads=2, prefix=6, length=16, tied=True
    ),
    "janus-pro": JanusConfig(**_SIZES, prefix=6, text=50, head=48),
}
N = TypeVar("N", bound=nn.Module)
ROWS, CAPACITY = 3, 40
FAMILY_NAMES = sorted(CONFIGS)


HEADS: Mapping[str, dict[str, Any]] = {
    "plain": {},
    "lantern": {"norm_eps": 1e-6, "sees_padding": True, "blank_prefix": True},
    "anole": {"input_norm": True, "qk_norm": True},
    "part": {"draft_vocab": 7},
}
"""Forms of EAGLE heads: our own, LANTERN's for LlamaGen and for Chameleon's kin, and one that drafts few tokens."""


def random_target(cfg: DecoderConfig, seed: int = 0) -> Decoder:
    """Distributions neither flat nor sharp, and norms and biases that are neither ones nor zeros."""
    torch.manual_seed(seed)
    return roughened(Decoder(cfg))


def random_draft(target: Decoder, seed: int = 1, **changes: Any) -> Eagle:
    """An EAGLE head of a target's layer."""
    layer = target.cfg.layer
    cfg = EagleConfig(dim=layer.dim, heads=layer.heads, ffn=96, kv_heads=layer.kv_heads, pairs=layer.pairs)
    torch.manual_seed(seed)
    draft = Eagle(replace(cfg, **changes))
    if draft.draft_ids is not None:
        chosen = torch.randperm(target.cfg.layout.codes)[: len(draft.draft_ids)].sort().values
        draft.draft_ids = chosen.to(torch.int32)
    return roughened(draft)


def roughened(network: N) -> N:
    """Itself, its one-dimensional weights and its head changed."""
    with torch.no_grad():
        for name, value in network.named_parameters():
            if value.ndim == 1 or "_norm" in name:
                value.uniform_(0.5, 1.5)
        if isinstance(network, Decoder):
            # A tied head at that scale would draw the last token again: its embedding is in the features.
            network.output.weight.mul_(0.12 if network.cfg.tied_head else 4)
    return network.eval().requires_grad_(False)


class Image(NamedTuple):
    """Conditions of ROWS rows, tokens int64 [R, tokens] with the forced ones in place, first positions [R] or None."""

    condition: Tensor
    tokens: Tensor
    start: Tensor | None


def image(cfg: DecoderConfig, seed: int = 2) -> Image:
    torch.manual_seed(seed)
    rows, width = cfg.condition_size
    ids = torch.randint(0, rows, (ROWS, cfg.prefix)) if rows else torch.empty(0)
    condition = ids if rows else torch.randn(ROWS, cfg.prefix, width)
    forced = torch.from_numpy(cfg.layout.forced)
    tokens = torch.randint(0, cfg.layout.codes, (ROWS, cfg.tokens))
    tokens = torch.where(forced >= 0, forced, tokens)
    start = torch.tensor([0, 2, cfg.prefix - 1]) if cfg.padded else None
    return Image(condition, tokens, start)


Stepper = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # ids, pos -> logits, features


class Stepped(NamedTuple):
    """Of row `row`: what a step said at positions `at`, `at` + 1, ..."""

    row: int
    at: int
    logits: Tensor
    features: Tensor


def stepped(cfg: DecoderConfig, tokens: Tensor, step: Stepper, length: int = 3) -> Iterator[Stepped]:
    """Prefill, single steps, verifications of L + 1 positions with wrong drafts that are rolled back, ragged rows.

    Yields only what right tokens came before: of a verification of wrong drafts, its first position. Logits are of
    image codes; those behind them lie so far off that they would hide an error.
    """
    ids = torch.cat([torch.zeros(ROWS, cfg.prefix, dtype=torch.int64), tokens], dim=1)
    pos = torch.zeros(ROWS, dtype=torch.int64)
    for size, wrong, kept in (
        (cfg.prefix, False, (cfg.prefix,) * ROWS),
        (1, False, (1,) * ROWS),
        (length + 1, True, (1,) * ROWS),
        (length + 1, False, (4, 1, 2)),
        (1, False, (1,) * ROWS),
        (length + 1, False, (2, 4, 1)),
    ):
        rows = torch.stack([ids[r, pos[r] : pos[r] + size] for r in range(ROWS)])
        if wrong:
            rows[:, 1:] = (rows[:, 1:] + 1) % cfg.layout.codes
        logits, features = step(rows, pos)
        for r in range(ROWS):
            right = slice(0, 1) if wrong else slice(0, size)
            yield Stepped(r, int(pos[r]), logits[r, right, : cfg.layout.codes], features[r, right])
        pos = pos + torch.tensor(kept)


def eager(target: Decoder, given: Image, capacity: int = CAPACITY) -> Stepper:
    """The eager network as a stepper, its prefix from the condition."""
    prefix, caches = target.condition(given.condition), target.caches(ROWS, capacity)
    return lambda ids, pos: target.step(ids, pos, prefix, caches, given.start)


def relative(found: Tensor, wanted: Tensor) -> float:
    """Largest difference over the largest value."""
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6))


def module_caches(caches: Any) -> tuple[Tensor, ...]:
    """Eager caches as a graph module takes them."""
    return tuple(t.clone() for cache in caches for t in cache)


__all__ = [
    "CAPACITY",
    "CONFIGS",
    "FAMILY_NAMES",
    "HEADS",
    "ROWS",
    "Image",
    "Stepped",
    "eager",
    "image",
    "module_caches",
    "random_draft",
    "random_target",
    "relative",
    "stepped",
]
