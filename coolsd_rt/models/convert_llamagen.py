"""LlamaGen's published GPTs: their names are ours, so only the config has to be found.

Knows the names and shapes of these checkpoints (facts of LlamaGen's public code). Does not read tensors.
"""

from __future__ import annotations

from typing import Any

from coolsd_rt.models.convert_format import Config, Format, Given, Part, same, target_config
from coolsd_rt.models.families import Family
from coolsd_rt.models.families.llamagen import CAPTIONED, CLASS

_TABLE, _UNCOND = "cls_embedding.embedding_table.weight", "cls_embedding.uncond_embedding"
_DROPPED = (r"freqs_cis", r"(causal_mask|.*\.kv_cache\..*)")  # tables and buffers of the sampler


def _grid_config(given: Given, family: Family, **more: Any) -> Config:
    vocab, dim = given.size("tok_embeddings.weight", 0), given.size("tok_embeddings.weight", 1)
    layers = given.count(r"layers\.(\d+)\.")
    return target_config(
        given,
        family,
        vocab=vocab,
        dim=dim,
        layers=layers,
        heads=given.heads(family, dim=dim, layers=layers),
        ffn=given.size("layers.0.feed_forward.w1.weight", 0),
        grid=family.check_size("--size", given.options.size),
        **more,
    )


def _class_config(given: Given) -> Config:
    return _grid_config(given, CLASS, classes=given.size(_TABLE, 0) - 1)


def _caption_config(given: Given) -> Config:
    return _grid_config(given, CAPTIONED, prefix=given.size(_UNCOND, 0), text_dim=given.size(_UNCOND, 1))


def _part(name: str, given: Given, config: Any) -> Part:
    return Part((name,), same)


_LAYERS = (r"tok_embeddings\.weight", r"layers\.0\.attention\.wqkv\.weight")
FORMATS = (
    Format(CLASS.name, "LlamaGen, of a class", (r"cls_embedding\.embedding_table\.weight", *_LAYERS), _DROPPED,
           _class_config, _part),
    Format(CAPTIONED.name, "LlamaGen, of a caption", (r"cls_embedding\.uncond_embedding", *_LAYERS), _DROPPED,
           _caption_config, _part),
)  # fmt: skip
