"""A chain of drafts, one token at a time: the code shared by drafters that step a model. Does not know the model."""

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
    """`count` drafts of each image, tokens int64 [M, count] and their Q [M, count, V].

    logits: [R, 1, V] of the first. step: the number of a draft from 1 on, and the token int64 [R, 1] before it, to its
    logits [R, 1, V].
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
