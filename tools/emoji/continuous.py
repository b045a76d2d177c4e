"""Images of continuous tokens drawn by the target alone, token by token, and how often a draft would be accepted.

Knows the networks, the law and the Gaussians of seeds. Does not know engines, and is the eager reference for one to
come: no round is run here, and nothing is relaxed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coolsd_rt.law.continuous import LastStep, figures
from coolsd_rt.models.continuous.autoencoder import Autoencoder
from coolsd_rt.models.continuous.decoder import ContinuousDecoder
from coolsd_rt.models.continuous.head import Draws, Guided
from coolsd_rt.prompts import UNCONDITIONAL
from coolsd_rt.runtime.gaussians import step_numbers


@dataclass(frozen=True)
class Drawing:
    """How tokens are drawn.

    scale: of CFG; 1 draws without its second row. temperature: factor of the noise of all steps but the first state's
    and the last step's: both are the target's, whatever the temperature.
    """

    scale: float = 1.5
    temperature: float = 1.0


@torch.no_grad()
def draw_tokens(model: ContinuousDecoder, words: Tensor, seeds: Sequence[int], how: Drawing) -> Tensor:
    """Tokens float32 [B, N, d] of word ids int64 [B, W], one seed each."""
    cfg, count = model.cfg, len(words)
    guided = how.scale != 1
    rows = torch.cat([words, torch.full_like(words, UNCONDITIONAL)]) if guided else words
    prefix = model.condition(rows)
    caches = model.caches(len(rows), cfg.prefix + cfg.tokens)
    scale = torch.full((count,), how.scale) if guided else None
    made = torch.zeros(count, cfg.tokens, cfg.channels)
    new = torch.zeros(len(rows), cfg.prefix, cfg.channels)  # the prefix is read in their place
    pos = torch.zeros(len(rows), dtype=torch.int64)
    for i in range(cfg.tokens):
        features = model.advance(new, pos, prefix, caches)[:, -1]
        free = features[count:] if guided else None
        given = Guided(features[:count], free, scale)
        made[:, i] = model.head.draw(given, numbers(seeds, i, model.head.process.steps, cfg.channels, how.temperature))
        pos = pos + new.shape[1]
        new = made[:, i : i + 1].repeat(2 if guided else 1, 1, 1)
    return made


def numbers(seeds: Sequence[int], position: int, steps: int, channels: int, temperature: float) -> Draws:
    """The Gaussians of one position of each image."""
    table = step_numbers(seeds, [position] * len(seeds), [0] * len(seeds), steps, channels)
    found = torch.from_numpy(table).float()
    return Draws(found[:, 0], temperature * found[:, 1:-1], found[:, -1])


@torch.no_grad()
def acceptance(
    models: tuple[ContinuousDecoder, ContinuousDecoder],
    words: Tensor,
    tokens: Tensor,
    seeds: Sequence[int],
    how: Drawing,
) -> npt.NDArray[np.float64]:
    """Probability that a lossless round keeps its first draft, at each position of drawn images: float64 [B, N].

    models: a target and its draft. Exact for the w of the seeds, behind the tokens [B, N, d] that the target drew.
    """
    target, count = models[0], len(words)
    cfg = target.cfg
    both = torch.cat([words, torch.full_like(words, UNCONDITIONAL)])
    features = [model.hidden(both, tokens.repeat(2, 1, 1)) for model in models]
    scale, kept = torch.full((count,), how.scale), []
    for i in range(cfg.tokens):
        draws = numbers(seeds, i, target.head.process.steps, cfg.channels, how.temperature)
        laws = []
        for model, all_features in zip(models, features, strict=True):
            given = Guided(all_features[:count, i], all_features[count:, i], scale)
            mean, deviation = model.head.last_step(given, model.head.before_last(given, draws))
            laws.append(LastStep(mean.double().numpy(), deviation.double().numpy()))
        kept.append(figures(laws[0], laws[1], 1.0).acceptance)
    return np.stack(kept, 1)


@torch.no_grad()
def pixels(autoencoder: Autoencoder, tokens: Tensor) -> npt.NDArray[np.uint8]:
    """Images uint8 [B, F, F, 3] of tokens [B, N, d]."""
    images = autoencoder.decode(tokens).permute(0, 2, 3, 1)
    return np.asarray(((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy())
