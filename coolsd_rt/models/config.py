"""What a weights file's header holds: the configs of decoders, EAGLE heads and image tokenizers, and their reading.

Needs no torch, so that a build can be planned without it. Knows sizes and which of a few forms a network has. Does
not know families (see `families`), tensors or files. Legend as in `coolsd_rt.contract`.
"""

from __future__ import annotations

import difflib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError

from coolsd_rt.errors import UserError
from coolsd_rt.limits import CONFIG, CONFIG_LIST
from coolsd_rt.models.layout import Layout

C = TypeVar("C")
Pairs = Literal["interleaved", "half"]
"""Which two numbers of a head RoPE turns together: (0, 1), (2, 3), ... or (0, D/2), (1, D/2 + 1), ..."""
Condition = Literal["words", "class", "text", "ids"]
"""What the prefix is made of: ids of a closed vocabulary's words, a class id, a text encoder's features, or ids of the
model's own text tokens."""
RETRAIN = "name the file that belongs to this model, or train it again"


class Fault(NamedTuple):
    """What is wrong with a config: the key, what it should be, what it is."""

    key: str
    expected: str
    found: str


@dataclass(frozen=True)
class LayerConfig:
    """One transformer layer. kv_heads: fewer than heads where several queries share keys; None: as many.

    qk_norm: a LayerNorm over every query's and key's head, with a weight and a bias of each head, before RoPE.
    """

    dim: int
    heads: int
    ffn: int
    norm_eps: float = 1e-5
    kv_heads: int | None = None
    qk_norm: bool = False
    pairs: Pairs = "interleaved"

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def cache_heads(self) -> int:
        """Heads H of the KV cache."""
        return self.kv_heads or self.heads


@dataclass(frozen=True)
class Rope:
    """The table of angles. `grid`: LlamaGen's two axes over grid x grid cells, its prefix rows as `prefix_rope` says.

    `line`: one axis over all positions, counted from each row's first position that is not padding.
    """

    kind: Literal["grid", "line"]
    base: float = 1e4
    grid: int = 0
    prefix_rope: Literal["zero", "identity"] = "zero"

    @property
    def from_start(self) -> bool:
        return self.kind == "line"


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(ABC):
    """Sizes of a target, and of any model that is stepped as one. A family's config derives from it and says the rest.

    Its fields are the JSON of a weights file's header, beside the key `family`.
    """

    vocab: int
    dim: int
    layers: int
    heads: int
    ffn: int
    prefix: int
    norm_eps: float = 1e-5
    rope_base: float = 1e4

    @property
    def layer(self) -> LayerConfig:
        return LayerConfig(self.dim, self.heads, self.ffn, self.norm_eps)

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """The order of an image's tokens."""

    @property
    @abstractmethod
    def rope(self) -> Rope:
        """The angles of its positions."""

    @property
    @abstractmethod
    def condition(self) -> Condition:
        """What its prefix is made of."""

    @property
    @abstractmethod
    def condition_size(self) -> tuple[int, int]:
        """Rows of the condition's table (0: it has none), and numbers that an entry has before it is `dim` wide."""

    @property
    def padded(self) -> bool:
        """Whether prefixes have different lengths, padded on the left."""
        return self.condition in ("text", "ids")

    @property
    def head_width(self) -> int:
        """Width between the two matrices of a head that is not linear; 0: it is one matrix."""
        return 0

    @property
    def tokens(self) -> int:
        return self.layout.tokens

    def faults(self) -> Iterator[Fault]:
        """What no network can be made of."""
        axes = 2 if self.rope.kind == "grid" else 1
        yield from _head_faults(self.layer, 2 * axes, "two axes of RoPE pairs" if axes == 2 else "RoPE pairs")


