"""Loads a T5 encoder from a folder in the format of transformers, which has the encoder or a whole T5.

Knows T5's config and its tensor names. Does not know captions. Needs transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from coolsd_rt.errors import UserError
from coolsd_rt.pretrained.load import CONFIG_FILE, Recipe, find_weights, load_network
from coolsd_rt.pretrained.settings import Heads, Layers, Rows, Schema, TokenId, Width, read_config
from coolsd_rt.pretrained.tokenizer import TOKENIZER_FILE, encode, tokenizer_of

_WHAT = "a T5 encoder"
_PUBLISHED_DISTANCE = 128


class T5Sizes(Schema):
    """The keys of config.json that define the encoder.

    Two keys have defaults, the paper's values, because the first published configs lack them. Without
    `feed_forward_proj` the file must have the layer's single matrix `wi`, which the comparison of tensor names checks.
    """

    model_type: Literal["t5", "mt5"]
    vocab_size: Rows
    d_model: Width
    d_kv: Width
    d_ff: Width
    num_layers: Layers
    num_heads: Heads
    relative_attention_num_buckets: int = Field(ge=2, le=65536)
    relative_attention_max_distance: int = Field(default=_PUBLISHED_DISTANCE, ge=2, le=1 << 20)
    layer_norm_epsilon: float = Field(gt=0, le=1)
    feed_forward_proj: Literal["relu", "gelu", "gated-gelu", "gated-silu", "gated-relu"] = "relu"
    eos_token_id: TokenId


def load_t5(folder: Path, dtype: Any, *, fix: str) -> tuple[Any, Any]:
    """Return (tokenizer, T5EncoderModel) in `dtype`.

    Raises UserError if the folder is not a complete T5; see `pretrained.load`.
    """
    from transformers import T5Config, T5EncoderModel

    sizes = read_config(folder / CONFIG_FILE, T5Sizes, f"the config of {_WHAT}", fix=fix)
    tokenizer = tokenizer_of(folder, sizes.vocab_size, fix=fix)
    marks = encode(tokenizer, "").ids
    if marks != [sizes.eos_token_id]:
        path, expected = folder / TOKENIZER_FILE, f"captions that end with eos_token_id, {sizes.eos_token_id}"
        raise UserError(str(path), expected=expected, found=f"{marks[:8]} for an empty one", fix=fix)
    recipe = Recipe(
        T5EncoderModel,
        T5Config(**sizes.model_dump(exclude={"model_type"})),
        layers={"num_layers": (sizes.num_layers, "encoder.block")},
        dropped=("decoder.", "lm_head."),  # present in a whole T5
        twins={"encoder.embed_tokens.weight": "shared.weight"},
    )
    return tokenizer, load_network(folder, find_weights(folder, _WHAT, fix=fix), recipe, dtype, fix=fix)
