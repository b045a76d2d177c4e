"""The predictions of an EAGLE head in a round, along known tokens and from every start position at once.

The first draft of a round comes from the target's features. Each later draft comes from the head's own prediction; the
cache rows before it hold target features up to the round's start and the head's predictions after it. Here every
position is such a start, and one pass computes the next prediction for all of them: the block of depth d has one row
per position, which sees the target-feature rows up to its start and the rows of its own chain. Trained this way, a head
sees in training what it sees in a round (EAGLE-3's training-time test); measured this way, its Q is exactly that of a
round.

Knows the head and positions. Does not know laws or losses. Legend as in `coolsd_rt.contract`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.eagle import Eagle, first_seen
from coolsd_rt.models.layers import Cache, cached_step, new_caches


def own_predictions(
    head: Eagle, target: Decoder, embedded: Tensor, features: Tensor, steps: int, start: Tensor | None = None
) -> list[Tensor]:
    """Return the predicted features of positions 1..S, [R, S, C], for each depth 0 .. steps - 1.

    embedded: [R, S, C], tokens 1..S. features: [R, S, C], the target's at 0..S-1. start: int64 [R], for padded
    prefixes. Row t of depth d is the prediction of a chain whose last target-feature row is t - d and whose input is
    its own prediction of feature t. Rows t < d belong to no chain and have no meaning.
    """
    if steps == 1 and start is None:
        return [head(embedded, features, target.rope)]
    rows, size = embedded.shape[:2]
    seen = first_seen(head.cfg, start)
    pos = torch.zeros(rows, dtype=torch.int64, device=embedded.device)
    base = cached_step(target.rope, pos, size, size, shift=1, start=seen, from_start=target.cfg.rope.from_start)
    if base.mask is None or base.slots is None:
        raise RuntimeError("a step with a cache has a mask and slots")
    guesses: list[Tensor] = []
    caches: list[Cache] = []
    inputs = features
    for depth in range(steps):
        x = head.fc(torch.cat([embedded, inputs], dim=-1))
        fresh = new_caches(head.cfg.layer, head.cfg.layers, rows, size, x)
        # Not in place: the gradient needs the earlier blocks unchanged.
        caches = (
            [
                Cache(*(torch.cat(pair, dim=2) for pair in zip(c, f, strict=True)))
                for c, f in zip(caches, fresh, strict=True)
            ]
            if caches
            else fresh
        )
        step = base._replace(mask=chain_mask(base.mask, depth), slots=base.slots + depth * size)
        for layer, cache in zip(head.layers, caches, strict=True):
            x = layer(x, step, cache)
        guesses.append(x)
        inputs = torch.cat([features[:, :1], x[:, :-1]], dim=1)
    return guesses


def chain_mask(real: Tensor, depth: int) -> Tensor:
    """Return the mask of the rows of block `depth`, bool [R, 1, S, (depth + 1) * S].

    real: [R, 1, S, S], the mask of block 0, where all features are the target's.
    """
    size = real.shape[-1]
    row = torch.arange(size, device=real.device)
    behind = row[:, None] - row  # row of the query - row of the key
    blocks = [real & (behind >= depth)]
    blocks += [(behind == depth - d).expand_as(real) for d in range(1, depth + 1)]
    return torch.cat(blocks, dim=-1)
