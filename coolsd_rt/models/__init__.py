"""PyTorch reference networks: targets, EAGLE heads, image tokenizers, embedders, and their configs.

Knows torch and networks. Does not know ONNX, engines, files other than weights, or the loop.
"""
