"""The graph `propose`: L steps of the EAGLE head and their sampling in one graph; the uniforms are inputs.

Knows the head and inverse-CDF sampling. Does not know where uniforms come from or how the tokens are used. Legend as in
`coolsd_rt.contract`.

Only the first step writes the caches. Later steps run on predicted features, and the round drops rows made from these,
so they stay outside the caches: each such position attends to the cache and to the predicted positions before it.
Thereby each cache is written once per call, in place.

If the head is linear and has no bias, CFG and temperature are applied to the features: the same logits, from half the
rows. With another head they are applied to the logits.

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
from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.eagle import Eagle, first_seen
from coolsd_rt.ops.logits import MIN_TEMPERATURE


class SamplingGraph(NamedTuple):
    """Logit processing of one call.

    weights: L tensors [2, M, 1, 1], one per draft: factors of the conditional and the unconditional row.
    top_k: int64 [1].

    `(u + (c - u) s) / T = c (s / T) + u (1 / T - s / T)`: one product and one sum per draft, once the weights are
    computed.
    """

    weights: tuple[Tensor, ...]
    top_k: Tensor

    @staticmethod
    def of(scale: Tensor, temperature: Tensor, top_k: Tensor) -> SamplingGraph:
        """Compute the weights from scale [M, L] and temperature (a scalar, > 0)."""
        warm = 1 / temperature
        cond = scale * warm
        weights = torch.stack([cond, warm - cond])[..., None]
        return SamplingGraph(tuple(weights.split(1, dim=2)), top_k)

    def mix(self, x: Tensor, index: int) -> Tensor:
        """Return guided features or logits over the temperature, [M, 1, C], from those of both rows, [2M, 1, C].

        index: number of the draft.
        """
        mixed: Tensor = (x.unflatten(0, (2, -1)) * self.weights[index]).sum(0)
        return mixed

    def probs(self, logits: Tensor) -> Tensor:
        """Return Q [M, 1, V] of logits [M, 1, V]; the k largest stay, and all that tie with the last of them."""
        # Without a filter only the largest is computed: a full TopK would cost as much as the head itself.
        off = self.top_k >= logits.shape[-1]
        least = kth_largest(logits, torch.where(off, 1, self.top_k))
        least = torch.where(off, float("-inf"), least)
        return torch.softmax(logits.masked_fill(logits < least, float("-inf")), dim=-1)


def draw(probs: Tensor, uniform: Tensor) -> Tensor:
    """Return the smallest code whose cumulative weight is greater than u * total, int64 [...].

    probs: [..., V].
    uniform: float64 [..., 1].
    """
    cdf = probs.double().cumsum(-1)
    # Counted in float32, exact up to 2^24 codes: ONNX Runtime sums it several times as fast as int64.
    return (cdf <= uniform * cdf[..., -1:]).float().sum(-1).long()


def attend(
    block: AttentionBlock, x: Tensor, turn: Tensor, hidden: Tensor, cache: Caches, guessed: Caches
) -> tuple[Tensor, Tensor, Tensor]:
    """Attend from one position to a cache and to all predicted positions so far, including itself.

    hidden: bool [R, 1, 1, T], true at rows of the cache to mask.
    cache: k, v [R, H, T, D].
    guessed: k, v [R, H, j, D] of the predicted positions before this one; empty for the first.

    Returns the block's output, and the keys and values of `guessed` extended by this position. One softmax runs over
    both parts, as if the cache were longer. Queries that share a key take the place of the position dimension, which
    has size 1.
    """
    k, v = cache
    q, k_all, v_all = block.qkv_one(x, turn)
    if block.shared != block.heads:
        q = q.view(-1, block.shared, block.heads // block.shared, block.size)
    if guessed:
        k_all, v_all = torch.cat([guessed[0], k_all], dim=2), torch.cat([guessed[1], v_all], dim=2)
    cached = (q @ k.transpose(-1, -2)).masked_fill(hidden, float("-inf"))
    weights = torch.softmax(torch.cat([q @ k_all.transpose(-1, -2), cached], dim=-1), dim=-1)
    size = k_all.shape[2]
    return block.join_one(weights[..., :size] @ v_all + weights[..., size:] @ v), k_all, v_all


class ProposeGraph(nn.Module):
    """The graph of `contract.propose_contract`.

    It maps newly accepted positions and uniforms to L tokens and their distributions.
    """

    def __init__(self, draft: Eagle, target: Decoder, length: int) -> None:
        super().__init__()
        self.core, self.length = EagleCore(draft, target), length

    def forward(
        self,
        ids: Tensor,
        features_in: Tensor,
        pos: Tensor,
        prefix: Tensor,
        count: Tensor,
        uniforms: Tensor,
        scale: Tensor,
        temperature: Tensor,
        top_k: Tensor,
        caches: Caches,
        start: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Draft L tokens; return tokens int64 [M, L], their distributions [M, L, V] and the caches.

        ids int64 [R, S] and features_in [R, S, C]: the newly accepted positions, of which the first `count` int64 [R]
        are valid.
        pos: int64 [R], the first of these positions.
        uniforms: float32 [M, L].
        scale: CFG scale [M, L].
        temperature: scalar; top_k: int64 [1].
        """
        sampling = SamplingGraph.of(scale, temperature.clamp(min=MIN_TEMPERATURE), top_k)
        u = uniforms.double()[..., None].split(1, dim=1)
        x, caches = self.core.step(ids, features_in, pos, prefix, caches, start)
        rows = torch.arange(ids.shape[0]) * ids.shape[1]
        x = F.embedding(rows + count - 1, x.flatten(0, 1))[:, None]
        start = first_seen(self.core.cfg, start)
        end = (pos + count)[:, None]  # first cache row behind the accepted positions
        cells = torch.arange(caches[0].shape[2])
        hidden = cells >= end if start is None else (cells >= end) | (cells < start[:, None])
        hidden = hidden[:, None, None]
        turns = self.core.angles.rows(end + torch.arange(1, max(2, self.length)), start).split(1, dim=1)
        seen: Caches = ()
        tokens: list[Tensor] = []
        dists: list[Tensor] = []
        for i in range(self.length):
            if i:
                x, seen = self._guess(tokens[-1], x, turns[i - 1], hidden, caches, seen)
            dists.append(sampling.probs(self._guided(x, sampling, i)))
            tokens.append(draw(dists[-1], u[i]))
        return torch.cat(tokens, dim=1), torch.cat(dists, dim=1), *caches

    def _guided(self, x: Tensor, sampling: SamplingGraph, index: int) -> Tensor:
        """Return guided logits over the temperature, [M, 1, V], of features [2M, 1, C]."""
        head = self.core.head
        logits: Tensor = head(sampling.mix(x, index)) if head.linear else sampling.mix(head(x), index)
        return logits

    def _guess(
        self, tokens: Tensor, feature: Tensor, turn: Tensor, hidden: Tensor, caches: Caches, seen: Caches
    ) -> tuple[Tensor, Caches]:
        """Predict the feature after `tokens` [M, 1]; return it and the extended keys and values.

        turn: int64 [R, 1], rows of the RoPE table for the tokens, in both rows of each image.
        """
        x = self.core.pair(self.core.embed.codes(torch.cat([tokens, tokens])), feature)
        grown: list[Tensor] = []
        for i, module in enumerate(self.core.stack.layers):
            layer, both = cast(LayerBlock, module), slice(2 * i, 2 * i + 2)
            y, k, v = attend(layer.attention, layer.attention_norm(x), turn, hidden, caches[both], seen[both])
            x = layer.after(x + y)
            grown += [k, v]
        return x, tuple(grown)
