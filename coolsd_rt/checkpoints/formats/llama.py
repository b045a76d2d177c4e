"""Published checkpoints with Llama's tensor names: Lumina-mGPT and Anole (Chameleon), Janus-Pro, and EAGLE heads.

Joins three projections to one matrix, cuts the language model's token table to the ids of an image, and turns Janus'
MLP over its codebook into a table. Knows names and shapes (from transformers and the models' public code). Reads no
tensors.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from coolsd_rt.checkpoints.format import Config, Format, Given, Part, same, stacked, target_config
from coolsd_rt.errors import UserError
from coolsd_rt.models.config import EagleConfig, LayerConfig, parse_config
from coolsd_rt.models.families import Family
from coolsd_rt.models.families.anole import ANOLE
from coolsd_rt.models.families.chameleon import BEGIN_OF_IMAGE, CODES, END_OF_IMAGE, FIRST_CODE
from coolsd_rt.models.families.janus import JANUS
from coolsd_rt.models.families.lumina import LINE_END, LUMINA

_LAYER = {
    "attention.wo.weight": "self_attn.o_proj.weight",
    "feed_forward.w1.weight": "mlp.gate_proj.weight",
    "feed_forward.w3.weight": "mlp.up_proj.weight",
    "feed_forward.w2.weight": "mlp.down_proj.weight",
    "attention_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
}
ROTARY = r".*rotary_emb\.inv_freq"


def layer_part(name: str, root: str, layer: LayerConfig) -> Part | None:
    """Return the source of a layer's tensor in Llama's names after `root`; None if `name` is not of a layer."""
    match = re.fullmatch(r"layers\.(\d+)\.(.*)", name)
    if not match:
        return None
    at, rest = f"{root}layers.{match[1]}.", match[2]
    if rest == "attention.wqkv.weight":
        return Part(tuple(f"{at}self_attn.{p}_proj.weight" for p in "qkv"), stacked)
    if norm := re.fullmatch(r"attention\.([qk])_norm\.(weight|bias)", rest):
        heads = layer.heads if norm[1] == "q" else layer.cache_heads
        return Part((f"{at}self_attn.{norm[1]}_norm.{norm[2]}",), _for_each_head(heads))
    return Part((at + _LAYER[rest],), same)


def _for_each_head(heads: int) -> Callable[[Tensor], Tensor]:
    """Return a function that expands a norm's weight, stored per rank [n, D] or once [D], to every head [heads, D]."""

    def make(value: Tensor) -> Tensor:
        ranks = value if value.ndim > 1 else value[None]
        return ranks.repeat_interleave(max(1, heads // ranks.shape[0]), dim=0)

    return make


def _images(table: Tensor, behind: tuple[int, ...] = ()) -> Tensor:
    """Select rows of Chameleon's token table or head [ids, C] in our order: image codes, then the ids `behind` them."""
    codes = table[FIRST_CODE : FIRST_CODE + CODES]
    return torch.cat([codes, table[list(behind)]]) if behind else codes


def _base(given: Given) -> float:
    parameters = given.said("rope_parameters")
    inner = parameters.get("rope_theta") if isinstance(parameters, dict) else None
    return given.number("rope_theta", inner if isinstance(inner, int | float) else 1e4)


def _sizes(given: Given, root: str, heads: int) -> dict[str, Any]:
    """Return the sizes that tensor shapes give for every model with Llama's names.

    root: prefix of the layers' names.
    """
    at = f"{root}layers.0."
    dim = given.size(f"{at}self_attn.q_proj.weight", 1)
    kv = given.size(f"{at}self_attn.k_proj.weight", 0) // max(1, dim // heads)
    return {
        "dim": dim,
        "layers": given.count(re.escape(root) + r"layers\.(\d+)\."),
        "heads": heads,
        "kv_heads": None if kv == heads else kv,
        "ffn": given.size(f"{at}mlp.gate_proj.weight", 0),
    }


def _chameleon_config(family: Family, behind: tuple[int, ...], given: Given) -> Config:
    root = "model."
    q_norm, dim = given.last(f"{root}layers.0.self_attn.q_norm.weight"), given.size("model.embed_tokens.weight", 1)
    text, last = given.size("model.embed_tokens.weight", 0), max((BEGIN_OF_IMAGE, *behind))
    if text <= last:
        expected = f"more rows than an image's last id {last}"
        raise UserError(f"{given.path}: model.embed_tokens.weight", expected=expected, found=str(text))
    if given.said("swin_norm"):
        what = f"{given.path}: config.json: swin_norm"
        raise UserError(what, expected="a norm before attention, as the 7B has", found="true")
    _check_ids(given)
    return target_config(
        given,
        family,
        vocab=CODES + len(behind),
        text=text,
        grid=family.check_size("--size", given.options.size, given.options.cell),
        prefix=given.options.prefix,
        norm_eps=given.number("rms_norm_eps", 1e-5),
        rope_base=_base(given),
        **_sizes(given, root, given.options.heads or max(1, dim // q_norm)),
    )


def _check_ids(given: Given) -> None:
    """Check that each image token, which is named after its code, has the id by which its row is selected."""
    names = given.json.get("vocabulary_map")
    for name, found in names.items() if isinstance(names, dict) else ():
        if match := re.fullmatch(r"IMGIMG([A-J]{1,9})Z", name):
            code = int("".join(str(ord(letter) - ord("A")) for letter in match[1]))
            if found != code + FIRST_CODE:
                what = f"{given.path}: config.json: vocabulary_map: {name}"
                raise UserError(what, expected=f"id {code + FIRST_CODE}", found=str(found))


def _chameleon_part(behind: tuple[int, ...], name: str, given: Given, config: Any) -> Part:
    table = "model.embed_tokens.weight"
    parts = {
        "cls_embedding.embedding.weight": Part((table,), same),
        "tok_embeddings.weight": Part((table,), partial(_images, behind=behind)),
        "norm.weight": Part(("model.norm.weight",), same),
        "output.weight": Part(("lm_head.weight",), _images),
    }
    return layer_part(name, "model.", config.layer) or parts[name]


def _chameleon(family: Family, title: str, *behind: int) -> Format:
    """Return the format of one Chameleon model.

    Their tensors are alike: `--family` selects one. behind: ids after the image codes.
    """
    marks = (r"model\.embed_tokens\.weight", r"model\.layers\.0\.self_attn\.q_norm\.weight", r"lm_head\.weight")
    config, part = partial(_chameleon_config, family, behind), partial(_chameleon_part, behind)
    return Format(family.name, title, marks, (r"model\.vqmodel\..*", ROTARY), config, part)


def _janus_names(given: Given) -> tuple[str, str, str, str, str, str]:
    """Return the names of layers, codebook, its MLP, the MLP's matrices, and both matrices of the head."""
    if "model.generation_embeddings.weight" in given.tensors:  # transformers
        return (
            "model.language_model.", "model.generation_embeddings.weight", "model.generation_aligner.",
            r"fc1|hidden_layers\.\d+", "model.generation_head.proj_out", "model.generation_head.vision_head",
        )  # fmt: skip
    return (
        "language_model.model.", "gen_embed.weight", "gen_aligner.", r"layers\.\d+",
        "gen_head.output_mlp_projector", "gen_head.vision_head",
    )  # fmt: skip


def _janus_config(given: Given) -> Config:
    root, codebook, _, _, first, _ = _janus_names(given)
    dim, layers = given.size(f"{root}embed_tokens.weight", 1), given.count(re.escape(root) + r"layers\.(\d+)\.")
    return target_config(
        given,
        JANUS,
        vocab=given.size(codebook, 0),
        text=given.size(f"{root}embed_tokens.weight", 0),
        head=given.size(f"{first}.weight", 0),
        grid=JANUS.check_size("--size", given.options.size, given.options.cell),
        prefix=given.options.prefix,
        norm_eps=given.number("rms_norm_eps", 1e-6),
        rope_base=_base(given),
        **_sizes(given, root, given.heads(JANUS, dim=dim, layers=layers)),
    )


def _through_mlp(codebook: Tensor, *layers: Tensor) -> Tensor:
    """Map the codebook [V, E] through matrices and biases with GELUs between them to [V, C], in float32."""
    x = codebook.float()
    for i in range(0, len(layers), 2):
        x = F.linear(F.gelu(x) if i else x, layers[i].float(), layers[i + 1].float())
    return x.to(codebook.dtype)


def _janus_part(name: str, given: Given, config: Any) -> Part:
    root, codebook, mlp, matrices, first, second = _janus_names(given)
    if name == "tok_embeddings.weight":
        pattern = re.compile(re.escape(mlp) + f"({matrices})" + r"\.weight")
        found = sorted((m[1] for n in given.tensors if (m := pattern.fullmatch(n))), key=_by_number)
        layers = [f"{mlp}{layer}.{kind}" for layer in found for kind in ("weight", "bias")]
        return Part((codebook, *layers), _through_mlp)
    parts = {
        "cls_embedding.embedding.weight": f"{root}embed_tokens.weight",
        "norm.weight": f"{root}norm.weight",
        **{f"output.fc1.{kind}": f"{first}.{kind}" for kind in ("weight", "bias")},
        **{f"output.fc2.{kind}": f"{second}.{kind}" for kind in ("weight", "bias")},
    }
    return layer_part(name, root, config.layer) or Part((parts[name],), same)


def _by_number(name: str) -> tuple[str, int]:
    stem, _, number = name.rpartition(".")
    return stem, int(number) if number.isdigit() else -1


def _eagle_config(given: Given) -> Config:
    """Return the config of one of LANTERN's heads.

    Heads for LlamaGen know the prefix by features only, padding included, and have a token table that differs from the
    target's. Heads for Chameleon models have unchanged layers and the target's table.
    """
    rows = given.size("embed_tokens.weight", 0) if "embed_tokens.weight" in given.tensors else None
    text = rows is not None and rows > LINE_END and rows != 16384  # the whole table of a language model
    dim, q_norm = given.size("fc.weight", 0), "layers.0.self_attn.q_norm.weight"
    known = given.options.heads or (dim // given.last(q_norm) if q_norm in given.tensors else 0)
    data = {
        **_sizes(given, "", known or given.heads(None, dim=dim)),
        "norm_eps": given.number("rms_norm_eps", 1e-5 if text else 1e-6),
        "pairs": "half" if text else "interleaved",
        "vocab": None if text else rows,
        "sees_padding": not text,
        "blank_prefix": not text and rows is not None,
        "input_norm": "layers.0.input_layernorm.weight" in given.tensors,
        "qk_norm": q_norm in given.tensors,
    }
    return parse_config(given.path, EagleConfig, {k: v for k, v in data.items() if v is not None})


def _eagle_part(name: str, given: Given, config: Any) -> Part:
    if name == "tok_embeddings.weight":
        return Part(("embed_tokens.weight",), same)
    return layer_part(name, "", config.layer) or Part((name,), same)


FORMATS = (
    _chameleon(LUMINA, "Lumina-mGPT", LINE_END, END_OF_IMAGE),
    _chameleon(ANOLE, "Anole"),
    Format(JANUS.name, "Janus-Pro",
           (r"model\.generation_embeddings\.weight|gen_embed\.weight",
            r"model\.language_model\.norm\.weight|language_model\.model\.norm\.weight"),
           (r"(model\.)?(vision_model|aligner|vqmodel|gen_vision_model)\..*", r"(language_model\.)?lm_head\.weight",
            ROTARY),
           _janus_config, _janus_part),
    Format("eagle", "an EAGLE head", (r"fc\.weight", r"layers\.0\.self_attn\.q_proj\.weight"),
           (ROTARY, r"freqs_cis", r"embed_tokens\.weight"), _eagle_config, _eagle_part),
)  # fmt: skip
