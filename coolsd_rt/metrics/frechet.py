"""The Fréchet distance between two sets of images: between Gaussians fitted to a network's features.

Knows networks and features; torchmetrics computes the distance. Does not know where images come from. Needs torch.

With N images the distance is too large by about a constant over N, the same at every point of a sweep: compare the
points of one sweep, not the distances of two sweeps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.image.fid import FrechetInceptionDistance

from coolsd_rt.checkpoints.load import load_tokenizer
from coolsd_rt.errors import UserError
from coolsd_rt.metrics.metric import FRECHET, Figure, Images, Kind
from coolsd_rt.metrics.references import References
from coolsd_rt.models.vq import VQTokenizer
from coolsd_rt.store.hashing import sha256_file

_BATCH = 16  # images per batch
_GROUPS = 10  # groups of the jackknife
_GRID = 4  # features are averaged over a grid of 4 x 4 cells


class VqFeatures(nn.Module):
    """An image tokenizer's encoder as a feature network: its unit latents, averaged over a 4 x 4 grid of the image.

    uint8 [B, 3, F, F] -> float64 [B, 16 * codebook_dim].
    """

    def __init__(self, tokenizer: VQTokenizer, digest: str) -> None:
        super().__init__()
        self.tokenizer, self.digest = tokenizer, digest
        self.num_features = _GRID**2 * tokenizer.cfg.codebook_dim

    @staticmethod
    def load(path: Path) -> VqFeatures:
        """Load the network. Raises UserError if the file is not the safetensors file of an image tokenizer."""
        return VqFeatures(load_tokenizer(path), sha256_file(path))

    @property
    def multiple(self) -> int:
        """The side of an image must be a multiple of this, in pixels."""
        return self.tokenizer.cfg.downsampling

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return features float64 [B, 16 * codebook_dim] of images uint8 [B, 3, F, F]."""
        z = self.tokenizer.latents(images.float() / 127.5 - 1).permute(0, 3, 1, 2)
        return functional.adaptive_avg_pool2d(z, _GRID).flatten(1).double()


class _AsTheyAre(nn.Module):
    """A feature network for torchmetrics that passes features through, so that each image is encoded only once."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def features(network: VqFeatures, images: Images) -> Tensor:
    """Return the features of images, float64 [N, D]."""
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return torch.cat([network(part) for part in x.split(_BATCH)])


def distance(real: Tensor, drawn: Tensor) -> float:
    """Return the distance between features [N, D] and [M, D], N and M at least 2.

    In float64: float32 is not stable here.
    """
    metric = FrechetInceptionDistance(_AsTheyAre(real.shape[1]))
    metric.update(real.double(), real=True)
    metric.update(drawn.double(), real=False)
    return float(metric.compute())


def with_jackknife(
    real: Tensor, drawn: Tensor, paired: bool, between: Callable[[Tensor, Tensor], float] = distance
) -> Figure:
    """Return the distance, with an error from leaving out a tenth of the images at a time.

    between: computes the distance between features [N, D] and [M, D]. paired: real image k has the prompt of drawn
    image k modulo their number, and is left out together with it. Differences between prompts then do not count as
    error, since both sets have them.
    """
    value, groups = between(real, drawn), min(_GROUPS, len(drawn))
    group = torch.arange(len(drawn)) % groups
    others = group[torch.arange(len(real)) % len(drawn)] if paired else torch.full((len(real),), -1)
    without = np.array([between(real[others != g], drawn[group != g]) for g in range(groups)])
    error = float(np.sqrt((groups - 1) / groups * ((without - without.mean()) ** 2).sum()))
    figure = Figure.around(value, error, f"95%, jackknife over the {'prompts' if paired else 'images'}")
    return figure.model_copy(update={"low": max(0.0, figure.low or 0.0)})


class FrechetDistance:
    """The Fréchet distance as a measure. references: None means images of plain decoding, which `refer` receives."""

    def __init__(self, network: VqFeatures, references: References | None) -> None:
        self.network, self.references = network, references
        self.real: Tensor | None = None if references is None else features(network, references.images)

    @property
    def kind(self) -> Kind:
        """Name and direction of the measure."""
        return FRECHET

    @property
    def plain_images(self) -> bool:
        """Whether `refer` must be called with images of plain decoding."""
        return self.references is None

    def identity(self) -> Any:
        """Return network, grid and references, JSON data."""
        references = "plain" if self.references is None else self.references.digest
        return {"network": self.network.digest, "grid": _GRID, "references": references}

    def check(self, side: int, prompts: Sequence[str]) -> None:
        """Raise UserError unless `side` fits the network and there are at least 3 references of that size."""
        if side % self.network.multiple:
            expected, found = f"images of a multiple of {self.network.multiple} pixels", str(side)
            raise UserError("the feature network", expected=expected, found=found, fix="name another network")
        if self.references is not None and self.references.side != side:
            expected, found = f"images of {side} x {side}, as the engine draws", str(self.references.side)
            raise UserError("the references of the Fréchet distance", expected=expected, found=found)
        if self.references is not None and len(self.references.images) < 3:
            found = str(len(self.references.images))
            raise UserError("the references of the Fréchet distance", expected="at least 3 images", found=found)

    def refer(self, images: Images) -> None:
        """Use the features of `images` as the references."""
        self.real = features(self.network, images)

    def measure(self, images: Images, prompts: Sequence[str]) -> Figure:
        """Return the distance of `images` from the references. Raises ValueError if there are no references yet."""
        if self.real is None:
            raise ValueError("measure before refer")
        return with_jackknife(self.real, features(self.network, images), paired=self.references is None)
