"""FID: the Fréchet distance between two sets of images, in the features of the FID Inception network.

Follows clean-fid: every image is resized as a whole to 299 x 299 by Pillow's bicubic filter, which antialiases, in
float and without rounding; then [0, 255] -> (x - 128) / 128, the network `inception-2015-12-05`, and covariances over N
- 1. Figures of pytorch-fid and torchmetrics (bilinear, without antialiasing) are not comparable.

Knows images as arrays, features and the formula. Does not know where images come from. With fewer than some thousands
of images FID is far too large, by about a constant over N: compare only runs of the same prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from coolsd_rt.metrics.frechet import with_jackknife
from coolsd_rt.metrics.gallery import RgbImage
from coolsd_rt.metrics.metric import Figure, Kind
from coolsd_rt.models.inception import SIDE, WIDTH, Inception, load_inception
from coolsd_rt.store.hashing import sha256_file

FID = Kind("fid", "FID", lower_is_better=True)
FEWEST = 3  # the jackknife leaves images out, and needs two left
CONVENTION = "clean-fid: Pillow bicubic to 299 in float32, inception-2015-12-05"


def resized(image: RgbImage) -> NDArray[np.float32]:
    """Resize RGB uint8 [H, W, 3] to float32 [299, 299, 3] in 0..255, not rounded.

    Each channel is resized separately, as in clean-fid.
    """
    channels = [
        np.asarray(Image.fromarray(image[:, :, c].astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        for c in range(3)
    ]
    return np.stack(channels, -1).clip(0, 255)


class InceptionFeatures:
    """The Inception network loaded from a file. Raises UserError as `load_inception` does."""

    def __init__(self, path: Path) -> None:
        self.network: Inception = load_inception(path)
        self.digest = sha256_file(path)

    def identity(self) -> Any:
        """Return what features depend on besides the images, JSON data."""
        return {"network": self.digest, "convention": CONVENTION}

    @torch.no_grad()
    def features(self, images: Sequence[RgbImage]) -> NDArray[np.float32]:
        """Return float32 [N, 2048], the features of RGB images of any sizes."""
        x = np.stack([resized(image) for image in images]).transpose(0, 3, 1, 2)
        found: NDArray[np.float32] = self.network(torch.from_numpy(np.ascontiguousarray(x))).numpy()
        return found


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean [D] of features [N, D], and F [K, D] with F^T F their covariance over N - 1.

    float64; K = min(N, D).
    """
    x = features.double()
    mean = x.mean(0)
    x = (x - mean) / (len(x) - 1) ** 0.5
    if len(x) <= x.shape[1]:
        return mean, x
    covariance = x.T @ x
    lower, failed = torch.linalg.cholesky_ex(covariance)
    if not int(failed):
        return mean, lower.T
    values, vectors = torch.linalg.eigh(covariance)  # for deficient rank: slower but always converges
    return mean, values.clamp_min(0).sqrt()[:, None] * vectors.T


def frechet(real: Tensor, drawn: Tensor) -> float:
    """Return the distance between features [N, D] and [M, D], N and M at least 2, computed in float64.

    |m - n|^2 + tr S + tr T - 2 tr (S T)^(1/2). The last trace is the sum of the singular values of R = F G^T, where S =
    F^T F and T = G^T G. With full rank it is computed from the eigenvalues of R R^T, which is four times faster; with
    deficient rank, the rounding error of zero eigenvalues would dominate their square roots.
    """
    (m, f), (n, g) = moments(real), moments(drawn)
    r = f @ g.T
    full = min(len(real), len(drawn)) > real.shape[1]
    root = torch.linalg.eigvalsh(r @ r.T).clamp_min(0).sqrt().sum() if full else torch.linalg.svdvals(r).sum()
    return max(0.0, float((m - n).square().sum() + f.square().sum() + g.square().sum() - 2 * root))


def fid(references: NDArray[np.float32], drawn: NDArray[np.float32]) -> Figure:
    """Return FID of features [N, 2048] of the same N ids in the same order.

    Its error comes from a jackknife that leaves out tenths of the ids.
    """
    return with_jackknife(torch.from_numpy(references), torch.from_numpy(drawn), paired=True, between=frechet)


def few(count: int) -> str:
    """Return a warning if FID's bias dominates at this number of images; else empty."""
    if count > WIDTH:
        return ""
    return (
        f"FID of {count} images is dominated by its bias: {WIDTH} features require some thousands of images; "
        "compare equal sets only"
    )