@dataclass(frozen=True)
class EagleConfig:
    """Sizes and forms of an EAGLE head; dim is the target's.

    vocab: rows of an embedding table of its own; None: it reads the target's. sees_padding: prefix slots before
    `start` are seen and counted, as heads were trained that knew no padding mask (LANTERN's for LlamaGen).
    blank_prefix: prefix slots are embedded as code 0, as heads were trained that knew no condition but by its features
    (the same). input_norm: its layers have a norm before attention, and qk_norm as a target's may (LANTERN's for
    Chameleon's kin).
    """

    dim: int
    heads: int
    ffn: int
    norm_eps: float = 1e-5
    layers: int = 1
    kv_heads: int | None = None
    pairs: Pairs = "interleaved"
    vocab: int | None = None
    sees_padding: bool = False
    blank_prefix: bool = False
    input_norm: bool = False
    qk_norm: bool = False

    @property
    def layer(self) -> LayerConfig:
        return LayerConfig(self.dim, self.heads, self.ffn, self.norm_eps, self.kv_heads, self.qk_norm, self.pairs)

    def faults(self) -> Iterator[Fault]:
        axes = 2 if self.pairs == "interleaved" else 1
        yield from _head_faults(self.layer, 2 * axes, "two axes of RoPE pairs" if axes == 2 else "RoPE pairs")


@dataclass(frozen=True)
class VQConfig:
    """Sizes of the image tokenizer. The defaults are LlamaGen's VQ-16.

    Without `attention` a code depends on its surroundings alone, which makes codes easier to predict; without
    `low_attention` it is in the middle only. `unit_codes`: latents and codes are L2-normalised at lookup.
    """

    codebook_size: int = 16384
    codebook_dim: int = 8
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    z_channels: int = 256
    res_blocks: int = 2
    norm_groups: int = 32
    attention: bool = True
    low_attention: bool = True
    unit_codes: bool = True

    @property
    def downsampling(self) -> int:
        """Pixels along one side of a token's cell."""
        return int(2 ** (len(self.multipliers) - 1))

    def faults(self) -> Iterator[Fault]:
        for width in {self.channels * m for m in (1, *self.multipliers)}:
            if width % self.norm_groups:
                yield Fault("norm_groups", f"a number that divides every width (here {width})", str(self.norm_groups))


def _head_faults(layer: LayerConfig, multiple: int, why: str) -> Iterator[Fault]:
    if layer.dim % (multiple * layer.heads):
        found = f"dim {layer.dim}, {layer.heads} heads"
        yield Fault("dim", f"a dim of heads times a multiple of {multiple} ({why})", found)
    if layer.heads % layer.cache_heads:
        yield Fault("kv_heads", f"a divisor of {layer.heads} heads", str(layer.kv_heads))


def parse_config(path: Path, cls: type[C], data: Mapping[str, Any]) -> C:
    """A config dataclass from its JSON. Raises UserError at an unknown, missing or wrong key."""
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else RETRAIN
            expected = f"one of {', '.join(known)}"
            raise UserError(f"{path}: config: {key}", expected=expected, found="an unknown key", fix=hint)
    for name, field in known.items():
        if name not in data and field.default is MISSING:
            raise UserError(f"{path}: config: {name}", expected="a value", found="nothing", fix=RETRAIN)
    try:
        config = TypeAdapter(cls).validate_json(json.dumps(dict(data)), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        found = json.dumps(first.get("input"), default=str)[:60]
        raise UserError(f"{path}: config: {where}", expected=first["msg"], found=found, fix=RETRAIN) from error
    for fault in _outside(config) or getattr(config, "faults", tuple)():
        raise UserError(f"{path}: config: {fault.key}", expected=fault.expected, found=fault.found, fix=RETRAIN)
    return config


def _outside(config: Any) -> list[Fault]:
    """The first size beyond its ends: what is derived from it may not be computable."""
    for field in fields(config):
        value = getattr(config, field.name)
        sizes = value if isinstance(value, tuple) else (value,)
        if isinstance(value, bool):  # a switch, not a size
            continue
        if any(isinstance(size, int | float) and not size > 0 for size in sizes) or sizes == ():
            return [Fault(field.name, "positive sizes", str(value)[:60])]
        if len(sizes) > CONFIG_LIST:
            return [Fault(field.name, f"at most {CONFIG_LIST} sizes", str(len(sizes)))]
        ends = CONFIG.get(field.name)
        if ends and any(isinstance(size, int | float) and size not in ends for size in sizes):
            expected = f"{ends.low:.15g} to {ends.high:.15g}"
            return [Fault(field.name, expected, str(value)[:60])]
    return []
