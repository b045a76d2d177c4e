"""LlamaGen's published GPTs, with the authors' tensor names (which are ours too) or with Llama's (LANTERN's copies).

Knows the names and shapes of these checkpoints (from their public code). Does not read tensors.
"""

from __future__ import annotations

import math
from typing import Any

from coolsd_rt.checkpoints.format import Config, Format, Given, Part, same, target_config
from coolsd_rt.checkpoints.formats.llama import ROTARY, layer_part
from coolsd_rt.errors import UserError
from coolsd_rt.models.families import Family
from coolsd_rt.models.families.llamagen import CAPTIONED, CLASS

_TABLE, _UNCOND = "cls_embedding.embedding_table.weight", "cls_embedding.uncond_embedding"
_DROPPED = (r"freqs_cis", r"(causal_mask|.*\.kv_cache\..*)", ROTARY)  # RoPE tables, buffers of the sampler
_LLAMA = "model."
"""Prefix of all tensor names except the head's, in Llama's names."""
_LLAMA_NAMES = {"tok_embeddings.weight": f"{_LLAMA}embed_tokens.weight", "output.weight": "lm_head.weight"}


def _in_llamas_names(given: Given) -> bool:
    return _LLAMA_NAMES["tok_embeddings.weight"] in given.tensors


def _grid_config(given: Given, family: Family, **more: Any) -> Config:
    root = _LLAMA if _in_llamas_names(given) else ""
    table = _LLAMA_NAMES["tok_embeddings.weight"] if root else "tok_embeddings.weight"
    layers, dim = given.count(rf"{root}layers\.(\d+)\."), given.size(table, 1)
    gate = "mlp.gate_proj" if root else "feed_forward.w1"
    return target_config(
        given,
        family,
        vocab=given.size(table, 0),
        dim=dim,
        layers=layers,
        heads=given.heads(family, dim=dim, layers=layers),
        ffn=given.size(f"{root}layers.0.{gate}.weight", 0),
        grid=family.check_size("--size", _pixels(given, family), given.options.cell),
        norm_eps=given.number("rms_norm_eps", 1e-5),
        rope_base=given.number("rope_base", 1e4),
        **more,
    )


def _pixels(given: Given, family: Family) -> int | None:
    """Return the side of an image: given, or from config.json's number of cells. Raises UserError if the two differ."""
    size, cells = given.options.size, given.said("block_size")
    if not isinstance(cells, int):
        return size
    pixels = (given.options.cell or family.cell) * math.isqrt(max(0, cells))
    if size not in (None, pixels):
        raise UserError("--size", expected=f"{pixels}, as config.json's block_size says", found=str(size))
    return pixels


def _class_config(given: Given) -> Config:
    return _grid_config(given, CLASS, classes=given.size(_TABLE, 0) - 1)


def _caption_config(given: Given) -> Config:
    learned = (_LLAMA if _in_llamas_names(given) else "") + _UNCOND
    return _grid_config(given, CAPTIONED, prefix=given.size(learned, 0), text_dim=given.size(learned, 1))


def _part(name: str, given: Given, config: Any) -> Part:
    if not _in_llamas_names(given):
        return Part((name,), same)
    return layer_part(name, _LLAMA, config.layer) or Part((_LLAMA_NAMES.get(name, _LLAMA + name),), same)


_LAYERS = (r"tok_embeddings\.weight", r"layers\.0\.attention\.wqkv\.weight")
_CAPTION_MARKS = (
    r"cls_embedding\.uncond_embedding|model\.cls_embedding\.uncond_embedding",
    rf"{_LAYERS[0]}|model\.embed_tokens\.weight",
    rf"{_LAYERS[1]}|model\.layers\.0\.self_attn\.q_proj\.weight",
)
FORMATS = (
    Format(CLASS.name, "LlamaGen, of a class", (r"cls_embedding\.embedding_table\.weight", *_LAYERS), _DROPPED,
           _class_config, _part),
    Format(CAPTIONED.name, "LlamaGen, of a caption", _CAPTION_MARKS, _DROPPED, _caption_config, _part),
)  # fmt: skip
