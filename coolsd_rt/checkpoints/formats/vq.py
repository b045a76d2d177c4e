"""Published image tokenizers, with LlamaGen's or VQGAN's tensor names.

They are separate files, or part of a model's checkpoint. VQGAN numbers the decoder's levels from the finest;
transformers and LlamaGen number them in the order they run. Knows names and shapes. Reads no tensors.
"""

from __future__ import annotations

import re
from typing import Any

from coolsd_rt.checkpoints.format import Config, Format, Given, Part, same
from coolsd_rt.errors import UserError
from coolsd_rt.models.config import VQConfig, parse_config

_ROOTS = ("", "model.vqmodel.", "vqmodel.", "gen_vision_model.")
_MIDDLE = ("block_1", "attn_1", "block_2")


def _root(given: Given) -> str:
    return next(r for r in _ROOTS if f"{r}quantize.embedding.weight" in given.tensors)


def _flat(given: Given) -> bool:
    """Whether the names are LlamaGen's."""
    return f"{_root(given)}encoder.conv_blocks.0.res.0.conv1.weight" in given.tensors


def _config(given: Given, unit: bool) -> Config:
    root, flat = _root(given), _flat(given)
    level, block = ("conv_blocks", "res") if flat else ("down", "block")
    if f"{root}decoder.conv_in.weight" not in given.tensors:
        fix = "name the tokenizer's own checkpoint, for example vqgan.ckpt"
        raise UserError(f"{given.path}: {root}decoder.conv_in.weight", expected="a decoder", found="none", fix=fix)
    levels = given.count(re.escape(root) + rf"encoder\.{level}\.(\d+)\.")
    channels = given.size(f"{root}encoder.conv_in.weight", 0)
    widths = [given.size(f"{root}encoder.{level}.{i}.{block}.0.conv1.weight", 0) for i in range(levels)]
    low = f"{root}encoder.{level}.{levels - 1}.attn.0.q.weight"
    data = {
        "codebook_size": given.size(f"{root}quantize.embedding.weight", 0),
        "codebook_dim": given.size(f"{root}quantize.embedding.weight", 1),
        "channels": channels,
        "multipliers": [width // channels for width in widths],
        "z_channels": given.size(f"{root}decoder.conv_in.weight", 1),
        "res_blocks": given.count(re.escape(root) + rf"encoder\.{level}\.0\.{block}\.(\d+)\."),
        "attention": f"{root}encoder.mid.{'1' if flat else 'attn_1'}.q.weight" in given.tensors,
        "low_attention": low in given.tensors,
        "unit_codes": unit,
    }
    return parse_config(given.path, VQConfig, data)


def _part(name: str, given: Given, config: Any) -> Part:
    root = _root(given)
    if _flat(given):
        return Part((root + name,), same)
    if middle := re.fullmatch(r"(\w+)\.mid\.(\d)\.(.*)", name):
        return Part((f"{root}{middle[1]}.mid.{_MIDDLE[int(middle[2])]}.{middle[3]}",), same)
    if level := re.fullmatch(r"(\w+)\.conv_blocks\.(\d+)\.(\w+)\.(.*)", name):
        side, at, kind, rest = level[1], int(level[2]), level[3], level[4]
        finest_first = f"{root}decoder.up.0.upsample.conv.weight" not in given.tensors
        if side == "decoder" and finest_first:
            at = len(config.multipliers) - 1 - at
        kind = "block" if kind == "res" else kind
        return Part((f"{root}{side}.{'down' if side == 'encoder' else 'up'}.{at}.{kind}.{rest}",), same)
    return Part((root + name,), same)


# Not part of the tokenizer: the model that contains it, or VQGAN's training losses.
_DROPPED = (
    r"(quantize|.*\.quantize)\.codebook_used",
    r"(model\.)?(language_model|vision_model|aligner|generation_\w+|gen_(embed|aligner|head))\..*",
    r"lm_head\.weight",
    r"loss\..*",
)
_CODES = "|".join(re.escape(f"{root}quantize.embedding.weight") for root in _ROOTS)
FORMATS = (
    Format("vq", "the tokenizer of LlamaGen and Janus-Pro, codes of unit length",
           (_CODES, r".*encoder\.conv_blocks\.0\.res\.0\.conv1\.weight|model\.vqmodel\.decoder\.conv_in\.weight"),
           _DROPPED, lambda given: _config(given, True), _part),
    Format("vqgan", "VQGAN, as Chameleon has it", (_CODES, r".*encoder\.down\.0\.block\.0\.conv1\.weight"),
           _DROPPED, lambda given: _config(given, False), _part),
)  # fmt: skip
