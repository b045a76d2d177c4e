"""The CLIP score: how near an image is to its prompt. Cosine of CLIP's embeddings times 100, as in torchmetrics.

A mean below 0, which trained weights do not give, is shown as it is.

Knows cosines. Does not know how a CLIP model is loaded or where images come from. Nothing is downloaded and nothing
is unpickled. Needs the extra clip.
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
    """The measure. Raises UserError: the folder is not that of a whole CLIP model."""

    plain_images = False

    def __init__(self, folder: Path) -> None:
        self.clip = load_clip(folder)
        self.digest = sha256_json([(path.name, sha256_file(path)) for path in self.clip.files])

    @property
    def kind(self) -> Kind:
        return CLIP

    def identity(self) -> Any:
        return {"weights": self.digest}

    def check(self, side: int, prompts: Sequence[str]) -> None:
        """Nothing: images are resized, long prompts cut, as CLIP's own processor does."""

    def refer(self, images: Images) -> None:
        """Nothing: the references are the prompts."""

    @torch.no_grad()
    def scores(self, images: Images | Sequence[NDArray[np.uint8]], prompts: Sequence[str]) -> NDArray[np.float64]:
        """100 times the cosine of each pair, [N]. images: RGB, as one array or one each, of any sizes."""
        out = []
        for start in range(0, len(prompts), _BATCH):
            batch = slice(start, start + _BATCH)
            inputs = self.clip.inputs(list(images[batch]), prompts[batch])
            found = self.clip.network(**inputs)  # both embeddings have unit length
            out.append(100 * (found.image_embeds * found.text_embeds).sum(-1))
        found_scores: NDArray[np.float64] = torch.cat(out).double().numpy()
        return found_scores

    def measure(self, images: Images, prompts: Sequence[str]) -> Figure:
        scores = self.scores(images, prompts)
        error = float(scores.std(ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else float("nan")
        return Figure.around(float(scores.mean()), error, "95%, over the images")
