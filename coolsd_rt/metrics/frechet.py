"""The Fréchet distance of two sets of images: of Gaussians fitted to a network's features.

Knows networks and features; the distance is torchmetrics'. Does not know where images come from. Needs torch.

With N images the distance is too large by about a constant over N, the same at every point of a sweep: compare
points of one sweep, and read nothing into the distance of two sweeps.
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

_BATCH = 16  # images in the network at once
_GROUPS = 10  # of the jackknife
_GRID = 4  # cells a side that features are averaged over


class VqFeatures(nn.Module):
    """An image tokenizer's encoder as a feature network: its unit latents, averaged over 4 x 4 parts of the image.

    uint8 [B, 3, F, F] -> float64 [B, 16 * codebook_dim].
    """

    def __init__(self, tokenizer: VQTokenizer, digest: str) -> None:
        super().__init__()
        self.tokenizer, self.digest = tokenizer, digest
        self.num_features = _GRID**2 * tokenizer.cfg.codebook_dim

    @staticmethod
    def load(path: Path) -> VqFeatures:
        """Raises UserError: no safetensors file of an image tokenizer."""
        return VqFeatures(load_tokenizer(path), sha256_file(path))

    @property
    def multiple(self) -> int:
        """An image's side is a multiple of this."""
        return self.tokenizer.cfg.downsampling

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        z = self.tokenizer.latents(images.float() / 127.5 - 1).permute(0, 3, 1, 2)
        return functional.adaptive_avg_pool2d(z, _GRID).flatten(1).double()


class _AsTheyAre(nn.Module):
    """A feature network for torchmetrics that is given features: those of an image are wanted many times."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def features(network: VqFeatures, images: Images) -> Tensor:
    """Float64 [N, D]."""
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return torch.cat([network(part) for part in x.split(_BATCH)])


def distance(real: Tensor, drawn: Tensor) -> float:
    """Between features [N, D] and [M, D], N and M at least 2, in float64: in float32 the root is not stable."""
    metric = FrechetInceptionDistance(_AsTheyAre(real.shape[1]))
    metric.update(real.double(), real=True)
    metric.update(drawn.double(), real=False)
    return float(metric.compute())


def with_jackknife(
    real: Tensor, drawn: Tensor, paired: bool, between: Callable[[Tensor, Tensor], float] = distance
) -> Figure:
    """The distance, with the error that leaving out a tenth of the images at a time gives.

    between: computes it of features [N, D] and [M, D].
    paired: real image k is of the prompt of drawn image k modulo their number, and left out with it. What prompts
    differ in is then no error: both sets have it.
    """
    value, groups = between(real, drawn), min(_GROUPS, len(drawn))
    group = torch.arange(len(drawn)) % groups
    others = group[torch.arange(len(real)) % len(drawn)] if paired else torch.full((len(real),), -1)
    without = np.array([between(real[others != g], drawn[group != g]) for g in range(groups)])
    error = float(np.sqrt((groups - 1) / groups * ((without - without.mean()) ** 2).sum()))
    figure = Figure.around(value, error, f"95%, jackknife over the {'prompts' if paired else 'images'}")
    return figure.model_copy(update={"low": max(0.0, figure.low or 0.0)})


class FrechetDistance:
    """The measure. references None: images of plain decoding, which `refer` brings."""

    def __init__(self, network: VqFeatures, references: References | None) -> None:
        self.network, self.references = network, references
        self.real: Tensor | None = None if references is None else features(network, references.images)

    @property
    def kind(self) -> Kind:
        return FRECHET

    @property
    def plain_images(self) -> bool:
        return self.references is None

    def identity(self) -> Any:
        references = "plain" if self.references is None else self.references.digest
        return {"network": self.network.digest, "grid": _GRID, "references": references}

    def check(self, side: int, prompts: Sequence[str]) -> None:
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
        self.real = features(self.network, images)

    def measure(self, images: Images, prompts: Sequence[str]) -> Figure:
        if self.real is None:
            raise ValueError("measure before refer")
        return with_jackknife(self.real, features(self.network, images), paired=self.references is None)
