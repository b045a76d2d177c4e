"""LlamaGen's own way of drawing an image, stated again: its network and its loop, as a user of its code runs them.

One token at a time: a static KV cache that each step writes and reads whole, a mask cut out of a square of ones, both
guidance rows in one batch, top-k by a threshold, one multinomial draw. Written here from the description of the public
code (Sun et al., 2024; models.md of its authors); none of its code is copied. Weights are those of a target of ours, so
that the two can be compared to the token.

Knows one network and one loop. Does not know speculation, engines of ours, or a clock. Other families' networks are
refused. Legend: R rows (one conditional, one unconditional), W prefix, N image tokens, C width, V codes, H heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from coolsd_rt.errors import UserError
from coolsd_rt.models.decoder import Decoder
from coolsd_rt.ops.logits import MIN_TEMPERATURE
from coolsd_rt.runtime.sampling import Sampling


class OfficialLoop:
    """The network with its weights, and `draw`. Raises UserError for a network that is not LlamaGen's."""

    def __init__(self, target: Decoder) -> None:
        cfg = target.cfg
        if cfg.rope.kind != "grid" or cfg.layer.qk_norm or cfg.layer.kv_heads or cfg.head_width:
            raise UserError("the official loop", expected="a LlamaGen network", found="one of another family")
        self._cfg, self._turn = cfg.layer, target.rope
        self._layers, self._size = cfg.layers, cfg.layer.head_dim
        self._prefix, self._tokens = cfg.prefix, cfg.tokens
        self._weights = {name: tensor.detach() for name, tensor in target.state_dict().items()}

    @torch.inference_mode()
    def draw(self, prefix: Tensor, sampling: Sampling, seed: int, start: Tensor | None = None) -> Tensor:
        """Draw one image: codes int64 [N].

        prefix: embeddings [2, W, C], the conditional row first; [1, W, C] where `sampling` is not guided. start: int64
        [R], the first position of each row that is not padding.
        """
        rows, total = len(prefix), self._prefix + self._tokens
        random = torch.Generator().manual_seed(seed % (1 << 63))
        shape = (rows, self._cfg.heads, total, self._size)
        self._caches = [(prefix.new_zeros(shape), prefix.new_zeros(shape)) for _ in range(self._layers)]
        self._mask = torch.ones(total, total, dtype=torch.bool).tril().repeat(rows, 1, 1)
        if start is not None:
            hidden = torch.arange(total) < start[:, None]
            self._mask = (self._mask & ~hidden[:, None]) | torch.eye(total, dtype=torch.bool)
        codes = torch.empty(self._tokens, dtype=torch.int64)
        scales = sampling.scales(self._tokens).tolist()
        at = torch.arange(self._prefix)
        logits = self.step(prefix, at)[:, -1]
        for n in range(self._tokens):
            if n:
                at = torch.tensor([self._prefix + n - 1])
                logits = self.step(self._embedded(codes[n - 1].repeat(rows, 1)), at)[:, -1]
            codes[n] = self._sample(logits, scales[n], sampling, random)
        return codes

    def step(self, x: Tensor, at: Tensor) -> Tensor:
        """Run the network over x [R, S, C] at the positions int64 [S]: logits float32 [R, S, V]."""
        w = self._weights
        for i, cache in enumerate(self._caches):
            name = f"layers.{i}."
            y = self._norm(x, f"{name}attention_norm.weight")
            x = x + self._attention(y, at, cache, f"{name}attention.")
            y = self._norm(x, f"{name}ffn_norm.weight")
            gate = F.silu(F.linear(y, w[f"{name}feed_forward.w1.weight"]))
            up = F.linear(y, w[f"{name}feed_forward.w3.weight"])
            x = x + F.linear(gate * up, w[f"{name}feed_forward.w2.weight"])
        logits: Tensor = F.linear(self._norm(x, "norm.weight"), w["output.weight"]).float()
        return logits

    def _embedded(self, codes: Tensor) -> Tensor:
        return F.embedding(codes, self._weights["tok_embeddings.weight"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        full = x.float()
        scaled: Tensor = full * torch.rsqrt(full.pow(2).mean(-1, keepdim=True) + self._cfg.norm_eps)
        return torch.mul(scaled.type_as(x), self._weights[name])

    def _attention(self, x: Tensor, at: Tensor, cache: tuple[Tensor, Tensor], name: str) -> Tensor:
        rows, new, width = x.shape
        parts = F.linear(x, self._weights[f"{name}wqkv.weight"]).split(width, dim=-1)
        q, k, v = (part.view(rows, new, self._cfg.heads, self._size) for part in parts)
        q, k, v = (part.transpose(1, 2) for part in (self._turned(q, at), self._turned(k, at), v))
        keys, values = cache
        keys[:, :, at], values[:, :, at] = k, v
        y = F.scaled_dot_product_attention(q, keys, values, attn_mask=self._mask[:, None, at])
        return F.linear(y.transpose(1, 2).reshape(rows, new, width), self._weights[f"{name}wo.weight"])

    def _turned(self, x: Tensor, at: Tensor) -> Tensor:
        """RoPE: each pair of numbers of x [R, S, H, D] as one complex number, turned by its position's angle."""
        pairs = x.float().unflatten(-1, (-1, 2))
        cos, sin = self._turn[at][None, :, None].unbind(-1)
        even = pairs[..., 0] * cos - pairs[..., 1] * sin
        odd = pairs[..., 1] * cos + pairs[..., 0] * sin
        return torch.stack([even, odd], dim=-1).flatten(-2).type_as(x)

    @staticmethod
    def _sample(logits: Tensor, scale: float, sampling: Sampling, random: torch.Generator) -> Tensor:
        """Draw one code from logits [R, V]. Guidance, temperature, top-k, softmax, in that order; int64 []."""
        if len(logits) == 2:
            logits = logits[1:] + (logits[:1] - logits[1:]) * scale
        logits = logits / max(sampling.temperature, MIN_TEMPERATURE)
        if 0 < sampling.top_k < logits.shape[-1]:
            least = torch.topk(logits, sampling.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < least, float("-inf"))
        drawn: Tensor = torch.multinomial(torch.softmax(logits, dim=-1), 1, generator=random)
        return drawn[0, 0]
