"""A text encoder so small that it is made in a test: random weights and a tokenizer of a few words, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

WORDS = ("a", "red", "apple", "blue", "star", "on", "the", "table", ".")
DIM = 16


def write_encoder(folder: Path, dim: int = DIM, seed: int = 0) -> Path:
    """`folder` with a T5 encoder in safetensors and its tokenizer, which ends captions with </s>."""
    pytest.importorskip("transformers")
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    words = {word: n for n, word in enumerate(("<pad>", "</s>", "<unk>", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    make: Any = PreTrainedTokenizerFast  # it carries no types
    fast = make(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", padding_side="right"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=len(words), d_model=dim, d_kv=8, d_ff=32, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu"
    )
    T5EncoderModel(config).save_pretrained(folder)
    return folder
