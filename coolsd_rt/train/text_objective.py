"""The loss and the measurement of a draft along texts, whose vocabulary is too large to write out for every token.

Without top-k and top-p the loss is computed over a part of the vocabulary: the most frequent tokens of the training
texts, the tokens of the batch, and a random draw of all others, which stand for those that were not drawn: their logits
are raised by the logarithm of the share. So the totals of P and Q are estimated without bias, and no token is left
without a gradient for long. With top-k or top-p, and in every measurement, the vocabulary is whole. A head that
drafts a part of it is trained on the whole, and its distribution is the whole's given that part. Knows features and
heads. Does not know networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from coolsd_rt.arrays import Floats64
from coolsd_rt.errors import UserError
from coolsd_rt.law.acceptance import overlap
from coolsd_rt.ops.logits import MIN_TEMPERATURE
from coolsd_rt.train.acceptance import Acceptance, Tally
from coolsd_rt.train.objective import Objective
from coolsd_rt.train.students import Example
from coolsd_rt.train.text_students import TextAlong

FREQUENT, DRAWN = 4096, 1024  # tokens of the loss: the most frequent ones, and of all others
_ENTRIES = 1 << 24  # entries of a matrix of logits that is computed at once


class Part(NamedTuple):
    """The tokens `ids` int64 [n] of a loss, and what their logits are raised by, float32 [n]."""

    ids: Tensor
    raised: Tensor


def frequent(codes: Tensor, vocab: int, count: int = FREQUENT) -> Tensor:
    """Return bool [V]: the `count` most frequent tokens of padded texts [n, T]."""
    times = torch.bincount(codes[codes >= 0].flatten(), minlength=vocab)
    chosen = torch.zeros(vocab, dtype=torch.bool)
    chosen[times.argsort(descending=True, stable=True)[:count]] = True
    return chosen


def most_frequent(codes: Tensor, vocab: int, count: int) -> Tensor:
    """Return the ids of the tokens of `frequent`, int64 [count], rising. Raises UserError: not fewer than V."""
    if count >= vocab:
        expected, fix = f"fewer than the target's {vocab} tokens", "leave it out to draft all of them"
        raise UserError("--draft-vocab", expected=expected, found=str(count), fix=fix)
    return frequent(codes, vocab, count).nonzero()[:, 0]


def part_of(chosen: Tensor, ids: Tensor, generator: torch.Generator) -> Part:
    """Return the tokens of a step's loss: `chosen` bool [V], the tokens `ids` of the batch, and a draw of the rest."""
    sure = chosen.clone()
    sure[ids.cpu()] = True
    others = (~sure).nonzero()[:, 0]
    drawn = others[torch.randperm(len(others), generator=generator)[:DRAWN]]
    raised = torch.zeros(int(sure.sum()) + len(drawn))
    if len(drawn):
        raised[-len(drawn) :] = math.log(len(others) / len(drawn))
    return Part(torch.cat([sure.nonzero()[:, 0], drawn]).to(ids.device), raised.to(ids.device))


