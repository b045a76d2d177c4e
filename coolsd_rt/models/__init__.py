"""PyTorch reference networks: targets, EAGLE heads, image tokenizers, conditioners and their checkpoints.

This room knows torch and weights. It does not know ONNX, engines, files other than weights, or the loop.
"""
