"""Tiny Llamas of transformers' with random weights, and the same as GGUF files, written by the package gguf."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 256,  # one block of the K types
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
}
PREFIX, LENGTH = 7, 40


def llama(tied: bool = False, **changes: Any) -> Any:
    """Weights so large that logits differ, norms that are not ones."""
    torch.manual_seed(3)
    made = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES | changes, tie_word_embeddings=tied))
    with torch.no_grad():
        for name, value in made.named_parameters():
            if value.ndim == 1:
                value.uniform_(0.5, 1.5)
            elif "embed" in name or "head" in name:
                value.normal_(std=0.5)
    return made.eval()


def interleaved(rows: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys in GGUF's order: those that RoPE turns together stand side by side."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1)
    return torch.stack([halves[:, 0], halves[:, 1]], dim=2).reshape(rows.shape)


_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def gguf_tensors(model: Any) -> dict[str, Tensor]:
    """The weights by GGUF's names."""
    config, tensors = model.config, dict[str, Tensor]()
    for key, value in model.state_dict().items():
        name = key.removeprefix("model.")
        if name.startswith("layers."):
            _, number, rest = name.split(".", 2)
            heads = {"self_attn.q_proj.weight": config.num_attention_heads,
                     "self_attn.k_proj.weight": config.num_key_value_heads}.get(rest)  # fmt: skip
            made = interleaved(value, heads) if heads else value
            tensors[f"blk.{number}.{_NAMES[rest.removesuffix('.weight')]}.weight"] = made
        else:
            tensors[
                {"embed_tokens": "token_embd", "norm": "output_norm"}.get(name.split(".")[0], "output") + ".weight"
            ] = value
    if config.tie_word_embeddings:
        del tensors["output.weight"]
    return tensors


def fields(model: Any) -> dict[str, Any]:
    """The metadata that describes a network."""
    config = model.config
    return {
        "general.architecture": "llama",
        "llama.block_count": config.num_hidden_layers,
        "llama.context_length": config.max_position_embeddings,
        "llama.embedding_length": config.hidden_size,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "llama.rope.freq_base": config.rope_parameters["rope_theta"],
        "llama.rope.dimension_count": config.hidden_size // config.num_attention_heads,
        "llama.vocab_size": config.vocab_size,
    }


def write_gguf(
    path: Path, values: Mapping[str, Any], tensors: Mapping[str, Tensor], kinds: Mapping[str, Kind] | None = None
) -> Path:
    """Write a file. kinds: types of matrices by their names, default: F32. Other tensors stay float32."""
    writer = gguf.GGUFWriter(path, str(values.get("general.architecture", "llama")))
    for key, value in values.items():
        if key == "general.architecture":
            continue
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            kind = {bool: "bool", int: "uint32", float: "float32", str: "string"}[type(value)]
            getattr(writer, f"add_{kind}")(key, value)
    for name, tensor in tensors.items():
        stored = (kinds or {}).get(name, Kind.F32)
        data = np.ascontiguousarray(tensor.float().numpy())
        writer.add_tensor(name, gguf.quants.quantize(data, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
