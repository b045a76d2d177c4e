"""Loads a CLIP model from a folder in the format of transformers: network, image preprocessing, tokenizer.

Knows CLIP's config in transformers' format, old and new preprocessor files, and the special tokens of its prompts. Does
not know scores. Pillow resizes images, whether torchvision is installed or not. Needs transformers and tokenizers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from coolsd_rt.errors import UserError
from coolsd_rt.pretrained.load import CONFIG_FILE, Recipe, find_weights, load_network
from coolsd_rt.pretrained.settings import FETCH_AGAIN, Heads, Layers, Rows, Schema, TokenId, Width, read_config
from coolsd_rt.pretrained.tokenizer import TOKENIZER_FILE, encode, encode_batch, tokenizer_of

PREPROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
"""Names in current and older versions of transformers; the first that exists is read."""
_WHAT = "a CLIP model"
_LEGACY_END = 2
"""`eos_token_id` in OpenAI's published configs. The network then uses the highest id of a prompt as its end."""
_Side = Annotated[int, Field(ge=1, le=4096)]
_Act = Literal["quick_gelu", "gelu"]
_Triple = Annotated[list[Annotated[float, Field(ge=-1e3, le=1e3)]], Field(min_length=3, max_length=3)]


class _Tower(Schema):
    hidden_size: Width
    intermediate_size: Width
    num_hidden_layers: Layers
    num_attention_heads: Heads
    hidden_act: _Act
    layer_norm_eps: float = Field(gt=0, le=1)

    @model_validator(mode="after")
    def _whole_heads(self) -> _Tower:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("a hidden_size that is a multiple of num_attention_heads")
        return self


class TextTower(_Tower):
    """Sizes of the text network."""

    vocab_size: Rows
    max_position_embeddings: int = Field(ge=2, le=65536)
    eos_token_id: TokenId


class VisionTower(_Tower):
    """Sizes of the image network.

    num_channels: missing in the first published configs; the patch weights' shape must agree.
    """

    image_size: _Side
    patch_size: _Side
    num_channels: int = Field(default=3, ge=3, le=3)


class ClipSizes(Schema):
    """The keys of config.json that define the network."""

    model_type: Literal["clip"]
    projection_dim: Width
    text_config: TextTower
    vision_config: VisionTower

    @model_validator(mode="before")
    @classmethod
    def _old_form(cls, data: Any) -> Any:
        """Apply sizes from `..._config_dict`, which old files repeat and the library prefers."""
        if not isinstance(data, dict):
            return data
        merged = dict(data)
        for key in ("text_config", "vision_config"):
            first, second = data.get(key), data.get(f"{key}_dict")
            if isinstance(second, dict) and isinstance(first, dict | None):
                merged[key] = {**(first or {}), **second}
        return merged


class Preprocessing(Schema):
    """How an image becomes the network's input.

    Keys that old files lack (scale by 1/255, convert to RGB) default to the fixed behaviour of the library at that
    time.
    """

    do_resize: Literal[True]
    size: dict[Literal["shortest_edge"], _Side]
    resample: int = Field(ge=0, le=5)
    do_center_crop: Literal[True]
    crop_size: dict[Literal["height", "width"], _Side]
    do_normalize: Literal[True]
    image_mean: _Triple
    image_std: _Triple
    do_rescale: Literal[True] = True
    rescale_factor: float = Field(default=1 / 255, gt=0, le=1)
    do_convert_rgb: bool = True

    @field_validator("size", mode="before")
    @classmethod
    def _edge(cls, value: Any) -> Any:
        return {"shortest_edge": value} if type(value) is int else value

    @field_validator("crop_size", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        return {"height": value, "width": value} if type(value) is int else value

    @field_validator("image_std")
    @classmethod
    def _divisors(cls, value: list[float]) -> list[float]:
        if min(value) <= 0:
            raise ValueError("numbers above 0")
        return value


class _New(Schema):
    image_processor: Preprocessing


@dataclass(frozen=True)
class ClipModel:
    """A loaded model. files: all files that it was loaded from."""

    network: Any
    images: Any
    tokenizer: Any
    files: tuple[Path, ...]

    def inputs(self, images: Sequence[NDArray[np.uint8]], prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return the network's arguments. Prompts are truncated to its positions, keeping the end token, and padded."""
        pixels = self.images(images=list(images), return_tensors="pt")["pixel_values"]
        encoded = encode_batch(self.tokenizer, prompts)
        ids, mask = ([getattr(e, name) for e in encoded] for name in ("ids", "attention_mask"))
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask), "pixel_values": pixels}


