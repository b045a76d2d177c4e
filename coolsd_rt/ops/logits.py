"""Turn logits into a distribution: CFG, temperature, top-k, top-p, softmax, in that order.

The target's and the draft's logits both pass through here with the same arguments: if P and Q were filtered
differently, their ratio would be meaningless. Does not know which of the two it is given.

Legend: M images, R rows (2M under CFG: all conditional rows first, then all unconditional), S positions, V codes.
"""

from __future__ import annotations

from typing import Any

from coolsd_rt.arrays import Array
from coolsd_rt.law.arrays import namespace

# A temperature below this means greedy decoding: dividing by it leaves a point mass. LlamaGen uses the same bound.
MIN_TEMPERATURE = 1e-5


def process_logits(logits: Array, scale: Array | None, temperature: float, top_k: int, top_p: float) -> Array:
    """Return the distributions over the next token, [M, S, V], float32 (float64 if the logits are).

    logits: [R, S, V], finite.
    scale: CFG scale [M, S] of each position, with R = 2M: `uncond + (cond - uncond) * scale` in float32; None: no CFG,
    R = M.
    temperature: divides the logits; values below 1e-5 count as 1e-5.
    top_k: keeps the k largest logits, and all that tie with the last of them; 0: off.
    top_p: keeps a token while the mass of the likelier ones is at most top_p; ties stay together; 1.0: off.

    A filtered token has probability exactly 0. A NaN spreads over its whole row; `sample` and `verify` refuse it.
    Source: LlamaGen's sampling order (models.md).
    """
    xp = namespace(logits)
    if logits.dtype not in (xp.float32, xp.float64):
        logits = xp.astype(logits, xp.float32)
    if scale is not None:
        images = logits.shape[0] // 2
        uncond = logits[images:]
        logits = uncond + (logits[:images] - uncond) * scale[..., None]
    if temperature != 1.0:
        logits = logits / max(temperature, MIN_TEMPERATURE)
    kept = logits >= _kth_largest(xp, logits, top_k) if 0 < top_k < logits.shape[-1] else None
    probs = _softmax(xp, logits, kept)
    return probs if top_p >= 1.0 else _nucleus(xp, probs, top_p)


def _softmax(xp: Any, logits: Array, kept: Array | None) -> Array:
    weights = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
    if kept is not None:  # the largest is always kept; a product is several times cheaper than writing -inf
        weights *= kept
    weights /= xp.sum(weights, axis=-1, keepdims=True)
    return weights


def _kth_largest(xp: Any, logits: Array, k: int) -> Array:
    """Return the k-th largest logit of each row, [..., 1].

    The array API has only a full sort, which is several times slower, so NumPy-like libraries use `partition` and torch
    `topk`.
    """
    if hasattr(xp, "partition"):
        nth = logits.shape[-1] - k
        return xp.partition(logits, nth, axis=-1)[..., nth : nth + 1]
    return xp.topk(logits, k, dim=-1).values[..., -1:]


def _nucleus(xp: Any, probs: Array, top_p: float) -> Array:
    ordered = xp.flip(xp.sort(probs, axis=-1), axis=-1)
    likelier = xp.cumulative_sum(ordered, axis=-1, dtype=xp.float64) - xp.astype(ordered, xp.float64)
    kept = xp.sum(xp.astype(likelier <= top_p, xp.int64), axis=-1, keepdims=True)
    least = xp.take_along_axis(ordered, kept - 1, axis=-1)  # no mass lies before the first: kept >= 1
    probs = xp.where(probs < least, xp.zeros_like(probs), probs)
    return probs / xp.sum(probs, axis=-1, keepdims=True)
