"""Images of continuous tokens drawn by networks, in eager PyTorch: the rounds of `coolsd_rt.runtime.continuous`.

Knows the networks and their session. Does not know engines, captions or files; an engine to come has this as its
reference.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coolsd_rt.backends.torch.continuous import open_vectors
from coolsd_rt.models.continuous.autoencoder import Autoencoder
from coolsd_rt.models.continuous.decoder import ContinuousDecoder
from coolsd_rt.prompts import UNCONDITIONAL
from coolsd_rt.runtime.continuous import VectorGeneration, VectorLaw, VectorSampling, draw_vectors

PLAIN = VectorLaw()


def draw(
    models: tuple[ContinuousDecoder, ContinuousDecoder | None],
    words: Tensor,
    seeds: Sequence[int],
    how: VectorSampling,
    law: VectorLaw = PLAIN,
) -> VectorGeneration:
    """Draw images of word ids int64 [B, W], one seed each. models: a target, and its draft if the law has drafts."""
    free = torch.full_like(words, UNCONDITIONAL) if how.guided else None
    session = open_vectors(models[0], models[1] if law.length else None, words, free, law.length)
    return draw_vectors(session, law, how, seeds, measure=law.length > 0)


@torch.no_grad()
def pixels(autoencoder: Autoencoder, tokens: Tensor) -> npt.NDArray[np.uint8]:
    """Images uint8 [B, F, F, 3] of tokens [B, N, d]."""
    images = autoencoder.decode(tokens).permute(0, 2, 3, 1)
    return np.asarray(((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy())
