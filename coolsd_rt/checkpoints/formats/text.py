"""Language models of the family llama, such as SmolLM2: Hugging Face's folders, and GGUF files.

What our network does not do (a scaled RoPE, biases, another activation) is refused by the key that asks for it. GGUF
stores the rows of queries and keys for interleaved RoPE; here they are put back into halves. Knows names, shapes, and
the keys of config.json and of GGUF's metadata. Reads no tensors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from coolsd_rt import limits
from coolsd_rt.checkpoints.format import Config, Format, Given, Part, same, target_config
from coolsd_rt.checkpoints.formats.llama import ROTARY, layer_part
from coolsd_rt.errors import UserError
from coolsd_rt.models.config import LayerConfig
from coolsd_rt.models.families.llama import LENGTH, LLAMA, PROMPT

ARCHITECTURE = "general.architecture"
"""Key of GGUF's metadata for the kind of network."""

_TABLE, _HEAD, _GGUF_TABLE, _GGUF_HEAD = (
    "model.embed_tokens.weight", "lm_head.weight", "token_embd.weight", "output.weight",
)  # fmt: skip
_GGUF_LAYER = {
    "attention.wo.weight": "attn_output.weight",
    "feed_forward.w1.weight": "ffn_gate.weight",
    "feed_forward.w3.weight": "ffn_up.weight",
    "feed_forward.w2.weight": "ffn_down.weight",
    "attention_norm.weight": "attn_norm.weight",
    "ffn_norm.weight": "ffn_norm.weight",
}
_GGUF_KEYS = (
    "context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "attention.layer_norm_rms_epsilon", "attention.key_length", "attention.value_length",
    "rope.freq_base", "rope.dimension_count", "vocab_size", "tensor_data_layout",
)  # fmt: skip
"""Keys behind `llama.` that are read, or say nothing of the network."""


def check_architecture(given: Given) -> None:
    """Raise UserError for a GGUF file of another kind of network."""
    found = given.json.get(ARCHITECTURE, LLAMA.name)
    if not _is(found, LLAMA.name):
        raise UserError(f"{given.path}: {ARCHITECTURE}", expected=LLAMA.name, found=str(found)[:60])


def _config(given: Given) -> Config:
    sizes = _gguf_sizes(given) if _is_gguf(given) else _hub_sizes(given)
    prefix, length = given.options.prefix or PROMPT, given.options.length or LENGTH
    if prefix + length > sizes["context"]:
        expected = f"positions of a prompt and tokens behind it within the model's {sizes['context']} positions"
        fix = "give --prefix N and --length N"
        raise UserError(str(given.path), expected=expected, found=f"{prefix} + {length}", fix=fix)
    if sizes["kv_heads"] == sizes["heads"]:
        del sizes["kv_heads"]
    return target_config(given, LLAMA, prefix=prefix, length=length, **sizes)


def _is_gguf(given: Given) -> bool:
    return _GGUF_TABLE in given.tensors


def _shapes(given: Given, table: str, layer: Callable[[int, str], str], heads: int) -> dict[str, Any]:
    """Return the sizes that tensor shapes give. layer: returns the name of a layer's tensor."""
    dim = given.size(table, 1)
    kv = given.size(layer(0, "k"), 0) // max(1, dim // heads)
    return {
        "vocab": given.size(table, 0),
        "dim": dim,
        "layers": given.count(re.escape(layer(0, "q")).replace("0", r"(\d+)", 1)),
        "heads": heads,
        "kv_heads": kv,
        "ffn": given.size(layer(0, "gate"), 0),
    }


def _agreed(where: str, said: Iterable[tuple[str, Any, int]]) -> None:
    """Raise UserError if metadata and tensors differ. said: key, value of the metadata or None, size of the tensors."""
    for key, value, found in said:
        if value is not None and not _is(value, found):
            raise UserError(f"{where}{key}", expected=f"{found}, as the tensors have", found=str(value)[:60])


def _is(value: Any, *allowed: object) -> bool:
    """Whether a value of metadata is one of these; an array is none."""
    return isinstance(value, int | float | str) and any(value == a and type(value) is type(a) for a in allowed)


# Hugging Face


