"""The CLIP score, the similarity of an image to its prompt.

It is the cosine of CLIP's embeddings times 100, as in torchmetrics. A mean below 0, which trained weights do not give,
is not clipped.

Knows cosines. Does not know how a CLIP model is loaded or where images come from. Downloads nothing and unpickles
nothing. Needs the extra clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coolsd_rt.metrics.metric import CLIP, Figure, Images, Kind
from coolsd_rt.pretrained.clip import load_clip
from coolsd_rt.store.hashing import sha256_file, sha256_json

_BATCH = 16


class ClipScore:
    """The CLIP score with the model in `folder`. Raises UserError if the folder is not a complete CLIP model."""

    plain_images = False

    def __init__(self, folder: Path) -> None:
        self.clip = load_clip(folder)
        self.digest = sha256_json([(path.name, sha256_file(path)) for path in self.clip.files])

    @property
    def kind(self) -> Kind:
        """Name and direction of the measure."""
        return CLIP

    def identity(self) -> Any:
        """Return the digest of the model's files, JSON data."""
        return {"weights": self.digest}

    def check(self, side: int, prompts: Sequence[str]) -> None:
        """Do nothing: CLIP's processor resizes images and truncates prompts, so any input is valid."""

    def refer(self, images: Images) -> None:
        """Do nothing: the references are the prompts."""

    @torch.no_grad()
    def scores(self, images: Images | Sequence[NDArray[np.uint8]], prompts: Sequence[str]) -> NDArray[np.float64]:
        """Return float64 [N]: 100 times the cosine of each pair.

        images: RGB uint8, one array or a list of any sizes.
        """
        out = []
        for start in range(0, len(prompts), _BATCH):
            batch = slice(start, start + _BATCH)
            inputs = self.clip.inputs(list(images[batch]), prompts[batch])
            found = self.clip.network(**inputs)  # both embeddings are normalised
            out.append(100 * (found.image_embeds * found.text_embeds).sum(-1))
        found_scores: NDArray[np.float64] = torch.cat(out).double().numpy()
        return found_scores

    def measure(self, images: Images, prompts: Sequence[str]) -> Figure:
        """Return the mean score, with a 95% interval over the images."""
        scores = self.scores(images, prompts)
        error = float(scores.std(ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else float("nan")
        return Figure.around(float(scores.mean()), error, "95%, over the images")
