"""A population of images whose rounds are alike within an image: how far Q is from P is a property of the image.

Each image has ROUNDS recorded rounds of two drafts over three codes. The truth of a schedule is its figure on the whole
population; a sample has the rounds of some of the images.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from coolsd_rt.law.traces import RecordedRounds

ROUNDS, LENGTH, VOCAB = 15, 2, 3


def population(images: int, seed: int = 0) -> RecordedRounds:
    rng = np.random.default_rng(seed)
    apart = rng.lognormal(-0.7, 0.9, images)  # of the image
    shape = (images, ROUNDS, LENGTH, VOCAB)
    logits = rng.standard_normal((images, 1, 1, VOCAB)) + 0.7 * rng.standard_normal(shape)
    other = logits + apart[:, None, None, None] * (rng.standard_normal(shape))
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (logits, other))
    p, q = (x.reshape(-1, LENGTH, VOCAB) for x in (p, q))
    drafts = (q.cumsum(-1) < rng.random((len(q), LENGTH, 1))).sum(-1)
    image = np.repeat(np.arange(images), ROUNDS)
    return RecordedRounds(p, q, drafts, np.full(len(q), LENGTH), image=image)


def sample(whole: RecordedRounds, images: Iterable[int]) -> RecordedRounds:
    """The rounds of these images, which are numbered anew."""
    rows = (np.asarray(list(images))[:, None] * ROUNDS + np.arange(ROUNDS)).ravel()
    image = np.arange(len(rows)) // ROUNDS
    return RecordedRounds(
        whole.target[rows], whole.draft[rows], whole.drafts[rows], whole.num_drafts[rows], image=image
    )