def _hub_sizes(given: Given) -> dict[str, Any]:
    where = f"{given.path}: config.json: "
    for key, allowed in (
        ("model_type", ("llama",)), ("hidden_act", ("silu", None)), ("attention_bias", (False, None)),
        ("mlp_bias", (False, None)), ("partial_rotary_factor", (1, None)),
    ):  # fmt: skip
        value = given.said(key)
        if value not in allowed:
            expected = str(allowed[0]).lower()
            raise UserError(where + key, expected=expected, found="nothing" if value is None else str(value)[:60])
    base = _rope_base(given, where)
    heads = given.heads(LLAMA, dim=given.size(_TABLE, 1), layers=given.count(r"model\.layers\.(\d+)\."))
    sizes = _shapes(given, _TABLE, _hub_name, heads)
    names = {
        "vocab_size": "vocab", "hidden_size": "dim", "num_hidden_layers": "layers", "intermediate_size": "ffn",
        "num_key_value_heads": "kv_heads",
    }  # fmt: skip
    _agreed(where, ((key, given.said(key), sizes[name]) for key, name in names.items()))
    _agreed(where, [("head_dim", given.said("head_dim"), sizes["dim"] // heads)])
    return sizes | {
        "norm_eps": given.number("rms_norm_eps", 1e-6),  # transformers' defaults for keys that a config leaves out
        "rope_base": base,
        "context": _positions(where + "max_position_embeddings", given.said("max_position_embeddings", 2048)),
        "tied": _tied(given, where),
    }


def _hub_name(layer: int, part: str) -> str:
    names = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "gate": "mlp.gate_proj"}
    return f"model.layers.{layer}.{names[part]}.weight"


def _rope_base(given: Given, where: str) -> float:
    """Return the base of RoPE's frequencies, of either form of config.json. Raises UserError if they are scaled."""
    base: Any = None
    for key in ("rope_parameters", "rope_scaling"):
        inner = given.said(key)
        if inner is None:
            continue
        kind = inner.get("rope_type", inner.get("type", "default")) if isinstance(inner, dict) else inner
        scaled = not isinstance(inner, dict) or any(isinstance(value, dict) for value in inner.values())
        if scaled or kind != "default" or inner.get("partial_rotary_factor", 1) != 1:
            raise UserError(where + key, expected="no scaling of RoPE: the type default", found=str(kind)[:60])
        base = inner.get("rope_theta", base)
    return given.number("rope_theta", 1e4) if base is None else _number(f"{where}rope_parameters.rope_theta", base)


def _tied(given: Given, where: str) -> bool:
    """Whether the head is the table. Raises UserError if config.json says that it is not, and there is no head."""
    said, head = given.said("tie_word_embeddings"), _HEAD in given.tensors
    if said not in (True, False, None):
        raise UserError(f"{where}tie_word_embeddings", expected="true or false", found=str(said)[:60])
    if said is False and not head:
        raise UserError(
            f"{given.path}: {_HEAD}", expected="a tensor, for output.weight: the head is not tied", found="none"
        )
    return bool(said) or not head


def _one_table(given: Given, table: Tensor, head: Tensor) -> Tensor:
    """Return the table of a tied model, whose file has it a second time as its head."""
    if head.shape != table.shape or (head.device.type != "meta" and not torch.equal(head, table)):
        expected = f"the numbers of {_TABLE}, since config.json says tie_word_embeddings"
        raise UserError(f"{given.path}: {_HEAD}", expected=expected, found="others")
    return table


# GGUF


def _gguf_sizes(given: Given) -> dict[str, Any]:
    where = f"{given.path}: "
    if ARCHITECTURE not in given.json:
        raise UserError(where + ARCHITECTURE, expected=LLAMA.name, found="nothing")
    _check_gguf_keys(given, where)

    def said(key: str, default: Any = None) -> Any:
        return given.json.get(f"llama.{key}", default)

    heads = given.options.heads or _positive(f"{where}llama.attention.head_count", said("attention.head_count"))
    sizes = _shapes(given, _GGUF_TABLE, _gguf_name, heads)
    names = {
        "embedding_length": "dim", "block_count": "layers", "feed_forward_length": "ffn", "vocab_size": "vocab",
        "attention.head_count_kv": "kv_heads",
    }  # fmt: skip
    _agreed(f"{where}llama.", ((key, said(key), sizes[name]) for key, name in names.items()))
    for key in ("rope.dimension_count", "attention.key_length", "attention.value_length"):
        _agreed(f"{where}llama.", [(key, said(key), sizes["dim"] // heads)])
    eps = f"{where}llama.attention.layer_norm_rms_epsilon"
    return sizes | {
        "norm_eps": _number(eps, said("attention.layer_norm_rms_epsilon")),
        "rope_base": _number(f"{where}llama.rope.freq_base", said("rope.freq_base", 1e4)),
        "context": _positions(f"{where}llama.context_length", said("context_length")),
        "tied": _GGUF_HEAD not in given.tensors,
    }


def _check_gguf_keys(given: Given, where: str) -> None:
    """Raise UserError for a key of the network that is not known, unless its value is one that changes nothing."""
    unscaled = _is(given.json.get("llama.rope.scaling.type"), "none")
    for key, value in given.json.items():
        name = key.removeprefix("llama.")
        if name == key or name in _GGUF_KEYS:
            continue
        scales = name.startswith("rope.scal")
        if name == "rope.scaling.type":
            fine = unscaled
        elif scales:
            fine = unscaled or _is(value, 0, 1, 0.0, 1.0)
        else:
            fine = _is(value, True) if name == "attention.causal" else _is(value, 0, 0.0, False)
        if not fine:
            expected = "no scaling of RoPE" if scales else "no such key: it asks for another network"
            raise UserError(where + key[:80], expected=expected, found=str(value)[:60])


def _gguf_name(layer: int, part: str) -> str:
    return f"blk.{layer}.{'ffn' if part == 'gate' else 'attn'}_{part}.weight"


def _halves(heads: int, rows: Tensor) -> Tensor:
    """Put the rows of queries or keys [heads * D, C] back from pairs (0, 1), (2, 3), ... into two halves of a head."""
    size = rows.shape[0] // heads
    return rows.reshape(heads, size // 2, 2, -1).transpose(1, 2).reshape(rows.shape)


# Both


def _joined(layer: LayerConfig, turned: bool, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Join three projections. turned: rows of queries and keys are in GGUF's order.

    Raises ValueError for other shapes, which together may have as many rows as these.
    """
    if q.shape != (layer.dim, layer.dim) or k.shape != v.shape:
        raise ValueError("other heads")
    return torch.cat([_halves(layer.heads, q), _halves(layer.cache_heads, k), v] if turned else [q, k, v])


def _part(name: str, given: Given, config: Any) -> Part:
    if not _is_gguf(given):
        if name == "tok_embeddings.weight" and config.tied and _HEAD in given.tensors:
            return Part((_TABLE, _HEAD), partial(_one_table, given))
        made = layer_part(name, "model.", config.layer)
        if made is not None:
            fused = name.endswith(".attention.wqkv.weight")
            return Part(made.sources, partial(_joined, config.layer, False)) if fused else made
        names = {"tok_embeddings.weight": _TABLE, "output.weight": _HEAD, "norm.weight": "model.norm.weight"}
        return Part((names[name],), same)
    if match := re.fullmatch(r"layers\.(\d+)\.(.*)", name):
        at = f"blk.{match[1]}."
        if match[2] == "attention.wqkv.weight":
            return Part(tuple(f"{at}attn_{part}.weight" for part in "qkv"), partial(_joined, config.layer, True))
        return Part((at + _GGUF_LAYER[match[2]],), same)
    names = {"tok_embeddings.weight": _GGUF_TABLE, "output.weight": _GGUF_HEAD, "norm.weight": "output_norm.weight"}
    return Part((names[name],), same)


def _number(what: str, value: Any) -> float:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or not math.isfinite(value) or value <= 0:
        raise UserError(what, expected="a number above 0", found="nothing" if value is None else str(value)[:60])
    return float(value)


def _positive(what: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(what, expected="a whole number above 0", found="nothing" if value is None else str(value)[:60])
    return value


def _positions(what: str, value: Any) -> int:
    return min(_positive(what, value), int(limits.CONFIG["context"].high))


_MARKS: Mapping[str, str] = {
    _TABLE: _GGUF_TABLE,
    _hub_name(0, "q"): _gguf_name(0, "q"),
    "model.norm.weight": "output_norm.weight",
}
FORMATS = (
    Format(
        LLAMA.name, "a language model", tuple(f"{re.escape(a)}|{re.escape(b)}" for a, b in _MARKS.items()), (ROTARY,),
        _config, _part, ones=(r"rope_freqs\.weight",),
    ),
)  # fmt: skip
