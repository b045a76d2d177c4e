"""What a published format is to the converter: how to know it, the config in its shapes, and its tensors' ways to ours.

The formats themselves are in `coolsd_rt.checkpoints.formats`. Knows names and shapes only.
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

_DIGITS = 18  # of a number in a name, at most


@dataclass(frozen=True)
class ConvertOptions:
    """What no checkpoint says of itself. None: not given.

    size: pixels along one side of an image. heads: of attention. prefix: positions of a prompt. cell: pixels along one
    side of a code's cell, where it is not the family's 16.
    """

    size: int | None = None
    heads: int | None = None
    prefix: int | None = None
    cell: int | None = None


@dataclass(frozen=True)
class Given:
    """A checkpoint's names and shapes, its config.json, and what the user said."""

    path: Path
    tensors: Mapping[str, TensorInfo]
    json: Mapping[str, Any]
    options: ConvertOptions = ConvertOptions()

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises UserError if the tensor is missing."""
        if name not in self.tensors:
            raise UserError(f"{self.path}: {name}", expected="a tensor", found="none")
        return self.tensors[name].shape

    def last(self, name: str) -> int:
        """The last axis of a tensor. Raises UserError as `size` does."""
        return self.size(name, max(0, len(self.shape(name)) - 1))

    def size(self, name: str, axis: int) -> int:
        """One axis of a tensor. Raises UserError: no such tensor, no such axis, or no numbers in it."""
        shape = self.shape(name)
        if axis >= len(shape):
            raise UserError(f"{self.path}: {name}", expected=f"{axis + 1} axes or more", found=str(list(shape)))
        if 0 in shape:
            raise UserError(f"{self.path}: {name}", expected="sizes above 0", found=str(list(shape)))
        return shape[axis]

    def count(self, pattern: str) -> int:
        """How many numbers stand where `pattern` has a group: 0, 1, 2, ... Raises UserError if one of them is missing.

        A name can have any number in it, and a network of so many layers would not end being made.
        """
        found = {int(m[1][:_DIGITS]): name for name in self.tensors if (m := re.match(pattern, name))}
        for at, (number, name) in enumerate(sorted(found.items())):
            if number != at:
                what = f"{self.path}: {name}"
                raise UserError(what, expected=f"a tensor with {at} in its name before it", found="none")
        return len(found)

    def said(self, key: str, default: Any = None) -> Any:
        """A value of config.json, of its text model's part where there is one."""
        part: Mapping[str, Any] = next(
            (self.json[k] for k in ("text_config", "language_config") if isinstance(self.json.get(k), dict)), {}
        )
        return part.get(key, self.json.get(key, default))

    def number(self, key: str, default: float) -> float:
        """A number of config.json. Raises UserError if something else stands there."""
        value = self.said(key, default)
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        if not plain or not 0 < value <= sys.float_info.max:  # an integer of JSON has no end
            raise UserError(f"{self.path}: config.json: {key}", expected="a number above 0", found=str(value)[:60])
        return float(value)

    def heads(self, family: Family | None, **sizes: int) -> int:
        """Attention heads: given, in config.json, or those of the published model of these sizes. Raises UserError."""
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
    """One tensor of ours: the tensors of theirs that it is made of, and how."""

    sources: tuple[str, ...]
    make: Callable[..., Tensor]


def same(value: Tensor) -> Tensor:
    return value


def stacked(*values: Tensor) -> Tensor:
    """Rows one under the other, as fused projections have them."""
    return torch.cat(values)


@dataclass(frozen=True)
class Format:
    """A published form of weights. `part(name, given, config)`: where our tensor `name` comes from.

    marks: patterns that all match some tensor if a checkpoint is of this format. dropped: patterns of tensors that are
    not part of the network, or can be computed. Patterns match whole names.
    """

    name: str
    title: str
    marks: tuple[str, ...]
    dropped: tuple[str, ...]
    config: Callable[[Given], Config]
    part: Callable[[str, Given, Any], Part]

    def fits(self, names: Mapping[str, object]) -> bool:
        return self.lacking(names) is None

    def lacking(self, names: Mapping[str, object]) -> str | None:
        """The first mark that nothing matches."""
        return next((m for m in self.marks if not any(re.fullmatch(m, n) for n in names)), None)

    def drops(self, name: str) -> bool:
        return any(re.fullmatch(pattern, name) for pattern in self.dropped)


def shapes_of(config: Config) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a config's network, without its memory."""
    with torch.device("meta"):
        return {k: tuple(v.shape) for k, v in _network(config).state_dict().items()}


def _network(config: Config) -> nn.Module:
    if isinstance(config, EagleConfig):
        return Eagle(config)
    return VQTokenizer(config) if isinstance(config, VQConfig) else Decoder(config)


def target_config(given: Given, family: Family, **sizes: Any) -> DecoderConfig:
    """A checked config of a family. Raises UserError as `families.parse_target` does."""
    return parse_target(given.path, {"family": family.name, **{k: v for k, v in sizes.items() if v is not None}})
