"""Drafts a chain of tokens one at a time: code shared by the drafters that step a model. Does not know the model."""

from __future__ import annotations

from collections.abc import Callable

from coolsd_rt.arrays import Array
from coolsd_rt.law.arrays import namespace
from coolsd_rt.ops import sample
from coolsd_rt.runtime.batch import Batch, Window
from coolsd_rt.runtime.randomness import DRAFT


def chain(
    batch: Batch, window: Window, count: int, logits: Array, step: Callable[[int, Array], Array]
) -> tuple[Array, Array]:
    """Draw `count` drafts of each image. Returns tokens int64 [M, count] and their Q [M, count, V].

    logits: [R, 1, V] of the first draft. step: called with the index of a draft, from 1 on, and the token before it,
    int64 [R, 1]; returns the draft's logits [R, 1, V].
    """
    u = batch.put(window.uniforms[..., DRAFT])
    tokens: list[Array] = []
    probs: list[Array] = []
    for i in range(count):
        if i:
            logits = step(i, batch.both(tokens[-1]))
        batch.watch.lap("draft")
        q = batch.distribution(logits, window.scale, window.at, start=i)
        tokens.append(sample(q, u[:, i : i + 1]))
        probs.append(q)
        batch.watch.lap("verify")
    xp = namespace(logits)
    return xp.concat(tokens, axis=1), xp.concat(probs, axis=1)