@dataclass(frozen=True)
class TextObjective:
    """The loss of `Objective` along texts. chosen: of `frequent`; None: the whole vocabulary."""

    objective: Objective
    chosen: Tensor | None = None

    def loss(self, along: TextAlong, generator: torch.Generator) -> tuple[Tensor, list[float]]:
        """Return the loss, a scalar, and the mean TV(P, Q) of each depth. generator: draws tokens."""
        rule, sampling = self.objective, self.objective.sampling
        part: Part | None = None
        if self.chosen is not None and not sampling.top_k and sampling.top_p >= 1:
            part = part_of(self.chosen, along.ids, generator)
        head, own = (x if part is None else x[part.ids] for x in (along.head, along.own))
        pieces = torch.arange(len(along.ids), device=along.ids.device).split(max(1, _ENTRIES // len(head)))
        total, tvs = along.target.new_zeros(()), []
        for depth, smooth in enumerate(along.smooth):
            counted = max(1, int((along.token > depth).sum()))
            soft, tv = along.target.new_zeros(()), along.target.new_zeros(())
            for piece in pieces:
                here = piece[along.token[piece] > depth]
                more = self._terms(part, len(pieces) > 1, along.drafts[depth][here], along.target[here], own, head)
                soft, tv = soft + more[0] / counted, tv + more[1] / counted
            total = total + rule.decay**depth * (soft + rule.tv * tv + rule.features * smooth)
            tvs.append(tv.item())
        return total, tvs

    def _terms(
        self, part: Part | None, again: bool, mine: Tensor, real: Tensor, own: Tensor, head: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the sums of cross-entropy and TV over some tokens. again: compute logits anew for the gradient."""
        raised = 0.0 if part is None else part.raised
        with torch.no_grad(), torch.autocast(real.device.type, enabled=False):
            wanted = self._law(F.linear(real.float(), head.float()), raised)
        temperature = max(self.objective.sampling.temperature, MIN_TEMPERATURE)

        def terms(mine: Tensor) -> tuple[Tensor, Tensor]:
            logits = F.linear(mine, own).float()
            smooth = torch.log_softmax(logits / temperature + raised, dim=-1)
            plain = part is not None  # no filter: Q is the softmax that is there already
            q = smooth.exp() if plain else self._law(logits, raised)
            return -(wanted * smooth).sum(), 0.5 * (wanted - q).abs().sum()

        if again and mine.requires_grad:
            soft, tv = checkpoint(terms, mine, use_reentrant=False)
            return soft, tv
        return terms(mine)

    def _law(self, logits: Tensor, raised: Tensor | float) -> Tensor:
        temperature = max(self.objective.sampling.temperature, MIN_TEMPERATURE)
        return self.objective.law(logits + raised * temperature)


@torch.no_grad()
def measure_texts(
    along: Callable[[Example, int], TextAlong],
    objective: Objective,
    examples: Iterable[Example],
    omegas: tuple[float, ...],
    most: int,
) -> Acceptance:
    """Return the acceptance along texts that the target drew with the objective's sampling, over the whole vocabulary.

    along: a student's. most: tokens after which a text was cut; its last token is not drafted then.
    """
    tally = Tally(omegas)
    for example in examples:
        assert example.lengths is not None  # examples of texts have them
        found = along(example, max(1, tally.length))
        lengths = example.lengths.cpu().numpy()
        rates, paths = evaluated_texts(objective, found, example.codes.shape, omegas)
        tally.add(rates, paths, lengths, np.minimum(lengths - 1, most - 2))
    return tally.result()


def evaluated_texts(
    objective: Objective, along: TextAlong, shape: tuple[int, ...], omegas: tuple[float, ...]
) -> tuple[Floats64, Floats64]:
    """Return the arguments of `Tally.add`, float64 [2, L, M, N] each, for omega 1 and for `omegas`.

    shape: [M, N]. What is no real token of a text stays 1.
    """
    rates, paths = (np.ones((2, len(omegas), *shape)) for _ in range(2))
    every = torch.arange(len(along.ids), device=along.ids.device)
    for piece in every.split(max(1, _ENTRIES // len(along.head))):
        p = objective.law(F.linear(along.target[piece], along.head))
        for i, omega in enumerate(omegas):
            deep = along.token[piece] > i
            here, law = piece[deep], p[deep]
            logits = F.linear(along.drafts[i][here], along.own)
            if along.closed is not None:
                logits = logits.masked_fill(along.closed, float("-inf"))
            q = objective.law(logits)
            ids, text, token = along.ids[here, None], along.text[here].cpu().numpy(), along.token[here].cpu().numpy()
            of_p = law.gather(-1, ids)[:, 0].double()
            for kind, relaxed in enumerate((1.0, omega)):
                if kind and omega == 1:  # half of the time, for a schedule that is lossless here
                    rates[1, i, text, token], paths[1, i, text, token] = (
                        rates[0, i, text, token],
                        paths[0, i, text, token],
                    )
                    continue
                accepted = overlap(law, q, relaxed)
                mine = accepted.gather(-1, ids)[:, 0].double()
                # Rounding can put a drawn token outside P's filter: it counts as rejected.
                share = torch.where(of_p > 0, mine / of_p.clamp(min=1e-300), torch.zeros_like(mine))
                rates[kind, i, text, token] = accepted.sum(-1, dtype=torch.float64).cpu().numpy()
                paths[kind, i, text, token] = share.cpu().numpy()
    return rates, paths
