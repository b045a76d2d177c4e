"""Scores of an image and its prompt by networks trained on human preferences: ImageReward and HPSv2.

Both come from third-party packages, `image-reward` and `hpsv2`, which their weights require. The packages are imported
on demand and read local files only; they read torch pickles themselves, restricted to tensors. Knows how to call them
(image-reward 1.5, hpsv2 1.2.0, from their code). Does not know where images come from. Neither has been run here with
its published weights.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import unittest.mock
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from coolsd_rt.errors import UserError
from coolsd_rt.files import read_json
from coolsd_rt.limits import CONFIG_BYTES
from coolsd_rt.metrics.gallery import RgbImage
from coolsd_rt.metrics.metric import Figure, Kind
from coolsd_rt.pretrained.load import check_filled, header_of
from coolsd_rt.store.hashing import sha256_file, sha256_json

IMAGE_REWARD = Kind("image_reward", "ImageReward")
HPSV2 = Kind("hpsv2", "HPSv2")
REWARD_FILES = ("ImageReward.safetensors", "med_config.json")
_NETWORK = "ViT-H-14"  # the network of HPSv2
_CONVERT_AGAIN = "convert the published checkpoint again"
INSTALL = {
    "image_reward": 'pip install image-reward "transformers<5", preferably in a separate environment',
    "hpsv2": "pip install git+https://github.com/tgxs002/HPSv2 (its wheel on PyPI lacks the tokenizer's words)",
}
"""Commands to type if a package is missing or cannot be imported together with the others."""


class PairScore(Protocol):
    """A score of an image and its prompt."""

    @property
    def kind(self) -> Kind:
        """Name and direction of the measure."""
        ...

    def identity(self) -> Any:
        """Return what scores depend on besides image and prompt, as JSON data."""
        ...

    def scores(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> NDArray[np.float64]:
        """Return float64 [N], the scores of N RGB images of any sizes with their prompts."""
        ...


def mean(scores: NDArray[np.float64]) -> Figure:
    """Return the mean of scores [N], with the error due to differences between images."""
    error = float(scores.std(ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else float("nan")
    return Figure.around(float(scores.mean()), error, "95%, over the images")


_GUARDS = {"HF_HUB_OFFLINE": "1", "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}


class ImageReward:
    """ImageReward (Xu et al. 2023): a reward with mean 0 and standard deviation 1 over its training pairs.

    folder: has ImageReward.safetensors (`convert --family image-reward`) and med_config.json. Its tokenizer,
    bert-base-uncased, must be in the hub's cache.
    Raises UserError if a file or the package is missing or cannot be loaded.
    """

    def __init__(self, folder: Path) -> None:
        if absent := [name for name in REWARD_FILES if not (folder / name).is_file()]:
            fix = (
                f"run: hf download THUDM/ImageReward --local-dir {folder} && coolsd-rt convert {folder}/ImageReward.pt "
                f"--family image-reward --to {folder / REWARD_FILES[0]}"
            )
            raise UserError(
                str(folder), expected=f"a folder of {' and '.join(REWARD_FILES)}", found=f"no {absent[0]}", fix=fix
            )
        weights, config = (folder / name for name in REWARD_FILES)
        header_of(weights)
        read_json(config, "the config of ImageReward's text network", CONFIG_BYTES)
        with _foreign("ImageReward", "image_reward"):
            package = importlib.import_module("ImageReward")
            with _reading_safetensors():
                self.model: Any = package.load(str(weights), device="cpu", med_config=str(config))
        # The package loads with strict=False, so that tensors missing in the file would stay random. It ignores surplus
        # tensors, which is harmless.
        check_filled(self.model, load_file(weights), weights, surplus=True, fix=_CONVERT_AGAIN)
        self.digest = sha256_json([sha256_file(weights), sha256_file(config)])

    @property
    def kind(self) -> Kind:
        """Name and direction of the measure."""
        return IMAGE_REWARD

    def identity(self) -> Any:
        """Return the digest of the weights, JSON data."""
        return {"weights": self.digest}

    @torch.no_grad()
    def scores(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> NDArray[np.float64]:
        """Return the rewards, float64 [N]."""
        pairs = zip(images, prompts, strict=True)
        return np.array([float(self.model.score(prompt, Image.fromarray(image))) for image, prompt in pairs])


class HpsV2:
    """HPSv2 (Wu et al. 2023): cosine of image and prompt in CLIP ViT-H/14 trained on preferences, not times 100.

    weights: HPS_v2.1_compressed.pt or HPS_v2_compressed.pt, converted by `convert --family hpsv2`; the scores of these
    two are not comparable. Raises UserError if the file or the package is missing or cannot be loaded.
    """

    def __init__(self, weights: Path) -> None:
        if not weights.is_file():
            fix = (
                f"run: hf download xswu/HPSv2 HPS_v2.1_compressed.pt --local-dir {weights.parent} && coolsd-rt convert "
                f"{weights.parent}/HPS_v2.1_compressed.pt --family hpsv2 --to {weights}"
            )
            raise UserError(str(weights), expected="the weights of HPSv2", found="no such file", fix=fix)
        header_of(weights)
        # Do not use the package's `score`, which reads the checkpoint again for every prompt.
        with _foreign("hpsv2", "hpsv2"):
            clip = importlib.import_module("hpsv2.src.open_clip")
            made = clip.create_model_and_transforms(_NETWORK, None, precision="fp32", device="cpu", output_dict=True)
            self.model, _, self.prepare = made
            tensors = load_file(weights)
            self.model.load_state_dict(tensors, strict=False)  # checked strictly below
            self.model.eval()
            self.tokenize: Callable[[list[str]], Any] = clip.get_tokenizer(_NETWORK)
        check_filled(self.model, tensors, weights, fix=_CONVERT_AGAIN)
        self.digest = sha256_file(weights)

    @property
    def kind(self) -> Kind:
        """Name and direction of the measure."""
        return HPSV2

    def identity(self) -> Any:
        """Return the digest of the weights, JSON data."""
        return {"weights": self.digest}

    @torch.no_grad()
    def scores(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> NDArray[np.float64]:
        """Return the cosines, float64 [N]."""
        prepared = torch.stack([self.prepare(Image.fromarray(image)) for image in images])
        found = self.model(prepared, self.tokenize(list(prompts)))  # both are normalised
        cosines: NDArray[np.float64] = (found["image_features"] * found["text_features"]).sum(-1).double().numpy()
        return cosines


@contextlib.contextmanager
def _reading_safetensors() -> Iterator[None]:
    """Replace torch.load by a reader of safetensors for the duration: the package expects a pickle."""

    def load(path: str, *args: Any, **more: Any) -> dict[str, torch.Tensor]:
        return load_file(path)

    with unittest.mock.patch.object(torch, "load", load):
        yield


@contextlib.contextmanager
def _foreign(package: str, name: str) -> Iterator[None]:
    """Run third-party code.

    Its errors become one line, its output goes to stderr, it has no network access, and it unpickles only tensors.
    """
    try:
        with unittest.mock.patch.dict(os.environ, _GUARDS), contextlib.redirect_stdout(sys.stderr):
            yield
    except ImportError as error:
        if error.name == package:
            raise UserError(f"{package} is not installed", fix=INSTALL[name]) from error
        found = str(error)[:200]
        raise UserError(f"the package {package}", expected="an import", found=found, fix=INSTALL[name]) from error
    except Exception as error:  # third-party code may raise anything
        found = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        raise UserError(
            f"the package {package}", expected="its network to load", found=found, fix=INSTALL[name]
        ) from error
