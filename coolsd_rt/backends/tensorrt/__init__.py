"""TensorRT and TensorRT-RTX: one implementation for two packages with the same API under two names.

    package     which of the two, its version, and the GPU that is here
    profiles    the sizes an engine is compiled for
    memory      what it will need on a GPU, before it is built
    build       an ONNX graph with a pinned cache -> an engine (`network` parses, `inspect` checks the layers)
    facts       what a build writes down about an engine, and a load compares before a byte is parsed
    model       an engine's execution contexts over torch's memory
    engine      the models that `backends.device` decodes with, and their steps

Importing this package, or any module of it but `model` and `engine` (which want torch), imports neither package.
TensorRT-RTX builds on a machine without a GPU, and that is what the tests do; nothing here has run on a GPU.
"""
