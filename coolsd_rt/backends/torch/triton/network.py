"""Narrow steps of the eager networks by fused kernels: five launches per layer instead of about fifty.

Knows the networks' parts and which steps are narrow. Does not know rounds, files or how a kernel is launched. Weights
and caches are those of the eager networks, which run every other step; roundings are the same too, except that logits
are never rounded to the weights' type. Legend as in `coolsd_rt.contract`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from coolsd_rt.backends.torch.triton.launch import PRODUCT_MAX_ROWS, Heads, Launcher, WeightView
from coolsd_rt.models.decoder import Decoder, MlpHead, closed
from coolsd_rt.models.eagle import Eagle, first_seen
from coolsd_rt.models.layers import Attention, Cache, HeadNorm, Layer, RMSNorm

NARROW_MAX_ROWS = 128  # most rows times positions of a narrow step; torch's products are faster beyond
# Most queries of an attention program: more would spill registers or exceed a processor's shared memory.
ATTENTION_MAX_QUERIES = 32


class FusedLayer:
    """`models.layers.Layer` over x T [M, C], M = R * S."""

    def __init__(self, layer: Layer, launcher: Launcher, from_start: bool) -> None:
        norm, attention, forward = layer.attention_norm, layer.attention, layer.feed_forward
        gain, eps = (norm.weight, norm.eps) if isinstance(norm, RMSNorm) else (None, 0.0)
        self._run = launcher
        self.qkv = WeightView(attention.wqkv.weight, gain, eps)
        self.heads = heads_of(attention, from_start)
        self.wo = WeightView(attention.wo.weight)
        self.up = WeightView(forward.w1.weight, layer.ffn_norm.weight, layer.ffn_norm.eps, forward.w3.weight)
        self.down = WeightView(forward.w2.weight)

    def __call__(self, x: Tensor, step: FusedStep, cache: Cache) -> Tensor:
        """Apply the layer to x [M, C] and return the result; x is changed in place."""
        return self._few(x, step, cache) if len(x) <= PRODUCT_MAX_ROWS else self._many(x, step, cache)

    def _few(self, x: Tensor, step: FusedStep, cache: Cache) -> Tensor:
        run = self._run
        qkv = run.product(x, self.qkv, _empty(x, self.qkv))
        y = step.attend(run, qkv, self.heads, cache)
        run.product(y, self.wo, x, residual=x)
        h = run.product(x, self.up, _empty(x, self.up))
        return run.product(h, self.down, x, residual=x)

    def _many(self, x: Tensor, step: FusedStep, cache: Cache) -> Tensor:
        """Run the products with torch and the operations between them with kernels."""
        run, qkv, up = self._run, self.qkv, self.up
        h = x if qkv.gain is None else run.normalise(x, qkv.gain, qkv.eps)
        y = step.attend(run, h @ qkv.w.T, self.heads, cache) @ self.wo.w.T
        h = run.normalise(x, cast(Tensor, up.gain), up.eps, more=y)
        h = run.gated(h @ up.w.T, h @ cast(Tensor, up.gate).T)
        return torch.add(x, h @ self.down.w.T)


class FusedStep:
    """The positions of a step, shared by all layers. size: S; shift: added to a position before its angle is read."""

    def __init__(self, table: Tensor, pos: Tensor, size: int, start: Tensor | None, shift: int = 0) -> None:
        self._table, self._pos, self._size, self._start, self._shift = table, pos, size, start, shift

    def attend(self, run: Launcher, qkv: Tensor, heads: Heads, cache: Cache) -> Tensor:
        """Return the attention [M, H * D] of qkv [M, (H + 2 KH) * D]."""
        shaped = qkv.view(-1, self._size, qkv.shape[-1])
        return run.attend(shaped, heads, self._table, self._pos, self._start, (cache.k, cache.v), self._shift)


class FusedDecoder:
    """`Decoder.step` by kernels where the step is narrow, by the eager network elsewhere."""

    def __init__(self, network: Decoder, launcher: Launcher) -> None:
        self.network, self._run = network, launcher
        from_start = network.cfg.rope.from_start
        self.layers = [FusedLayer(cast(Layer, layer), launcher, from_start) for layer in network.layers]

    def step(
        self, ids: Tensor, pos: Tensor, prefix: Tensor, caches: Sequence[Cache], start: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run a step as `Decoder.step` does."""
        if not narrow(ids, self.layers):
            return self.network.step(ids, pos, prefix, caches, start)
        net = self.network
        x = self._run.embed(ids, pos, prefix, net.tok_embeddings.weight, None, 0, False)
        step = FusedStep(net.rope, pos, ids.shape[1], start)
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer(x, step, cache)
        features = self._run.normalise(x, net.norm.weight, net.norm.eps)
        return self.logits(features).view(*ids.shape, -1), features.view(*ids.shape, -1)

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits of features [M, C], float32 [M, V]."""
        head = self.network.output
        if isinstance(head, MlpHead) or len(features) > PRODUCT_MAX_ROWS:
            return self.network.logits(features)
        made = features.new_empty(len(features), head.weight.shape[0], dtype=torch.float32)
        return closed(self._run.product(features, WeightView(head.weight), made), self.network.cfg.vocab)


class FusedEagle:
    """`Eagle.step` by kernels where the step is narrow, by the eager network elsewhere."""

    def __init__(self, network: Eagle, target: FusedDecoder, launcher: Launcher) -> None:
        self.network, self._target, self._run = network, target, launcher
        from_start = target.network.cfg.rope.from_start
        self.layers = [FusedLayer(cast(Layer, layer), launcher, from_start) for layer in network.layers]
        self._fc = WeightView(network.fc.weight, bias=network.fc.bias)

    def step(
        self,
        ids: Tensor,
        features: Tensor,
        pos: Tensor,
        prefix: Tensor,
        caches: Sequence[Cache],
        start: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run a step as `Eagle.step` does with its target."""
        net, target = self.network, self._target.network
        if not narrow(ids, self.layers):
            return net.step(target, ids, features, pos, prefix, caches, start)
        table = net.table(target).weight
        x = self._run.embed(ids, pos, prefix, table, features.contiguous(), 1, net.cfg.blank_prefix)
        x = self._run.product(x, self._fc, _empty(x, self._fc)) if len(x) <= PRODUCT_MAX_ROWS else net.fc(x)
        step = FusedStep(target.rope, pos, ids.shape[1], first_seen(net.cfg, start), shift=1)
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer(x, step, cache)
        logits = self._target.logits(x) if net.draft_ids is None else net.logits(target, x)
        return logits.view(*ids.shape, -1), x.view(*ids.shape, -1)


def narrow(ids: Tensor, layers: Sequence[FusedLayer]) -> bool:
    """Return whether a step over ids [R, S] is narrow enough for the kernels."""
    return ids.numel() <= NARROW_MAX_ROWS and ids.shape[1] * layers[0].heads.groups <= ATTENTION_MAX_QUERIES


def heads_of(attention: Attention, from_start: bool) -> Heads:
    """Return the parameters of an attention layer for the kernel."""
    cfg = attention.cfg
    q, k = attention.q_norm, attention.k_norm
    norms = (q.weight, q.bias, k.weight, k.bias) if isinstance(q, HeadNorm) and isinstance(k, HeadNorm) else ()
    half, groups = cfg.pairs == "half", cfg.heads // cfg.cache_heads
    return Heads(cfg.cache_heads, groups, cfg.head_dim, half, from_start, HeadNorm.eps, *norms)


def _empty(x: Tensor, weights: WeightView) -> Tensor:
    return x.new_empty(len(x), weights.w.shape[0])
