"""The fused draft: L steps of the EAGLE head and their sampling in one graph, uniforms fed in.

Knows the head and inverse-CDF sampling. Does not know where uniforms come from or what becomes of the tokens. Only
the first step writes the caches: later steps run on guessed features, and rows made from guesses are dropped after
the round, so they stay outside the caches and each attends to the cache and to the guesses before it. Thereby each
cache is written once a call, in place. Legend as in `coolsd_rt.contract`.

Source: EAGLE's chain drafting; sampling as in `coolsd_rt.ops` (CFG, temperature, top-k, softmax, inverse CDF).
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coolsd_rt.export.blocks import AttentionBlock, Caches, LayerBlock
from coolsd_rt.export.graphs import EagleCore
from coolsd_rt.export.ops import kth_largest
from coolsd_rt.models.eagle import Eagle
from coolsd_rt.models.llamagen import LlamaGen

MIN_TEMPERATURE = 1e-5  # as in coolsd_rt.ops


class Sampler(NamedTuple):
    """Logit processing of one call: temperature float scalar, top_k int64 [1]."""

    temperature: Tensor
    top_k: Tensor

    def probs(self, logits: Tensor, scale: Tensor) -> Tensor:
        """logits [2M, V], CFG scale [M] -> Q [M, V]."""
        cond, uncond = logits[: scale.shape[0]], logits[scale.shape[0] :]
        mixed = (uncond + (cond - uncond) * scale[:, None]) / self.temperature.clamp(min=MIN_TEMPERATURE)
        # Without a filter only the largest is looked up: a full TopK would cost as much as the head itself.
        off = self.top_k >= logits.shape[-1]
        least = kth_largest(mixed, torch.where(off, 1, self.top_k))
        return torch.softmax(mixed.masked_fill((mixed < least) & ~off, float("-inf")), dim=-1)


def draw(probs: Tensor, uniform: Tensor) -> Tensor:
    """The smallest code whose cumulative weight passes u * total: probs [M, V], u [M] -> int64 [M]."""
    cdf = probs.double().cumsum(-1)
    reached = uniform.double()[:, None] * cdf[:, -1:]
    return (cdf <= reached).sum(-1)


def attend(
    block: AttentionBlock, x: Tensor, turn: Tensor, mask: Tensor, cache: Caches, guessed: Caches
) -> tuple[Tensor, Tensor, Tensor]:
    """One position's attention to a cache (masked, bool [R, 1, 1, T]) and to all guesses so far, itself included.

    cache: k, v [R, H, T, D]. guessed: k, v [R, H, j, D], empty for the first guess. Returns the block's output, and
    guessed keys and values with the new one. One softmax runs over both parts, as if the cache were longer.
    """
    k, v = cache
    q, k_all, v_all = block.qkv(x, turn)
    if guessed:
        k_all, v_all = torch.cat([guessed[0], k_all], dim=2), torch.cat([guessed[1], v_all], dim=2)
    cached = (q @ k.transpose(-1, -2)).masked_fill(~mask, float("-inf"))
    weights = torch.softmax(torch.cat([cached, q @ k_all.transpose(-1, -2)], dim=-1), dim=-1)
    size = k_all.shape[2]
    y = weights[..., :-size] @ v + weights[..., -size:] @ v_all
    return block.join(y), k_all, v_all


class ProposeGraph(nn.Module):
    """`contract.propose_contract`: newly accepted positions and uniforms -> L tokens and their distributions."""

    def __init__(self, draft: Eagle, target: LlamaGen, length: int) -> None:
        super().__init__()
        self.core, self.length = EagleCore(draft, target), length

    def forward(
        self, ids: Tensor, features_in: Tensor, pos: Tensor, prefix: Tensor, count: Tensor, uniforms: Tensor,
        scale: Tensor, temperature: Tensor, top_k: Tensor, caches: Caches,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        sampler = Sampler(temperature, top_k)
        x, caches = self.core.step(ids, features_in, pos, prefix, caches)
        rows = torch.arange(ids.shape[0]) * ids.shape[1]
        x = F.embedding(rows + count - 1, x.flatten(0, 1))[:, None]
        seen: Caches = ()
        mask = torch.arange(caches[0].shape[2]) < (pos + count)[:, None, None, None]
        tokens, dists = [], []
        for i in range(self.length):
            if i:
                x, seen = self._guess(tokens[-1], x, pos + count + i, mask, caches, seen)
            dists.append(sampler.probs(self.core.head(x[:, 0]), scale[:, i]))
            tokens.append(draw(dists[-1], uniforms[:, i]))
        return torch.stack(tokens, dim=1), torch.stack(dists, dim=1), *caches

    def _guess(
        self, tokens: Tensor, feature: Tensor, where: Tensor, mask: Tensor, caches: Caches, seen: Caches
    ) -> tuple[Tensor, Caches]:
        """The feature after `tokens` [M], which stand at `where` [R] in both rows of their picture."""
        embedded = self.core.embed.codes(torch.cat([tokens, tokens]))[:, None]
        x = self.core.pair(embedded, feature)
        turn = where.clamp(max=self.core.angles.cos.shape[0] - 1)[:, None]
        grown: list[Tensor] = []
        for i, module in enumerate(self.core.stack.layers):
            layer, both = cast(LayerBlock, module), slice(2 * i, 2 * i + 2)
            y, k, v = attend(layer.attention, layer.attention_norm(x), turn, mask, caches[both], seen[both])
            x = layer.after(x + y)
            grown += [k, v]
        return x, tuple(grown)