def load_clip(folder: Path, *, fix: str = FETCH_AGAIN) -> ClipModel:
    """Load a CLIP model in float32.

    Raises UserError if the folder is not a complete CLIP model; see `pretrained.load`.
    """
    import transformers

    if not os.path.isdir(folder):
        raise UserError(str(folder), expected=f"a folder of {_WHAT}", found="no such folder", fix=fix)
    sizes = read_config(folder / CONFIG_FILE, ClipSizes, f"the config of {_WHAT}", fix=fix)
    path, preprocessing = _preprocessing(folder, sizes.vision_config.image_size, fix)
    tokenizer = _tokenizer(folder, sizes.text_config, fix)
    said: dict[str, Any] = sizes.model_dump(exclude={"model_type"})
    weights = find_weights(folder, _WHAT, fix=fix)
    layers = {
        f"{name}_config.num_hidden_layers": (
            said[f"{name}_config"]["num_hidden_layers"],
            f"{name}_model.encoder.layers",
        )
        for name in ("text", "vision")
    }
    # Position ids are counters, which old files contain and the network creates.
    dropped = tuple(f"{name}_model.embeddings.position_ids" for name in ("text", "vision"))
    recipe = Recipe(transformers.CLIPModel, transformers.CLIPConfig(**said), layers, dropped)
    network = load_network(folder, weights, recipe, torch.float32, fix=fix)
    # Use Pillow: CLIPImageProcessor uses torchvision if that is installed.
    make = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
    files = (folder / CONFIG_FILE, path, folder / TOKENIZER_FILE, *weights.parts)
    return ClipModel(network, make(**preprocessing.model_dump()), tokenizer, files)


def _preprocessing(folder: Path, side: int, fix: str) -> tuple[Path, Preprocessing]:
    new, old = (folder / name for name in PREPROCESSOR_FILES)
    path = new if os.path.lexists(new) else old
    what = "the preprocessing of CLIP's images"
    found = (
        read_config(path, _New, what, fix=fix).image_processor
        if path == new
        else read_config(path, Preprocessing, what, fix=fix)
    )
    if found.crop_size != {"height": side, "width": side}:
        expected = f"{side} x {side}, the image_size of {CONFIG_FILE}"
        raise UserError(f"{path}: crop_size", expected=expected, found=str(found.crop_size), fix=fix)
    return path, found


def _tokenizer(folder: Path, text: TextTower, fix: str) -> Any:
    """Return the tokenizer, set to truncate and pad as the network requires.

    Padding after a prompt's end is not visible.
    """
    tokenizer = tokenizer_of(folder, text.vocab_size, fix=fix)
    path, marks = folder / TOKENIZER_FILE, encode(tokenizer, "").ids
    end = max(tokenizer.get_vocab().values()) if text.eos_token_id == _LEGACY_END else text.eos_token_id
    if len(marks) != 2 or marks[-1] != end:
        expected = f"prompts between a start mark and the end mark {end} (eos_token_id)"
        raise UserError(str(path), expected=expected, found=f"{marks[:8]} for an empty one", fix=fix)
    tokenizer.enable_truncation(text.max_position_embeddings)
    tokenizer.enable_padding(pad_id=end, pad_token=tokenizer.id_to_token(end))
    return tokenizer
