"""The special tokens that chat templates name as variables. Knows their names alone; does not know templates."""

from __future__ import annotations

SPECIAL_TOKENS = {
    "bos_token": "bos_token_id", "eos_token": "eos_token_id", "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}  # fmt: skip
"""Variables that transformers takes from the tokenizer, and the keys of a GGUF file with their ids."""
