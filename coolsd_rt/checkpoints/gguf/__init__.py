"""GGUF files: their header, their tensors, and the tokenizer and chat template in their metadata."""
