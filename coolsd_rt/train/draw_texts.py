"""Draws texts of a target by plain decoding, many at once: the tokens that the decoding loop draws without a draft.

Caches grow with the texts, finished texts leave, and prompts are padded only up to the longest one of the batch. A
text ends at an end token, or has a most number of tokens. Knows the eager target and the loop's random numbers. Does
not know the text of prompts, or where tokens are stored.

Legend: M texts, R rows (2M under CFG: all conditional rows first), T most tokens of a text.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.layers import Cache
from coolsd_rt.ops import process_logits, sample
from coolsd_rt.prompts import Rows
from coolsd_rt.runtime.randomness import RESAMPLE, uniform_table
from coolsd_rt.runtime.sampling import Sampling

PAD = -1
"""What stands behind a text's last token."""

_GROWTH = 64  # positions by which caches grow
_PREFILL = 8  # rows whose prompts run at once: larger activations are slower on a CPU
_LEAVE = 0.8  # finished texts leave once this share of the rows or less is unfinished: leaving copies all caches


def text_lengths(codes: Tensor) -> Tensor:
    """Return the number of tokens of texts [M, T] that are padded with `PAD` behind their last token, int64 [M]."""
    return (codes != PAD).sum(-1)


class _Rows:
    """The rows of a batch in a target without a draft, one token at a time."""

    def __init__(self, target: Decoder, rows: Rows, images: int) -> None:
        first, device = int(rows.start.min()), target.tok_embeddings.weight.device
        self._target, self._sides = target, len(rows.text) // images
        self._prefix = target.condition(torch.from_numpy(rows.text[:, first:]).to(device))
        self._start = torch.from_numpy(rows.start - first).to(device)
        self._width = self._prefix.shape[1]
        self._caches = target.caches(len(rows.text), self._width + _GROWTH)
        self._shares = target.cfg.layer.cache_heads != target.cfg.layer.heads

    def prefill(self) -> Tensor:
        """Run the prompts. Returns the logits of the first token, [R, 1, V]."""
        last = []
        for part in torch.arange(len(self._start)).split(_PREFILL):
            rows = slice(int(part[0]), int(part[-1]) + 1)
            prefix, start = self._prefix[rows], self._start[rows]
            ids = torch.zeros(prefix.shape[:2], dtype=torch.int64, device=start.device)
            caches = [Cache(cache.k[rows], cache.v[rows]) for cache in self._caches]  # views
            features = self._target.advance(ids, torch.zeros_like(start), prefix, caches, start)
            last.append(features[:, -1:])
        return self._target.logits(torch.cat(last))

    def next(self, tokens: Tensor, n: int) -> Tensor:
        """Run token n int64 [M]. Returns the logits of the token behind it, [R, 1, V]."""
        at = self._width + n
        if at >= self._caches[0].k.shape[2]:
            self._caches = [Cache(*(F.pad(part, (0, 0, 0, _GROWTH)) for part in cache)) for cache in self._caches]
        ids, pos = tokens.repeat(self._sides)[:, None], torch.full_like(self._start, at)
        features = self._target.advance(ids, pos, self._prefix, self._caches, self._start, grouped=self._shares)
        return self._target.logits(features)

    def keep(self, images: Tensor, of: int) -> None:
        """Keep some of the `of` texts."""
        rows = torch.cat([images + side * of for side in range(self._sides)])
        self._prefix, self._start = self._prefix[rows], self._start[rows]
        self._caches = [Cache(*(part[rows] for part in cache)) for cache in self._caches]


def lowered(target: Decoder) -> Decoder:
    """Return a copy of a target with weights in bfloat16, which a CPU with such instructions steps twice as fast."""
    other = copy.deepcopy(target)
    for parameter in other.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    return other


@torch.inference_mode()
def draw_texts(
    target: Decoder, rows: Rows, sampling: Sampling, seeds: Sequence[int], ends: Sequence[int], tokens: int
) -> Tensor:
    """Return tokens int64 [M, T] of M texts, `PAD` behind the last of each. A text depends on its row and seed only.

    rows: prompts of the texts, followed by the unconditional ones if the sampling is guided. ends: tokens that complete
    a text. tokens: T.
    """
    images, device = len(seeds), target.tok_embeddings.weight.device
    uniforms = torch.from_numpy(np.ascontiguousarray(uniform_table(seeds, tokens, 0)[:, :, 0, RESAMPLE])).to(device)
    scales = torch.from_numpy(sampling.scales(target.cfg.tokens)).to(device)
    last = torch.tensor(tuple(ends), dtype=torch.int64, device=device)
    codes = torch.full((images, tokens), PAD, dtype=torch.int64, device=device)
    batch, there = _Rows(target, rows, images), torch.arange(images, device=device)
    writing = torch.ones(images, dtype=torch.bool, device=device)
    logits = batch.prefill()
    for n in range(tokens):
        scale = scales[n].expand(len(there), 1) if sampling.guided else None
        law = process_logits(logits, scale, sampling.temperature, sampling.top_k, sampling.top_p)
        drawn = sample(law[:, 0], uniforms[there, n])
        codes[there[writing], n] = drawn[writing]
        writing &= ~torch.isin(drawn, last)
        left = int(writing.sum())
        if not left or n + 1 == tokens:
            break
        if left <= _LEAVE * len(there):
            stay = writing.nonzero()[:, 0]
            batch.keep(stay, len(there))
            there, drawn, writing = there[stay], drawn[stay], writing[stay]
        logits = batch.next(drawn, n)
    return codes
