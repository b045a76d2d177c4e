"""The configs in a weights file's header: decoders, EAGLE heads and image tokenizers, and how they are read.

Needs no torch, so that a build can be planned without it. Knows sizes, and which of a few forms a network has. Does not
know families (see `families`), tensors or files. Legend as in `coolsd_rt.contract`.
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
"""The pairs of numbers of a head that RoPE rotates: (0, 1), (2, 3), ... or (0, D/2), (1, D/2 + 1), ..."""
Condition = Literal["words", "class", "text", "ids"]
"""The input of the prefix: word ids of a closed vocabulary, a class id, a text encoder's features, or ids of the
model's text tokens."""
RETRAIN = "name the file that belongs to this model, or train it again"


class Fault(NamedTuple):
    """An error in a config: the key, the expected value, the value found."""

    key: str
    expected: str
    found: str


@dataclass(frozen=True)
class LayerConfig:
    """Config of one transformer layer.

    dim: C.
    heads: heads of queries.
    ffn: width of the feed-forward network.
    kv_heads: heads of keys and values, fewer than heads if several queries share keys; None: as many.
    qk_norm: whether a LayerNorm with a weight and a bias for each head is applied to queries and keys before RoPE.
    pairs: the two numbers of a head that RoPE rotates together.
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
        """Width D of a head."""
        return self.dim // self.heads

    @property
    def cache_heads(self) -> int:
        """Heads H of the KV cache."""
        return self.kv_heads or self.heads


@dataclass(frozen=True)
class Rope:
    """The table of RoPE angles.

    kind: `grid`: LlamaGen's two axes over grid x grid cells, with prefix rows according to `prefix_rope`. `line`: one
    axis over all positions, counted from each row's first position that is not padding.
    base: base of the frequencies.
    """

    kind: Literal["grid", "line"]
    base: float = 1e4
    grid: int = 0
    prefix_rope: Literal["zero", "identity"] = "zero"

    @property
    def from_start(self) -> bool:
        """Whether angles count from each row's first position that is not padding."""
        return self.kind == "line"


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(ABC):
    """Sizes of a target, or of a small draft model. The config of a family derives from it and adds the rest.

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
        """Config of each layer."""
        return LayerConfig(self.dim, self.heads, self.ffn, self.norm_eps)

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """The order of an image's tokens."""

    @property
    @abstractmethod
    def rope(self) -> Rope:
        """The RoPE angles of its positions."""

    @property
    @abstractmethod
    def condition(self) -> Condition:
        """The kind of input that its prefix is made from."""

    @property
    @abstractmethod
    def condition_size(self) -> tuple[int, int]:
        """Rows of the condition's table (0: no table), and the width of an entry before it is mapped to `dim`."""

    @property
    def padded(self) -> bool:
        """Whether prefixes have different lengths, padded on the left."""
        return self.condition in ("text", "ids")

    @property
    def head_width(self) -> int:
        """Width between the two matrices of an MLP head; 0: the head is one matrix."""
        return 0

    @property
    def one_table(self) -> bool:
        """Whether the prompt's ids are embedded by the table of the tokens behind it."""
        return False

    @property
    def tied_head(self) -> bool:
        """Whether the head is the table that embeds tokens."""
        return False

    @property
    def tokens(self) -> int:
        """Tokens of an image, forced ones included."""
        return self.layout.tokens

    def faults(self) -> Iterator[Fault]:
        """Yield the values for which no network can be built."""
        axes = 2 if self.rope.kind == "grid" else 1
        yield from _head_faults(self.layer, 2 * axes, "two axes of RoPE pairs" if axes == 2 else "RoPE pairs")


@dataclass(frozen=True)
class EagleConfig:
    """Sizes and forms of an EAGLE head; dim is the target's.

    vocab: rows of the head's embedding table; None: it uses the target's table.
    sees_padding: prefix positions before `start` are attended to and counted, for heads that were trained without a
    padding mask (LANTERN's for LlamaGen).
    blank_prefix: prefix positions are embedded as code 0, for heads that were trained to see the condition only through
    features (the same heads).
    input_norm: its layers have a norm before attention. qk_norm: as in `LayerConfig`. LANTERN's heads for the models
    derived from Chameleon use these.
    draft_vocab: number of tokens that it drafts, which are listed in its file; None: all of the target's. With a large
    vocabulary most of a draft step's time is the product with the output head. Source: EAGLE-3, FR-Spec.
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
    draft_vocab: int | None = None

    @property
    def layer(self) -> LayerConfig:
        """Config of each layer."""
        return LayerConfig(self.dim, self.heads, self.ffn, self.norm_eps, self.kv_heads, self.qk_norm, self.pairs)

    def faults(self) -> Iterator[Fault]:
        """Yield the values for which no network can be built."""
        axes = 2 if self.pairs == "interleaved" else 1
        yield from _head_faults(self.layer, 2 * axes, "two axes of RoPE pairs" if axes == 2 else "RoPE pairs")


@dataclass(frozen=True)
class VQConfig:
    """Sizes of the image tokenizer. The defaults are LlamaGen's VQ-16.

    attention: without attention a code depends on its surroundings alone, which makes codes easier to predict.
    low_attention: attention at the lowest resolution too; without, only in the middle.
    unit_codes: latents and codes are L2-normalised at lookup.
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
        """Yield the values for which no network can be built."""
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
    """Return a config dataclass from its JSON. Raises UserError: an unknown, missing or wrong key."""
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
    """Return the first size that is out of range: values derived from it may not be computable."""
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
