"""What an EAGLE head guesses in a round, along known tokens and from every position at once.

A round's first draft comes from the target's own features; each further one from the head's own guess, behind rows that
were made of real features up to the round's start and of guesses after it. Here every position is such a start, and one
pass makes the next guess of all of them: the block of depth d has a row for each position, which sees the real rows up
to its own start and the rows of its own chain. Trained so, a head meets in training what it meets in a round (EAGLE-3's
training-time test); measured so, its Q is the round's, exactly.

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
    """Guessed features of positions 1..S, [R, S, C], for each depth 0 .. steps - 1.

    embedded [R, S, C]: tokens 1..S; features [R, S, C]: the target's at 0..S-1; start int64 [R] where prefixes are
    padded. Row t of depth d is the guess of a chain whose last real row is t - d, fed with its own guess of feature t;
    rows t < d belong to no chain and mean nothing.
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
        # Not in place: the blocks before are still needed as they are, for the gradient.
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
    """What rows of block `depth` see, bool [R, 1, S, (depth + 1) * S]. real: [R, 1, S, S], what row t sees of block 0
    where all its features are real."""
    size = real.shape[-1]
    row = torch.arange(size, device=real.device)
    behind = row[:, None] - row  # query's row - key's row
    blocks = [real & (behind >= depth)]
    blocks += [(behind == depth - d).expand_as(real) for d in range(1, depth + 1)]
    return torch.cat(blocks, dim=-1)
