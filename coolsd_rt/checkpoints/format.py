"""Describes published formats to the converter: how to detect them, their config, and the source of each tensor.

The formats are in `coolsd_rt.checkpoints.formats`. Knows names and shapes. Reads no tensors.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from coolsd_rt.errors import UserError
from coolsd_rt.models.config import DecoderConfig, EagleConfig, VQConfig
from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.eagle import Eagle
from coolsd_rt.models.families import Family, parse_target
from coolsd_rt.models.vq import VQTokenizer
from coolsd_rt.store.weights import TensorInfo

Config = DecoderConfig | EagleConfig | VQConfig

_DIGITS = 18  # most digits of a number in a tensor name


@dataclass(frozen=True)
class ConvertOptions:
    """Facts that a checkpoint does not contain. None: not given.

    Attributes:
        size: pixels along one side of an image.
        heads: attention heads.
        prefix: positions of a prompt.
        cell: pixels along one side of a code's cell, if not the family's 16.
        length: tokens behind a prompt, of a language model.
    """

    size: int | None = None
    heads: int | None = None
    prefix: int | None = None
    cell: int | None = None
    length: int | None = None


@dataclass(frozen=True)
class Given:
    """A checkpoint's tensor names and shapes, its config.json or a GGUF's metadata, and the user's options."""

    path: Path
    tensors: Mapping[str, TensorInfo]
    json: Mapping[str, Any]
    options: ConvertOptions = ConvertOptions()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor. Raises UserError if it is missing."""
        if name not in self.tensors:
            raise UserError(f"{self.path}: {name}", expected="a tensor", found="none")
        return self.tensors[name].shape

    def last(self, name: str) -> int:
        """Return the last dimension of a tensor. Raises UserError as `size` does."""
        return self.size(name, max(0, len(self.shape(name)) - 1))

    def size(self, name: str, axis: int) -> int:
        """Return one dimension of a tensor.

        Raises UserError if the tensor or the axis does not exist, or the size is 0.
        """
        shape = self.shape(name)
        if axis >= len(shape):
            raise UserError(f"{self.path}: {name}", expected=f"{axis + 1} axes or more", found=str(list(shape)))
        if 0 in shape:
            raise UserError(f"{self.path}: {name}", expected="sizes above 0", found=str(list(shape)))
        return shape[axis]

    def count(self, pattern: str) -> int:
        """Count the numbers 0, 1, 2, ... at the group of `pattern` in the tensor names.

        Raises UserError if one is missing.

        Names are untrusted: without this check a large number in a name would create a network with as many layers.
        """
        found = {int(m[1][:_DIGITS]): name for name in self.tensors if (m := re.match(pattern, name))}
        for at, (number, name) in enumerate(sorted(found.items())):
            if number != at:
                what = f"{self.path}: {name}"
                raise UserError(what, expected=f"a tensor with {at} in its name before it", found="none")
        return len(found)

    def said(self, key: str, default: Any = None) -> Any:
        """Return a value of config.json, or of its text model's section if it has one."""
        part: Mapping[str, Any] = next(
            (self.json[k] for k in ("text_config", "language_config") if isinstance(self.json.get(k), dict)), {}
        )
        return part.get(key, self.json.get(key, default))

    def number(self, key: str, default: float) -> float:
        """Return a number of config.json. Raises UserError if the value is not a number."""
        value = self.said(key, default)
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        if not plain or not 0 < value <= sys.float_info.max:  # JSON integers have no upper limit
            raise UserError(f"{self.path}: config.json: {key}", expected="a number above 0", found=str(value)[:60])
        return float(value)

    def heads(self, family: Family | None, **sizes: int) -> int:
        """Return the number of attention heads: given, from config.json, or of the published model of these sizes.

        Raises UserError if none of these gives it.
        """
        known = ((family.of_sizes(**sizes) if family else None) or {}).get("heads")
        said = self.said("num_attention_heads")
        if self.options.heads is None and None not in (known, said) and known != said:
            what = f"{self.path}: config.json: num_attention_heads"
            fix = "if this config.json belongs to this model, give --heads N"
            raise UserError(what, expected=f"{known}, as the published model has", found=str(said), fix=fix)
        heads = self.options.heads or said or known
        if not isinstance(heads, int) or heads < 1:
            found = f"no published model of these sizes ({', '.join(f'{k} {v}' for k, v in sizes.items())})"
            fix = "give --heads N"
            raise UserError(f"{self.path}: heads", expected="attention heads", found=found, fix=fix)
        return heads


class Part(NamedTuple):
    """The source tensors of one tensor to write, and the function that makes it from them."""

    sources: tuple[str, ...]
    make: Callable[..., Tensor]


def same(value: Tensor) -> Tensor:
    """Return the source tensor unchanged."""
    return value


def stacked(*values: Tensor) -> Tensor:
    """Concatenate tensors along the first axis, as fused projections require."""
    return torch.cat(values)


@dataclass(frozen=True)
class Format:
    """A published format of weights.

    Attributes:
        marks: patterns; a checkpoint has this format if each of them matches some tensor name.
        dropped: patterns of tensors that are not part of the network, or that can be computed.
        config: returns the network's config.
        part: `part(name, given, config)` returns the source of the tensor `name`.
        ones: patterns of tensors of factors that the network does not have: all of them must be 1.

    Patterns match whole names.
    """

    name: str
    title: str
    marks: tuple[str, ...]
    dropped: tuple[str, ...]
    config: Callable[[Given], Config]
    part: Callable[[str, Given, Any], Part]
    ones: tuple[str, ...] = ()

    def fits(self, names: Mapping[str, object]) -> bool:
        """Whether a checkpoint with these tensor names has this format."""
        return self.lacking(names) is None

    def lacking(self, names: Mapping[str, object]) -> str | None:
        """Return the first mark that matches no name; None if all match."""
        return next((m for m in self.marks if not any(re.fullmatch(m, n) for n in names)), None)

    def drops(self, name: str) -> bool:
        """Whether a tensor is known not to be part of the network."""
        return any(re.fullmatch(pattern, name) for pattern in (*self.dropped, *self.ones))

    def is_ones(self, name: str) -> bool:
        """Whether a tensor holds factors that must all be 1."""
        return any(re.fullmatch(pattern, name) for pattern in self.ones)


def shapes_of(config: Config) -> dict[str, tuple[int, ...]]:
    """Return the tensor names and shapes of a config's network, without allocating it."""
    with torch.device("meta"):
        return {k: tuple(v.shape) for k, v in _network(config).state_dict().items()}


def _network(config: Config) -> nn.Module:
    if isinstance(config, EagleConfig):
        return Eagle(config)
    return VQTokenizer(config) if isinstance(config, VQConfig) else Decoder(config)


def target_config(given: Given, family: Family, **sizes: Any) -> DecoderConfig:
    """Return a checked config of a family. Raises UserError as `families.parse_target` does."""
    return parse_target(given.path, {"family": family.name, **{k: v for k, v in sizes.items() if v is not None}})
